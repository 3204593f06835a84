"""What a store hands out: artifacts, events and descriptions of runs, with the SQL that reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypedDict

from aesg.runs.objects import DIRECTORY_URI, FILE_URI


class Value(TypedDict, total=False):
    """A named value of a tool result; kind says what it is: "number", "uri", "text", "json", ..."""

    name: str
    kind: str
    value: Any


@dataclass(frozen=True)
class Artifact:
    """One save: an identity with labels, metrics and pin, over content that others may share.

    uri names the content (equal bytes, equal uri) and stays valid when the store's folder is moved.
    preview_uri is None: a store makes no previews, and no verb takes one; the field is there for programs
    that read it.
    """

    artifact_id: str
    uri: str
    kind: str
    labels: dict[str, Any]
    metrics: dict[str, float]
    preview_uri: str | None = None
    pinned: bool = False
    name: str = ""  # file name, where it was saved from a file or directory
    suffix: str = ""  # such as ".png"
    size: int = 0  # bytes, of a directory those of its members
    is_directory: bool = False
    run_id: str = ""
    graph: str | None = None
    node: str | None = None
    created: str = ""  # ISO 8601, UTC


@dataclass(frozen=True)
class Event:
    """Something that happened. `text` is the JSON of `data` unless the event was recorded with a text."""

    event_id: str
    ts: str  # ISO 8601, UTC
    kind: str
    topic: str | None = None  # the tool of a tool result
    inputs: list[Value] | None = None
    outputs: list[Value] | None = None
    metrics: dict[str, float] | None = None
    text: str | None = None
    version: int = 1
    tags: list[str] = field(default_factory=list)
    data: Any = None
    run_id: str = ""
    graph: str | None = None
    node: str | None = None
    seq: int = 0  # the order of events; clocks may jump


@dataclass(frozen=True)
class RunInfo:
    """A run as the index knows it."""

    run_id: str
    name: str
    params: dict[str, Any]
    state: str  # running, finished, failed, killed
    started: str  # ISO 8601, UTC
    ended: str | None = None
    error: str | None = None
    artifacts: int = 0
    events: int = 0
    seconds: float | None = None  # from start to end


ARTIFACT_COLUMNS = (
    "a.artifact_id, a.sha, a.kind, a.labels, a.metrics, a.pinned, a.name, a.suffix, a.size, a.is_directory, "
    "r.run_id, a.graph, a.node, a.created"
)
ARTIFACT_TABLES = "artifacts a JOIN runs r ON r.seq = a.run"


def artifact_of(row: Sequence[Any]) -> Artifact:
    """The artifact in a row of ARTIFACT_COLUMNS."""
    (
        identity,
        sha,
        kind,
        labels,
        metrics,
        pinned,
        name,
        suffix,
        size,
        is_directory,
        run,
        graph,
        node,
        created,
    ) = row
    return Artifact(
        artifact_id=identity,
        uri=(DIRECTORY_URI if is_directory else FILE_URI) + sha,
        kind=kind,
        labels=json.loads(labels),
        metrics=json.loads(metrics),
        pinned=bool(pinned),
        name=name,
        suffix=suffix,
        size=size,
        is_directory=bool(is_directory),
        run_id=run,
        graph=graph or None,
        node=node or None,
        created=iso(created),
    )


EVENT_COLUMNS = (
    "e.event_id, e.ts, e.kind, e.topic, e.inputs, e.outputs, e.metrics, e.text, e.tags, e.data, r.run_id, "
    "e.graph, e.node, e.seq"
)
EVENT_TABLES = "events e JOIN runs r ON r.seq = e.run"


def event_of(row: Sequence[Any]) -> Event:
    """The event in a row of EVENT_COLUMNS."""
    identity, ts, kind, topic, inputs, outputs, metrics, text, tags, data, run, graph, node, seq = row
    return Event(
        event_id=identity,
        ts=iso(ts),
        kind=kind,
        topic=topic,
        inputs=_loaded(inputs),
        outputs=_loaded(outputs),
        metrics=_loaded(metrics),
        text=data if text is None else text,
        tags=json.loads(tags),
        data=_loaded(data),
        run_id=run,
        graph=graph or None,
        node=node or None,
        seq=seq,
    )


RUN_COLUMNS = (
    "run_id, name, params, state, started, ended, error, "
    "(SELECT count(*) FROM artifacts WHERE run = runs.seq), "
    "(SELECT count(*) FROM events WHERE run = runs.seq)"
)


def run_of(row: Sequence[Any]) -> RunInfo:
    """The description in a row of RUN_COLUMNS."""
    run_id, name, params, state, started, ended, error, artifacts, events = row
    return RunInfo(
        run_id=run_id,
        name=name,
        params=json.loads(params),
        state=state,
        started=iso(started),
        ended=None if ended is None else iso(ended),
        error=error,
        artifacts=artifacts,
        events=events,
        seconds=None if ended is None else ended - started,
    )


def iso(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC, with microseconds."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text)
