"""Complete copies of a memory directory, and taking one back."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from pathlib import Path

from aesg.exceptions import AESGStorageError

FILES = (
    "nodes.aesg",
    "edges.aesg",
    "meta.npy",
    "evolution.aesglog",
    "state.aesg",
    "checksums.aesg",
    "journal.aesg",
)
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def copy_directory(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copies the files of a memory at rest into a new directory and syncs them.

    REQUIRES: nobody commits to `source` meanwhile. Only regular files with the names of our files are taken.
    Raises AESGStorageError where `target` holds something, or a file cannot be read or written; a half made
    `target` is removed again.
    """
    source, target = Path(source), Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AESGStorageError(f"Snapshot: expected a new or empty directory, got '{target}'")
    made = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if os.path.lexists(source / name):
                _copy_file(source / name, target / name)
        _sync_directory(target)
    except OSError as error:
        for name in FILES:
            (target / name).unlink(missing_ok=True)
        if made:
            target.rmdir()
        raise AESGStorageError(f"Snapshot of '{source}' to '{target}' failed: {error}") from error


def exchange_directories(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> None:
    """Swaps two directories of one file system in one atomic step (Linux renameat2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if code != 0:
        number = ctypes.get_errno()
        name = errno.errorcode.get(number, str(number))
        raise AESGStorageError(f"Exchanging '{one}' with '{other}' failed: {os.strerror(number)} ({name})")
    _sync_directory(Path(one).parent)


def _copy_file(source: Path, target: Path) -> None:
    if not stat.S_ISREG(os.lstat(source).st_mode):
        raise AESGStorageError(f"Snapshot: expected a regular file, got '{source}'")
    with open(source, "rb") as reader, open(target, "xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
