"""Packs come from strangers: each check in its order, every bit, every length, and many random lies."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path

import numpy as np
import pytest

from aesg.exceptions import AESGStorageError
from aesg.packs import read_pack
from tests.packs.mutate import run
from tests.packs.packmaker import bytes_of, golden_v1, parse, sealed, some_columns


def refuse(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "bad.aesgpack"
    path.write_bytes(data)
    with pytest.raises(AESGStorageError) as caught:
        read_pack(path)
    assert str(path) in caught.value.message and caught.value.subsystem == "storage"
    return caught.value.message


def with_field(data: bytes, offset: int, form: str, value: int) -> bytes:
    return data[:offset] + struct.pack(form, value) + data[offset + struct.calcsize(form) :]


def test_a_missing_file_has_the_documented_error(tmp_path: Path) -> None:
    path = tmp_path / "not_a_real_pack.aesgpack"
    with pytest.raises(AESGStorageError, match=r"Failed to read pack file '.*not_a_real_pack\.aesgpack': "):
        read_pack(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it for reading would wait for ever
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), "nul\0byte"):
        with pytest.raises(AESGStorageError, match="Failed to read pack file"):
            read_pack(path)


@pytest.mark.parametrize("version", [1, 2])
def test_the_checks_come_in_their_order(tmp_path: Path, version: int) -> None:
    """Each file has the named fault and, behind it, all those that come later."""
    good = bytes_of(some_columns(), version)
    broken = bytearray(good)
    broken[-1] ^= 1  # the checksum is wrong from here on
    broken = bytes(broken)
    size = with_field(broken, 20 if version == 1 else 24, ">I" if version == 1 else ">Q", 13)
    header = with_field(size, 12, ">I", 0)
    newer = with_field(header, 8, ">I", 3)
    magic = b"NOTAPACK" + newer[8:]
    assert "too small to contain a valid header" in refuse(tmp_path, magic[:55])
    assert "Invalid magic bytes" in refuse(tmp_path, magic)
    assert "expected format version 1 or 2, got 3" in refuse(tmp_path, newer)
    assert "expected vector_dim 1..8192, got 0" in refuse(tmp_path, header)
    assert "expected " in refuse(tmp_path, size) and "bytes for" in refuse(tmp_path, size)
    assert "Checksum verification failed" in refuse(tmp_path, broken)
    if version == 2:
        assert "a header of 128 bytes" in refuse(tmp_path, good[:127])


@pytest.mark.parametrize("version", [1, 2])
def test_counts_that_would_overflow_are_refused_before_anything_is_made(tmp_path: Path, version: int) -> None:
    data = bytes_of(some_columns(2, 1, 3), version)
    fields = ((16, ">I"), (20, ">I")) if version == 1 else ((24, ">Q"), (32, ">Q"), (40, ">Q"), (16, ">I"))
    for offset, form in fields:
        for bits in (16, 31, 32, 47, 60, 61, 63, 64):
            value = (2**bits - 1) & (2**32 - 1 if form == ">I" else 2**64 - 1)
            refuse(tmp_path, sealed(with_field(data, offset, form, value)))


def test_nothing_beyond_the_size_of_the_file_is_allocated(tmp_path: Path) -> None:
    """A file that claims gigabytes is refused with an address space that has no room for them."""
    data = sealed(with_field(bytes_of(some_columns(), 2), 24, ">Q", 2**31 - 1))
    (tmp_path / "x.aesgpack").write_bytes(data)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), before[1]))
    try:
        with pytest.raises(AESGStorageError):
            read_pack(tmp_path / "x.aesgpack")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_every_single_bit_of_version_2_counts() -> None:
    data = bytes_of(some_columns(2, 1, 3), 2)
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises(AESGStorageError):
                parse(bytes(changed))


def test_every_single_bit_of_version_1_counts() -> None:
    """The header has no checksum, yet every count in it shows in the size of the file."""
    data = golden_v1()
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises(AESGStorageError):
                parse(bytes(changed))


def test_an_empty_version_1_pack_is_empty_whatever_its_header_says() -> None:
    """The one harmless case: without concepts a wrong vector_dim changes nothing but what may attach it."""
    data = sealed(golden_v1()[:16] + bytes(8) + bytes(32))
    harmless = 0
    for place in range(8, 24):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            try:
                pack = parse(bytes(changed))
            except AESGStorageError:
                continue
            harmless += 1
            assert len(pack) == 0 and pack.columns.edge_count == 0
    assert harmless > 0


@pytest.mark.parametrize("version", [1, 2])
def test_every_length_is_refused(version: int) -> None:
    data = bytes_of(some_columns(2, 1, 3), version)
    for length in range(len(data)):
        with pytest.raises(AESGStorageError):
            parse(data[:length])
    with pytest.raises(AESGStorageError):
        parse(data + b"\0")


def test_a_hub_of_too_many_edges_is_refused() -> None:
    from aesg.packs.columns import MAX_DEGREE, EdgeList, make_columns

    n = MAX_DEGREE + 2
    base = some_columns(3, 1, 3)
    ones = np.ones(n - 1, np.float32)
    star = EdgeList(
        np.zeros(n - 1, np.int64),
        np.arange(1, n),
        ones,
        ones,
        np.zeros(n - 1, np.uint32),
        np.zeros(n - 1, np.uint8),
    )
    fields = {name: np.zeros(n, values.dtype) for name, values in base.fields.items()}
    fields["id"] = np.arange(n, dtype=np.uint64)
    columns = make_columns(np.ones((n, 1), np.float32), fields, np.ones(n, np.uint8), star)
    for version in (1, 2):
        with pytest.raises(AESGStorageError, match="at most 65536 edges a concept, got 65537"):
            parse(bytes_of(columns, version))


def test_mutations() -> None:
    """The short form; `make fuzz-packs` runs ten million."""
    counts = run(executions=6_000, seed=1)
    assert counts["refused otherwise"] > 1000 and counts["accepted and searched"] > 100
