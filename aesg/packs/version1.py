"""Version 1 of .aesgpack, byte for byte that of aesg 3.0.0: a header and two tables of records.

docs/pack_format.md tells the format; what its files may get wrong and still be read is told here.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import numpy as np

from aesg.exceptions import AESGStorageError
from aesg.packs.columns import (
    FIELDS,
    MAX_DEGREE,
    MAX_SLOTS,
    MAX_VECTOR_DIM,
    EdgeList,
    PackColumns,
    check_vectors,
    make_columns,
    require,
)
from aesg.storage.nodes import node_dtype
from aesg.storage.v3_records import EDGE_RECORD, first_of_each, rows_of, strongest_of_each

HEADER = struct.Struct(
    ">8sIIII32s"
)  # magic, version, vector_dim, node_count, edge_count, SHA-256 of the rest
VERSION = 1


class Records(NamedTuple):
    """The two tables of a file, still lying in its buffer."""

    vector_dim: int
    nodes: np.ndarray  # node_dtype(D) [N]
    edges: np.ndarray  # EDGE_RECORD [E]
    checksum: str  # SHA-256 of both, hex


def parse(buffer: memoryview, where: str) -> Records:
    """The tables of a version-1 file, after size and checksum were found right; nothing is copied.

    Raises AESGStorageError. The header itself has no checksum: a wrong count shows in the size.
    """
    _, _, dim, nodes, edges, digest = HEADER.unpack_from(buffer)
    require(1 <= dim <= MAX_VECTOR_DIM, where, f"vector_dim 1..{MAX_VECTOR_DIM}", dim)
    require(nodes <= MAX_SLOTS and edges <= MAX_SLOTS, where, f"at most {MAX_SLOTS} records", (nodes, edges))
    node = node_dtype(dim)
    middle = HEADER.size + nodes * node.itemsize
    size = middle + edges * EDGE_RECORD.itemsize
    require(size == len(buffer), where, f"{size} bytes for {nodes} concepts and {edges} edges", len(buffer))
    given = hashlib.sha256(buffer[HEADER.size :]).digest()
    if given != digest:
        raise AESGStorageError(f"Checksum verification failed for {where}: file is corrupt")
    return Records(
        dim,
        np.frombuffer(buffer, node, nodes, HEADER.size),
        np.frombuffer(buffer, EDGE_RECORD, edges, middle),
        given.hex(),
    )


def to_columns(nodes: np.ndarray, edges: np.ndarray, where: str) -> tuple[PackColumns, list[str]]:
    """Columns of the two tables, and a line for each kind of thing that had to be left out or mended.

    Adjacency is built from the ids; head_edge_idx and next_edge_idx are not read: 3.0.0 copies them from
    the memory a pack came from, where they mean something else. Left out: edges with an end that is not
    there, from a concept to itself, with a weight that is no number, and of edges of one pair all but the
    strongest. Weights and confidences are clamped to [0, 1]; relevance and stability that are no number or
    negative become 0. Of concepts with one id the first owns the edges.

    Raises AESGStorageError for vectors that are not finite and concepts of more than 65536 edges.
    """
    findings: list[str] = []

    def report(count: int, what: str) -> None:
        if count:
            findings.append(f"{count} {what}")

    vectors = np.array(
        nodes["vector"], dtype=np.float32, order="C"
    )  # records are packed: one alone is unaligned
    check_vectors(vectors, where)
    fields = {name: np.array(nodes[name], dtype=dtype) for name, dtype in FIELDS.items()}
    for name in ("relevance", "stability"):
        bad = ~(np.isfinite(fields[name]) & (fields[name] >= 0))
        report(int(bad.sum()), f"concepts with a {name} that is no number or negative (read as 0)")
        fields[name][bad] = 0.0

    distinct, first = first_of_each(fields["id"])
    report(len(nodes) - len(distinct), "concepts with the id of an earlier one (their edges are the first's)")
    source = rows_of(edges["source_id"], distinct, first)
    target = rows_of(edges["target_id"], distinct, first)
    weight, confidence = (np.array(edges[name], dtype=np.float32) for name in ("weight", "confidence"))
    dangling = (source < 0) | (target < 0)
    report(int(dangling.sum()), "dangling edges (an end is not in the pack; left out)")
    loops = ~dangling & (source == target)
    report(int(loops.sum()), "edges from a concept to itself (left out)")
    unclear = ~dangling & ~loops & (np.isnan(weight) | np.isnan(confidence))
    report(int(unclear.sum()), "edges with a weight or confidence that is no number (left out)")
    kept = np.flatnonzero(~(dangling | loops | unclear))
    clamped_weight, clamped_confidence = np.clip(weight[kept], 0, 1), np.clip(confidence[kept], 0, 1)
    outside = (clamped_weight != weight[kept]) | (clamped_confidence != confidence[kept])
    report(int(outside.sum()), "edges with a weight or confidence outside [0, 1] (clamped)")
    found = EdgeList(
        source[kept],
        target[kept],
        clamped_weight,
        clamped_confidence,
        np.array(edges["use_count"], dtype=np.uint32)[kept],
        np.zeros(len(kept), dtype=np.uint8),
    )
    rows = strongest_of_each(found.keys, found.strength)
    report(len(found) - len(rows), "edges of a pair that has a stronger one (left out)")
    found = found.take(rows)
    largest = int(np.bincount(found.source, minlength=1).max())
    require(largest <= MAX_DEGREE, where, f"at most {MAX_DEGREE} edges a concept", largest)
    return make_columns(vectors, fields, nodes["is_active"] != 0, found), findings


def to_records(columns: PackColumns) -> tuple[np.ndarray, np.ndarray]:
    """The two tables of the concepts and edges; the indices into the edge table are those of this table.

    Version 1 knows no kinds: of edges of one pair only the strongest is written.
    """
    edges = columns.edges()
    pairs = edges.keys >> np.uint64(2)
    edges = edges.take(strongest_of_each(pairs, edges.strength))
    count = len(edges)
    ids = columns.fields["id"]
    nodes = np.zeros(len(columns), node_dtype(columns.vector_dim))
    nodes["vector"] = columns.vectors
    for name, values in columns.fields.items():
        nodes[name] = values
    nodes["is_active"] = columns.active
    nodes["head_edge_idx"] = -1
    starts = np.flatnonzero(np.diff(edges.source, prepend=-1))
    nodes["head_edge_idx"][edges.source[starts]] = starts
    records = np.zeros(count, EDGE_RECORD)
    records["source_id"], records["target_id"] = ids[edges.source], ids[edges.target]
    for name in ("weight", "confidence", "use_count"):
        records[name] = getattr(edges, name)
    following = np.arange(1, count + 1)
    following[np.append(starts[1:], count)[: len(starts)] - 1] = -1
    records["next_edge_idx"] = following
    return nodes, records


def encode(vector_dim: int, nodes: np.ndarray, edges: np.ndarray, magic: bytes) -> list[bytes]:
    """The bytes of a version-1 file, in pieces."""
    tables = [nodes.astype(node_dtype(vector_dim)).tobytes(), edges.astype(EDGE_RECORD).tobytes()]
    digest = hashlib.sha256()
    for table in tables:
        digest.update(table)
    header = HEADER.pack(magic, VERSION, vector_dim, len(nodes), len(edges), digest.digest())
    return [header, *tables]
