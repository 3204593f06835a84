"""The asynchronous face: the same verbs, awaited. Blocking work happens in a thread."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from aesg.runs.artifacts import Artifacts, Labels, Metrics
from aesg.runs.background import in_thread
from aesg.runs.memory import EventMemory
from aesg.runs.writer import ArtifactWriter

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


def _awaited(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """The method of a synchronous object, for the face that keeps one in `sync`."""

    @functools.wraps(method)
    async def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(method, self.sync, *args, **kwargs)

    return call


class AsyncArtifacts:
    """`Artifacts`, awaited. Cancelling a call undoes it, unless it was committed already."""

    def __init__(self, sync: Artifacts) -> None:
        self.sync = sync

    save_file = _awaited(Artifacts.save_file)
    save_dir = _awaited(Artifacts.save_dir)
    save_text = _awaited(Artifacts.save_text)
    save_json = _awaited(Artifacts.save_json)
    as_local_file = _awaited(Artifacts.as_local_file)
    as_local_dir = _awaited(Artifacts.as_local_dir)
    search = _awaited(Artifacts.search)
    best = _awaited(Artifacts.best)
    list = _awaited(Artifacts.list)
    get = _awaited(Artifacts.get)
    pin = _awaited(Artifacts.pin)

    def writer(
        self, kind: str, planned_ext: str | None = None, labels: Labels = None, metrics: Metrics = None
    ) -> ArtifactWriter:
        """`async with arts.writer(...) as w: w.write(...)`."""
        return self.sync.writer(kind, planned_ext, labels, metrics)


class AsyncMemory:
    """`EventMemory`, awaited."""

    def __init__(self, sync: EventMemory) -> None:
        self.sync = sync

    record = _awaited(EventMemory.record)
    record_tool_result = _awaited(EventMemory.record_tool_result)
    recent = _awaited(EventMemory.recent)
    recent_data = _awaited(EventMemory.recent_data)
    recent_tool_results = _awaited(EventMemory.recent_tool_results)
    last_by_name = _awaited(EventMemory.last_by_name)


class Context:
    """What a tool gets: the artifacts and the memory of its place."""

    def __init__(self, artifacts: Artifacts, memory: EventMemory) -> None:
        self._artifacts = AsyncArtifacts(artifacts)
        self._memory = AsyncMemory(memory)

    def artifacts(self) -> AsyncArtifacts:
        return self._artifacts

    def memory(self) -> AsyncMemory:
        return self._memory
