"""Directories of aesg 3.0.0 as memories of ours. The old files are only read, and nothing in them is run.

nodes.aesg, edges.aesg and evolution.aesglog are tables of records without headers; `v3_meta` reads the
counts.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

import numpy as np

from aesg import _core
from aesg.exceptions import AESGStorageError
from aesg.storage.engine import AESGStorage
from aesg.storage.logger import EVENT_DTYPE, EventType
from aesg.storage.nodes import BLOCK_EDGES, NODE_FIELDS, blocks, node_dtype
from aesg.storage.v3_meta import MAX_BYTES, read_meta
from aesg.storage.v3_records import EDGE_RECORD, first_of_each, rows_of, strongest_of_each

MAX_COMPONENT = 1e30  # of a vector; above it a cosine can overflow
_COPIED = ("created_at", "modified_at", "use_frequency", "relevance", "age", "stability", "region_id")


@dataclass
class ImportReport:
    """What came over, and what of the old files could not be used, a line each."""

    vector_dim: int
    concepts: int = 0
    active: int = 0
    edges: int = 0
    events: int = 0
    findings: list[str] = field(default_factory=list)

    def note(self, count: int, what: str) -> None:
        if count:
            self.findings.append(f"{count} {what}")


def import_v3(
    old: str | os.PathLike[str], new: str | os.PathLike[str], *, vector_dim: int | None = None
) -> ImportReport:
    """Makes the memory `new` from the 3.0.0 directory `old`, in one commit; `old` is never written.

    Kept: ids, every field, edges between concepts with weight, confidence and use_count, events. Edges are
    found by the ids of their ends; of one pair the strongest comes over, clamped to [0, 1]. Reported and left
    out: edges with an end that is not there, out of a pruned concept, from a concept to itself or with a
    weight that is no number; concepts whose vector is not finite; events of unknown kinds; what is torn. A
    concept whose id is 0 or taken gets a new one. Chains that run in a circle are reported; they do not
    matter to what is read.

    `vector_dim` is needed only when meta.npy is missing or damaged. Raises AESGStorageError: `old` is no
    3.0.0 memory, `new` holds something, or lies in `old`. O(N D + E log E).
    """
    source, target = os.fspath(old), os.fspath(new)
    if not os.path.isdir(source):
        raise AESGStorageError(f"Import from '{source}': expected a directory of aesg 3.0.0")
    real_source, real_target = os.path.realpath(source), os.path.realpath(target)
    if real_target == real_source or real_target.startswith(real_source + os.sep):
        raise AESGStorageError(f"Import into '{target}': expected a place outside '{source}'")
    if os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise AESGStorageError(f"Import into '{target}': expected nothing there yet, or an empty directory")
    findings: list[str] = []
    meta = _meta(source, vector_dim, findings)
    report = ImportReport(meta["vector_dim"], findings=findings)
    nodes = _table(source, "nodes.aesg", node_dtype(report.vector_dim), meta.get("node_count"), report)
    edges = _table(source, "edges.aesg", EDGE_RECORD, meta.get("edge_count"), report)
    if "node_count" not in meta:  # unused rows are zero
        nodes, edges = _used(nodes, "id"), _used(edges, "source_id")
    events = _events(source, report)
    with AESGStorage(target, report.vector_dim) as storage:
        slots = _bear(storage, nodes, report)
        _link(storage, nodes, edges, slots, report)
        _retire(storage, nodes, slots, report)
        for timestamp, kind, id1, id2, value in events.tolist():
            storage.core.append_event(timestamp, kind, id1, id2, value)
        report.events = len(events)
        storage.commit()
    return report


# -- reading ---------------------------------------------------------------------------------------------


def _read(directory: str, name: str, limit: int | None = None) -> bytes | None:
    """The bytes of a regular file, None when it is not there."""
    path = os.path.join(directory, name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AESGStorageError(f"Import: cannot read '{path}': {error}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise AESGStorageError(f"Import: expected '{path}' to be a regular file")
        if limit is not None and status.st_size > limit:
            return None
        return file.read()


def _meta(directory: str, vector_dim: int | None, findings: list[str]) -> dict[str, int]:
    data = _read(directory, "meta.npy", MAX_BYTES)
    try:
        if data is None:
            raise AESGStorageError("meta.npy: expected a small file, got none or a large one")
        meta = read_meta(data)
    except AESGStorageError as error:
        if vector_dim is None:
            raise AESGStorageError(
                f"Import from '{directory}': {error.message}; give vector_dim to do without it"
            ) from None
        if not isinstance(vector_dim, int) or not 1 <= vector_dim <= 8192:
            raise AESGStorageError(f"vector_dim: expected 1..8192, got {vector_dim!r}") from None
        findings.append(f"{error.message} (rows in use were counted instead)")
        return {"vector_dim": vector_dim}
    if vector_dim is not None and vector_dim != meta["vector_dim"]:
        raise AESGStorageError(
            f"Import from '{directory}': it holds vector_dim {meta['vector_dim']}, expected {vector_dim}"
        )
    return meta


def _table(directory: str, name: str, dtype: np.dtype, count: int | None, report: ImportReport) -> np.ndarray:
    """The first `count` records of a file, or as many as there are."""
    data = _read(directory, name)
    if data is None:
        if name == "nodes.aesg":
            raise AESGStorageError(f"Import from '{directory}': expected a file {name}, got none")
        report.findings.append(f"{name} is missing")
        data = b""
    whole, torn = divmod(len(data), dtype.itemsize)
    if torn:
        report.findings.append(f"{name}: the last {torn} bytes are no whole record")
    if count is not None and count > whole:
        report.findings.append(f"{name}: {count} records expected, {whole} are there")
    return np.frombuffer(data, dtype, whole if count is None else min(count, whole))


def _used(table: np.ndarray, key: str) -> np.ndarray:
    rows = np.flatnonzero(table[key])
    return table[: int(rows[-1]) + 1] if len(rows) else table[:0]


def _events(directory: str, report: ImportReport) -> np.ndarray:
    data = _read(directory, "evolution.aesglog")
    if data is None:
        report.findings.append("evolution.aesglog is missing")
        data = b""
    whole, torn = divmod(len(data), EVENT_DTYPE.itemsize)
    if torn:
        report.findings.append(f"evolution.aesglog: the last {torn} bytes are a torn event")
    events = np.frombuffer(data, EVENT_DTYPE, whole)
    known = events["type"] <= max(EventType)
    report.note(int((~known).sum()), "events of an unknown kind")
    return events[known]


# -- writing ---------------------------------------------------------------------------------------------


def _bear(storage: AESGStorage, nodes: np.ndarray, report: ImportReport) -> np.ndarray:
    """Bears the concepts, living for now; returns the slot of each record, -1 where there is none."""
    with np.errstate(invalid="ignore"):
        sound = (np.abs(nodes["vector"]) <= MAX_COMPONENT).all(axis=1)  # False for NaN
    report.note(int((~sound).sum()), "concepts with NaN, infinity or numbers above 1e30 in their vector")
    rows = np.flatnonzero(sound)
    ids = nodes["id"][rows].copy()
    fresh = np.ones(len(ids), dtype=bool)
    fresh[first_of_each(ids)[1]] = False
    fresh |= (ids == 0) | (ids > 2**63 - 1)
    if fresh.any():
        report.note(int(fresh.sum()), "concepts whose id was taken or no id (they got new ones)")
        numbers = np.arange(1, len(ids) + int(fresh.sum()) + 1, dtype=np.uint64)
        ids[fresh] = np.setdiff1d(numbers, ids[~fresh])[: int(fresh.sum())]
    vectors = np.ascontiguousarray(nodes["vector"][rows])
    slots = np.full(len(nodes), -1, dtype=np.int64)
    slots[rows] = _core.bear(storage.core, vectors, 0, log=False, ids=ids)
    for name in _COPIED:
        values = nodes[name][rows]
        if values.dtype.kind == "f":
            bad = ~(np.isfinite(values) & (values >= 0))
            report.note(int(bad.sum()), f"values of {name} that are no number or negative (0 instead)")
            values = np.where(bad, 0, values).astype(values.dtype)
        storage.nodes[name][slots[rows]] = values
    report.concepts = len(rows)
    return slots


def _link(
    storage: AESGStorage, nodes: np.ndarray, edges: np.ndarray, slots: np.ndarray, report: ImportReport
) -> None:
    """Makes the edges that can be made, while every concept still lives."""
    _look_for_circles(nodes, edges, report)
    distinct, first = first_of_each(nodes["id"])
    ends = []
    for name in ("source_id", "target_id"):
        row = rows_of(edges[name], distinct, first)
        ends.append(np.where(row >= 0, slots[row], -1))
    source, target = ends
    alive = np.zeros(storage.core.node_count + 1, dtype=bool)  # the last stands for -1
    alive[slots[slots >= 0]] = nodes["is_active"][slots >= 0] != 0
    good = (source >= 0) & (target >= 0)
    report.note(int((~good).sum()), "dangling edges (an end is not there)")
    for wrong, what in (
        (~alive[source], "edges out of pruned concepts"),
        (source == target, "edges from a concept to itself"),
        (np.isnan(edges["weight"]) | np.isnan(edges["confidence"]), "edges with a weight that is no number"),
    ):
        report.note(int((good & wrong).sum()), what)
        good &= ~wrong
    rows = np.flatnonzero(good)
    weight = np.clip(edges["weight"][rows], 0, 1)
    confidence = np.clip(edges["confidence"][rows], 0, 1)
    outside = (weight != edges["weight"][rows]) | (confidence != edges["confidence"][rows])
    report.note(int(outside.sum()), "edges with a weight or confidence outside [0, 1] (clamped)")
    pairs = (source[rows].astype(np.uint64) << np.uint64(32)) | target[rows].astype(np.uint64)
    chosen = strongest_of_each(pairs, weight * confidence)
    report.note(len(rows) - len(chosen), "edges of a pair that has a stronger one")
    rows, weight, confidence = rows[chosen], weight[chosen], confidence[chosen]
    _core.put_edges(storage.core, source[rows], target[rows], weight, confidence)
    _set_use_counts(storage, pairs[chosen], edges["use_count"][rows])
    report.edges = len(rows)


def _set_use_counts(storage: AESGStorage, pairs: np.ndarray, counts: np.ndarray) -> None:
    """Writes use_count of edges by (source slot << 32 | target slot), all of which are there."""
    used = storage.core.counters.block_count
    if len(pairs) == 0:
        return
    hot, cold = blocks(storage)
    block, place = np.nonzero(np.arange(BLOCK_EDGES) < hot.reshape(-1)[:used]["count"][:, None])
    group, row = np.divmod(block, hot.shape[1])
    source, target = cold["source"][group, row], hot["target"][group, row, place]
    keys = (source.astype(np.uint64) << np.uint64(32)) | target.astype(np.uint64)
    order = np.argsort(pairs)
    cold["use_count"][group, row, place] = counts[order][np.searchsorted(pairs[order], keys)]
    storage.core.mark_blocks(np.arange(used), hot=False, cold=True)


def _look_for_circles(nodes: np.ndarray, edges: np.ndarray, report: ImportReport) -> None:
    """Reports heads and links that lead outside and chains that never end. O(E)."""
    count = len(edges)
    heads = nodes["head_edge_idx"]
    outside = int(((heads < -1) | (heads >= count)).sum())
    following = edges["next_edge_idx"]
    beyond = (following < -1) | (following >= count)
    report.note(outside + int(beyond.sum()), "chain links that lead outside the edge file")
    # Doubling: where each chain is after 2^k links. What has not ended after more links than edges is a
    # circle.
    at = np.append(np.where(beyond, -1, following), -1)
    for _ in range(max(1, count.bit_length())):
        at = at[at]
    starts = heads[(heads >= 0) & (heads < count)]
    report.note(int((at[starts] >= 0).sum()), "chains of edges that run in a circle (read by ids instead)")


def _retire(storage: AESGStorage, nodes: np.ndarray, slots: np.ndarray, report: ImportReport) -> None:
    dead = slots[(slots >= 0) & (nodes["is_active"] == 0)]
    if len(dead):
        storage.nodes["is_active"][dead] = 0
    report.active = report.concepts - len(dead)


assert set(_COPIED) | {"id", "vector", "is_active", "head_edge_idx"} == set(NODE_FIELDS)
