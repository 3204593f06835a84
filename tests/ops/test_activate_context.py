"""activate_context against its oracle, bit for bit; replay_energies against the oracle's gradient."""

from __future__ import annotations

import pytest
import torch
from ops_helpers import as_stored, blocks_of, grouped, needs_cuda, on_threads

from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.ops import Primed, activate_context, replay_energies, seed_search
from aesg.ops.reference import activate_context_ref, seed_search_ref

RULES = {"hops": 3, "decay": 0.8, "facilitation": 1.5, "source_floor": 0.1, "transfer_floor": 0.05}
N, D, B, S, K = 60, 8, 24, 4, 6


def case(seed: int = 0, edges: int = 300, strong: float = 1.0):
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(0, N, (2, edges), generator=generator)
    weights = strong * torch.rand(edges, generator=generator)
    graph = blocks_of(
        N, [(int(a), int(b), float(w)) for a, b, w in zip(*ends, weights, strict=True) if a != b], dead=(3, 9)
    )
    vectors = torch.randn(N, D, generator=generator)
    queries = vectors[torch.randint(0, N, (B,), generator=generator)]
    queries = queries + 0.5 * torch.randn(B, D, generator=generator)
    more = {
        "regions": torch.randint(0, 4, (N,), generator=generator, dtype=torch.int32),
        "ids": torch.arange(100, 100 + N),
    }
    slots = torch.randint(-1, N, (B, 3), generator=generator)
    ids = torch.where(torch.rand(B, 3, generator=generator) < 0.8, slots + 100, 7)
    primed = Primed(slots, ids, torch.rand(B, 3, generator=generator), 0.5)
    return graph, vectors, queries, more, primed


def found_by(graph, vectors, queries, k: int = S, min_score: float = 0.1):
    return seed_search(queries, vectors, k, active=graph.active, min_score=min_score)


@pytest.mark.parametrize("strong", [0.3, 1.0, 3.0], ids=["weak edges", "strong", "saturating"])
@pytest.mark.parametrize("prime", [False, True], ids=["alone", "primed"])
@pytest.mark.parametrize("barred", [False, True], ids=["own bar", "other bar"])
@pytest.mark.parametrize("k", [2, 6, 40])
def test_the_bits_of_the_oracle(strong: float, prime: bool, barred: bool, k: int) -> None:
    graph, vectors, queries, more, primed = case(strong=strong)
    scores, slots = found_by(graph, vectors, queries)
    options = {**RULES, **more, "relative": 0.5, "k": k}
    options |= {"primed": primed} if prime else {}
    options |= {"bar": torch.linspace(0, 1, B)} if barred else {}
    wanted = activate_context_ref(scores, slots, vectors, *graph, **options)
    for jacobian in (False, True):
        got = activate_context(scores, slots, vectors, *graph, **options, jacobian=jacobian)
        for one, other in zip(got[:5], wanted, strict=True):
            assert torch.equal(one, other)
    stored = as_stored(graph)
    options |= {name: grouped(options[name]) for name in ("regions", "ids")}
    in_groups = activate_context(scores, slots, grouped(vectors), *stored, **options, jacobian=True)
    assert all(torch.equal(one, other) for one, other in zip(in_groups, got, strict=True))


def test_the_same_bits_for_any_number_of_threads() -> None:
    graph, vectors, queries, more, primed = case()
    scores, slots = found_by(graph, vectors, queries)
    results = on_threads(
        (1, 2, 5),
        lambda: activate_context(
            scores, slots, vectors, *graph, **RULES, **more, relative=0.5, k=K, primed=primed, jacobian=True
        ),
    )
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("strong", [0.3, 1.0, 3.0])
def test_gradient_is_the_oracles(strong: float) -> None:
    graph, vectors, queries, more, primed = case(strong=strong)
    options = {**RULES, **more, "relative": 0.5, "k": K, "primed": primed}
    asked = queries.clone().requires_grad_()
    scores, slots = seed_search_ref(asked, vectors, S, active=graph.active)
    energies = activate_context_ref(scores, slots, vectors, *graph, **options)[3]
    slope = torch.randn(energies.shape, generator=torch.Generator().manual_seed(1))
    (energies * slope).sum().backward()

    again = queries.clone().requires_grad_()
    scores, slots = found_by(graph, vectors, queries)
    found = activate_context(scores, slots, vectors, *graph, **options, jacobian=True)
    replayed = replay_energies(again, found)
    assert torch.equal(replayed, found.energies) and replayed.data_ptr() != found.energies.data_ptr()
    (replayed * slope).sum().backward()
    assert asked.grad.abs().sum() > 0
    torch.testing.assert_close(again.grad, asked.grad, rtol=1e-4, atol=1e-5)


