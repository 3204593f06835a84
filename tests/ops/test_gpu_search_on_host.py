"""The CUDA kernels of seed_search, run thread by thread on the host, against the CPU op: bit for bit."""

from __future__ import annotations

import ctypes
import shutil

import pytest
import torch
from hard_rows import HARD_ROWS, hard_rows
from host_build import build
from ops_helpers import grouped
from test_gpu_on_host import at, sizes
from torch import Tensor

from aesg.ops import seed_search

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    # The sieve for few rows too, with lists that are soon too short.
    flags = ["-DAESG_SIEVE_LEAST_ROWS=1", "-DAESG_SIEVE_LIST=256", "-DAESG_SIEVE_CHUNK=128"]
    return build(tmp_path_factory.mktemp("on_host"), *flags)


def search_on_host(
    gpu: ctypes.CDLL, queries: Tensor, vectors: Tensor, k: int, *,
    inv_norm: Tensor | None = None, active: Tensor | None = None, count: int | None = None,
    min_score: float = 0.1, exact: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As the public op, on the kernels."""
    in_groups = vectors.dim() == 3
    rows = vectors.shape[0] * (1024 if in_groups else 1)
    got = torch.empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.int64)
    error = gpu.on_host_seed_search(
        at(queries), *sizes(*queries.shape), ctypes.c_void_p(vectors.data_ptr()),
        *sizes(rows, vectors.stride(0) if in_groups else 0), at(inv_norm), at(active),
        *sizes(rows if count is None else count), ctypes.c_float(min_score), *sizes(k),
        ctypes.c_bool(exact), *map(at, got),
    )  # fmt: skip
    assert error == 0
    return got


def check(gpu, queries: Tensor, vectors: Tensor, k: int, **options) -> tuple[Tensor, Tensor]:
    want = seed_search(queries, vectors, k, **options)
    got = search_on_host(gpu, queries, vectors, k, **options)
    assert torch.equal(got[1], want[1])
    assert torch.equal(got[0].view(torch.int32), want[0].view(torch.int32))
    return got


def some(batch: int, rows: int, dim: int):
    torch.manual_seed(rows + dim)
    active = (torch.rand(rows) < 0.9).to(torch.uint8)
    vectors = torch.randn(rows, dim)
    return torch.randn(batch, dim), vectors, {"active": active, "inv_norm": 1 / vectors.norm(dim=1)}


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("rows, dim, k", [(1, 1, 1), (700, 40, 10), (1300, 64, 10), (300, 16, 70)])
def test_few_queries(gpu, batch: int, rows: int, dim: int, k: int) -> None:
    queries, vectors, options = some(batch, rows, dim)
    check(gpu, queries, vectors, k, **options)
    check(gpu, queries, vectors, k, active=options["active"], min_score=-1.0)


@pytest.mark.parametrize("dim", [1, 2, 3, 31, 32, 33, 36, 66, 100, 1024])
def test_every_dimension(gpu, dim: int) -> None:
    queries, vectors, options = some(3, 203, dim)
    check(gpu, queries, vectors, 5, **options, min_score=-1.0)
    check(gpu, queries, vectors, 5)


def test_rows_that_begin_anywhere(gpu) -> None:
    """Four floats at a time are read only where 16 bytes begin."""
    queries, vectors, _ = some(2, 150, 64)
    moved = torch.zeros(150 * 64 + 1)[1:].view(150, 64).copy_(vectors)
    assert moved.data_ptr() % 16 != 0
    check(gpu, queries, moved, 5)


@pytest.mark.parametrize("gap", [24, 25])
def test_groups_are_read_in_place(gpu, gap: int) -> None:
    queries, vectors, options = some(3, 1400, 32)
    padded = {name: torch.nn.functional.pad(column, (0, 648)) for name, column in options.items()}
    check(gpu, queries, grouped(vectors, gap), 10, **padded, count=1390)


def test_nothing_to_search(gpu) -> None:
    queries, vectors, _ = some(2, 40, 8)
    check(gpu, queries[:0], vectors, 3)
    check(gpu, queries, vectors, 3, count=0)
    check(gpu, queries, vectors, 50, min_score=-2.0)
    check(gpu, queries, vectors, 3, active=torch.zeros(40, dtype=torch.uint8))


@pytest.mark.parametrize("batch", [1, 7])
def test_ties_go_to_the_lower_slot(gpu, batch: int) -> None:
    base = torch.randint(-2, 3, (7, 12), generator=torch.Generator().manual_seed(1)).float()
    _, slots = check(gpu, base[:1].repeat(batch, 1), base.repeat(60, 1), 40)
    assert slots[0].tolist() == list(range(0, 280, 7))


@pytest.mark.parametrize("batch", [1, 5])
def test_queries_that_are_not_finite_find_nothing(gpu, batch: int) -> None:
    queries, vectors, options = some(batch, 300, 20)
    want = seed_search(queries, vectors, 4, **options)
    for bad in (float("nan"), float("inf"), float("-inf")):
        queries[0, 3] = bad
        got = search_on_host(gpu, queries, vectors, 4, **options)
        assert got[1][0].tolist() == [-1] * 4 and got[0][0].tolist() == [0.0] * 4
        assert torch.equal(got[0][1:], want[0][1:]) and torch.equal(got[1][1:], want[1][1:])


def any_inverse_norms(rows: int) -> Tensor:
    odd = torch.tensor([0.0, -1.0, -100.0, 1e-38, 1e30, 3e38, float("inf"), float("-inf"), float("nan")])
    return odd[torch.arange(rows) % 9]


@pytest.mark.parametrize("min_score", [-2.0, -1.0, 0.0, 0.1, 1.0])
@pytest.mark.parametrize("batch", [1, 5])
def test_any_inverse_norms(gpu, batch: int, min_score: float) -> None:
    """One of minus infinity gives minus infinity, which is no result, not even where -1 is one."""
    queries, vectors, options = some(batch, 700, 20)
    vectors[::5] *= 1e-30
    vectors[1::5] *= 1e18
    options["inv_norm"] = any_inverse_norms(700) * torch.where(
        torch.rand(700) < 0.5, 1.0, options["inv_norm"]
    )
    check(gpu, queries, vectors, 30, **options, min_score=min_score)
    check(gpu, queries, vectors, 700, **options, min_score=min_score)


def test_any_order_of_the_threads(gpu) -> None:
    queries, vectors, options = some(3, 700, 40)
    for seed in range(5):
        gpu.on_host_order(seed)
        check(gpu, queries, vectors, 10, **options)


def all_but(queries: Tensor, asking: str, value: float = 0.0) -> tuple[Tensor, Tensor]:
    """Queries of which only some are more than `value`, and which."""
    places = torch.arange(len(queries))
    asks = {
        "none": places < 0,
        "the first": places < 3,
        "the last": places >= len(queries) - 1,
        "some": places % 7 == 5,
        "all": places >= 0,
    }[asking]
    return torch.where(asks[:, None], queries, value), asks


@pytest.mark.parametrize("asking", ["none", "the first", "the last", "some", "all"])
@pytest.mark.parametrize("batch, k", [(1, 5), (2, 70), (8, 5), (20, 70), (140, 5)])
def test_queries_of_length_0(gpu, batch: int, k: int, asking: str) -> None:
    """Above 0 they find nothing, and the others what they find alone; else similarities of 0 count."""
    whole, vectors, options = some(batch, 200, 16)
    for value in (0.0, -0.0, 1e-40) if batch < 100 else (0.0,):
        queries, asks = all_but(whole, asking, value)
        got = search_on_host(gpu, queries, vectors, k, **options, min_score=1e-30)
        assert bool((got[1][~asks] == -1).all()) and bool((got[0][~asks] == 0).all())
        want = seed_search(queries[asks], vectors, k, **options, min_score=1e-30)
        assert torch.equal(got[0][asks], want[0]) and torch.equal(got[1][asks], want[1])
    for min_score in (0.0, -1.0) if batch < 100 else ():
        check(gpu, queries, vectors, k, active=options["active"], min_score=min_score)


def test_queries_of_length_0_among_odd_rows(gpu) -> None:
    queries, vectors, options = some(20, 300, 12)
    queries, asks = all_but(queries, "some")
    vectors[::5] *= 3e38
    vectors[1::5, 2] = float("inf")
    options["inv_norm"] = any_inverse_norms(300)
    for batch in (slice(0, 8), slice(0, 20)):
        check(gpu, queries[batch], vectors, 30, **options, min_score=0.1)
    queries[~asks, 0] = float("inf")
    scores, slots = search_on_host(gpu, queries, vectors, 30, **options)
    assert bool((slots[~asks] == -1).all()) and bool((scores[~asks] == 0).all())


# Many queries: the sieve, and the exact search of what it leaves


@pytest.mark.parametrize("batch", [9, 64, 65, 130])
def test_many_queries(gpu, batch: int) -> None:
    queries, vectors, options = some(batch, 1100, 64)
    check(gpu, queries, vectors, 10, **options)


@pytest.mark.parametrize("k", [1, 64, 65])
@pytest.mark.parametrize("exact", [False, True])
def test_many_queries_with_and_without_a_sieve(gpu, k: int, exact: bool) -> None:
    queries, vectors, options = some(20, 1100, 64)
    check(gpu, queries, vectors, k, **options, exact=exact)


@pytest.mark.parametrize(
    "rows, dim, k",
    [(1, 1, 1), (37, 3, 64), (700, 16, 10), (530, 100, 10), (300, 256, 64), (200, 257, 5), (99, 1024, 5)],
)
def test_many_queries_of_every_shape(gpu, rows: int, dim: int, k: int) -> None:
    queries, vectors, options = some(9, rows, dim)
    check(gpu, queries, vectors, k, **options)
    check(gpu, queries, vectors, k, active=options["active"], min_score=-1.0)


@pytest.mark.parametrize("dim", [3, 64])
@pytest.mark.parametrize("kind", HARD_ROWS)
def test_the_sieve_loses_no_row(gpu, kind: str, dim: int) -> None:
    torch.manual_seed(6)
    queries, vectors, inv_norm = hard_rows(kind, 700, dim)
    active = (torch.rand(len(vectors)) < 0.9).to(torch.uint8)
    for k in (1, 10):
        check(gpu, queries[:14], vectors, k, inv_norm=inv_norm, active=active, min_score=-1.0)


@pytest.mark.parametrize("min_score", [-2.0, 0.0, 1.0])
def test_the_sieve_with_any_inverse_norms(gpu, min_score: float) -> None:
    queries, vectors, options = some(9, 700, 20)
    vectors[::5] *= 1e-30
    vectors[1::5] *= 1e18
    vectors[2::5, 3] = float("nan")
    vectors[3::35] *= 3e38
    options["inv_norm"] = any_inverse_norms(700) * torch.where(
        torch.rand(700) < 0.5, 1.0, options["inv_norm"]
    )
    check(gpu, queries, vectors, 30, **options, min_score=min_score)


@pytest.mark.parametrize("batch", [9, 12])
def test_rows_that_only_f32_tells_apart(gpu, batch: int) -> None:
    """Few enough for the list, too many for it, and rows that are alike to the last bit."""
    torch.manual_seed(3)
    for alike, noise in ((150, 1e-6), (400, 1e-6), (400, 0.0)):
        vectors = torch.randn(700, 64)
        vectors[100 : 100 + alike] = vectors[100] + noise * torch.randn(alike, 64)
        queries = torch.randn(batch, 64)
        queries[3] = vectors[100] + 0.1 * torch.randn(64)
        scores, slots = check(gpu, queries, vectors, 10, inv_norm=1 / vectors.norm(dim=1))
        assert bool(((slots[3] >= 100) & (slots[3] < 100 + alike)).all())
        assert (scores[3].unique().numel() == 1) == (noise == 0)


def test_rounding_that_ranks_rows_the_wrong_way(gpu) -> None:
    """The best lose all that rounding to bf16 can take, others win: only the margin keeps the best."""
    torch.manual_seed(4)
    half = 2.0**-8  # of the distance between neighbours in bf16, above 1
    queries = torch.full((9, 64), 0.125)
    vectors = 0.01 * torch.randn(700, 64)
    best = torch.arange(5, 700, 58)
    vectors[best] = 0.0625 * (1 + 0.999 * half)
    vectors[best, 0] += 1e-7 * torch.rand(len(best))
    other = torch.arange(4, 700, 58)
    vectors[other] = 0.0625
    vectors[other, :38] = 0.0625 * (1 + 1.001 * half)
    rounded = vectors.bfloat16().float() @ queries[0]
    assert float(rounded[best].max()) < float(rounded[other].min())
    _, slots = check(gpu, queries, vectors, 10, inv_norm=torch.ones(700))
    assert set(slots[0].tolist()) <= set(best.tolist())


def test_scores_far_below_the_clamp_tie_at_the_lower_slot(gpu) -> None:
    """A score of -50 counts as -1, like others, and so ranks by its slot."""
    torch.manual_seed(7)
    query = torch.randn(1, 17)
    vectors = -query.repeat(200, 1)  # few enough for the list
    inv_norm = 1 / vectors.norm(dim=1)
    inv_norm[2] *= 50
    active = torch.ones(200, dtype=torch.uint8)
    active[:2] = 0
    _, slots = check(gpu, query.repeat(9, 1), vectors, 1, inv_norm=inv_norm, active=active, min_score=-1.0)
    assert slots.unique().tolist() == [2]


def test_a_sum_that_overflows_on_its_way(gpu) -> None:
    """Rounded, the row is at right angles to the query; in the promised order its sum is infinite."""
    torch.manual_seed(8)
    queries, vectors = torch.full((9, 64), 0.125), torch.randn(200, 64)
    vectors[150] = queries[0] + 0.01 * torch.randn(64)
    inv_norm = 1 / vectors.norm(dim=1)
    vectors[70, :32], vectors[70, 32:], inv_norm[70] = 3e38, -3e38, 2.0**-125
    scores, slots = check(gpu, queries, vectors, 2, inv_norm=inv_norm)
    assert slots[0].tolist() == [70, 150] and float(scores[0, 0]) == 1.0


def test_thousands_of_rows_alike(gpu) -> None:
    torch.manual_seed(5)
    vectors, queries = torch.randn(3000, 16), torch.randn(10, 16)
    vectors[200:2700] = vectors[200]
    queries[4] = vectors[200]
    _, slots = check(gpu, queries, vectors, 10, inv_norm=1 / vectors.norm(dim=1))
    assert slots[4].tolist() == list(range(200, 210))


@pytest.mark.parametrize("gap", [24, 25])
def test_the_sieve_reads_groups_in_place(gpu, gap: int) -> None:
    queries, vectors, options = some(9, 1400, 32)
    padded = {name: torch.nn.functional.pad(column, (0, 648)) for name, column in options.items()}
    check(gpu, queries, grouped(vectors, gap), 10, **padded, count=1390)
    check(gpu, queries, grouped(vectors, gap), 10, active=padded["active"], count=1390)


def test_the_sieve_has_little_to_search(gpu) -> None:
    queries, vectors, _ = some(9, 40, 8)
    check(gpu, queries, vectors, 3, count=0)
    check(gpu, queries, vectors, 50, min_score=-2.0)
    check(gpu, queries, vectors, 3, active=torch.zeros(40, dtype=torch.uint8))
    check(gpu, torch.zeros(9, 8), vectors, 3, min_score=0.0)


def test_the_sieve_passes_over_queries_that_are_not_finite(gpu) -> None:
    queries, vectors, options = some(12, 300, 20)
    want = seed_search(queries, vectors, 4, **options)
    queries[0, 3], queries[5, 0], queries[11, 19] = float("nan"), float("inf"), float("-inf")
    got = search_on_host(gpu, queries, vectors, 4, **options)
    for b in range(12):
        if b in (0, 5, 11):
            assert got[1][b].tolist() == [-1] * 4 and got[0][b].tolist() == [0.0] * 4
        else:
            assert torch.equal(got[0][b], want[0][b]) and torch.equal(got[1][b], want[1][b])


def test_the_sieve_in_any_order_of_the_threads(gpu) -> None:
    queries, vectors, options = some(20, 700, 40)
    for seed in range(3):
        gpu.on_host_order(seed)
        check(gpu, queries, vectors, 10, **options)
        check(gpu, all_but(queries, "some")[0], vectors, 10, **options)
