"""AESGMemory.retrieve: shapes, independence, gradients, errors."""

from __future__ import annotations

import pytest
import torch

from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.memory.controller import AESGMemory


def filled(make_memory, n=200, memory_mode="TRAIN", **fields):
    memory = make_memory(**fields)
    vectors = torch.randn(n, memory.vector_dim)
    slots = memory.graph.add_concepts(vectors)
    neighbors = (slots + 1) % n
    memory.graph.add_edges(slots, neighbors, [1.0] * n, [0.9] * n)
    memory.set_mode(memory_mode)
    return memory, vectors


@pytest.mark.parametrize("lead", [(), (5,), (3, 4)])
def test_shapes_follow_the_question(make_memory, lead):
    memory, _ = filled(make_memory)
    context = memory.retrieve(torch.randn(*lead, 16))
    assert context.vectors.shape == (*lead, 10, 16)
    assert context.weights.shape == context.mask.shape == context.indices.shape == (*lead, 10)
    assert context.explanation.shape == lead
    assert context.aggregate().shape == (*lead, 16)


def test_context_is_sorted_and_matches_the_columns(make_memory):
    memory, vectors = filled(make_memory)
    context = memory.retrieve(vectors[7] + 0.01 * torch.randn(16))
    assert context.primary_concepts[0] == 7
    weights = context.weights[context.mask]
    assert torch.equal(weights, weights.sort(descending=True).values)
    assert torch.equal(context.vectors[0], vectors[7])
    assert context.activated_nodes == sorted(context.primary_concepts + context.secondary_concepts)
    assert torch.equal(context.concept_vectors, vectors[torch.tensor(context.activated_nodes)])


def test_energy_spreads_along_edges_and_paths_tell_how(make_memory):
    memory, vectors = filled(make_memory, spreading_activation_steps=2)
    context = memory.retrieve(vectors[7])
    assert {7, 8, 9} <= set(context.activated_nodes)
    paths = dict(zip(context.indices[context.mask].tolist(), context.paths, strict=True))
    assert paths[7] == [7]
    assert paths[9][-1] == 9 and len(paths[9]) <= 3


def test_an_empty_memory_answers_with_nothing(make_memory):
    memory = make_memory(memory_mode="INFERENCE")
    query = torch.randn(3, 16, requires_grad=True)
    context = memory.retrieve(query)
    assert not context.mask.any() and context.concept_vectors is None and context.activated_nodes == []
    assert torch.equal(context.aggregate(), torch.zeros(3, 16))
    context.aggregate().sum().backward()
    assert memory.storage.node_count == 0


@pytest.mark.parametrize("lead", [(6,), (6, 5)])
def test_one_sample_never_changes_another(make_memory, lead):
    memory, _ = filled(make_memory, memory_mode="INFERENCE")
    queries = torch.randn(*lead, 16)
    changed = queries.clone()
    changed[0] = torch.randn(*lead[1:], 16)
    first = memory.retrieve(queries)
    memory.reset_state()
    second = memory.retrieve(changed)
    assert not torch.equal(first.vectors[0], second.vectors[0])
    assert torch.equal(first.vectors[1:], second.vectors[1:])
    assert torch.equal(first.weights[1:], second.weights[1:])
    assert torch.equal(first.aggregate()[1:], second.aggregate()[1:])


def test_the_query_decides_though_the_stream_primes(make_memory):
    memory, vectors = filled(make_memory, memory_mode="INFERENCE")
    for slot in (3, 90, 150):
        assert memory.retrieve(vectors[slot]).primary_concepts[0] == slot


def test_priming_ends_with_the_stream(make_memory):
    memory, vectors = filled(make_memory, memory_mode="INFERENCE", spreading_activation_steps=1)
    fresh = memory.retrieve(vectors[50]).activated_nodes
    memory.retrieve(vectors[3])
    primed = memory.retrieve(vectors[50]).activated_nodes
    memory.reset_state()
    again = memory.retrieve(vectors[50]).activated_nodes
    assert 3 in primed and 3 not in fresh
    assert again == fresh


