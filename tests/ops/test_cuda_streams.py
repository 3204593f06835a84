"""What training needs of CUDA ops: graph capture, other streams, no waiting for the device.

Without a device one test remains: that these calls are what the others take them for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bear_helpers import CONFIDENCE, flat, make_store, nodes_of, some_births
from bear_helpers import changed as changed_by
from edge_helpers import NODES, Learnt, learnt_of
from ops_helpers import needs_cuda
from test_activate_context import RULES, D, K, case, found_by, to_cuda
from test_coactivate import RATE, rows_of
from test_consolidate import RULES as FADING
from test_consolidate import columns as columns_of
from test_count_use import GAIN
from test_count_use import case as uses_case
from test_follow import SHARES, events
from test_keep_primary import case as kept_case
from test_note_succession import BAR
from test_note_succession import case as succession_case
from test_pack_rows import case as rows_case
from test_pool_novelty import clustered, empty_pool
from test_project_out import case as rests_case
from test_read_members import case as members_case
from test_retire import doomed_of
from torch import Tensor

from aesg.ops import (
    Edges,
    activate_context,
    bear_,
    coactivate_,
    consolidate_,
    count_use_,
    follow_,
    keep_primary_,
    note_succession_,
    pack_rows,
    pool_novelty_,
    project_out,
    project_out_inv_norm_,
    read_members,
    replay_energies,
    retire_,
    seed_search,
    spread_activation,
)
from tests.pretended_cuda import DEVICE, needs_no_cuda, pretended_cuda

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


def learnt(seed: int) -> Learnt:
    """A graph's columns, flat: 300 concepts, some slots and blocks free, and room for more."""
    with (
        tempfile.TemporaryDirectory() as folder,
        make_store(Path(folder), 300, 6, dead=0.1, seed=seed) as storage,
    ):
        return changed_by(learnt_of(storage, 1, 2), flat)


def on_cuda(*parts: Tensor) -> list[Tensor]:
    return [part.cuda() for part in parts]


def counted() -> Made:
    one, other = (on_cuda(*uses_case(hub=400, seed=seed)) for seed in (0, 1))

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        count_use_(*inputs, gain=GAIN)
        return tuple(inputs[:2])

    return one, other, run


def kept() -> Made:
    one, other = (on_cuda(*kept_case(seed=seed)) for seed in (0, 1))

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        keep_primary_(*inputs, steps=2)
        return tuple(inputs[:3])

    return one, other, run


def projected() -> Made:
    one, other = (on_cuda(*rests_case(300, 33, seed), torch.zeros(300), torch.arange(300)) for seed in (0, 1))

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        vectors, direction, lengths, slots = inputs
        project_out_inv_norm_(lengths, vectors, slots, direction)
        return project_out(vectors, direction), lengths

    return one, other, run


def noted() -> Made:
    one, other = (on_cuda(*succession_case(seed=seed)) for seed in (0, 1))

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return (*note_succession_(*inputs, threshold=BAR, steps=2), *inputs[:2])

    return one, other, run


def packed() -> Made:
    rows, chosen = rows_case(5000, 4, 0.3)
    most = torch.tensor([1000])

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return pack_rows(*inputs[:2], most=inputs[2])

    return on_cuda(rows, chosen, most), on_cuda(rows.flip(0), chosen.flip(0), most // 2), run


def consolidated() -> Made:
    one, other = (on_cuda(*columns_of(5000, seed)) for seed in (0, 1))

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return (consolidate_(*inputs, count=4900, **FADING), *inputs[:2])

    return one, other, run


def coactivated() -> Made:
    def inputs_of(seed: int) -> list[Tensor]:
        graph = learnt(seed)
        return on_cuda(*graph.edges, graph.nodes["is_active"], rows_of(300, 400, seed=seed))

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        coactivate_(Edges(*inputs[:10]), *inputs[10:], rate=RATE)
        return tuple(inputs[:10])

    return inputs_of(0), inputs_of(1), run


def followed() -> Made:
    def inputs_of(seed: int) -> list[Tensor]:
        graph = learnt(seed)
        return on_cuda(
            *graph.edges, graph.nodes["is_active"], graph.counters, *events(300, 500, seed, hub=0.3)
        )

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        follow_(Edges(*inputs[:10]), *inputs[10:], **SHARES)
        return tuple(inputs[:12])

    return inputs_of(0), inputs_of(1), run


def retired() -> Made:
    def inputs_of(seed: int) -> list[Tensor]:
        graph = learnt(seed)
        doomed = doomed_of(300, len(graph.nodes["is_active"]), 0.3, seed)
        return on_cuda(*graph.edges, graph.nodes["is_active"], graph.counters, doomed)

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return (retire_(Edges(*inputs[:10]), *inputs[10:]), *inputs[:12])

    return inputs_of(0), inputs_of(1), run


def born() -> Made:
    def inputs_of(seed: int) -> list[Tensor]:
        with (
            tempfile.TemporaryDirectory() as folder,
            make_store(Path(folder), 300, 6, dead=0.1, seed=seed) as storage,
        ):
            births = some_births(storage, 90, 4, 70 + seed, seed)
            graph = changed_by(learnt_of(storage, 1, 2), flat)
        return on_cuda(*births, *(graph.nodes[name] for name in NODES), *graph.edges, graph.counters)

    def run(inputs: list[Tensor]) -> tuple[Tensor, ...]:
        births, columns, counters = inputs[:4], inputs[4:-1], inputs[-1]
        graph = Learnt(dict(zip(NODES, columns[:8], strict=True)), Edges(*columns[8:]), counters)
        return (bear_(*births, nodes_of(graph), graph.edges, counters, confidence=CONFIDENCE), *inputs[4:])

    return inputs_of(0), inputs_of(1), run


OPS = [
    searched, spread, activated, spread_with_gradients, replayed, read, pooled, counted, kept,
    projected, noted, packed, consolidated, coactivated, followed, retired, born,
]  # fmt: skip


def results(run: Call, inputs: list[Tensor]) -> list[Tensor]:
    """Of a call on copies, so that what it changes can be asked again."""
    return [part.clone() for part in run([part.clone() for part in inputs])]


@needs_no_cuda
@pytest.mark.parametrize("make", OPS)
def test_the_calls_are_sound(make: Callable[[], Made], monkeypatch: pytest.MonkeyPatch) -> None:
    """Other inputs of the same shapes give other results of the same shapes, the same ones the same, and no
    torch operation on the way waits for the device. The kernels are those of the CPU.
    """
    monkeypatch.setattr(Tensor, "cuda", lambda self: self.to(DEVICE))
    with pretended_cuda() as device:
        one, other, run = make()
        assert all(part.is_cuda for part in (*one, *other))
        alike = [
            (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())
            for a, b in zip(one, other, strict=True)
        ]
        assert all(alike)
        device.waits.clear()
        first, second, again = results(run, one), results(run, other), results(run, one)
        assert device.waits == []
        first, second, again = ([part.cpu() for part in given] for given in (first, second, again))
    assert [part.shape for part in first] == [part.shape for part in second]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


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
