"""The container of the small state: named arrays and JSON values in one checked run of bytes.

    0   magic "AESGBLOB"
    8   version u32
    12  bytes of the JSON u32
    16  bytes of the body u64
    24  CRC-32C u32 of everything from byte 32 on
    28  CRC-32C u32 of bytes 0..27
    32  JSON {"arrays": [{"name", "dtype", "shape", "offset"}, ...], "values": {...}}, filled up with spaces
        so that the body begins at a multiple of 64
    ..  the body: raw little-endian arrays, each at a multiple of 64 (offsets from the start of the body)

No pickle: an array is its bytes, anything else is JSON. Nothing is believed before its checksum and lengths
were checked.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from aesg import _core
from aesg.exceptions import AESGStorageError

_MAGIC = b"AESGBLOB"
_VERSION = 1
_HEAD = struct.Struct("<8sIIQII")
_ALIGN = 64
_DTYPES = frozenset(
    ["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"]
)  # what an array may be: no objects, no strings, no structures


def encode(state: Mapping[str, Any]) -> bytes:
    """State as bytes, the same for the same state. Raises AESGStorageError for what cannot be kept."""
    arrays: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    chunks: list[bytes] = []
    offset = 0
    for name, value in state.items():
        if not isinstance(name, str):
            raise AESGStorageError(f"state: expected names that are strings, got {name!r}")
        if not isinstance(value, np.ndarray):
            values[name] = value
            continue
        array = np.asarray(value, order="C")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in _DTYPES:
            raise AESGStorageError(f"state[{name!r}]: expected numbers or bools, got dtype {value.dtype}")
        arrays.append({"name": name, "dtype": array.dtype.str, "shape": list(array.shape), "offset": offset})
        padding = -array.nbytes % _ALIGN
        chunks.append(array.tobytes() + bytes(padding))
        offset += array.nbytes + padding
    try:
        text = json.dumps({"arrays": arrays, "values": values}, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise AESGStorageError(f"state: expected arrays and JSON values, got {error}") from error
    text += b" " * (-(_HEAD.size + len(text)) % _ALIGN)
    rest = text + b"".join(chunks)
    head = _HEAD.pack(_MAGIC, _VERSION, len(text), offset, _core.crc32c(rest), 0)[:-4]
    return head + struct.pack("<I", _core.crc32c(head)) + rest


def decode(data: bytes) -> dict[str, Any]:
    """What `encode` was given; arrays are copies. Empty bytes are an empty state.

    Raises AESGStorageError: not such a container, newer, damaged, or lengths that do not fit. Allocates no
    more than the size of `data`.
    """
    if not data:
        return {}
    if len(data) < _HEAD.size or data[:8] != _MAGIC:
        raise AESGStorageError("state.aesg: expected a state container, got something else")
    _, version, text_bytes, body_bytes, crc, head_crc = _HEAD.unpack_from(data)
    if head_crc != _core.crc32c(data[: _HEAD.size - 4]):
        raise AESGStorageError("state.aesg: the header is damaged (its checksum is wrong)")
    if version != _VERSION:
        raise AESGStorageError(
            f"state.aesg: version {version} is newer than the {_VERSION} this library knows"
        )
    if len(data) != _HEAD.size + text_bytes + body_bytes:
        raise AESGStorageError(
            f"state.aesg: expected {_HEAD.size + text_bytes + body_bytes} bytes, got {len(data)}"
        )
    if crc != _core.crc32c(data[_HEAD.size :]):
        raise AESGStorageError("state.aesg is damaged (its checksum is wrong)")
    body = memoryview(data)[_HEAD.size + text_bytes :]
    try:
        header = json.loads(data[_HEAD.size : _HEAD.size + text_bytes])
        state: dict[str, Any] = dict(header["values"])
        for entry in header["arrays"]:
            state[str(entry["name"])] = _array(entry, body)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise AESGStorageError(f"state.aesg: the header is not what it should be: {error!r}") from error
    return state


def _array(entry: Mapping[str, Any], body: memoryview) -> np.ndarray:
    dtype, shape, offset = entry["dtype"], entry["shape"], entry["offset"]
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}")
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in [*shape, offset]):
        raise ValueError(f"shape {shape!r} at {offset!r}")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if offset % _ALIGN or offset + size > len(body) or len(shape) > 32 or max(shape, default=0) >= 2**31:
        raise ValueError(f"shape {shape!r} at {offset!r} in a body of {len(body)} bytes")
    return np.frombuffer(body[offset : offset + size], dtype=dtype).reshape(shape).copy()
