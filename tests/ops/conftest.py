"""The CUDA kernels compiled once for the host."""

from __future__ import annotations

import ctypes

import pytest
from host_build import build


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    # Small tables are full at 256 concepts: spreading then needs its large ones. Any pool is sifted, for few
    # inputs at a time. Blocks of the sieve take all queries, tile by tile. Three blocks take turns.
    flags = [
        "-DAESG_SMALL_TABLE_BITS=9", "-DAESG_SIEVE_LEAST_ROWS=1", "-DAESG_SIEVE_BLOCKS=1",
        "-DAESG_POOL_CHUNK=16", "-DAESG_MOST_BLOCKS=3",
    ]  # fmt: skip
    return build(tmp_path_factory.mktemp("on_host"), *flags)
