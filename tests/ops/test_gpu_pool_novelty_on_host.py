"""The CUDA kernels of pool_novelty_, run thread by thread on the host, against the CPU op: bit for bit."""

from __future__ import annotations

import ctypes
import shutil

import pytest
import torch
from test_gpu_on_host import at, sizes
from test_pool_novelty import clustered, empty_pool, with_zeros
from torch import Tensor

from aesg.ops import pool_novelty_

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


def check_pool(
    gpu, pool, inputs, *, threshold=0.6, birth_count=3, birth_first=False, living=None
) -> list[Tensor]:
    """Both on copies of `pool`; everything alike, also what lies behind the candidates in use."""
    ours, theirs = [t.clone() for t in pool], [t.clone() for t in pool]
    want = pool_novelty_(
        *theirs, inputs, threshold=threshold, birth_count=birth_count, birth_first=birth_first, living=living
    )
    got = torch.empty(len(inputs), dtype=torch.bool), torch.empty_like(inputs)
    gpu.on_host_pool(
        *map(at, ours), *sizes(*pool[0].shape), at(inputs), *sizes(len(inputs)), ctypes.c_float(threshold),
        ctypes.c_int32(birth_count), ctypes.c_bool(birth_first), at(living), *map(at, got),
    )  # fmt: skip
    for one, other in zip((*ours, *got), (*theirs, *want), strict=True):
        assert torch.equal(one, other)
    return ours


@pytest.mark.parametrize("n, dim, capacity", [(0, 4, 3), (1, 1, 1), (5, 8, 2), (135, 9, 20)])
def test_pool_novelty(gpu, n: int, dim: int, capacity: int) -> None:
    inputs = clustered(n, dim, 20, n)
    pool = check_pool(gpu, empty_pool(capacity, dim), inputs, birth_count=4)
    pool = check_pool(gpu, pool, clustered(n, dim, 20, n + 1), birth_first=True)
    check_pool(gpu, pool, inputs, birth_count=2)


def test_pool_novelty_when_all_that_were_kept_changed(gpu) -> None:
    """The four best of the search were drawn away since: the fifth is nearest now."""
    eye = torch.eye(8)
    candidates = eye[0] + torch.stack([0.1 * eye[i] for i in range(1, 5)] + [0.3 * eye[5]])
    pool = check_pool(gpu, empty_pool(16, 8), candidates, threshold=0.999)
    assert int(pool[3][0]) == 5
    inputs = torch.cat([10 * eye[1:5], eye[:1]])
    pool = check_pool(gpu, pool, inputs, threshold=0.0, birth_count=9)
    assert pool[1].tolist()[:5] == [2, 2, 2, 2, 2]


def test_pool_novelty_when_every_candidate_changed(gpu) -> None:
    check_pool(gpu, empty_pool(16, 8), clustered(40, 8, 5, 1), threshold=-1.0, birth_count=1000)
    check_pool(gpu, empty_pool(16, 8), clustered(40, 8, 5, 1), threshold=0.2, birth_count=5)


@pytest.mark.parametrize("dim", [1, 8])
def test_pool_novelty_of_a_full_pool_larger_than_a_block(gpu, dim: int) -> None:
    """Counts and stamps alike, so that the row decides; then the oldest give way; then what is born stays."""
    rows = clustered(300, dim, 300, 1)
    stamps = torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(1))
    counts = torch.full((300,), 2, dtype=torch.int32)
    pool = [rows, counts, stamps, torch.tensor([300, 5])]
    gpu.on_host_order(dim)
    pool = check_pool(gpu, pool, clustered(40, dim, 40, 2), threshold=2.0, birth_count=9)
    assert int(pool[1].min()) == 1
    pool = check_pool(gpu, pool, clustered(20, dim, 20, 3), threshold=2.0, birth_count=1)
    assert int(pool[3][0]) == 280


