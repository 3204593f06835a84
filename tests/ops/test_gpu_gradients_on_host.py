"""The CUDA kernels of derivatives, run thread by thread on the host, against the CPU ops.

Energies, slots and the replay have the bits of the CPU. Derivatives of spreading are sums of the same f32
products, rounded once instead of at every step: TOLERANCE is that of five hops.
"""

from __future__ import annotations

import ctypes
import shutil
from typing import Any

import pytest
import torch
from ops_helpers import Graph, blocks_of
from test_activate_context import RULES, B, D, K, N, case, found_by
from test_gpu_on_host import Rules, activate, at, columns_of, sizes
from test_spread_activation import random_graph, random_seeds
from torch import Tensor

from aesg.ops import Activated, activate_context

TOLERANCE = {"rtol": 1e-6, "atol": 1e-9}
OP, BACKWARD = torch.ops.aesg.spread_activation.default, torch.ops.aesg.spread_activation_backward.default

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


def rules_of(rules: dict[str, Any]) -> list[Any]:
    return [rules[name] for name in ("hops", "decay", "facilitation", "source_floor", "transfer_floor")]


def traced(gpu, seeds, energies, graph: Graph, k: int, rules, regions=None) -> tuple[Tensor, ...]:
    """Energies, slots [B, k] and the jacobian [B, k, S] of the kernel."""
    batch, count = seeds.shape
    got = torch.empty(batch, k), torch.empty(batch, k, dtype=torch.int64), torch.empty(batch, k, count)
    gpu.on_host_spread_traced(
        at(seeds), at(energies), *sizes(batch, count), columns_of(graph, regions),
        *sizes(len(graph.first_block), len(graph.targets)), ctypes.byref(Rules(**rules)), *sizes(k),
        *map(at, got),
    )  # fmt: skip
    return got


def back(gpu, slopes, slots, seeds, energies, graph: Graph, rules, regions=None) -> Tensor:
    """d loss / d strengths [M, 7] of the kernel."""
    sums = torch.empty_like(graph.strengths)
    gpu.on_host_spread_backward(
        at(slopes), at(slots), at(seeds), at(energies), *sizes(*seeds.shape), columns_of(graph, regions),
        *sizes(len(graph.first_block), len(graph.targets)), ctypes.byref(Rules(**rules)),
        *sizes(slots.shape[1]), at(sums),
    )  # fmt: skip
    return sums


def check(gpu, seeds, energies, graph: Graph, k: int = 9, regions=None, **changed) -> tuple[Tensor, Tensor]:
    """Everything against the CPU; the jacobian and the gradient of strengths of the kernels."""
    rules = {**RULES, **changed}
    want = OP(seeds, energies, *graph, regions, *rules_of(rules), k, True)
    got = traced(gpu, seeds, energies, graph, k, rules, regions)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    torch.testing.assert_close(got[2], want[2], **TOLERANCE)

    slopes = torch.randn(want[0].shape, generator=torch.Generator().manual_seed(k))
    given = slopes, want[1], seeds, energies, *graph, regions, *rules_of(rules)
    sums, wanted = back(gpu, slopes, want[1], seeds, energies, graph, rules, regions), BACKWARD(*given)
    torch.testing.assert_close(sums, wanted, rtol=1e-6, atol=1e-6)
    return got[2], sums


@pytest.mark.parametrize("hops", range(5))
@pytest.mark.parametrize("count, k", [(1, 1), (4, 10), (7, 200), (40, 30)])
def test_derivatives_of_spreading(gpu, hops: int, count: int, k: int) -> None:
    graph = random_graph(300, 5, seed=hops)
    graph = graph._replace(strengths=graph.strengths * (0.3 if count > 7 else 1.0))  # else all saturates
    seeds, energies = random_seeds(4, count, 300, hops)
    regions = (torch.arange(300) % 3).to(torch.int32)
    jacobian, sums = check(gpu, seeds, energies, graph, k, regions, hops=hops)
    assert float(jacobian.sum()) > 0
    assert k == 1 or bool(sums.any()) == (hops > 0)


