"""Version 2: described, checked as a whole, mapped."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.packs import read_pack
from aesg.packs.columns import FIELDS, MAX_DEGREE
from aesg.packs.export import write_columns
from aesg.packs.version2 import HEADER
from tests.packs.packmaker import bytes_of, parse, sealed, some_columns

SECTIONS = [
    "vectors",
    *FIELDS,
    "degree",
    "targets",
    "strengths",
    "weights",
    "confidences",
    "use_counts",
    "kinds",
]


def section_starts(data: bytes) -> dict[str, int]:
    """Where each section begins, by the words of docs/pack_format.md."""
    _, _, dim, json_bytes, _, nodes, _, blocks, *_ = HEADER.unpack_from(data)
    sizes = [4 * dim * nodes, *(np.dtype(t).itemsize * nodes for t in FIELDS.values()), 4 * nodes]
    sizes += [28 * blocks] * 5 + [7 * blocks]
    offset, starts = 128 + json_bytes, {}
    for name, size in zip(SECTIONS, sizes, strict=True):
        starts[name] = offset
        offset += -(-size // 64) * 64
    assert offset == len(data)
    return starts


def test_round_trip_keeps_every_column(tmp_path: Path) -> None:
    columns = some_columns()
    write_columns(
        columns,
        tmp_path / "x.aesgpack",
        created_at=1_700_000_000,
        format_version=2,
        name="medicine, core",
        version="2.1",
        description="what it knows",
        licence="CC0",
        embedding="sha256:ab",
        provenance={"from": ["a", "b"]},
    )
    pack = read_pack(tmp_path / "x.aesgpack")
    assert (pack.name, pack.version, pack.format_version) == ("medicine, core", "2.1", 2)
    assert pack.metadata["provenance"] == {"from": ["a", "b"]} and pack.metadata["licence"] == "CC0"
    assert pack.metadata["created_at"] == 1_700_000_000
    assert pack.metadata["edge_statistics"]["edges"] == columns.edge_count
    for name in SECTIONS:
        want = columns.fields[name] if name in FIELDS else getattr(columns, name)
        got = pack.columns.fields[name] if name in FIELDS else getattr(pack.columns, name)
        np.testing.assert_array_equal(want, got)
        assert got.dtype == want.dtype
    assert read_pack(tmp_path / "x.aesgpack", name="other").name == "other"


def test_columns_are_the_mapped_file(tmp_path: Path) -> None:
    """The large columns are views of one mapping, aligned, and nothing of them is copied."""
    (tmp_path / "x.aesgpack").write_bytes(bytes_of(some_columns(), 2))
    pack = read_pack(tmp_path / "x.aesgpack")
    for name in ("vectors", "targets", "strengths"):
        column, tensor = getattr(pack.columns, name), getattr(pack.tensors, name)
        base = column
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        assert isinstance(base, memoryview)
        assert tensor.data_ptr() == column.ctypes.data and tensor.data_ptr() % 64 == 0


def test_writing_to_a_mapped_pack_never_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.aesgpack"
    path.write_bytes(bytes_of(some_columns(), 2))
    before = path.read_bytes()
    read_pack(path).tensors.vectors.zero_()
    assert path.read_bytes() == before


def test_the_header_is_the_documented_one() -> None:
    columns = some_columns()
    data = bytes_of(columns, 2, name="n")
    head = struct.unpack_from(">8sIIIIQQQQ", data)
    json_bytes = head[3]
    assert head[:3] == (b"AESGPACK", 2, 4) and head[4] == 0
    assert head[5:] == (len(columns), columns.edge_count, len(columns.targets), len(data))
    assert json.loads(data[128 : 128 + json_bytes]) == {"name": "n"} and json_bytes % 64 == 0
    starts = section_starts(data)
    assert np.frombuffer(data, "<f4", 48, starts["vectors"]).tolist() == columns.vectors.reshape(-1).tolist()
    assert np.frombuffer(data, "<u8", 12, starts["id"]).tolist() == columns.fields["id"].tolist()


def lie(section: str, dtype: str, position: int, value: float) -> bytes:
    data = bytearray(bytes_of(some_columns(), 2))
    place = section_starts(bytes(data))[section] + position * np.dtype(dtype).itemsize
    data[place : place + np.dtype(dtype).itemsize] = np.array(value, dtype=dtype).tobytes()
    return sealed(data)


@pytest.mark.parametrize(
    ("section", "dtype", "position", "value", "complaint"),
    [
        ("vectors", "<f4", 5, np.nan, "finite values"),
        ("vectors", "<f4", 5, np.inf, "finite values"),
        ("vectors", "<f4", 5, -2e30, "finite values"),
        ("id", "<u8", 1, 7, "distinct ids"),
        ("relevance", "<f4", 0, np.nan, "relevance finite"),
        ("stability", "<f4", 0, -1.0, "stability finite"),
        ("degree", "<u4", 0, MAX_DEGREE + 1, "edges"),
        ("degree", "<u4", 0, 2**32 - 1, "edges"),
        ("degree", "<u4", 0, 8, "edges"),
        ("targets", "<i4", 0, 12, "targets in 0..11"),
        ("targets", "<i4", 0, -1, "targets in 0..11"),
        ("targets", "<i4", 0, 2**31 - 1, "targets in 0..11"),
        ("targets", "<i4", 0, -(2**31), "targets in 0..11"),
        ("targets", "<i4", 0, 0, "edges between two concepts"),
        ("targets", "<i4", 13, 3, "empty places"),
        ("weights", "<f4", 0, 1.5, "weights in"),
        ("weights", "<f4", 0, np.nan, "weights in"),
        ("confidences", "<f4", 0, -0.5, "confidences in"),
        ("strengths", "<f4", 0, 0.01, "strength = weight"),
        ("strengths", "<f4", 0, np.nan, "strength = weight"),
        ("use_counts", "<u4", 13, 1, "empty places"),
        ("kinds", "|u1", 0, 3, "edge kinds"),
        ("kinds", "|u1", 0, 1, "one edge of a kind"),
    ],
)
def test_each_lie_has_its_error(
    section: str, dtype: str, position: int, value: float, complaint: str
) -> None:
    with pytest.raises(AESGStorageError, match=complaint):
        parse(lie(section, dtype, position, value))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"[]", "a JSON object"),
        (b"{", "JSON metadata"),
        (b"\xff", "JSON metadata"),
        (b"[" * 60_000, "JSON metadata"),
        (b'{"name": 3}', "a string as name"),
        (b'{"name": ""}', "printable"),
        (b'{"name": "a\\u001b[31m"}', "printable"),
        (b'{"name": "' + b"x" * 300 + b'"}', "printable"),
        (b'{"licence": {}}', "a string as licence"),
    ],
)
def test_metadata_is_not_believed(text: bytes, complaint: str) -> None:
    data = bytes_of(some_columns(), 2)
    text += b" " * (-len(text) % 64)
    old = struct.unpack_from(">I", data, 16)[0]
    changed = bytearray(data[:128] + text + data[128 + old :])
    changed[16:20] = struct.pack(">I", len(text))
    changed[48:56] = struct.pack(">Q", len(changed))
    with pytest.raises(AESGStorageError, match=complaint):
        parse(sealed(changed))


def test_a_name_that_looks_like_a_path_is_only_a_name(tmp_path: Path) -> None:
    (tmp_path / "x.aesgpack").write_bytes(bytes_of(some_columns(), 2, name="../../etc/passwd"))
    pack = read_pack(tmp_path / "x.aesgpack")
    assert pack.name == "../../etc/passwd"
    assert [path.name for path in tmp_path.iterdir()] == ["x.aesgpack"]


def test_dead_concepts_do_not_go_into_version_2(tmp_path: Path) -> None:
    columns = some_columns()
    columns.active[3] = 0
    write_columns(columns, tmp_path / "x.aesgpack", created_at=0, format_version=2)
    pack = read_pack(tmp_path / "x.aesgpack")
    assert len(pack) == 11 and int(columns.fields["id"][3]) not in pack.columns.fields["id"].tolist()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"format_version": 3}, "format_version: expected 1 or 2"),
        ({"format_version": 1, "licence": "CC0"}, "licence: expected format_version=2"),
        ({"format_version": 2, "name": 3}, "name: expected a string"),
        ({"format_version": 2, "provenance": {"x": object()}}, "provenance: expected JSON"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path: Path, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AESGMemoryError, match=complaint):
        write_columns(some_columns(), tmp_path / "x.aesgpack", created_at=0, **arguments)
    assert list(tmp_path.iterdir()) == []
