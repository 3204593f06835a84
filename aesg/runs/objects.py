"""The content-addressed folder: `objects/ab/<the other 62 digits>`, read-only files named by their SHA-256.

What is saved is first written and synced inside a stage, a locked folder of its own beside the objects, and
renamed to its place inside the transaction that makes it known (`Stage.place`). So an object that is known is
whole, a crash leaves at most what nobody knows, and `gc`, which removes under the same transaction lock,
never takes what is about to be known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from aesg.exceptions import AESGStorageError
from aesg.runs.checks import check_member, encode
from aesg.runs.disk import Disk, try_remove_tree

CHUNK = 1 << 20
FILE_URI, DIRECTORY_URI = "cas://sha256/", "cas+dir://sha256/"
MANIFEST_FORMAT, MANIFEST_VERSION = "aesg-directory", 1


class Staged(NamedTuple):
    """A file in a stage, written and synced."""

    path: Path
    sha: str
    size: int


class Manifest(NamedTuple):
    """A stored directory: members by relative path as (sha, size), and the directories that hold no file."""

    files: dict[str, tuple[str, int]]
    empty: list[str]

    def to_bytes(self) -> bytes:
        """Equal directories have equal bytes."""
        content = {
            "format": MANIFEST_FORMAT,
            "version": MANIFEST_VERSION,
            "files": {name: {"sha256": sha, "size": size} for name, (sha, size) in self.files.items()},
            "empty": sorted(self.empty),
        }
        return encode(content, "manifest").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Raises AESGStorageError for anything but a manifest whose members stay inside the directory."""
        try:
            content = json.loads(data)
            if (content["format"], content["version"]) != (MANIFEST_FORMAT, MANIFEST_VERSION):
                raise ValueError("another format")
            files = {
                check_member(name, "manifest"): (check_sha(entry["sha256"]), int(entry["size"]))
                for name, entry in content["files"].items()
            }
            return cls(files, [check_member(name, "manifest") for name in content["empty"]])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AESGStorageError(f"Expected a manifest of version {MANIFEST_VERSION}: {error}") from None


class Objects:
    """The objects below `root`, and the stages beside them."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.directory = root / "objects"
        self.staging = root / "staging"
        self.disk = disk

    def path(self, sha: str) -> Path:
        return self.directory / sha[:2] / sha[2:]

    def stage(self) -> Stage:
        """A context manager for what is being saved."""
        return Stage(self)

    def all(self) -> Iterator[tuple[str, Path]]:
        """(name, path) of every file among the objects."""
        with typed("list the objects"):
            for folder in sorted(self.directory.iterdir()):
                for path in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
                    yield (folder.name + path.name if path != folder else path.name), path

    def read(self, sha: str, what: str) -> bytes:
        """The bytes of an object, checked. For small ones."""
        return b"".join(self._chunks(sha, what))

    def copy(self, sha: str, target: Path, what: str) -> None:
        """A writable copy at `target`, checked; nothing is left there when the object is damaged."""
        with typed(f"copy to '{target}'"):
            descriptor = self.disk.create(target)
            try:
                for chunk in self._chunks(sha, what):
                    self.disk.write(descriptor, memoryview(chunk))
            except BaseException:
                target.unlink()
                raise
            finally:
                os.close(descriptor)

    def copy_directory(self, sha: str, target: Path, what: str) -> None:
        """A writable copy of a stored directory at `target`, which must not exist."""
        manifest = Manifest.from_bytes(self.read(sha, what))
        with typed(f"copy to '{target}'"):
            self.disk.make_directory(target)
            try:
                for name, (member, _) in sorted(manifest.files.items()):
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    self.copy(member, target / name, f"{what}, member {name!r}")
                for name in manifest.empty:
                    (target / name).mkdir(parents=True, exist_ok=True)
            except BaseException:
                try_remove_tree(self.disk, target)
                raise

    def check(self, sha: str) -> str | None:
        """What is wrong with an object; None when nothing is. Reads it whole."""
        try:
            for _ in self._chunks(sha, f"object {sha}"):
                pass
        except AESGStorageError as error:
            return error.message
        return None

    def _chunks(self, sha: str, what: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        with typed(f"read {what}"), open(self.path(check_sha(sha)), "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != sha:
            raise AESGStorageError(f"{what}: damaged, expected SHA-256 {sha}, found {digest.hexdigest()}")


class Stage:
    """A locked folder for one save; on leaving it the folder goes, with all that was not placed."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._disk = objects.disk
        self._lock: int | None = None
        self._count = 0
        self.path = objects.staging / uuid.uuid4().hex
        self.staged: list[Staged] = []

    def __enter__(self) -> Stage:
        with typed("save"):
            try:
                while self._lock is None:  # `gc` may take a new folder for a dead one before it is locked
                    self.path = self._objects.staging / uuid.uuid4().hex
                    self._disk.make_directory(self.path)
                    with contextlib.suppress(FileNotFoundError):
                        self._lock = self._disk.lock(self.path)
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.path.exists():
            try_remove_tree(self._disk, self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def file(self) -> StageFile:
        """A new file of this stage, to be written."""
        self._count += 1
        return StageFile(self, self.path / str(self._count))

    def add_bytes(self, data: bytes) -> Staged:
        with self.file() as file:
            file.write(data)
            return file.seal()

    def add_file(self, path: str, directory: int | None = None) -> Staged:
        """A copy of the regular file at `path` (below the open `directory`). A symlink is refused."""
        with open_regular(path, directory) as source, self.file() as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)
            return file.seal()

    def add_directory(self, path: str) -> tuple[Staged, Manifest, int]:
        """Copies of all regular files below `path`: (manifest, its content, bytes of all members).

        Raises AESGStorageError for symlinks and special files, before the first is copied.
        """
        for directory, folders, files, descriptor in _walk(path):
            for name in folders + files:
                mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise AESGStorageError(f"Expected files and directories, found {_kind(mode)} at "
                                           f"'{os.path.join(directory, name)}'")  # fmt: skip
        manifest = Manifest({}, [])
        for directory, folders, files, descriptor in _walk(path):
            below = os.path.relpath(directory, path)
            for name in files:
                member = self.add_file(name, descriptor)
                manifest.files[name if below == "." else f"{below}/{name}"] = (member.sha, member.size)
            if not folders and not files and below != ".":
                manifest.empty.append(below)
        total = sum(size for _, size in manifest.files.values())
        return self.add_bytes(manifest.to_bytes()), manifest, total

    def place(self) -> None:
        """Renames what was staged to its places, names durable. Call it inside the transaction."""
        folders: set[Path] = set()
        for staged in self.staged:
            target = self._objects.path(staged.sha)
            folders.add(target.parent)
            try:
                if target.stat().st_size == staged.size:
                    continue
            except FileNotFoundError:
                if not target.parent.exists():
                    self._disk.make_directory(target.parent)
                    folders.add(self._objects.directory)
            self._disk.rename(staged.path, target)  # also over one that was cut short
        for folder in sorted(folders):
            self._disk.sync_directory(folder)


