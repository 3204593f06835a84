"""A run: one training or one piece of work, and the narrower places in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aesg.exceptions import AESGStorageError
from aesg.runs import checks
from aesg.runs.aio import Context
from aesg.runs.artifacts import Artifacts, Place
from aesg.runs.memory import EventMemory
from aesg.runs.records import RunInfo

if TYPE_CHECKING:
    from aesg.runs.store import Store

MAX_ERROR = 2000  # characters of an exception that are kept


class Node:
    """A place to save and record in: a run, or a graph and node inside it."""

    def __init__(self, store: Store, place: Place) -> None:
        self.store = store
        self.place = place

    @property
    def run_id(self) -> str:
        return self.place.run_id

    def artifacts(self) -> Artifacts:
        return Artifacts(self.store, self.place)

    def memory(self) -> EventMemory:
        return EventMemory(self.store, self.place)

    def context(self) -> Context:
        """The same two, asynchronous: `context.artifacts()`, `context.memory()`."""
        return Context(self.artifacts(), self.memory())


class Run(Node):
    """A run, "running" until its `with` block or `finish` ends it; made by `Store.run`.

    A block left by an exception makes it "failed", by an interrupt, a cancellation or the death of the
    process "killed". A finished run can still be read and added to (`Store.open_run`).
    """

    def __init__(
        self, store: Store, place: Place, lock: int | None = None, lock_file: Path | None = None
    ) -> None:
        super().__init__(store, place)
        self._lock = lock  # held as long as the run runs: see Store.runs
        self._lock_file = lock_file
        self._owner = os.getpid()
        if lock is not None:
            _running.add(self)

    def node(self, name: str, graph: str | None = None) -> Node:
        """A narrower place: a node, in a graph when one is named."""
        inside = "" if graph is None else checks.check_name(graph, "graph")
        return Node(self.store, self.place._replace(graph=inside, node=checks.check_name(name, "node")))

    def info(self) -> RunInfo:
        found = self.store.get_run(self.run_id)
        assert found is not None
        return found

    def finish(self, state: str = "finished", error: str | None = None) -> None:
        """Ends the run; once it has ended nothing changes. Only the process that began it can."""
        checks.check_choice(state, ("finished", "failed", "killed"), "state")
        if error is not None:
            checks.check_text(error, "error")
        if self._lock is None or self._owner != os.getpid():
            return
        try:
            with self.store.index.write() as connection:
                connection.execute(
                    "UPDATE runs SET state = ?, ended = ?, error = ? WHERE seq = ? AND state = 'running'",
                    (state, float(self.store.clock()), error, self.place.run),
                )
        finally:
            self._unlock()

    def __enter__(self) -> Run:
        if self._lock is None:
            raise AESGStorageError(
                f"Expected a run that is running, '{self.run_id}' has ended or is another's"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.finish()
        elif isinstance(error, (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)):
            self.finish("killed", _told(error))
        else:
            self.finish("failed", _told(error))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.store, self.run_id)

    def _unlock(self) -> None:
        _running.discard(self)
        lock, self._lock = self._lock, None
        if self._lock_file is not None:
            with contextlib.suppress(OSError):
                self.store.disk.remove(self._lock_file)
        if lock is not None:
            os.close(lock)

    def __repr__(self) -> str:
        return f"Run({self.run_id!r}, store={str(self.store.root)!r})"


def _reopened(store: Store, run_id: str) -> Run:
    return store.open_run(run_id)


def _told(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}".encode(errors="replace").decode()
    return text.replace("\0", "?")[:MAX_ERROR]


_running: weakref.WeakSet[Run] = weakref.WeakSet()


def _leave_locks_to_the_parent() -> None:
    """A child would hold the lock of its parent's run, and the run would outlive the parent."""
    for run in list(_running):
        if run._lock is not None:
            os.close(run._lock)
            run._lock = None
    _running.clear()


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)
