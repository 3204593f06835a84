"""What a directory is before it is opened: a memory, nothing yet, or something that is not ours."""

from __future__ import annotations

import os
from typing import Any

from aesg import _core
from aesg.exceptions import AESGStorageError

# Every name that a memory's directory may hold.
FILES = (
    "nodes.aesg",
    "edges.aesg",
    "meta.npy",
    "evolution.aesglog",
    "state.aesg",
    "journal.aesg",
    "checksums.aesg",
    "LOCK",
    "meta.npy.new",
)


def as_path(directory: Any) -> str:
    """A directory as text. Raises AESGStorageError for what can be none: another type, nothing, a NUL
    byte.
    """
    path = directory if isinstance(directory, str) else None
    if isinstance(directory, os.PathLike):
        path = os.fspath(directory)
    if not isinstance(path, str) or not path or "\0" in path:
        raise AESGStorageError(f"directory: expected a path, got {directory!r}")
    return path


def require_ours_or_empty(directory: str) -> None:
    """Raises AESGStorageError for a directory that holds something, and no memory: not to be written in."""
    if not os.path.isdir(directory) or os.path.lexists(os.path.join(directory, "meta.npy")):
        return
    try:
        foreign = sorted(set(os.listdir(directory)) - set(FILES))
    except OSError as error:
        raise AESGStorageError(f"'{directory}' cannot be read: {error}") from error
    if foreign:
        raise AESGStorageError(
            f"'{directory}': expected a memory or an empty directory, found '{foreign[0]}' in it"
        )


def require_plain_directory(directory: str | os.PathLike[str]) -> None:
    """Raises AESGStorageError unless a directory is no symbolic link and holds nothing but a memory's plain
    files: what is restored from elsewhere must not lead out of it."""
    path = as_path(directory)
    if os.path.islink(path.rstrip("/")):
        raise AESGStorageError(f"'{path}': expected a directory, got a symbolic link")
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    raise AESGStorageError(f"'{entry.path}': expected a plain file")
                if entry.name not in FILES:
                    raise AESGStorageError(f"'{entry.path}': expected the files of a memory only")
    except OSError as error:
        raise AESGStorageError(f"'{path}': expected a memory's directory, got: {error.strerror}") from None


def inspect_directory(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What lies at a path, without writing: None when nothing does, else a dict with 'kind'.

    'ours' (with vector_dim, node_count, edge_count, generation, as of the last fold), 'aesg-3.0.0', 'empty',
    or 'foreign' (with 'reason'). Raises AESGStorageError for a meta.npy of ours that is damaged.
    """
    found = _core.inspect(as_path(path))
    kind = found["kind"]
    if kind == "missing":
        return None
    if kind == "ours":
        return {
            name: found[name] for name in ("kind", "vector_dim", "node_count", "edge_count", "generation")
        }
    return {"kind": kind, "vector_dim": None} | ({"reason": found["reason"]} if found["reason"] else {})
