"""The small state's container: round trip, and every way it can lie."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aesg import _core
from aesg.exceptions import AESGStorageError
from aesg.storage import AESGStorage
from aesg.storage.state_file import decode, encode

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint64, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
STATE = {
    "pool": np.arange(6, dtype=np.float32).reshape(2, 3),
    "clock": 7,
    "name": "größe",
    "empty": np.zeros((0, 4)),
}


@given(st.dictionaries(st.text(), json_values | arrays, max_size=4))
def test_round_trip(state):
    found = decode(encode(state))
    assert found.keys() == state.keys()
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype and found[name].shape == value.shape
            np.testing.assert_array_equal(found[name], value)
        else:
            assert found[name] == value


def test_same_state_same_bytes():
    assert encode(STATE) == encode(dict(STATE))


def test_through_the_storage(tmp_path):
    with AESGStorage(tmp_path / "m", 4) as storage:
        assert storage.read_state() == {}
        storage.write_state(STATE)
        assert storage.read_state()["clock"] == 7
    with AESGStorage(tmp_path / "m") as storage:
        assert (storage.read_state()["pool"] == STATE["pool"]).all()
        storage.write_state({"clock": 8})
        storage.commit()
        with AESGStorage(tmp_path / "m", read_only=True) as reader:
            assert reader.read_state() == {"clock": 8}


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"bytes", np.array([object()]), np.array(["text"]), np.zeros(2, "M8[s]")]
)
def test_what_cannot_be_kept_is_refused(value):
    with pytest.raises(AESGStorageError, match="expected"):
        encode({"x": value})


def test_every_changed_bit_is_found():
    data = encode(STATE)
    for i in range(len(data) * 8):
        broken = bytearray(data)
        broken[i // 8] ^= 1 << i % 8
        with pytest.raises(AESGStorageError):
            decode(bytes(broken))


def test_every_truncation_is_found():
    data = encode(STATE)
    for n in range(1, len(data)):
        with pytest.raises(AESGStorageError):
            decode(data[:n])
    with pytest.raises(AESGStorageError):
        decode(data + b"\0")


def forged(header: object, body: bytes = bytes(64)) -> bytes:
    """A container whose checksums hold, around a header that lies."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    head = struct.pack("<8sIIQI", b"AESGBLOB", 1, len(text), len(body), _core.crc32c(text + body))
    return head + struct.pack("<I", _core.crc32c(head)) + text + body


LIES = {
    "dtype": ["|O", "<f16", ["<f4"], None],
    "shape": [[17], [-1], [2**62, 4], [0, 2**62], "4", [1.0], [True], [1] * 40, None],
    "offset": [64, 1, -64, 2**70, None],
}


@pytest.mark.parametrize("entry", [{field: lie} for field, lies in LIES.items() for lie in lies])
def test_lying_headers_with_sound_checksums(entry):
    good = {"name": "x", "dtype": "<f4", "shape": [16], "offset": 0}
    assert decode(forged({"arrays": [good], "values": {}}))["x"].shape == (16,)
    with pytest.raises(AESGStorageError):
        decode(forged({"arrays": [good | entry], "values": {}}))


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b"7", b"{}", b'{"arrays": 5, "values": {}}', b"[" * 100_000, b"\xff\xfe"]
)
def test_headers_that_are_no_headers(header):
    with pytest.raises(AESGStorageError):
        decode(forged(header))


def test_newer_versions_are_refused():
    data = bytearray(encode({}))
    data[8] = 2
    data[28:32] = struct.pack("<I", _core.crc32c(bytes(data[:28])))
    with pytest.raises(AESGStorageError, match="version 2 is newer"):
        decode(bytes(data))