def test_replay_needs_no_graph_and_passes_opcheck() -> None:
    graph, vectors, queries, more, _ = case()
    scores, slots = found_by(graph, vectors, queries)
    found = activate_context(
        scores, slots, vectors, *graph, **RULES, **more, relative=0.5, k=K, jacobian=True
    )
    kept = [part.clone() for part in found]
    vectors.zero_(), graph.strengths.zero_()
    assert all(torch.equal(a, b) for a, b in zip(found, kept, strict=True))
    arguments = (found.energies, found.seeds, found.similarities, found.jacobian, found.seed_vectors)
    torch.library.opcheck(
        torch.ops.aesg.replay_energies.default, (queries.clone().requires_grad_(), *arguments)
    )


def test_nothing_there() -> None:
    graph = blocks_of(0, [])
    empty = activate_context(
        torch.zeros(2, S), torch.full((2, S), -1), torch.zeros(0, D), *graph, **RULES, relative=0.5, k=K,
        jacobian=True,
    )  # fmt: skip
    assert bool((empty.members == -1).all()) and not empty.energies.any() and not empty.vectors.any()
    queries = torch.randn(2, D, requires_grad=True)
    replay_energies(queries, empty).sum().backward()
    assert not queries.grad.any()


def test_wrong_arguments() -> None:
    graph, vectors, queries, more, primed = case()
    scores, slots = found_by(graph, vectors, queries)

    def run(scores=scores, slots=slots, vectors=vectors, **changed):
        options = {**RULES, **more, "relative": 0.5, "k": K, **changed}
        return activate_context(scores, slots, vectors, *graph, **options)

    for change in (
        {"slots": slots + N},
        {"slots": slots.int()},
        {"scores": scores[:, :2]},
        {"scores": scores * float("nan")},
        {"k": 0},
        {"hops": -1},
        {"decay": float("inf")},
        {"bar": torch.zeros(1)},
        {"primed": primed._replace(slots=primed.slots + N)},
        {"primed": primed._replace(energies=primed.energies[:, :1])},
    ):
        with pytest.raises(AESGNavigationError):
            run(**change)
    with pytest.raises(AESGNavigationError, match=r"jacobian: expected shape \[24, 6, 4\], got \[0, 6, 4\]"):
        replay_energies(queries, run())
    short_ids = {"ids": more["ids"][:-1], "primed": primed}
    for change in ({"vectors": vectors[:-1]}, short_ids, {"vectors": vectors.double()}):
        with pytest.raises(AESGMemoryError):
            run(**change)


def to_cuda(options: dict) -> dict:
    def moved(value):
        return value.cuda() if isinstance(value, torch.Tensor) else value

    return {
        name: Primed(*map(moved, value)) if isinstance(value, Primed) else moved(value)
        for name, value in options.items()
    }


@needs_cuda
@pytest.mark.parametrize("strong", [0.3, 1.0, 3.0], ids=["weak edges", "strong", "saturating"])
@pytest.mark.parametrize("prime", [False, True], ids=["alone", "primed"])
@pytest.mark.parametrize("k", [2, 6, 40, 1024])
def test_cuda_has_the_bits_of_the_cpu(strong: float, prime: bool, k: int) -> None:
    graph, vectors, queries, more, primed = case(strong=strong)
    scores, slots = found_by(graph, vectors, queries)
    options = {**RULES, **more, "relative": 0.5, "k": k, "bar": torch.linspace(0, 1, B)}
    options |= {"primed": primed} if prime else {}
    want = activate_context(scores, slots, vectors, *graph, **options)
    for layout, columns in ((torch.Tensor.cuda, [vectors, *graph]), (grouped, [vectors, *as_stored(graph)])):
        options_there = to_cuda(options)
        if layout is grouped:
            options_there |= {name: grouped(options[name]).cuda() for name in ("regions", "ids")}
            columns = [grouped(vectors), *columns[1:]]
        there = [column.cuda() for column in columns]
        got = activate_context(scores.cuda(), slots.cuda(), *there, **options_there)
        for one, other in zip(got, want, strict=True):
            assert torch.equal(one.cpu(), other)


@needs_cuda
def test_cuda_takes_what_is_not_sound_as_none() -> None:
    graph, vectors, queries, more, primed = case()
    scores, slots = found_by(graph, vectors, queries)
    damaged = slots.clone()
    damaged[0, 1], damaged[1, 0] = N, -7
    scores[2, 0] = float("nan")
    there = to_cuda({**RULES, **more, "relative": 0.5, "k": K, "primed": primed})
    got = activate_context(scores.cuda(), damaged.cuda(), vectors.cuda(), *(c.cuda() for c in graph), **there)
    assert got.seeds[0, 1] == -1 and got.seeds[1, 0] == -1 and bool((got.seeds[2] == -1).all())
