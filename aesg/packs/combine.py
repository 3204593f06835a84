"""Packs as values: one out of two, and what tells two apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.ops import seed_search
from aesg.packs.columns import FIELDS, EdgeList, PackColumns, make_columns
from aesg.packs.pack import MemoryPack
from aesg.storage.v3_records import first_of_each, rows_of, strongest_of_each


class Merged(NamedTuple):
    """The pack of two, and how it came to be."""

    columns: PackColumns
    shared: int  # living concepts of the second that became one of the first
    renumbered: int  # concepts whose id another one had already


class Difference(NamedTuple):
    """What tells pack `b` from pack `a`; concepts by id, edges by the ids of their ends."""

    only_a: np.ndarray  # ids u64
    only_b: np.ndarray
    moved: np.ndarray  # ids in both whose vectors differ
    changed: np.ndarray  # ids in both with the same vector and other fields
    edges_only_a: int
    edges_only_b: int
    edges_changed: int

    @property
    def same(self) -> bool:
        return not any(part if isinstance(part, int) else len(part) for part in self)


def merge_packs(a: MemoryPack, b: MemoryPack, similarity: float) -> Merged:
    """The living concepts of `a`, and those of `b` that are unlike all of them (cosine < `similarity`).

    The ids of `a` stay, those of `b` too unless taken. Edges of both are kept, of one pair and kind the
    stronger. Raises AESGStorageError for different dimensions, AESGMemoryError for a similarity outside
    (0, 1]. O(N_a N_b D).
    """
    if not 0 < similarity <= 1:
        raise AESGMemoryError(f"similarity: expected a number in (0, 1], got {similarity!r}")
    if a.vector_dim != b.vector_dim:
        raise AESGStorageError(
            f"Pack vector_dim mismatch: '{a.name}' has {a.vector_dim}, '{b.name}' {b.vector_dim}"
        )
    first, second = a.columns, b.columns
    kept, offered = np.flatnonzero(first.active), np.flatnonzero(second.active)
    tensors = a.tensors
    _, found = seed_search(
        torch.from_numpy(np.array(second.vectors[offered])),
        tensors.vectors,
        1,
        inv_norm=tensors.inv_norm,
        active=tensors.active,
        min_score=max(similarity, 1e-6),
    )
    alike = found[:, 0].numpy()
    new = offered[alike < 0]
    place_a = np.full(len(first), -1, dtype=np.int64)
    place_a[kept] = np.arange(len(kept))
    place_b = np.full(len(second), -1, dtype=np.int64)
    place_b[offered[alike >= 0]] = place_a[alike[alike >= 0]]
    place_b[new] = len(kept) + np.arange(len(new))

    fields = {name: np.concatenate([first.fields[name][kept], second.fields[name][new]]) for name in FIELDS}
    taken = np.ones(len(fields["id"]), dtype=bool)
    taken[first_of_each(fields["id"])[1]] = False
    numbers = np.arange(1, len(taken) + int(taken.sum()) + 1, dtype=np.uint64)
    fields["id"][taken] = np.setdiff1d(numbers, fields["id"])[: int(taken.sum())]
    vectors = np.concatenate([first.vectors[kept], second.vectors[new]])
    edges = _joined(_moved(first.edges(), place_a), _moved(second.edges(), place_b))
    columns = make_columns(vectors, fields, np.ones(len(vectors), np.uint8), edges)
    return Merged(columns, int((alike >= 0).sum()), int(taken.sum()))


def _moved(edges: EdgeList, places: np.ndarray) -> EdgeList:
    source, target = places[edges.source], places[edges.target]
    good = np.flatnonzero((source >= 0) & (target >= 0) & (source != target))
    part = edges.take(good)
    return EdgeList(source[good], target[good], part.weight, part.confidence, part.use_count, part.kind)


def _joined(one: EdgeList, other: EdgeList) -> EdgeList:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    both = EdgeList(*(np.concatenate(pair) for pair in pairs))
    return both.take(strongest_of_each(both.keys, both.strength))


def diff_packs(a: MemoryPack, b: MemoryPack) -> Difference:
    """What differs between two packs of one dimension; the order of their concepts does not count.

    Raises AESGStorageError for different dimensions. O(N D + E log E).
    """
    if a.vector_dim != b.vector_dim:
        raise AESGStorageError(
            f"Pack vector_dim mismatch: '{a.name}' has {a.vector_dim}, '{b.name}' {b.vector_dim}"
        )
    first, second = a.columns, b.columns
    ids_a, ids_b = first.fields["id"], second.fields["id"]
    in_b = rows_of(ids_a, *first_of_each(ids_b))
    in_a = rows_of(ids_b, *first_of_each(ids_a))
    rows = np.flatnonzero(in_b >= 0)
    others = in_b[rows]
    moved = (first.vectors[rows] != second.vectors[others]).any(axis=1)
    changed = first.active[rows] != second.active[others]
    for name in FIELDS:
        changed |= first.fields[name][rows] != second.fields[name][others]
    # Edges of b in slots of a, where both ends are in a; all others are b's alone.
    mine, theirs = first.edges(), second.edges()
    moved_edges = _moved(theirs, in_a)
    _, left, right = np.intersect1d(mine.keys, moved_edges.keys, return_indices=True)
    same = (
        (mine.weight[left] == moved_edges.weight[right])
        & (mine.confidence[left] == moved_edges.confidence[right])
        & (mine.use_count[left] == moved_edges.use_count[right])
    )
    return Difference(
        ids_a[in_b < 0],
        ids_b[in_a < 0],
        ids_a[rows[moved]],
        ids_a[rows[changed & ~moved]],
        len(mine) - len(left),
        len(theirs) - len(right),
        int((~same).sum()),
    )
