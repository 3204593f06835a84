"""What training needs of CUDA ops: graph capture, other streams, no waiting for the device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ops_helpers import needs_cuda
from test_activate_context import RULES, D, K, case, found_by, to_cuda
from test_pool_novelty import clustered, empty_pool
from test_read_members import case as members_case
from torch import Tensor

from aesg.ops import (
    activate_context,
    pool_novelty_,
    read_members,
    replay_energies,
    seed_search,
    spread_activation,
)

# For each op: inputs that a replay may find changed, other inputs of the same shapes, and the call on them.
Call = Callable[[list[Tensor]], tuple[Tensor, ...]]
Made = tuple[list[Tensor], list[Tensor], Call]


def searched() -> Made:
    graph, vectors, queries, _, _ = case()
    rows, active = vectors.cuda(), graph.active.cuda()

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return seed_search(inputs[0], rows, K, active=active)

    return [queries.cuda()], [queries.flip(0).cuda()], run


def spread() -> Made:
    graph, vectors, queries, more, _ = case()
    scores, slots = found_by(graph, vectors, queries)
    columns, regions = [column.cuda() for column in graph], more["regions"].cuda()

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return spread_activation(*inputs, *columns, regions=regions, k=K, **RULES)

    return [slots.cuda(), scores.cuda()], [slots.flip(0).cuda(), scores.flip(0).cuda()], run


def activated() -> Made:
    graph, vectors, queries, more, primed = case()
    scores, slots = found_by(graph, vectors, queries)
    columns = [column.cuda() for column in (vectors, *graph)]
    options = to_cuda({**RULES, **more, "relative": 0.5, "k": K, "primed": primed})

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return activate_context(*inputs, *columns, **options)

    return [scores.cuda(), slots.cuda()], [scores.flip(0).cuda(), slots.flip(0).cuda()], run


def spread_with_gradients() -> Made:
    """The jacobian, and the gradient of the strengths, of the op itself: autograd needs no test here."""
    graph, vectors, queries, more, _ = case()
    scores, slots = found_by(graph, vectors, queries)
    columns, regions = [column.cuda() for column in graph], more["regions"].cuda()
    rules = [RULES[name] for name in ("hops", "decay", "facilitation", "source_floor", "transfer_floor")]
    slopes = torch.randn(len(slots), K).cuda()

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        found = torch.ops.aesg.spread_activation(*inputs, *columns, regions, *rules, K, True)
        given = slopes, found[1], *inputs, *columns, regions, *rules
        return (*found, torch.ops.aesg.spread_activation_backward(*given))

    return [slots.cuda(), scores.cuda()], [slots.flip(0).cuda(), scores.flip(0).cuda()], run


def replayed() -> Made:
    graph, vectors, queries, more, primed = case()
    scores, slots = found_by(graph, vectors, queries)
    columns = [column.cuda() for column in (vectors, *graph)]
    options = to_cuda({**RULES, **more, "relative": 0.5, "k": K, "primed": primed, "jacobian": True})

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        found = activate_context(*inputs[1:], *columns, **options)
        given = found.seeds, found.similarities, found.jacobian, found.seed_vectors
        energies = replay_energies(inputs[0], found)
        return (*found, energies, torch.ops.aesg.replay_energies_backward(energies, inputs[0], *given))

    one = [part.cuda() for part in (queries, scores, slots)]
    return one, [part.flip(0) for part in one], run


def read() -> Made:
    one, other = ([part.cuda() for part in members_case(seed=seed)] for seed in (0, 1))
    return one, other, lambda inputs: read_members(*inputs)


def pooled() -> Made:
    one, other = (
        [*(part.cuda() for part in empty_pool(50, D)), clustered(200, D, 9, s).cuda()] for s in (0, 1)
    )

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return (*pool_novelty_(*inputs, threshold=0.6, birth_count=3), *inputs[:4])

    return one, other, run


OPS = [searched, spread, activated, spread_with_gradients, replayed, read, pooled]


def results(run: Call, inputs: list[Tensor]) -> list[Tensor]:
    """Of a call on copies, so that what it changes can be asked again."""
    return [part.clone() for part in run([part.clone() for part in inputs])]


@needs_cuda
@pytest.mark.parametrize("make", OPS)
def test_a_captured_graph_gives_what_the_call_gives(make: Callable[[], Made]) -> None:
    one, other, run = make()
    wanted = [results(run, inputs) for inputs in (other, one)]
    held = [part.clone() for part in one]
    with torch.cuda.stream(torch.cuda.Stream()):
        run(held)  # warms up: modules load, the allocator gets its memory
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(held)
    for inputs, want in zip((other, one), wanted, strict=True):
        for place, part in zip(held, inputs, strict=True):
            place.copy_(part)
        graph.replay()
        for got, expected in zip(captured, want, strict=True):
            assert torch.equal(got, expected)


@needs_cuda
@pytest.mark.parametrize("make", OPS)
def test_on_another_stream_after_work_that_takes_its_time(make: Callable[[], Made]) -> None:
    one, other, run = make()
    want = results(run, other)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # tens of milliseconds
        for place, part in zip(one, other, strict=True):
            place.copy_(part)  # an op on another stream would read too early
        got = run(one)
    stream.synchronize()
    for result, expected in zip(got, want, strict=True):
        assert torch.equal(result, expected)


@needs_cuda
@pytest.mark.parametrize("make", OPS)
def test_the_host_does_not_wait(make: Callable[[], Made]) -> None:
    one, _, run = make()
    run([part.clone() for part in one])
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(1_000_000_000)  # hundreds of milliseconds
    run(one)
    done.record()
    assert not done.query()
    torch.cuda.synchronize()
