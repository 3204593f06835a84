"""The CUDA kernels themselves, run thread by thread on the host (tests/ops/on_host), against the CPU ops.

This is no GPU: it proves their logic, barriers and arithmetic order, not that they run on a device.
"""

from __future__ import annotations

import ctypes
import shutil
from typing import Any

import pytest
import torch
from ops_helpers import Graph, blocks_of
from test_activate_context import RULES, B, N, case, found_by
from test_keep_primary import case as streams_case
from test_read_members import case as members_case
from test_spread_activation import random_graph, random_seeds
from torch import Tensor

from aesg.ops import (
    Activated,
    activate_context,
    keep_primary_,
    spread_activation,
)

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


class Rules(ctypes.Structure):
    _fields_ = [
        ("hops", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("decay", "facilitation", "source_floor", "transfer_floor")),
    ]


def at(tensor: Tensor | None) -> ctypes.c_void_p:
    assert tensor is None or tensor.is_contiguous()
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def columns_of(graph: Graph, regions: Tensor | None) -> Any:
    columns = [*graph, regions]
    return (ctypes.c_void_p * 6)(*[None if c is None else c.data_ptr() for c in columns])


def sizes(*numbers: int) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(number) for number in numbers]


def spread_on_host(
    gpu: ctypes.CDLL, seeds: Tensor, energies: Tensor, graph: Graph, k: int, rules: dict[str, Any],
    regions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Energies and slots [B, k] of the spreading kernel for seeds [B, S]."""
    got = torch.empty(len(seeds), k), torch.empty(len(seeds), k, dtype=torch.int64)
    gpu.on_host_spread(
        at(seeds), at(energies), *sizes(*seeds.shape), columns_of(graph, regions),
        *sizes(len(graph.first_block), len(graph.targets)), ctypes.byref(Rules(**rules)), *sizes(k),
        *map(at, got),
    )  # fmt: skip
    return got


@pytest.mark.parametrize("k, hops", [(10, 0), (10, 1), (64, 3), (200, 4)])
def test_spread_activation(gpu, k: int, hops: int) -> None:
    graph = random_graph(400, 8, seed=12)
    indices, energies = random_seeds(9, 6, 400, 12)
    regions = (torch.arange(400) % 5).to(torch.int32)
    rules = {**RULES, "hops": hops}
    want = spread_activation(indices, energies, *graph, regions=regions, k=k, **rules)
    got = spread_on_host(gpu, indices, energies, graph, k, rules, regions)
    assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


def test_of_parallel_edges_the_strongest_counts(gpu) -> None:
    edges = [
        (0, 1, 0.5),
        (0, 2, 0.3),
        (0, 1, 0.5),
        *((0, 3 + i, 0.2) for i in range(5)),
        (0, 2, 0.6),
        (0, 1, 0.4),
    ]
    graph = blocks_of(9, edges)
    seeds, energies = torch.tensor([[0]]), torch.tensor([[0.9]])
    want = spread_activation(seeds, energies, *graph, k=9, **RULES)
    got = spread_on_host(gpu, seeds, energies, graph, 9, RULES)
    assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


def test_some_queries_need_large_tables(gpu) -> None:
    """Of the same call: a graph in which some seeds reach everything, others a few."""
    far = [(a, a + 1, 0.9) for a in range(0, 20)]
    hub = [(500, b, 0.9) for b in range(100, 480)]
    graph = blocks_of(1000, far + hub)
    seeds = torch.tensor([[0, 5], [500, 3], [7, -1], [500, 500], [-1, -1], [3, 500]])
    energies = torch.tensor([[0.9, 0.5]]).repeat(6, 1)
    want = spread_activation(seeds, energies, *graph, k=300, **RULES)
    got = spread_on_host(gpu, seeds, energies, graph, 300, RULES)
    assert ((want[0] > 0).sum(1) > 256).tolist() == [False, True, False, True, False, True]
    assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))

    vectors = torch.randn(1000, 5, generator=torch.Generator().manual_seed(1))
    options = {**RULES, "relative": 0.5, "k": 300}
    whole = activate_context(energies, seeds, vectors, *graph, **options)
    found = activate(gpu, energies, seeds, vectors, graph, **options)
    assert all(torch.equal(one, other) for one, other in zip(found[:5], whole[:5], strict=True))


def activate(
    gpu, scores, slots, vectors, graph, *, k, relative, gather=True, jacobian=False, **options
) -> Activated:
    """As the public op, on the kernel."""
    rules = Rules(**{name: options.pop(name) for name in RULES})
    regions, bar, primed, ids = (options.pop(name, None) for name in ("regions", "bar", "primed", "ids"))
    assert not options
    (batch, count), dim = slots.shape, vectors.shape[1]
    got = Activated(
        torch.empty_like(slots),
        torch.empty_like(scores),
        torch.empty(batch, k, dtype=torch.int64),
        torch.empty(batch, k),
        torch.empty(batch, k, dim),
        torch.empty(batch, k, count),
        torch.empty(batch, count, dim),
    )
    of_streams = [None] * 3 if primed is None else primed[:3]
    gpu.on_host_activate(
        at(scores), at(slots), at(bar), *sizes(batch, count), *map(at, of_streams), at(ids),
        *sizes(0 if primed is None else primed.slots.shape[1]),
        ctypes.c_float(0 if primed is None else primed.share),
        at(vectors), *sizes(dim), columns_of(graph, regions),
        *sizes(len(vectors), len(graph.targets)), ctypes.byref(rules), ctypes.c_float(relative), *sizes(k),
        *map(at, got[:4]), at(got.vectors if gather else None),
        *map(at, got[5:] if jacobian else [None] * 2),
    )  # fmt: skip
    return got


@pytest.mark.parametrize("strong", [0.3, 1.0, 3.0], ids=["weak edges", "strong", "saturating"])
@pytest.mark.parametrize("prime", [False, True], ids=["alone", "primed"])
@pytest.mark.parametrize("barred", [False, True], ids=["own bar", "other bar"])
@pytest.mark.parametrize("k", [2, 6, 40])
def test_activate_context(gpu, strong: float, prime: bool, barred: bool, k: int) -> None:
    graph, vectors, queries, more, primed = case(strong=strong)
    scores, slots = found_by(graph, vectors, queries)
    options = {**RULES, **more, "relative": 0.5, "k": k}
    options |= {"primed": primed} if prime else {}
    options |= {"bar": torch.linspace(0, 1, B)} if barred else {}
    want = activate_context(scores, slots, vectors, *graph, **options)
    got = activate(gpu, scores, slots, vectors, graph, **options)
    assert all(torch.equal(one, other) for one, other in zip(got[:5], want[:5], strict=True))


@pytest.mark.parametrize("shape", [(6, 3, 10, 24), (5, 1, 1, 1), (4, 5, 33, 64), (4, 2, 5, 19)])
def test_read_members(gpu, shape) -> None:
    inputs = members_case(*shape)
    want = torch.ops.aesg.read_members(*inputs)
    got = [torch.empty_like(part) for part in want]
    gpu.on_host_read(*map(at, inputs), *sizes(*shape), *map(at, got))
    assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))

    slopes = [torch.randn_like(part) for part in want[:2]]
    want_grads = torch.ops.aesg.read_members_backward(*slopes, want[2], *inputs)
    grads = [torch.empty_like(part) for part in want_grads]
    gpu.on_host_read_backward(
        *map(at, inputs), *sizes(*shape), at(want[2]), *map(at, slopes), *map(at, grads)
    )
    assert all(torch.equal(one, other) for one, other in zip(grads, want_grads, strict=True))


def test_what_is_not_sound_counts_as_none(gpu) -> None:
    graph, vectors, queries, more, primed = case()
    scores, slots = found_by(graph, vectors, queries)
    options = {**RULES, **more, "relative": 0.5, "k": 6}
    sound = slots.clone(), scores.clone()
    sound[0][0, 1], sound[1][0, 1] = -1, 0
    want = activate_context(sound[1], sound[0], vectors, *graph, **options, primed=primed)
    slots[0, 1], scores[2, 0], scores[3, 1] = N, float("nan"), float("inf")
    damaged = primed._replace(slots=torch.where(primed.slots < 0, N + 5, primed.slots))
    got = activate(gpu, scores, slots, vectors, graph, **options, primed=damaged)
    assert bool((got.seeds[2] == -1).all()) and got.seeds[3, 1] == -1
    for one, other in zip(got[:5], want[:5], strict=True):
        assert torch.equal(one[:2], other[:2]) and torch.equal(one[4:], other[4:])


def test_damaged_chains_end(gpu) -> None:
    """Rings, blocks and targets outside: on the CPU an error, on the device the end of the chain."""
    graph, vectors, queries, more, _ = case()
    scores, slots = found_by(graph, vectors, queries)
    generator = torch.Generator().manual_seed(0)
    blocks = len(graph.targets)
    damaged = graph._replace(
        next_block=torch.randint(-3, blocks + 3, (blocks,), generator=generator, dtype=torch.int32),
        targets=torch.where(torch.rand(blocks, 7, generator=generator) < 0.2, N + 9, graph.targets),
    )
    got = activate(gpu, scores, slots, vectors, damaged, **RULES, **more, relative=0.5, k=6)
    assert bool(((got.members >= -1) & (got.members < N)).all()) and bool(got.energies.isfinite().all())


def test_any_order_of_the_threads(gpu) -> None:
    graph, vectors, queries, more, primed = case(strong=3.0)
    scores, slots = found_by(graph, vectors, queries)
    options = {**RULES, **more, "relative": 0.5, "k": 6, "primed": primed}
    want = activate_context(scores, slots, vectors, *graph, **options)
    for seed in range(5):
        gpu.on_host_order(seed)
        got = activate(gpu, scores, slots, vectors, graph, **options)
        assert all(torch.equal(one, other) for one, other in zip(got[:5], want[:5], strict=True))


@pytest.mark.parametrize("streams, steps, k, n", [(0, 1, 4, 9), (1, 1, 1, 9), (70, 3, 10, 50)])
def test_keep_primary(gpu, streams: int, steps: int, k: int, n: int) -> None:
    ours, theirs = streams_case(streams, steps, k, n), streams_case(streams, steps, k, n)
    slots, slot_ids, slot_energies, members, energies, ids = ours
    gpu.on_host_keep_primary(
        at(slots), at(slot_ids), at(slot_energies), *sizes(*slots.shape), at(members), at(energies),
        *sizes(k, steps), at(ids), *sizes(n),
    )  # fmt: skip
    keep_primary_(*theirs, steps=steps)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
