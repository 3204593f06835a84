"""What the tests of packs share: small packs with every field set, and their bytes."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np

from aesg.packs import AESGPACK_MAGIC, MemoryPack, parse_pack
from aesg.packs.columns import FIELDS, EdgeList, PackColumns, make_columns
from aesg.packs.version1 import encode as encode1
from aesg.packs.version1 import to_records
from aesg.packs.version2 import HEADER as HEADER2
from aesg.packs.version2 import encode as encode2

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "aesg-3.0.0"


def some_columns(n: int = 12, dim: int = 4, degree: int = 9, seed: int = 0) -> PackColumns:
    """n concepts, each with up to `degree` edges of all kinds (so that chains have several blocks)."""
    random = np.random.default_rng(seed)
    pairs = {(i, (i + step) % n, k) for i in range(n) for step in range(1, degree // 3 + 1) for k in range(3)}
    wanted = sorted(pair for pair in pairs if pair[0] != pair[1])
    source, target, kind = (np.array([pair[i] for pair in wanted], dtype=np.int64) for i in range(3))
    edges = EdgeList(
        source,
        target,
        random.uniform(0.5, 1, len(source)).astype(np.float32),
        random.uniform(0.5, 1, len(source)).astype(np.float32),
        random.integers(0, 99, len(source)).astype(np.uint32),
        kind.astype(np.uint8),
    )
    fields = {
        name: random.uniform(0, 1, n).astype(dtype)
        if dtype == "<f4"
        else random.integers(0, 99, n).astype(dtype)
        for name, dtype in FIELDS.items()
    }
    fields["id"] = np.arange(1, n + 1, dtype=np.uint64) * 7
    vectors = random.standard_normal((n, dim)).astype(np.float32)
    return make_columns(vectors, fields, np.ones(n, np.uint8), edges)


def bytes_of(columns: PackColumns, version: int, **metadata: object) -> bytes:
    if version == 1:
        nodes, edges = to_records(columns)
        return b"".join(encode1(columns.vector_dim, nodes, edges, AESGPACK_MAGIC))
    return b"".join(encode2(columns, dict(metadata), AESGPACK_MAGIC))


def sealed(data: bytes | bytearray) -> bytes:
    """The same bytes with the checksums made right, so that a lie reaches the checks behind them."""
    data = bytearray(data)
    if len(data) < 56:
        return bytes(data)
    if data[8:12] == b"\0\0\0\2" and len(data) >= HEADER2.size:
        data[56:88] = hashlib.sha256(data[HEADER2.size :]).digest()
        data[88:120] = hashlib.sha256(data[:88]).digest()
    else:
        data[24:56] = hashlib.sha256(data[56:]).digest()
    return bytes(data)


def parse(data: bytes) -> MemoryPack:
    return parse_pack(memoryview(data), "'test'", "test")


def golden_v1() -> bytes:
    """A version-1 file written from the description of the format alone, without the code under test."""
    nodes = [
        (10, (1.0, 0.0), 1_700_000_000, 1_700_000_001, 3, 0.5, 4, 0.25, 2, 1, 0),
        (20, (0.0, 2.0), 1_700_000_002, 1_700_000_003, 5, 1.0, 6, 0.75, 0, 1, 2),
        (30, (-1.0, 1.0), 1_700_000_004, 1_700_000_005, 7, 0.125, 8, 0.5, 1, 1, -1),
    ]
    edges = [(10, 20, 0.5, 0.25, 9, 1), (10, 30, 1.0, 0.5, 0, -1), (20, 10, 0.75, 1.0, 2, -1)]
    body = b"".join(struct.pack("<Q2fQQIfIfIBq", n[0], *n[1], *n[2:]) for n in nodes)
    body += b"".join(struct.pack("<QQffIq", *edge) for edge in edges)
    return struct.pack(">8sIIII32s", b"AESGPACK", 1, 2, 3, 3, hashlib.sha256(body).digest()) + body
