"""Derivatives on a CUDA device: against the CPU, the same in every run, and by torch's own rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ops_helpers import as_stored, grouped, needs_cuda
from test_activate_context import RULES, B, K, case, found_by, to_cuda
from test_spread_activation import gradients, random_graph, random_seeds

from aesg.exceptions import AESGNavigationError
from aesg.ops import activate_context, replay_energies, spread_activation

# Sums of the same f32 products, rounded at other places.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def rules_of(**changed: Any) -> list[Any]:
    rules = {**RULES, **changed}
    return [rules[name] for name in ("hops", "decay", "facilitation", "source_floor", "transfer_floor")]


@needs_cuda
@pytest.mark.parametrize("hops", [0, 1, 4, 8])
@pytest.mark.parametrize("count, k", [(4, 10), (7, 100), (40, 1024)])
def test_gradients_of_spreading_are_those_of_the_cpu(hops: int, count: int, k: int) -> None:
    graph = random_graph(5000, 8, seed=hops)
    indices, energies = random_seeds(33, count, 5000, hops)
    regions = (torch.arange(5000) % 9).to(torch.int32)
    weights = torch.randn(33, k, generator=torch.Generator().manual_seed(1))
    options = {**RULES, "hops": hops, "k": k}
    want = gradients(spread_activation, indices, energies, graph, weights, regions=regions, **options)
    stored = as_stored(graph)
    for columns, rows in ((graph, regions), (stored, grouped(regions))):
        there = type(graph)(*(column.cuda() for column in columns))
        given = indices.cuda(), energies.cuda(), there, weights.cuda()
        got = gradients(spread_activation, *given, regions=rows.cuda(), **options)
        torch.testing.assert_close(got[0].cpu(), want[0], **TOLERANCE)
        strengths = got[1].cpu().reshape(-1, 7)[: len(want[1])]
        torch.testing.assert_close(strengths, want[1], **TOLERANCE)
        for one, again in zip(
            got, gradients(spread_activation, *given, regions=rows.cuda(), **options), strict=True
        ):
            assert torch.equal(one, again)


@needs_cuda
@pytest.mark.parametrize("strong", [0.3, 1.0, 3.0], ids=["weak edges", "strong", "saturating"])
@pytest.mark.parametrize("count, k", [(4, 6), (40, 40)])
def test_gradients_of_contexts_are_those_of_the_cpu(strong: float, count: int, k: int) -> None:
    graph, vectors, queries, more, primed = case(strong=strong)
    scores, slots = found_by(graph, vectors, queries, k=count)
    options = {**RULES, **more, "relative": 0.5, "k": k, "primed": primed, "jacobian": True}
    want = activate_context(scores, slots, vectors, *graph, **options)
    columns = [column.cuda() for column in (scores, slots, vectors, *graph)]
    got = activate_context(*columns, **to_cuda(options))
    for name, one, other in zip(want._fields, got, want, strict=True):
        if name == "jacobian":
            torch.testing.assert_close(one.cpu(), other, **TOLERANCE)
        else:
            assert torch.equal(one.cpu(), other), name
    assert all(
        torch.equal(*pair) for pair in zip(got, activate_context(*columns, **to_cuda(options)), strict=True)
    )

    slope = torch.randn(B, k, generator=torch.Generator().manual_seed(1))
    wanted, asked = (rows.clone().requires_grad_() for rows in (queries, queries.cuda()))
    (replay_energies(wanted, want) * slope).sum().backward()
    # The very same jacobian, so the very same bits.
    (replay_energies(asked, type(want)(*(part.cuda() for part in want))) * slope.cuda()).sum().backward()
    assert wanted.grad is not None and asked.grad is not None and bool(wanted.grad.any())
    assert torch.equal(asked.grad.cpu(), wanted.grad)


@needs_cuda
def test_opcheck() -> None:
    graph = random_graph(30, 4, seed=10)
    indices, energies = (part.cuda() for part in random_seeds(3, 4, 30, 10))
    columns = [column.cuda() for column in graph]
    columns[2].requires_grad_()
    op = torch.ops.aesg.spread_activation.default
    torch.library.opcheck(
        op, (indices, energies.clone().requires_grad_(), *columns, None, *rules_of(), 10, True)
    )
    given = torch.ones(3, 10).cuda(), torch.zeros(3, 10, dtype=torch.int64).cuda(), indices, energies
    columns[2] = columns[2].detach()
    torch.library.opcheck(
        torch.ops.aesg.spread_activation_backward.default, (*given, *columns, None, *rules_of())
    )

    few, vectors, queries, more, primed = case()
    scores, slots = found_by(few, vectors, queries)
    options = to_cuda({**RULES, **more, "relative": 0.5, "k": K, "primed": primed, "jacobian": True})
    found = activate_context(*(part.cuda() for part in (scores, slots, vectors, *few)), **options)
    arguments = found.energies, found.seeds, found.similarities, found.jacobian, found.seed_vectors
    torch.library.opcheck(
        torch.ops.aesg.replay_energies.default, (queries.cuda().requires_grad_(), *arguments)
    )
    torch.library.opcheck(
        torch.ops.aesg.replay_energies_backward.default,
        (found.energies, queries.cuda(), *arguments[1:]),
    )


@needs_cuda
def test_limits() -> None:
    graph = random_graph(30, 4, seed=10)
    indices, energies = random_seeds(3, 4, 30, 10)
    columns = [part.cuda() for part in (indices, energies, *graph)]
    columns[4].requires_grad_()
    found, _ = spread_activation(*columns, **{**RULES, "hops": 65}, k=5)
    with pytest.raises(AESGNavigationError, match="hops: expected at most 64"):
        found.sum().backward()
    with pytest.raises(AESGNavigationError, match="k: expected at most 1024"):
        spread_activation(*columns, **RULES, k=1025)
