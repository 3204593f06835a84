"""The system calls by which a store writes, one method each: the seam where tests make them fail."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path


class Disk:
    """Files and directories. Every method raises OSError as the call it makes does."""

    def make_directory(self, path: Path) -> None:
        path.mkdir()

    def create(self, path: Path) -> int:
        """A new file, open for writing, in which nobody else can write."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, descriptor: int, data: memoryview) -> None:
        while data:
            data = data[os.write(descriptor, data) :]

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def make_read_only(self, descriptor: int) -> None:
        os.fchmod(descriptor, 0o444)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path)

    def sync_directory(self, path: Path) -> None:
        """Makes the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path, *, wait: bool = False) -> int | None:
        """The descriptor of a file or directory locked for as long as it is open; None when somebody else
        holds it or it is gone meanwhile.

        The lock belongs to the open file: it goes with the process that holds it, however that ends.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None


class UnsyncedDisk(Disk):
    """Leaves to the system when data reaches the disk: what was saved outlives the process only."""

    def sync(self, descriptor: int) -> None:
        pass


def try_remove_tree(disk: Disk, path: Path) -> None:
    """Removes what can be removed; what stays is for `gc`."""
    with contextlib.suppress(OSError):
        disk.remove_tree(path)
