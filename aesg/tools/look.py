"""What there is to see in a memory directory, as plain values: the facts behind `aesg inspect`."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

import numpy as np

from aesg import _core
from aesg.exceptions import AESGStorageError
from aesg.storage.directory import FILES, inspect_directory
from aesg.storage.engine import AESGStorage
from aesg.storage.logger import EventType, EvolutionLogger
from aesg.tools.columns import KINDS, GraphColumns, find_hubs, read_columns

HUBS = 8
LAST_EVENTS = 8
REGIONS = 8  # largest ones that are listed
BINS = 20  # of histograms
TIME_BINS = 80


def open_for_looking(directory: str | os.PathLike[str]) -> AESGStorage:
    """The last committed state, opened beside whoever writes there. Changes nothing.

    Raises AESGStorageError where no memory lies.
    """
    path = os.fspath(directory)
    found = inspect_directory(path)
    if found is None:
        raise AESGStorageError(f"'{path}': expected a memory's directory, found nothing there")
    if found["kind"] == "aesg-3.0.0":
        raise AESGStorageError(f"'{path}' holds a memory of aesg 3.0.0: `aesg import-v3` makes one of ours")
    if found["kind"] != "ours":
        reason = found.get("reason") or "it has none of a memory's files"
        raise AESGStorageError(f"'{path}': expected a memory's directory: {reason}")
    return AESGStorage(path, read_only=True)


def look(storage: AESGStorage, columns: GraphColumns | None = None, *, health: bool = True) -> dict[str, Any]:
    """Facts as JSON values. `health`: reads all files anew and checks the graph. O(N + E + files)."""
    columns = read_columns(storage) if columns is None else columns
    state = storage.read_state()
    config = json.loads(state["config"]) if isinstance(state.get("config"), str) else {}
    fields, degree = columns.fields, columns.in_degree() + columns.out_degree()
    events = EvolutionLogger(storage).get_history()
    ids = storage.nodes["id"][:]
    regions, sizes = np.unique(fields["region_id"][fields["region_id"] > 0], return_counts=True)
    largest = np.argsort(-sizes, kind="stable")[:REGIONS]
    pool = state.get("pool.counts")
    return {
        "directory": os.path.abspath(storage.directory),
        "vector_dim": storage.vector_dim,
        "generation": storage.generation,
        "mode": config.get("memory_mode", "TRAIN"),
        "config": config,
        "concepts": {
            "slots": storage.core.node_count,
            "living": len(columns),
            "dead": int(((storage.nodes["is_active"][:] == 0) & (ids != 0)).sum()),
            "free": int((ids == 0).sum()),
            "abstract": int(columns.abstract().sum()),
            "never_used": int((fields["use_frequency"] == 0).sum()),
            "without_edges": int((degree == 0).sum()),
            "candidates": 0 if pool is None else len(pool),
        },
        "edges": {
            "all": storage.core.edge_count,
            **{kind: int((columns.kind == number).sum()) for number, kind in enumerate(KINDS)},
            "into_the_dead": storage.core.edge_count - len(columns.source),
            "mean_degree": len(columns.source) / max(1, len(columns)),
            "most": int(degree.max(initial=0)),
        },
        "regions": {
            "count": len(regions),
            "none": int((fields["region_id"] == 0).sum()),
            "largest": [[int(regions[at]), int(sizes[at])] for at in largest],
        },
        "histograms": {
            "age": histogram(fields["age"]),
            "relevance": histogram(fields["relevance"], 0.0, 1.0),
            "use": histogram(np.log10(1.0 + fields["use_frequency"])),
            "degree": histogram(np.log10(1.0 + degree)),
        },
        "hubs": find_hubs(columns, HUBS),
        "counters": state.get("counters", {}),
        "packs": [
            {name: pack.get(name) for name in ("name", "path", "priority")} for pack in state.get("packs", [])
        ],
        "events": {
            "total": len(events),
            "counts": {kind.name: int((events.array["type"] == kind).sum()) for kind in EventType},
            "last": list(events[-LAST_EVENTS:]),
        },
        "disk": disk_use(storage.directory),
        "health": findings(storage) if health else None,
    }


def findings(storage: AESGStorage) -> list[str]:
    """What is wrong with the files and with the graph in them, a line each; none when all is sound."""
    return [*storage.verify(), *_core.check(storage.core)]


def disk_use(directory: str) -> dict[str, dict[str, int]]:
    """Bytes of each file as its length, and as blocks that are really taken (files may have holes)."""
    found = {}
    for name in FILES:
        try:
            status = os.lstat(os.path.join(directory, name))
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            found[name] = {"bytes": status.st_size, "on_disk": 512 * status.st_blocks}
    return found


def histogram(values: np.ndarray, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """Counts in BINS equal steps from `low` to `high` (None: of the values); what lies beyond is counted at
    the ends."""
    if len(values) == 0:
        return {"low": low or 0.0, "high": high or 1.0, "counts": [0] * BINS, "mean": None}
    values = values.astype(np.float64)
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if high <= low:
        high = low + 1.0
    counts, _ = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))
    return {"low": low, "high": high, "counts": counts.tolist(), "mean": float(values.mean())}


def evolution(storage: AESGStorage) -> dict[str, Any]:
    """Events by type and the number of living concepts that they add up to, over the order of events and over
    time, in TIME_BINS steps each. `living` starts at what the log does not account for."""
    events = EvolutionLogger(storage).get_history().array
    kinds = [kind.name for kind in EventType]
    if len(events) == 0:
        return {"kinds": kinds, "by": {}}
    change = np.zeros(len(events), dtype=np.int64)
    change[np.isin(events["type"], (EventType.CREATE, EventType.SPLIT))] = 1
    change[np.isin(events["type"], (EventType.MERGE, EventType.PRUNE))] = -1
    start = storage.core.active_count - int(change.sum())
    clock = np.maximum.accumulate(events["timestamp"].astype(np.int64))
    axes = {"event": np.arange(len(events)), "time": clock - clock[0]}
    by = {}
    for name, axis in axes.items():
        span = max(1, int(axis[-1]) + 1)
        bins = min(TIME_BINS, span)
        place = np.minimum(axis * bins // span, bins - 1)
        counts = np.zeros((len(kinds), bins), dtype=np.int64)
        known = events["type"] < len(kinds)
        np.add.at(counts, (events["type"][known], place[known]), 1)
        living = start + np.cumsum(np.bincount(place, change, bins)).astype(np.int64)
        by[name] = {"span": span, "counts": counts.tolist(), "living": living.tolist()}
    return {"kinds": kinds, "by": by, "began": int(clock[0]), "ended": int(clock[-1])}