def test_by_hand(gpu) -> None:
    """0 gives to 1 and 2, these to 3; 0.5 * 0.5 is exact, so are all sums."""
    graph = blocks_of(4, [(0, 1, 0.5), (0, 2, 0.25), (1, 3, 0.5), (2, 3, 1.0)])
    seeds, energies = torch.tensor([[0, 2]]), torch.tensor([[1.0, 0.125]])
    loose = {"hops": 2, "decay": 1.0, "source_floor": 0.0, "transfer_floor": 0.0}
    jacobian, _ = check(gpu, seeds, energies, graph, 4, **loose)
    # Energies: 0 1, then 1, 2 and 3: 0.5, 0.25 and 0.5; 2 rose above what it began with.
    assert jacobian.tolist() == [[[1, 0], [0.5, 0], [0.5, 0], [0.25, 0]]]


def test_what_saturates_has_no_derivative(gpu) -> None:
    graph = blocks_of(5, [(0, 1, 3.0), (2, 1, 0.5), (1, 3, 0.5), (0, 4, 0.9), (2, 4, 0.9)])
    seeds, energies = torch.tensor([[0, 2], [2, -1]]), torch.tensor([[0.9, 0.9], [0.9, 0.5]])
    jacobian, _ = check(gpu, seeds, energies, graph, 5, hops=3, decay=1.0)
    assert not bool(jacobian[0, 0].any()) and bool(jacobian[1, :2, 0].all())
    for strong in (1.0, 3.0):
        dense = random_graph(60, 8, seed=3)
        dense = dense._replace(strengths=dense.strengths * strong)
        check(gpu, *random_seeds(6, 5, 60, 3), dense, 40, hops=4)


def test_ties_and_equal_seeds(gpu) -> None:
    """Of equal seeds the first of the strongest has the derivative; a dead one has none."""
    edges = [(s, t, 0.5) for s in range(4) for t in range(4, 12)]
    graph = blocks_of(12, edges, dead=[3])
    seeds = torch.tensor([[0, 1, 0, 0, 3, 1], [2, 2, 2, -1, 3, 2]])
    energies = torch.tensor([[0.4, 0.3, 0.6, 0.6, 0.9, 0.2], [0.5, 0.5, 0.25, 0.9, 0.9, -1.0]])
    jacobian, _ = check(gpu, seeds, energies, graph, 12, hops=1, decay=1.0)
    assert jacobian[0, 0].tolist() == [0, 0, 1, 0, 0, 0] and jacobian[1, 0].tolist() == [1, 0, 0, 0, 0, 0]
    assert jacobian[0].sum(0).gt(0).tolist() == [False, True, True, False, False, False]


def test_of_parallel_edges_the_strongest_has_the_gradient(gpu) -> None:
    fillers = [(0, 3 + i, 0.2) for i in range(5)]
    edges = [(0, 1, 0.5), (0, 2, 0.3), (0, 1, 0.5), *fillers, (0, 2, 0.6), (0, 1, 0.4)]
    seeds, energies = torch.tensor([[0]]), torch.tensor([[0.9]])
    _, sums = check(gpu, seeds, energies, blocks_of(9, edges))
    assert bool(sums[0, 0]) and not bool(sums[0, 1]) and not bool(sums[0, 2])


def test_seeds_of_any_energy(gpu) -> None:
    """So weak that fixed point holds little of it, and above one."""
    graph = blocks_of(6, [(a, a + 3, 0.5) for a in range(3)])
    seeds, energies = torch.tensor([[0, 1, 2]]), torch.tensor([[1e-39, 1e-6, 1.5]])
    loose = {"source_floor": 0.0, "transfer_floor": 0.0, "decay": 1.0, "hops": 2}
    jacobian, _ = check(gpu, seeds, energies, graph, 6, **loose)
    assert sorted(jacobian.flatten().tolist())[-5:] == [0.5, 0.5, 1, 1, 1]


def test_some_queries_need_large_tables(gpu) -> None:
    far = [(a, a + 1, 0.9) for a in range(0, 20)]
    hub = [(500, b, 0.9) for b in range(100, 480)]
    graph = blocks_of(1000, far + hub)
    seeds = torch.tensor([[0, 5, -1, 1, 2], [500, 3, 4, 500, 9], [7, -1, 500, 1, 2]])
    energies = torch.tensor([[0.9, 0.5, 0.8, 0.7, 0.6]]).repeat(3, 1)
    jacobian, _ = check(gpu, seeds, energies, graph, 300)
    assert ((jacobian > 0).any(2).sum(1) > 256).tolist() == [False, True, True]


