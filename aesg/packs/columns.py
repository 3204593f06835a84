"""PackColumns: concepts and edges of a pack in the columns that the ops read. Never changed once made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aesg.exceptions import AESGStorageError
from aesg.storage.nodes import BLOCK_EDGES

MAX_SLOTS = 2**31 - 1  # the ops address slots and blocks by i32
MAX_DEGREE = 1 << 16  # edges of one concept: beyond, a pack could make every query slow
MAX_VECTOR_DIM = 8192
MAX_VALUE = 1e30  # of a vector: above it a dot product can overflow, and infinity would win every search
_PIECE = 1 << 14
EDGE_KINDS = 3  # similarity, succession, abstraction

# Fields of a concept beside its vector, in the order of version 2.
FIELDS: dict[str, str] = {
    "id": "<u8",
    "created_at": "<u8",
    "modified_at": "<u8",
    "use_frequency": "<u4",
    "relevance": "<f4",
    "age": "<u4",
    "stability": "<f4",
    "region_id": "<u4",
}


@dataclass(frozen=True)
class EdgeList:
    """Edges one after another, ordered by source: slots i64, weight and confidence f32, all [E]."""

    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    confidence: np.ndarray
    use_count: np.ndarray  # u32
    kind: np.ndarray  # u8, see EDGE_KINDS

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: np.ndarray) -> EdgeList:
        return EdgeList(*(column[rows] for column in vars(self).values()))

    @property
    def strength(self) -> np.ndarray:
        return self.weight * self.confidence

    @property
    def keys(self) -> np.ndarray:
        """One u64 for each (source, target, kind). Slots have 31 bits, kinds 2."""
        source, target = self.source.astype(np.uint64), self.target.astype(np.uint64)
        return (source << np.uint64(33)) | (target << np.uint64(2)) | self.kind.astype(np.uint64)


@dataclass(frozen=True)
class PackColumns:
    """N concepts in D dimensions and their edges in M blocks of 7, chains in the order of the concepts."""

    vectors: np.ndarray  # f32 [N, D], finite
    fields: dict[str, np.ndarray]  # FIELDS, each [N]
    active: np.ndarray  # u8 [N]
    degree: np.ndarray  # u32 [N]
    targets: np.ndarray  # i32 [M, 7], -1: empty; filled from the front
    strengths: np.ndarray  # f32 [M, 7], weight * confidence
    weights: np.ndarray  # f32 [M, 7]
    confidences: np.ndarray  # f32 [M, 7]
    use_counts: np.ndarray  # u32 [M, 7]
    kinds: np.ndarray  # u8 [M, 7]

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def vector_dim(self) -> int:
        return self.vectors.shape[1]

    @property
    def edge_count(self) -> int:
        return int(self.degree.sum(dtype=np.int64))

    @cached_property
    def inv_norm(self) -> np.ndarray:
        """1 / |vector| f32 [N], 0 for a zero vector. Computed here: a file could lie about it."""
        norms = np.sqrt(np.einsum("nd,nd->n", self.vectors, self.vectors, dtype=np.float64))
        tiny = np.finfo(np.float32).tiny  # below it 1 / norm leaves f32
        return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms >= tiny).astype(np.float32)

    @cached_property
    def block_counts(self) -> np.ndarray:
        return -(-self.degree.astype(np.int64) // BLOCK_EDGES)  # [N]

    @cached_property
    def first_block(self) -> np.ndarray:
        """First block of each concept, i32 [N], -1: none."""
        ends = np.cumsum(self.block_counts)
        return np.where(self.degree > 0, ends - self.block_counts, -1).astype(np.int32)

    @cached_property
    def next_block(self) -> np.ndarray:
        """The block after each, i32 [M], -1: the chain ends."""
        following = np.arange(1, len(self.targets) + 1, dtype=np.int32)
        following[np.cumsum(self.block_counts)[self.degree > 0] - 1] = -1
        return following

    @cached_property
    def sources(self) -> np.ndarray:
        """The concept whose block it is, i64 [M]."""
        return np.repeat(np.arange(len(self)), self.block_counts)

    @property
    def filled(self) -> np.ndarray:
        """Where a block must hold an edge, bool [M, 7]."""
        starts = self.first_block[self.sources]
        before = (np.arange(len(self.sources)) - starts) * BLOCK_EDGES
        return before[:, None] + np.arange(BLOCK_EDGES) < self.degree.astype(np.int64)[self.sources][:, None]

    def edges(self) -> EdgeList:
        """All edges, by source. O(E)."""
        return self.edges_at(self.filled)

    def edges_at(self, places: np.ndarray) -> EdgeList:
        """The edges in some places, bool [M, 7] as `filled`, by source."""
        at = np.nonzero(places)
        block = at[0]
        return EdgeList(
            self.sources[block],
            self.targets[at].astype(np.int64),
            self.weights[at],
            self.confidences[at],
            self.use_counts[at],
            self.kinds[at],
        )


def make_columns(
    vectors: np.ndarray, fields: dict[str, np.ndarray], active: np.ndarray, edges: EdgeList
) -> PackColumns:
    """Columns of concepts (vectors [N, D], fields and active [N]) and edges between slots 0..N-1. O(N D + E).

    The edges keep their order within a source. REQUIRES what `check_columns` finds right.
    """
    n, order = len(vectors), np.argsort(edges.source, kind="stable")
    edges = edges.take(order)
    degree = np.bincount(edges.source, minlength=n).astype(np.uint32)
    blocks = -(-degree.astype(np.int64) // BLOCK_EDGES)
    first = np.cumsum(blocks) - blocks
    rank = np.arange(len(edges)) - (np.cumsum(degree, dtype=np.int64) - degree)[edges.source]
    at = (first[edges.source] + rank // BLOCK_EDGES, rank % BLOCK_EDGES)

    def block_column(values: np.ndarray, dtype: str, empty: int = 0) -> np.ndarray:
        column = np.full((int(blocks.sum()), BLOCK_EDGES), empty, dtype=dtype)
        column[at] = values
        return column

    return PackColumns(
        vectors=np.ascontiguousarray(vectors, dtype=np.float32),
        fields={name: np.ascontiguousarray(fields[name], dtype=dtype) for name, dtype in FIELDS.items()},
        active=np.ascontiguousarray(active, dtype=np.uint8),
        degree=degree,
        targets=block_column(edges.target, "<i4", -1),
        strengths=block_column(edges.strength, "<f4"),
        weights=block_column(edges.weight, "<f4"),
        confidences=block_column(edges.confidence, "<f4"),
        use_counts=block_column(edges.use_count, "<u4"),
        kinds=block_column(edges.kind, "|u1"),
    )


def require(good: bool, where: str, expected: str, given: object) -> None:
    """Raises AESGStorageError "Pack WHERE: expected ..., got ..." unless `good`."""
    if not good:
        raise AESGStorageError(f"Pack {where}: expected {expected}, got {given}")


def check_vectors(vectors: np.ndarray, where: str) -> None:
    """Raises AESGStorageError unless every value is finite and at most MAX_VALUE."""
    for start in range(0, len(vectors), _PIECE):  # piecewise: the mask stays small
        good = (np.abs(vectors[start : start + _PIECE]) <= MAX_VALUE).all(axis=1)  # False for NaN
        if not good.all():
            row = start + int(np.argmin(good))
            require(False, where, f"vectors of finite values up to {MAX_VALUE:g}", f"others in concept {row}")


def check_columns(columns: PackColumns, where: str) -> None:
    """The meaning of a version-2 pack, after its sizes and checksums. Raises AESGStorageError. O(N D + E)."""
    n, blocks = len(columns), len(columns.targets)
    largest = int(columns.degree.max(initial=0))
    require(largest <= MAX_DEGREE, where, f"at most {MAX_DEGREE} edges a concept", largest)
    needed = int(columns.block_counts.sum())
    require(needed == blocks, where, f"{blocks} edge blocks for the degrees", needed)
    check_vectors(columns.vectors, where)
    for name in ("relevance", "stability"):
        values = columns.fields[name]
        good = np.isfinite(values) & (values >= 0)
        require(bool(good.all()), where, f"{name} finite and >= 0", values[~good][:1])
    require(_distinct(columns.fields["id"]), where, "distinct ids", "one twice")
    filled, targets = columns.filled, columns.targets
    in_range = (targets >= 0) & (targets < n)
    require(bool(in_range[filled].all()), where, f"targets in 0..{n - 1}", "others")
    for name in ("weights", "confidences"):
        values = getattr(columns, name)
        require(bool(((values >= 0) & (values <= 1)).all()), where, f"{name} in [0, 1]", "others")
    require(
        bool((columns.strengths == columns.weights * columns.confidences).all()),
        where,
        "strength = weight * confidence",
        "others",
    )
    require(bool((columns.kinds < EDGE_KINDS).all()), where, "edge kinds 0..2", "others")
    empty = ~filled
    rest = (columns.weights, columns.confidences, columns.use_counts, columns.kinds)
    tidy = bool((targets[empty] == -1).all()) and not any(values[empty].any() for values in rest)
    require(tidy, where, "empty places to hold target -1 and zeros", "others")
    edges = columns.edges_at(filled)
    require(bool((edges.source != edges.target).all()), where, "edges between two concepts", "a loop")
    require(_distinct(edges.keys), where, "one edge of a kind a pair", "more")


def _distinct(values: np.ndarray) -> bool:
    # By sorting: np.unique hashes, and a stranger could choose values that collide.
    ordered = np.sort(values)
    return not bool((ordered[1:] == ordered[:-1]).any())