class StageFile:
    """A file being written, hashed on the way; `seal` makes it durable and read-only."""

    def __init__(self, stage: Stage, path: Path) -> None:
        self._stage = stage
        self._disk = stage._disk
        self._path = path
        self._digest = hashlib.sha256()
        self.size = 0
        with typed("save"):
            self._descriptor: int | None = self._disk.create(path)

    @property
    def closed(self) -> bool:
        return self._descriptor is None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        if self._descriptor is None:
            raise AESGStorageError("write: expected an open file, it was closed")
        view = memoryview(data)
        view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        with typed("save"):
            self._disk.write(self._descriptor, view)
        self._digest.update(view)
        self.size += len(view)
        return len(view)

    def seal(self) -> Staged:
        assert self._descriptor is not None
        with typed("save"):
            self._disk.make_read_only(self._descriptor)
            self._disk.sync(self._descriptor)
        staged = Staged(self._path, self._digest.hexdigest(), self.size)
        self._stage.staged.append(staged)
        return staged

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> StageFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_sha(sha: str) -> str:
    if not isinstance(sha, str) or len(sha) != 64 or set(sha) - set("0123456789abcdef"):
        raise AESGStorageError(f"Expected 64 hexadecimal digits of a SHA-256, got {sha!r}")
    return sha


def parse_uri(uri: str) -> tuple[str, bool] | None:
    """(sha, whether it is a directory) of a URI of ours; None for other text."""
    for prefix, is_directory in ((FILE_URI, False), (DIRECTORY_URI, True)):
        if uri.startswith(prefix):
            return check_sha(uri[len(prefix) :]), is_directory
    return None


def open_regular(path: str, directory: int | None = None) -> BinaryIO:
    """Opens a regular file for reading; a symlink, directory or device is an AESGStorageError."""
    with typed(f"open '{path}'"):
        mode = os.stat(path, dir_fd=directory, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode):
            hint = " (save_dir takes one)" if stat.S_ISDIR(mode) else ""
            raise AESGStorageError(f"Expected a regular file at '{path}', found {_kind(mode)}{hint}")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return open(os.open(path, flags, dir_fd=directory), "rb")


def _walk(path: str) -> Iterable[tuple[str, list[str], list[str], int]]:
    def fail(error: OSError) -> None:
        raise error

    for directory, folders, files, descriptor in os.fwalk(path, onerror=fail):
        folders.sort()
        yield directory, folders, sorted(files), descriptor


def _kind(mode: int) -> str:
    kinds: dict[Callable[[int], bool], str] = {
        stat.S_ISLNK: "a symlink",
        stat.S_ISDIR: "a directory",
        stat.S_ISREG: "a file",
    }
    return next((name for test, name in kinds.items() if test(mode)), "a special file")


@contextlib.contextmanager
def typed(doing: str) -> Iterator[None]:
    """OSError as AESGStorageError."""
    try:
        yield
    except OSError as error:
        raise AESGStorageError(f"Failed to {doing}: {error}") from error