def test_any_order_of_the_threads_has_the_same_bits(gpu) -> None:
    graph = random_graph(30, 9, seed=1)
    graph = graph._replace(strengths=graph.strengths * 0.3)
    seeds, energies = random_seeds(25, 5, 30, 1)
    rules = {**RULES, "hops": 3, "transfer_floor": 0.01}
    kept = []
    for order in range(4):
        gpu.on_host_order(order)
        # Queries in another order add to the edges in another order.
        turn = torch.randperm(25, generator=torch.Generator().manual_seed(order))
        found = traced(gpu, seeds[turn], energies[turn], graph, 20, rules)
        slopes = torch.randn(25, 20, generator=torch.Generator().manual_seed(7))[turn]
        sums = back(gpu, slopes, found[1], seeds[turn], energies[turn], graph, rules)
        kept.append([*(part[turn.argsort()] for part in found), sums])
    assert kept[0][3].count_nonzero() > 100
    for other in kept[1:]:
        assert all(torch.equal(one, part) for one, part in zip(kept[0], other, strict=True))


def test_gradients_of_any_size_and_what_is_not_finite(gpu) -> None:
    graph = blocks_of(4, [(0, 1, 0.5), (2, 3, 0.5)])
    seeds, energies = torch.tensor([[0], [2]]), torch.tensor([[0.5], [0.5]])
    slots = torch.tensor([[1, 1, 99], [3, 3, -1]])
    for size in (1e-38, 1.0, 1e37):
        slopes = size * torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]])
        given = slopes, slots, seeds, energies, graph, {**RULES, "facilitation": 1.0}
        want = BACKWARD(slopes, slots, seeds, energies, *graph, None, *rules_of(given[-1]))
        torch.testing.assert_close(back(gpu, *given), want, rtol=1e-6, atol=0.0)
    for broken in (float("nan"), float("inf")):
        slopes = torch.tensor([[broken, 1.0, 1.0], [1.0, 1.0, 1.0]])
        sums = back(gpu, slopes, slots, seeds, energies, graph, {**RULES, "facilitation": 1.0})
        assert bool(sums[0, 0].isnan()) and float(sums[1, 0]) == pytest.approx(0.8)
        assert int(sums.count_nonzero()) == 2


def test_damaged_chains_end(gpu) -> None:
    generator = torch.Generator().manual_seed(0)
    graph = random_graph(60, 9, seed=5)
    blocks = len(graph.targets)
    damaged = graph._replace(
        next_block=torch.randint(-3, blocks + 3, (blocks,), generator=generator, dtype=torch.int32),
        targets=torch.where(torch.rand(blocks, 7, generator=generator) < 0.2, 69, graph.targets),
    )
    seeds, energies = random_seeds(5, 6, 60, 5)
    seeds[0, 0], seeds[1, 1] = 60, -7
    found = traced(gpu, seeds, energies, damaged, 10, RULES)
    sums = back(gpu, torch.ones(5, 10), found[1], seeds, energies, damaged, RULES)
    assert bool(found[2].isfinite().all()) and bool(sums.isfinite().all())


def test_nothing_to_do(gpu) -> None:
    graph = blocks_of(3, [])
    seeds, energies = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0)
    check(gpu, seeds, energies, graph)
    check(gpu, torch.tensor([[0], [-1]]), torch.tensor([[0.0], [1.0]]), graph)
    found = traced(gpu, seeds[:0], energies[:0], graph, 3, RULES)
    assert found[2].shape == (0, 3, 0)


def same(got: Activated, want: Activated) -> None:
    for name, one, other in zip(Activated._fields, got, want, strict=True):
        if name == "jacobian":
            torch.testing.assert_close(one, other, **TOLERANCE)
        else:
            assert torch.equal(one, other), name


@pytest.mark.parametrize("strong", [0.3, 1.0, 3.0], ids=["weak edges", "strong", "saturating"])
@pytest.mark.parametrize("prime", [False, True], ids=["alone", "primed"])
@pytest.mark.parametrize("count, k", [(1, 2), (4, 6), (11, 40)])
def test_derivatives_of_contexts(gpu, strong: float, prime: bool, count: int, k: int) -> None:
    graph, vectors, queries, more, primed = case(strong=strong)
    scores, slots = found_by(graph, vectors, queries, k=count)
    options = {**RULES, **more, "relative": 0.5, "k": k, "bar": torch.linspace(0, 1, B)}
    options |= {"primed": primed} if prime else {}
    want = activate_context(scores, slots, vectors, *graph, **options, jacobian=True)
    same(activate(gpu, scores, slots, vectors, graph, **options, jacobian=True), want)
    assert float(want.jacobian.sum()) > 0


