"""The event memory of a run: what happened, in order, and the small named values to recall quickly."""

from __future__ import annotations

import heapq
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aesg.exceptions import AESGStorageError
from aesg.runs import checks
from aesg.runs.artifacts import Place, scope_filter
from aesg.runs.objects import parse_uri
from aesg.runs.records import EVENT_COLUMNS, EVENT_TABLES, Event, Value, event_of

if TYPE_CHECKING:
    from aesg.runs.store import Store

TOOL_RESULT = "tool_result"
Values = Iterable[Mapping[str, Any]] | None


class EventMemory:
    """The events of a place (a run, or a graph or node in it); without a place, those of the whole store.

    Everything is kept; the recent window is a query. What is recorded outlives the process at once, and a
    power cut as soon as an artifact was saved or the run ended after it. Data is JSON, in which NaN is
    allowed. Scopes are those of `Artifacts`. Bad arguments raise AESGStorageError before anything is written.
    """

    def __init__(self, store: Store, place: Place | None) -> None:
        self.store = store
        self._place = place

    def record(
        self,
        kind: str,
        data: Any = None,
        tags: Iterable[str] | None = None,
        text: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Event:
        """Records an event and returns it."""
        return self._insert(kind, None, None, None, data, tags, text, metrics)

    def record_tool_result(
        self,
        tool: str,
        inputs: Values = None,
        outputs: Values = None,
        tags: Iterable[str] | None = None,
        metrics: Mapping[str, float] | None = None,
        text: str | None = None,
    ) -> Event:
        """Records what a tool gave: `outputs` [{"name", "kind", "value"}, ...] are found by name afterwards.

        An output of kind "uri" that names content of this store keeps that content from `gc`.
        """
        return self._insert(
            TOOL_RESULT, checks.check_text(tool, "tool"), inputs, outputs, None, tags, text, metrics
        )

    def recent(
        self, kinds: Iterable[str] | None = None, limit: int = 50, scope: str | None = None
    ) -> list[Event]:
        """The newest `limit` events of these kinds (None: all), the oldest of them first.

        O(limit log n); by graph or node, the run's newer events of other graphs and nodes are read over.
        """
        where, values = scope_filter(self._place, scope, "e")
        at_most = checks.check_limit(limit)
        if kinds is None:
            rows = self._newest(where, values, at_most)
        else:
            wanted = dict.fromkeys(checks.check_words(kinds, "kinds"))
            each = (self._newest(f"{where} AND e.kind = ?", [*values, kind], at_most) for kind in wanted)
            rows = heapq.nlargest(at_most, (row for rows in each for row in rows), key=lambda row: row[-1])
        return [event_of(row) for row in reversed(rows)]

    def recent_data(
        self, kinds: Iterable[str] | None = None, limit: int = 50, scope: str | None = None
    ) -> list[Any]:
        """What `recent` finds, as recorded: the data of each event, or its text where it has no data."""
        found = self.recent(kinds, limit, scope)
        return [event.text if event.data is None else event.data for event in found]

    def recent_tool_results(
        self, tool: str | None = None, limit: int = 50, scope: str | None = None
    ) -> list[Event]:
        """The newest `limit` results of a tool (None: of all), the oldest of them first."""
        if tool is None:
            return self.recent([TOOL_RESULT], limit, scope)
        where, values = scope_filter(self._place, scope, "e")
        rows = self._newest(
            f"{where} AND e.topic = ?", [*values, checks.check_text(tool, "tool")], checks.check_limit(limit)
        )
        return [event_of(row) for row in reversed(rows)]

    def last_by_name(self, name: str, scope: str | None = None) -> Value | None:
        """The newest output of this name, as {"name", "kind", "value"}; None when there is none."""
        where, values = scope_filter(self._place, scope, "e")
        plain = where in ("1", "e.run = ?")  # else the event has to be asked for its graph and node
        condition = where.replace("e.run", "o.run") if plain else where
        rows = self.store.index.read(
            f"SELECT (SELECT outputs FROM events WHERE seq = o.event), o.place FROM outputs o "
            f"{'' if plain else 'JOIN events e ON e.seq = o.event'} WHERE o.name = ? AND {condition} "
            "ORDER BY o.event DESC, o.place DESC LIMIT 1",
            [checks.check_text(name, "name"), *values],
        )
        return _loaded(rows[0][0])[rows[0][1]] if rows else None

    # -- small parts ---------------------------------------------------------------------------------------

    def _newest(self, where: str, values: list[Any], limit: int) -> list[Any]:
        return self.store.index.read(
            f"SELECT {EVENT_COLUMNS} FROM {EVENT_TABLES} WHERE {where} ORDER BY e.seq DESC LIMIT ?",
            [*values, limit],
        )

    def _insert(
        self,
        kind: str,
        topic: str | None,
        inputs: Values,
        outputs: Values,
        data: Any,
        tags: Iterable[str] | None,
        text: str | None,
        metrics: Mapping[str, float] | None,
    ) -> Event:
        if self._place is None:
            raise AESGStorageError("Expected a run to record in, this is the view of a whole store")
        named = _values(outputs, "outputs")
        given = _values(inputs, "inputs")
        if text is not None and not isinstance(text, str):
            raise AESGStorageError(f"text: expected a string, got {type(text).__name__}")
        kind = checks.check_text(kind, "kind")
        if text:
            checks.check_text(text, "text")
        numbers = checks.check_metrics(metrics, finite=False)
        place, identity, ts = self._place, uuid.uuid4().hex, float(self.store.clock())
        words = checks.encode(checks.check_words(tags, "tags"), "tags")
        given_json = None if inputs is None else checks.encode(given, "inputs", nan=True)
        named_json = None if outputs is None else checks.encode(named, "outputs", nan=True)
        metrics_json = None if metrics is None else checks.encode(numbers, "metrics", nan=True)
        data_json = None if data is None else checks.encode(data, "data", nan=True)
        said = (given_json, named_json, metrics_json, text)
        with self.store.index.write(durable=False) as connection:
            seq = connection.execute(
                "INSERT INTO events(event_id, run, graph, node, ts, kind, topic, inputs, outputs, metrics, "
                "text, tags, data) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (identity, place.run, place.graph, place.node, ts, kind, topic, *said, words, data_json),
            ).lastrowid
            connection.executemany(
                "INSERT INTO outputs VALUES(?, ?, ?, ?, ?)",
                [(value["name"], place.run, seq, order, _sha(value)) for order, value in enumerate(named)],
            )
        return event_of(
            (identity, ts, kind, topic, *said, words, data_json, place.run_id, place.graph, place.node, seq)
        )


def _values(values: Values, what: str) -> list[dict[str, Any]]:
    """Named values: mappings with a `name`."""
    if values is None:
        return []
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise AESGStorageError(f"{what}: expected a list of named values, got {type(values).__name__}")
    found = []
    for value in values:
        if not isinstance(value, Mapping) or "name" not in value or "value" not in value:
            raise AESGStorageError(
                f"{what}: expected {{'name': ..., 'kind': ..., 'value': ...}}, got {value!r}"
            )
        name = checks.check_text(value["name"], f"{what} name")
        kind = checks.check_text(value.get("kind", "json"), f"{what} kind")
        found.append({**value, "name": name, "kind": kind})
    return found


def _sha(value: Mapping[str, Any]) -> str | None:
    if value["kind"] != "uri" or not isinstance(value["value"], str):
        return None
    parsed = parse_uri(value["value"])
    return None if parsed is None else parsed[0]


def _loaded(text: str) -> Any:
    return json.loads(text)
