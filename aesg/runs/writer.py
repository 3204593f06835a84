"""Streaming writes that become an artifact at the end, or leave no trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

from aesg.exceptions import AESGStorageError
from aesg.runs.background import in_thread
from aesg.runs.objects import Objects, Stage, Staged, StageFile
from aesg.runs.records import Artifact


class ArtifactWriter:
    """A writable binary file (`torch.save(x, w)` works), committed when its block ends.

    An exception in the block, an interrupt or a cancellation commits nothing and leaves no temporary file. In
    `async with` the commit runs in a thread; a cancellation that comes before its COMMIT undoes it.
    """

    def __init__(self, objects: Objects, commit: Callable[[Stage, Staged], Artifact]) -> None:
        self._objects = objects
        self._commit = commit
        self._stage: Stage | None = None
        self._file: StageFile | None = None
        self.artifact: Artifact | None = None  # after the block

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Appends bytes; returns how many."""
        if self._file is None:
            raise AESGStorageError("writer: expected to be used inside its `with` block")
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise AESGStorageError(f"writer: expected bytes, got {type(data).__name__}")
        return self._file.write(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return 0 if self._file is None else self._file.size

    def flush(self) -> None:
        """Does nothing: what is written becomes durable at the end."""

    def writable(self) -> bool:
        return True

    def __enter__(self) -> ArtifactWriter:
        if self._stage is not None or self.artifact is not None:
            raise AESGStorageError("writer: expected to be entered once")
        stage = self._stage = self._objects.stage()
        try:
            stage.__enter__()
            self._file = stage.file()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    async def __aenter__(self) -> ArtifactWriter:
        self._cancellations = _cancellations()
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # A cancellation that was dealt with before the block says nothing about it.
            if kind is None and _cancellations() == self._cancellations:
                await in_thread(self._finish)
        finally:
            self._discard()

    def _finish(self) -> None:
        assert self._stage is not None and self._file is not None
        self.artifact = self._commit(self._stage, self._file.seal())

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._stage is not None:
            self._stage.close()


def _cancellations() -> int:
    """How often the running task was asked to end; 0 before Python 3.11, which does not count them."""
    count: Any = getattr(asyncio.current_task(), "cancelling", lambda: 0)()
    return int(count)