def test_pool_novelty_of_candidates_that_lie_anywhere(gpu) -> None:
    """Rows of 8 values that do not begin at a multiple of 16 bytes."""
    pool = check_pool(gpu, empty_pool(16, 8), clustered(12, 8, 5, 1), birth_count=99)
    room = torch.empty(16 * 8 + 4)
    begin = 1 if room.data_ptr() % 16 == 0 else 0
    candidates = room[begin : begin + 16 * 8].view(16, 8)
    candidates[:] = pool[0]
    inputs, ours = clustered(30, 8, 5, 2), [candidates, *(part.clone() for part in pool[1:])]
    want = check_pool(gpu, pool, inputs, birth_count=99)
    born, vectors = torch.empty(30, dtype=torch.bool), torch.empty(30, 8)
    gpu.on_host_pool(
        *map(at, ours), *sizes(16, 8), at(inputs), *sizes(30), ctypes.c_float(0.6), ctypes.c_int32(99),
        ctypes.c_bool(False), at(None), at(born), at(vectors),
    )  # fmt: skip
    assert all(torch.equal(one, other) for one, other in zip(ours, want, strict=True))


def test_pool_novelty_leaves_out_what_is_not_finite(gpu) -> None:
    inputs = torch.tensor([[float("nan"), 0], [float("inf"), 1], [0, 0], [1.0, 0]])
    pool, born, vectors = empty_pool(3, 2), torch.empty(4, dtype=torch.bool), torch.empty(4, 2)
    gpu.on_host_pool(
        *map(at, pool), *sizes(3, 2), at(inputs), *sizes(4), ctypes.c_float(0.6), ctypes.c_int32(1),
        ctypes.c_bool(False), at(None), at(born), at(vectors),
    )  # fmt: skip
    assert born.tolist() == [False, False, False, True] and vectors.tolist()[3] == [1, 0]
    assert not bool(vectors[:3].any()) and pool[3].tolist() == [0, 1]


@pytest.mark.parametrize("birth_first", [False, True])
@pytest.mark.parametrize("living", [0, 1, -1, 2**40])
def test_pool_novelty_of_a_graph_that_may_be_empty(gpu, birth_first: bool, living: int) -> None:
    inputs = with_zeros(clustered(6, 4, 2, 1), 9, [3, 4, 5, 6, 7, 8])
    pool = check_pool(gpu, empty_pool(8, 4), inputs, birth_first=birth_first, living=torch.tensor([living]))
    plain = empty_pool(8, 4)
    pool_novelty_(*plain, inputs, threshold=0.6, birth_count=3, birth_first=birth_first and living == 0)
    assert all(torch.equal(one, other) for one, other in zip(pool, plain, strict=True))


def test_pool_novelty_zero_inputs_change_nothing(gpu) -> None:
    """Wherever they stand, in any order of the threads. 40 of 90 are not zero; a chunk here has 16."""
    dim, inputs = 3, clustered(40, 3, 6, 5, noise=0.3)
    start = check_pool(gpu, empty_pool(8, dim), clustered(15, dim, 6, 6), birth_count=9)
    rules = {"birth_count": 4, "birth_first": True}
    want = check_pool(gpu, start, inputs, **rules)
    assert int(want[3][0]) > 0 and not torch.equal(want[0], start[0])
    generator = torch.Generator().manual_seed(1)
    for order, places in enumerate(
        [
            torch.arange(40),  # behind
            torch.arange(40) + 50,  # in front
            torch.randperm(90, generator=generator)[:40].sort().values,  # in between
            torch.cat([torch.arange(20), torch.arange(20) + 60]),  # a whole chunk of zeros and more
        ]
    ):
        gpu.on_host_order(order)
        got = check_pool(gpu, start, with_zeros(inputs, 90, places), **rules)
        assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


def test_pool_novelty_few_of_many_inputs_and_none_at_all(gpu) -> None:
    """More inputs than a block has threads, so that one ranks several."""
    pool = check_pool(gpu, empty_pool(8, 2), clustered(12, 2, 5, 6), birth_count=9)
    for count, places in ((300, [0, 1, 15, 16, 17, 298, 299]), (40, [39]), (33, [])):
        inputs = with_zeros(clustered(len(places), 2, 5, 7), count, places)
        pool = check_pool(gpu, pool, inputs, birth_count=3, birth_first=True)
    check_pool(gpu, pool, with_zeros(torch.ones(2, 2), 40, [1, 39]), birth_count=1, threshold=-1.0)