def test_gradient_reaches_query_and_projection(make_memory):
    memory, _ = filled(make_memory, memory_mode="INFERENCE")
    query = torch.randn(4, 16, requires_grad=True)
    memory.retrieve(query).aggregate().square().sum().backward()
    assert query.grad is not None and query.grad.abs().sum() > 0
    assert memory.abstraction_projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("query", "error", "words"),
    [
        (torch.randn(8), AESGMemoryError, "expected 16, got 8"),
        (torch.randn(0, 16), AESGNavigationError, "at least one"),
        (torch.randn(1, 1, 1, 16), AESGNavigationError, "expected shape"),
        (torch.ones(16, dtype=torch.int64), AESGNavigationError, "floating point"),
        (torch.full((16,), float("nan")), AESGNavigationError, "finite"),
        (torch.full((2, 16), float("inf")), AESGNavigationError, "finite"),
        ([0.0] * 16, AESGNavigationError, "tensor"),
    ],
)
def test_bad_queries_are_refused_before_anything_changes(make_memory, query, error, words):
    memory, _ = filled(make_memory)
    before = memory.stats()["queries"], memory.storage.node_count, len(memory.logger.get_history())
    with pytest.raises(error, match=words):
        memory.retrieve(query)
    assert (memory.stats()["queries"], memory.storage.node_count, len(memory.logger.get_history())) == before


def test_reduced_precision_queries_are_taken(make_memory):
    memory, vectors = filled(make_memory, memory_mode="INFERENCE")
    assert memory.retrieve(vectors[11].bfloat16()).primary_concepts[0] == 11


@pytest.mark.parametrize("traced", [False, True])
def test_steps_within_one_call_are_answered_as_any_other(make_memory, traced):
    memory, vectors = filled(make_memory, memory_mode="INFERENCE")
    steps = vectors[:40].view(10, 4, 1, 16) + 0.1 * torch.randn(10, 4, 1, 16)
    wanted = [memory.retrieve(step) for step in steps]
    with memory.one_call(traced):
        for step, expected in zip(steps, wanted, strict=True):
            found = memory.retrieve(step)
            for name in ("vectors", "weights", "indices", "mask", "explanation"):
                assert torch.equal(getattr(found, name), getattr(expected, name)), name
            assert found.paths == expected.paths
    assert memory.stats()["queries"] == 80


def test_a_step_sees_what_the_graph_grew_by(make_memory):
    """Another memory on the same directory bears more concepts than there are places for."""
    memory, _ = filled(make_memory, memory_mode="INFERENCE")
    new = torch.randn(3000, 16)
    with memory.one_call(), AESGMemory(memory.directory, memory.config) as other:
        memory.retrieve(new[:4].unsqueeze(1))
        slots = other.graph.add_concepts(new)
        found = memory.retrieve(new[-4:].unsqueeze(1))
        assert found.indices[:, 0, 0].tolist() == slots[-4:].tolist()


def test_steps_within_one_call_are_checked(make_memory):
    memory, _ = filled(make_memory)
    with memory.one_call():
        memory.retrieve(torch.randn(2, 1, 16))
        with pytest.raises(AESGMemoryError, match="dimension"):
            memory.retrieve(torch.randn(2, 1, 15))
        with pytest.raises(AESGNavigationError, match="finite"):
            memory.retrieve(torch.full((2, 1, 16), torch.nan))
        with pytest.raises(AESGNavigationError, match="at least one"):
            memory.retrieve(torch.randn(0, 1, 16))


@pytest.mark.parametrize("traced", [False, True])
def test_what_was_asked_with_may_be_written_over(make_memory, traced):
    """Within one_call it is learnt from only on leaving."""
    steps = torch.randn(6, 4, 1, 16, generator=torch.Generator().manual_seed(3))
    learnt = []
    for reused in (False, True):
        memory = make_memory(str(reused))
        buffer = torch.empty(4, 1, 16)
        with memory.one_call(traced=traced):
            for step in steps:
                memory.retrieve(buffer.copy_(step) if reused else step)
            if reused:
                buffer.zero_()
        memory.graph.state.log.digest()
        pool = memory.graph.state.pool
        learnt.append((len(pool), memory.stats()["active"], memory.stats()["query_effective_rank"]))
    assert learnt[0] == learnt[1]


def test_asking_in_inference_mode_leaves_the_memory_usable(make_memory):
    memory, _ = filled(make_memory)
    with torch.inference_mode():
        memory.retrieve(torch.randn(40, 16))
    memory.reset_state([0, 3])
    memory.reset_state()
    assert bool((memory.active_state.primary == -1).all())
    query = torch.randn(40, 16, requires_grad=True)
    memory.retrieve(query).weights.sum().backward()
    assert bool(query.grad.any())
