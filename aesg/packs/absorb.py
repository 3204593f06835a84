"""Absorbing: a pack's concepts become the memory's own, near-duplicates become one."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from aesg import _core
from aesg.graph.core import SemanticGraph
from aesg.packs.columns import EDGE_KINDS, EdgeList, PackColumns
from aesg.packs.export import placed_edges
from aesg.storage.nodes import blocks, grouped
from aesg.storage.v3_records import strongest_of_each

_CHUNK = 1024  # concepts looked up together; what one chunk bears, the next one finds


class Absorbed(NamedTuple):
    """What `absorb` did."""

    born: int  # concepts that are new
    merged: int  # concepts that were there already, or came twice
    edges: int  # edges that are new
    slots: np.ndarray  # i64 [N], where each concept of the pack is now; -1 for dead ones


def absorb(graph: SemanticGraph, columns: PackColumns, similarity: float) -> Absorbed:
    """Copies the living concepts of a pack and their edges into a graph. O(n (N + n) D + E).

    A concept with cosine >= `similarity` to one that is there, be it from this pack, becomes that one: its
    uses are added and the larger relevance stays. The others are born with new ids and age 0, in no region;
    they keep their time of creation, uses, relevance and stability. Edges move along; where one of its kind
    is there, the stronger stays, and uses are added. Nothing dies for lack of use until use here can show.
    Absorbing a pack again only adds uses.
    """
    state, core = graph.state, graph.storage.core
    state.log.digest()
    slots = np.full(len(columns), -1, dtype=np.int64)
    living = np.flatnonzero(columns.active)
    born = [_absorb_chunk(graph, columns, rows, slots, similarity) for rows in _chunks(living)]
    moved = _moved(columns.edges(), slots)
    edges = _stronger_ones(graph, moved)
    fresh = 0
    for kind in range(EDGE_KINDS):
        some = edges.take(np.flatnonzero(edges.kind == kind))
        fresh += _core.put_edges(core, some.source, some.target, some.weight, some.confidence, kind)
    _add_edge_uses(graph, moved)
    state.counters["births"] += sum(born)
    state.pruning.pause()  # the uses that came along were counted elsewhere
    state.touch()
    return Absorbed(sum(born), len(living) - sum(born), fresh, slots)


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


def first_alike(vectors: np.ndarray, similarity: float) -> np.ndarray:
    """For each row of `vectors` [n, D] the first row that stays and is as similar as that, i64 [n]; its own
    number where it stays itself. O(n^2 D).
    """
    units = torch.nn.functional.normalize(torch.from_numpy(vectors).double(), dim=1)
    alike = np.tril((units @ units.T).numpy() >= similarity, k=-1)
    leader = np.arange(len(vectors))
    for row in np.flatnonzero(alike.any(axis=1)):
        earlier = np.flatnonzero(alike[row] & (leader == np.arange(len(vectors))))
        if len(earlier):
            leader[row] = earlier[0]
    return leader


def _absorb_chunk(
    graph: SemanticGraph, columns: PackColumns, rows: np.ndarray, slots: np.ndarray, similarity: float
) -> int:
    """Finds or bears the concepts of some rows and writes their places into `slots`; returns births."""
    storage, now = graph.storage, graph.state.now()
    vectors = np.array(columns.vectors[rows])
    _, found = graph.search(torch.from_numpy(vectors), 1, max(similarity, 1e-6))
    slots[rows] = found[:, 0].numpy()
    known = rows[slots[rows] >= 0]
    new = np.flatnonzero(slots[rows] < 0)
    compared = graph.state.queries.without(torch.from_numpy(vectors[new])).numpy()
    leader = first_alike(compared, similarity)
    leads = leader == np.arange(len(new))
    bearing = rows[new[leads]]
    slots[bearing] = _core.bear(storage.core, vectors[new[leads]], now)
    slots[rows[new]] = slots[rows[new[leader]]]
    if len(bearing):
        for name in ("created_at", "use_frequency", "relevance", "stability"):
            storage.nodes[name][slots[bearing]] = columns.fields[name][bearing]
    joined = np.concatenate([known, rows[new[~leads]]])
    if len(joined):
        _join(graph, columns, joined, slots[joined])
    return len(bearing)


def _join(graph: SemanticGraph, columns: PackColumns, rows: np.ndarray, slots: np.ndarray) -> None:
    """Adds the uses of pack concepts to slots (some may come twice) and keeps the larger relevance."""
    storage = graph.storage
    distinct, place = np.unique(slots, return_inverse=True)
    uses = storage.nodes["use_frequency"][distinct].astype(np.int64)
    np.add.at(uses, place, columns.fields["use_frequency"][rows])
    relevance = storage.nodes["relevance"][distinct].copy()
    np.maximum.at(relevance, place, columns.fields["relevance"][rows])
    storage.nodes["use_frequency"][distinct] = _clipped(uses)
    storage.nodes["relevance"][distinct] = relevance


def _moved(edges: EdgeList, slots: np.ndarray) -> EdgeList:
    """The edges of a pack whose ends are two different concepts of the memory, in the memory's slots. Those
    that fell into one are one: the strongest, with the uses of all."""
    source, target = slots[edges.source], slots[edges.target]
    good = np.flatnonzero((source >= 0) & (target >= 0) & (source != target))
    part = edges.take(good)
    moved = EdgeList(source[good], target[good], part.weight, part.confidence, part.use_count, part.kind)
    chosen = strongest_of_each(moved.keys, moved.strength)
    distinct, place = np.unique(moved.keys, return_inverse=True)
    uses = np.zeros(len(distinct), np.int64)
    np.add.at(uses, place, moved.use_count)
    return replace(moved.take(chosen), use_count=_clipped(uses[place[chosen]]))


def _stronger_ones(graph: SemanticGraph, moved: EdgeList) -> EdgeList:
    """Those of the edges that are not there yet or stronger than what is there."""
    there, _ = _edges_there(graph)
    order = np.argsort(there.keys)
    keys, strengths = there.keys[order], there.strength[order]
    if len(keys) == 0:
        return moved
    place = np.minimum(np.searchsorted(keys, moved.keys), len(keys) - 1)
    weaker = (keys[place] == moved.keys) & (strengths[place] >= moved.strength)
    return moved.take(np.flatnonzero(~weaker))


def _add_edge_uses(graph: SemanticGraph, moved: EdgeList) -> None:
    """Adds the uses of edges, all of which are there by now. O(E)."""
    if not moved.use_count.any():
        return
    there, (block, place) = _edges_there(graph)
    order = np.argsort(moved.keys)
    keys = moved.keys[order]
    found = np.minimum(np.searchsorted(keys, there.keys), len(keys) - 1)
    rows = np.flatnonzero(keys[found] == there.keys)
    uses = there.use_count[rows].astype(np.int64) + moved.use_count[order][found[rows]]
    _, cold = blocks(graph.storage)
    group, row = np.divmod(block[rows], cold.shape[1])
    cold["use_count"][group, row, place[rows]] = _clipped(uses)
    graph.storage.core.mark_blocks(np.unique(block[rows]), hot=False, cold=True)


def _edges_there(graph: SemanticGraph) -> tuple[EdgeList, tuple[np.ndarray, np.ndarray]]:
    """The edges among living concepts and where they lie: block and place in it."""
    count = graph.storage.core.node_count
    active = grouped(graph.storage, "is_active").reshape(-1)[:count]
    return placed_edges(graph, np.where(active != 0, np.arange(count), -1))


def _clipped(uses: np.ndarray) -> np.ndarray:
    return np.minimum(uses, 2**32 - 1).astype(np.uint32)
