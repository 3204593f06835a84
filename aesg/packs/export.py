"""From a memory's graph to a pack: which concepts go, and what the file says about them."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from aesg.exceptions import AESGMemoryError
from aesg.graph.core import SemanticGraph
from aesg.graph.forgetting import slots_of_ids
from aesg.packs import version1, version2
from aesg.packs.columns import FIELDS, EdgeList, PackColumns, make_columns
from aesg.packs.files import AESGPACK_MAGIC, AESGPACK_VERSION, RECORDS_VERSION, PathLike, write_atomically
from aesg.storage.nodes import BLOCK_EDGES, blocks, grouped


def export_pack(
    graph: SemanticGraph,
    path: PathLike,
    region_id: int | None = None,
    min_relevance: float | None = None,
    **options: Any,
) -> None:
    """Writes living concepts of a memory as a pack file; see `AESGMemory.export_pack`."""
    columns = select(graph, region_id, min_relevance, options.pop("ids", None))
    write_columns(columns, path, created_at=graph.state.now(), **options)


def write_columns(
    columns: PackColumns,
    path: PathLike,
    *,
    created_at: int,
    format_version: int = AESGPACK_VERSION,
    name: str | None = None,
    version: str | None = None,
    description: str | None = None,
    licence: str | None = None,
    embedding: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Writes columns as a pack file. What describes the pack needs version 2.

    Raises AESGMemoryError for arguments, AESGStorageError when writing fails; an older file then stays.
    """
    given = {
        "name": name,
        "version": version,
        "description": description,
        "licence": licence,
        "embedding": embedding,
    }
    described: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if provenance is not None:
        described["provenance"] = dict(provenance)
    for key, value in given.items():
        if value is not None and not isinstance(value, str):
            raise AESGMemoryError(f"{key}: expected a string, got {value!r}")
    if name is not None:
        version2.check_name(name, "name")
    if format_version == version1.VERSION:
        if described:
            raise AESGMemoryError(
                f"{', '.join(described)}: expected format_version=2, version 1 has no place"
            )
        nodes, edges = version1.to_records(columns)
        pieces = version1.encode(columns.vector_dim, nodes, edges, AESGPACK_MAGIC)
    elif format_version == version2.VERSION:
        if not columns.active.all():
            columns = take(columns, np.flatnonzero(columns.active))
        metadata = {"version": RECORDS_VERSION, **described, "created_at": int(created_at)}
        metadata["edge_statistics"] = edge_statistics(columns)
        try:
            pieces = version2.encode(columns, metadata, AESGPACK_MAGIC)
        except (TypeError, ValueError) as error:
            raise AESGMemoryError(f"provenance: expected JSON values, got {error}") from error
    else:
        raise AESGMemoryError(f"format_version: expected 1 or 2, got {format_version!r}")
    write_atomically(path, pieces)


def select(
    graph: SemanticGraph,
    region_id: int | None = None,
    min_relevance: float | None = None,
    ids: Sequence[int] | np.ndarray | torch.Tensor | None = None,
) -> PackColumns:
    """Columns of the living concepts that meet every condition given, and of the edges among them.

    Raises AESGMemoryError for ids that no living concept has and for what is no number. O(N + n D + E).
    """
    if region_id is not None and not isinstance(region_id, numbers.Integral):
        raise AESGMemoryError(f"region_id: expected an integer, got {region_id!r}")
    if min_relevance is not None and not (isinstance(min_relevance, numbers.Real) and min_relevance >= 0):
        raise AESGMemoryError(f"min_relevance: expected a number >= 0, got {min_relevance!r}")
    storage = graph.storage
    storage.settle()
    count = storage.core.node_count
    keep = grouped(storage, "is_active").reshape(-1)[:count] != 0
    if region_id is not None:
        keep &= grouped(storage, "region_id").reshape(-1)[:count] == region_id
    if min_relevance is not None:
        keep &= grouped(storage, "relevance").reshape(-1)[:count] >= min_relevance
    if ids is not None:
        slots, unknown = slots_of_ids(graph, np.unique(np.asarray(ids, dtype=np.int64).reshape(-1)))
        if len(unknown):
            raise AESGMemoryError(f"export_pack: no living concept has id {int(unknown[0])}")
        wanted = np.zeros(count, dtype=bool)
        wanted[slots] = True
        keep &= wanted
    slots = np.flatnonzero(keep)
    vectors = graph.gather(torch.from_numpy(slots)).numpy()
    fields = {name: grouped(storage, name).reshape(-1)[slots] for name in FIELDS}
    renumbered = np.full(max(count, 1), -1, dtype=np.int64)
    renumbered[slots] = np.arange(len(slots))
    edges = edge_list(graph, renumbered)
    return make_columns(vectors, fields, np.ones(len(slots), np.uint8), edges)


def edge_list(graph: SemanticGraph, renumbered: np.ndarray) -> EdgeList:
    """The edges of a memory between slots with a new number (i64 [N], -1: none), in new numbers. O(E)."""
    return placed_edges(graph, renumbered)[0]


def placed_edges(
    graph: SemanticGraph, renumbered: np.ndarray
) -> tuple[EdgeList, tuple[np.ndarray, np.ndarray]]:
    """`edge_list`, and where each edge lies: (block i64 [E], place in it i64 [E])."""
    hot, cold = (part.reshape(-1) for part in blocks(graph.storage))
    used = graph.storage.core.counters.block_count
    hot, cold = hot[:used], cold[:used]
    used_places = np.arange(BLOCK_EDGES) < hot["count"][:, None]
    block, place = np.nonzero(used_places & (cold["source"] >= 0)[:, None])
    target = renumbered[hot["target"][block, place]]
    source = renumbered[cold["source"][block]]
    both = np.flatnonzero((source >= 0) & (target >= 0))
    at = (block[both], place[both])
    edges = EdgeList(
        source[both],
        target[both],
        cold["weight"][at],
        cold["confidence"][at],
        cold["use_count"][at],
        cold["tag"][at] & np.uint8(3),
    )
    return edges, at


def take(columns: PackColumns, rows: np.ndarray) -> PackColumns:
    """Some concepts of a pack (ascending rows i64) and the edges among them."""
    renumbered = np.full(max(len(columns), 1), -1, dtype=np.int64)
    renumbered[rows] = np.arange(len(rows))
    edges = columns.edges()
    source, target = renumbered[edges.source], renumbered[edges.target]
    both = np.flatnonzero((source >= 0) & (target >= 0))
    kept = edges.take(both)
    moved = EdgeList(source[both], target[both], kept.weight, kept.confidence, kept.use_count, kept.kind)
    fields = {name: values[rows] for name, values in columns.fields.items()}
    return make_columns(columns.vectors[rows], fields, columns.active[rows], moved)


def edge_statistics(columns: PackColumns) -> dict[str, Any]:
    """What a version-2 file tells about its edges."""
    edges = columns.edges()
    return {
        "edges": len(edges),
        "by_kind": np.bincount(edges.kind, minlength=3).tolist(),
        "largest_degree": int(columns.degree.max(initial=0)),
        "mean_degree": round(len(edges) / max(1, len(columns)), 3),
        "mean_strength": round(float(edges.strength.mean(dtype=np.float64)), 6) if len(edges) else 0.0,
    }