def test_of_what_reaches_the_best_seed_half_is_its_own(gpu) -> None:
    """1 and 6 get exactly what the best seed has; of a seed and what primes it the stronger counts."""
    graph = blocks_of(N, [(0, 1, 1.0), (2, 3, 0.75), (2, 6, 1.5), (5, 4, 1.0)])
    vectors = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    scores, slots = torch.tensor([[0.75, 0.5, 0.5]]), torch.tensor([[0, 2, 5]])
    *_, primed = case()
    options = {**RULES, "relative": 0.1, "k": 7, "decay": 1.0, "facilitation": 1.0}
    options["primed"] = primed._replace(
        slots=torch.tensor([[2, 5, 5]]), ids=torch.zeros(1, 3, dtype=torch.int64),
        energies=torch.tensor([[1.0, 1.8, 0.2]]), share=0.5,
    )  # fmt: skip
    want = activate_context(scores, slots, vectors, *graph, **options, jacobian=True)
    got = activate(gpu, scores, slots, vectors, graph, **options, jacobian=True)
    same(got, want)
    rows = dict(zip(got.members[0].tolist(), got.jacobian[0].tolist(), strict=True))
    assert rows[0] == [1, 0, 0] and rows[1] == [1, 0, 0] and rows[6] == [0.5, 0.75, 0]
    # Seed 2 and what primes it are equal, the seed counts; 5 is primed above the best seed, which leads it.
    assert rows[2] == [0, 1, 0] and rows[3] == [0, 0.75, 0]
    assert rows[5] == [1, 0, 0] and rows[4] == [1, 0, 0]


def test_contexts_that_need_large_tables(gpu) -> None:
    graph = blocks_of(1000, [(500, b, 0.9) for b in range(100, 480)] + [(a, a + 1, 0.9) for a in range(20)])
    slots = torch.tensor([[0, 5, 2, 3, 9], [500, 3, 0, 1, 7], [7, -1, 500, 2, 3]])
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5]]).repeat(3, 1)
    vectors = torch.randn(1000, 5, generator=torch.Generator().manual_seed(1))
    options = {**RULES, "relative": 0.5, "k": 300}
    want = activate_context(scores, slots, vectors, *graph, **options, jacobian=True)
    same(activate(gpu, scores, slots, vectors, graph, **options, jacobian=True), want)


@pytest.mark.parametrize("count", [1, 4, 200])
@pytest.mark.parametrize("dim", [1, 8, 300])
def test_replayed_gradients_have_the_bits_of_the_cpu(gpu, count: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(dim)
    batch, k = 5, 7
    gradients, queries = (torch.randn(batch, width, generator=generator) for width in (k, dim))
    seeds = torch.randint(-1, 9, (batch, count), generator=generator)
    similarities = torch.rand(batch, count, generator=generator)
    jacobian = torch.rand(batch, k, count, generator=generator)
    rows = torch.randn(batch, count, dim, generator=generator)
    jacobian[0], queries[1], rows[2] = 0, 0, 0
    given = gradients, queries, seeds, similarities, jacobian, rows
    want = torch.ops.aesg.replay_energies_backward(*given)
    got = torch.empty_like(queries)
    gpu.on_host_replay_backward(*map(at, given), *sizes(batch, dim, k, count), at(got))
    assert torch.equal(got, want) and bool(want.any())
    again = torch.empty_like(gradients)
    gpu.on_host_replay(at(gradients), *sizes(gradients.numel()), at(again))
    assert torch.equal(again, gradients)


def test_a_gradient_from_end_to_end(gpu) -> None:
    """What autograd makes of the CPU ops, and the kernels one after the other."""
    graph, vectors, queries, more, primed = case()
    scores, slots = found_by(graph, vectors, queries)
    options = {**RULES, **more, "relative": 0.5, "k": K, "primed": primed}
    found = activate(gpu, scores, slots, vectors, graph, **options, jacobian=True)
    slope = torch.randn(B, K, generator=torch.Generator().manual_seed(1))
    got = torch.empty_like(queries)
    gpu.on_host_replay_backward(
        *map(at, (slope, queries, found.seeds, found.similarities, found.jacobian, found.seed_vectors)),
        *sizes(B, D, K, slots.shape[1]), at(got),
    )  # fmt: skip
    want = activate_context(scores, slots, vectors, *graph, **options, jacobian=True)
    wanted = torch.ops.aesg.replay_energies_backward(
        slope, queries, want.seeds, want.similarities, want.jacobian, want.seed_vectors
    )
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
