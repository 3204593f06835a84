"""Version 2 of .aesgpack: ready columns that are mapped and searched where they lie. docs/pack_format.md.

    0    magic "AESGPACK"    8    version u32 = 2      12   vector_dim u32     16   JSON bytes u32
    20   reserved u32 = 0    24   node_count u64       32   edge_count u64     40   block_count u64
    48   file bytes u64      56   SHA-256 of 128..EOF  88   SHA-256 of 0..87   120  reserved, 8 zeros
    128  JSON with spaces up to 64 bytes, then the sections of SECTIONS, each padded with zeros to 64 bytes

The header is big-endian as in version 1, everything behind it little-endian.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any, NamedTuple

import numpy as np

from aesg.exceptions import AESGStorageError
from aesg.packs.columns import (
    FIELDS,
    MAX_SLOTS,
    MAX_VECTOR_DIM,
    PackColumns,
    check_columns,
    require,
)
from aesg.storage.nodes import BLOCK_EDGES

HEADER = struct.Struct(">8sIIIIQQQQ32s32s8x")
VERSION = 2
MAX_JSON_BYTES = 1 << 20
MAX_NAME = 255
_ALIGN = 64
_HEADER_HASHED = 88  # bytes before the header's own checksum


BLOCK_SECTIONS: dict[str, np.dtype[Any]] = {
    "targets": np.dtype("<i4"),
    "strengths": np.dtype("<f4"),
    "weights": np.dtype("<f4"),
    "confidences": np.dtype("<f4"),
    "use_counts": np.dtype("<u4"),
    "kinds": np.dtype("|u1"),
}
SECTIONS: dict[str, np.dtype[Any]] = {
    "vectors": np.dtype("<f4"),
    **{name: np.dtype(dtype) for name, dtype in FIELDS.items()},
    "degree": np.dtype("<u4"),
    **BLOCK_SECTIONS,
}
Section = tuple[str, np.dtype, tuple[int, ...], int, int]  # name, dtype, shape, elements, offset
_SIZES = {name: dtype.itemsize for name, dtype in SECTIONS.items()}


class Content(NamedTuple):
    """What a version-2 file holds; the columns still lie in its buffer."""

    columns: PackColumns
    metadata: dict[str, Any]
    checksum: str  # SHA-256 of the header, which holds that of the rest; hex


def _padding(size: int) -> int:
    return -size % _ALIGN


def _layout(dim: int, nodes: int, blocks: int, start: int) -> tuple[list[Section], int]:
    """Every section in the order of the file, the first at `start`; and where the file ends.

    Python integers do not overflow.
    """
    found: list[Section] = []
    offset = start
    shapes: dict[str, tuple[int, ...]] = {"vectors": (nodes, dim)}
    shapes |= dict.fromkeys(BLOCK_SECTIONS, (blocks, BLOCK_EDGES))
    for name, dtype in SECTIONS.items():
        shape = shapes.get(name, (nodes,))
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        found.append((name, dtype, shape, count, offset))
        offset += count * _SIZES[name]
        offset += -offset % _ALIGN
    return found, offset


def parse(buffer: memoryview, where: str) -> Content:
    """Everything of a version-2 file, each thing checked before the next is looked at; nothing is copied.

    Raises AESGStorageError. REQUIRES magic and version checked.
    """
    require(len(buffer) >= HEADER.size, where, f"a header of {HEADER.size} bytes", f"{len(buffer)} bytes")
    _, _, dim, json_bytes, reserved, nodes, edges, blocks, size, body_sum, head_sum = HEADER.unpack_from(
        buffer
    )
    require(1 <= dim <= MAX_VECTOR_DIM, where, f"vector_dim 1..{MAX_VECTOR_DIM}", dim)
    fits = max(nodes, edges, blocks) <= MAX_SLOTS
    require(fits, where, f"at most {MAX_SLOTS} concepts, edges and blocks", (nodes, edges, blocks))
    good = json_bytes <= MAX_JSON_BYTES and json_bytes % _ALIGN == 0
    require(good, where, f"JSON of at most {MAX_JSON_BYTES} bytes, a multiple of {_ALIGN}", json_bytes)
    sections, needed = _layout(dim, nodes, blocks, HEADER.size + json_bytes)
    require(needed == size == len(buffer), where, f"{needed} bytes for its counts", (size, len(buffer)))
    zeros = reserved == 0 and _all_zero(buffer[HEADER.size - 8 : HEADER.size])
    require(zeros, where, "zeros in the reserved bytes of the header", "others")
    _check_sum(buffer[:_HEADER_HASHED], head_sum, where, "header")
    _check_sum(buffer[HEADER.size :], body_sum, where, "file")

    metadata = _metadata(bytes(buffer[HEADER.size : HEADER.size + json_bytes]), where)
    found: dict[str, np.ndarray] = {}
    for name, dtype, shape, count, offset in sections:
        found[name] = np.frombuffer(buffer, dtype, count, offset).reshape(shape)
        end = offset + found[name].nbytes
        zeros = _all_zero(buffer[end : end + _padding(end)])
        require(zeros, where, "zeros between the sections", "others")
    fields = {name: found.pop(name) for name in FIELDS}
    columns = PackColumns(fields=fields, active=np.ones(nodes, np.uint8), **found)
    require(columns.edge_count == edges, where, f"{edges} edges by the degrees", columns.edge_count)
    check_columns(columns, where)
    return Content(columns, metadata, head_sum.hex())


def _all_zero(few: memoryview) -> bool:
    return bytes(few).count(0) == len(few)


def _check_sum(part: memoryview, digest: bytes, where: str, what: str) -> None:
    if hashlib.sha256(part).digest() != digest:
        raise AESGStorageError(f"Checksum verification failed for {where}: {what} is corrupt")


def _metadata(text: bytes, where: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text.decode("utf-8")) if text else {}
    except (ValueError, RecursionError) as error:
        raise AESGStorageError(f"Pack {where}: expected JSON metadata, got {error}") from None
    require(isinstance(metadata, dict), where, "a JSON object as metadata", type(metadata).__name__)
    for key in ("name", "version", "description", "licence", "embedding"):
        value = metadata.get(key)
        require(value is None or isinstance(value, str), where, f"a string as {key}", type(value).__name__)
    if metadata.get("name") is not None:
        check_name(metadata["name"], where)
    return metadata


def check_name(name: str, where: str) -> None:
    """A name is shown and used as a key, never as a path. Raises AESGStorageError for one nobody can read."""
    good = isinstance(name, str) and 1 <= len(name) <= MAX_NAME and name.isprintable()
    require(good, where, f"a name of 1..{MAX_NAME} printable characters", f"{name!r:.42}")


def encode(columns: PackColumns, metadata: dict[str, Any], magic: bytes) -> list[bytes]:
    """The bytes of a version-2 file, in pieces. REQUIRES every concept alive."""
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * _padding(len(text))
    if len(text) > MAX_JSON_BYTES:
        raise AESGStorageError(f"Pack metadata: expected at most {MAX_JSON_BYTES} bytes, got {len(text)}")
    pieces, size = [text], HEADER.size + len(text)
    sections, _ = _layout(columns.vector_dim, len(columns), len(columns.targets), size)
    for name, dtype, shape, _, _ in sections:
        values = columns.fields[name] if name in FIELDS else getattr(columns, name)
        piece = np.ascontiguousarray(values, dtype=dtype).reshape(shape).tobytes()
        pieces.append(piece + bytes(_padding(size + len(piece))))
        size += len(pieces[-1])
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    counts = (len(columns), columns.edge_count, len(columns.targets))
    fixed = (magic, VERSION, columns.vector_dim, len(text), 0, *counts, size, digest.digest())
    head = HEADER.pack(*fixed, bytes(32))[:_HEADER_HASHED]
    return [head + hashlib.sha256(head).digest() + bytes(8), *pieces]
