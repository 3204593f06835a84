"""Query health: what all queries share is measured, and left out of likeness where it hides the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from aesg import _core
from aesg.graph.query_mean import BLOCK, QueryMean

DIM = 32
PATTERNS = 40
OFFSET = 10.0  # times the signal's length


def told(seed: int = 0, offset: float = OFFSET) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Common vector [D], patterns [P, D], and 60 batches of noisy queries that all share the first."""
    generator = torch.Generator().manual_seed(seed)
    directions = nn.functional.normalize(torch.randn(PATTERNS + 1, DIM, generator=generator), dim=1)
    patterns = directions[1:]
    which = torch.randint(0, PATTERNS, (60, 64), generator=generator)
    noise = 0.05 * torch.randn(60, 64, DIM, generator=generator)
    return offset * directions[0], patterns, offset * directions[0] + patterns[which] + noise


def live(memory, batches: torch.Tensor) -> None:
    for batch in batches:
        memory.reset_state()
        memory.retrieve(batch)
        memory.update_topology()
    memory.reset_state()


def recall(memory, common: torch.Tensor, patterns: torch.Tensor) -> float:
    """Share of patterns whose best seed stands for the pattern, by what is not common."""
    _, slots = memory.graph.search(common + patterns, 1, -1.0)
    rest = memory.graph.gather(slots[:, 0]) - common
    return float((torch.cosine_similarity(rest, patterns, dim=1) > 0.8).float().mean())


def test_collapsed_queries_are_told_apart_once_their_common_part_is_left_out(make_memory):
    common, patterns, batches = told()
    found = {}
    for threshold in (1.0, 0.9):
        memory = make_memory(str(threshold), vector_dim=DIM, query_collapse_threshold=threshold)
        live(memory, batches)
        found[threshold] = recall(memory, common, patterns)
        assert memory.stats()["common_part_removed"] == (threshold < 1.0)
        assert memory.stats()["query_resultant"] > 0.95
        assert memory.check() == []
    assert found[1.0] < 0.1, "one concept explains everything"
    assert found[0.9] >= 0.95
    assert memory.storage.active_count <= 1.1 * (PATTERNS + 1)


def test_different_queries_are_left_alone(make_memory):
    _, _, batches = told(offset=0.5)
    images = []
    for threshold in (1.0, 0.9):
        memory = make_memory(str(threshold), vector_dim=DIM, query_collapse_threshold=threshold)
        live(memory, batches)
        assert not memory.stats()["common_part_removed"]
        images.append(memory.storage.core.node_view().tobytes())
    assert images[0] == images[1]


@pytest.mark.parametrize("others", [0, 2])
def test_one_pattern_that_prevails_is_no_common_part(make_memory, others):
    """Its remainders are noise; leaving it out would lose the one thing the memory knows."""
    generator = torch.Generator().manual_seed(1)
    patterns = nn.functional.normalize(torch.randn(3, DIM, generator=generator), dim=1)
    memory = make_memory(vector_dim=DIM)
    for _ in range(60):
        batch = patterns[0].expand(64, DIM).clone()
        batch[:others] = patterns[1 : 1 + others]
        memory.retrieve(batch + 0.02 * torch.randn(64, DIM, generator=generator))
        memory.update_topology()
    assert memory.stats()["query_resultant"] > 0.9
    assert not memory.stats()["common_part_removed"]
    memory.reset_state()
    assert memory.retrieve(patterns[0]).explanation > 0.9


def test_it_survives_a_reopening_and_inference_leaves_it_untouched(make_memory):
    common, patterns, batches = told()
    memory = make_memory(vector_dim=DIM)
    live(memory, batches)
    answer = memory.retrieve(common + patterns[0])
    memory.close()
    memory = make_memory(vector_dim=DIM, memory_mode="INFERENCE")
    assert memory.stats()["common_part_removed"]
    before = memory._state.queries.to_state()
    memory.retrieve(-5 * batches[0])
    memory.update_topology()
    after = memory._state.queries.to_state()
    assert np.array_equal(before["queries.mean"], after["queries.mean"])
    assert np.array_equal(before["queries.common"], after["queries.common"])
    memory.reset_state()
    assert torch.equal(memory.retrieve(common + patterns[0]).indices, answer.indices)


def test_it_ends_when_the_queries_differ_again(make_memory):
    _, _, batches = told()
    memory = make_memory(vector_dim=DIM)
    live(memory, batches)
    assert memory.stats()["common_part_removed"]
    live(memory, torch.randn(100, 64, DIM))
    assert not memory.stats()["common_part_removed"]
    assert memory.graph.search(memory.graph.get_node_vector(0)[None], 1, 0.0)[0] == pytest.approx(1.0)


def test_the_mean_does_not_depend_on_how_queries_came():
    rows = torch.randn(3 * BLOCK + 7, DIM) + 3
    means = []
    for size in (1, 5, BLOCK, len(rows)):
        health = QueryMean(DIM)
        for chunk in rows.split(size):
            health.note(chunk)
        means.append(health.mean)
    assert all(np.array_equal(means[0], mean) for mean in means[1:])
    expected = nn.functional.normalize(rows[: 3 * BLOCK].double(), dim=1).mean(dim=0)
    assert means[0] == pytest.approx(expected.numpy(), abs=1e-12)


def test_nothing_is_found_in_an_empty_graph(make_memory):
    """Where nothing is ever novel, a common part may show before there is a concept."""
    memory = make_memory(vector_dim=DIM, novelty_explanation_threshold=0.0)
    _, _, batches = told()
    live(memory, batches)
    assert memory.stats()["common_part_removed"] and memory.storage.node_count == 0
    assert memory.retrieve(batches[0]).indices.max() == -1


def test_likeness_is_the_cosine_of_what_remains(make_memory):
    memory = make_memory(vector_dim=DIM)
    vectors = torch.randn(1100, DIM) + 8
    memory.graph.add_concepts(vectors[:1000])
    health = memory._state.queries
    common = nn.functional.normalize(torch.ones(DIM, dtype=torch.float64), dim=0)
    health.take(common)
    queries = (torch.randn(5, DIM) + 8).requires_grad_()

    def expected(vectors: torch.Tensor) -> torch.Tensor:
        def rest(v: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(v.double() - (v.double() @ common)[:, None] * common, dim=1)

        return rest(queries) @ rest(vectors).T

    for count in (1000, 1100):  # the second after growth
        if count == 1100:
            memory.graph.add_concepts(vectors[1000:])
        memory.update_concept(3, -vectors[5])
        now = vectors[:count].clone()
        now[3] = -vectors[5]
        scores, slots = memory.graph.search(queries, 10, -1.0)
        wanted = expected(now)
        assert torch.equal(slots, wanted.topk(10, dim=1).indices)
        assert (scores - wanted.topk(10, dim=1).values).abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(scores.sum(), queries, retain_graph=True)
    (oracle,) = torch.autograd.grad(wanted.topk(10, dim=1).values.sum(), queries)
    assert (gradient - oracle).abs().max() < 1e-5
    assert not memory.graph.search(8 * torch.ones(1, DIM), 1, -1.0)[0].any(), "nothing but the common part"


def test_duplicates_are_judged_without_the_common_part(make_memory):
    for removed in (False, True):
        memory = make_memory(str(removed), vector_dim=DIM)
        slots = memory.graph.add_concepts(10 * torch.eye(DIM)[0] + torch.eye(DIM)[1:3])  # raw cosine 0.99
        memory.graph.add_edges(slots, slots[::-1].copy(), [0.9, 0.9], [0.9, 0.9])
        common = torch.eye(DIM, dtype=torch.float64)[0].numpy() if removed else None
        merged = _core.merge_duplicates(memory.storage.core, 0.95, 0, 1, common)
        assert merged == (0 if removed else 1)


def test_forgetting_begins_the_measure_anew(make_memory):
    memory = make_memory(vector_dim=DIM)
    memory.retrieve(torch.ones(BLOCK, DIM))
    assert memory._state.queries.resultant == pytest.approx(1.0)
    memory.forget(query=torch.ones(DIM), radius=0.5)
    assert not memory._state.queries.mean.any()


def test_a_pack_answers_by_the_same_likeness(make_memory, tmp_path):
    common, patterns, batches = told()
    other = make_memory("other", vector_dim=DIM)
    other.graph.add_concepts(common + torch.cat([patterns[:5], -patterns[:5]]))
    other.export_pack(tmp_path / "p.aesgpack")
    memory = make_memory(vector_dim=DIM)
    live(memory, batches)
    memory.attach_pack(memory.load_pack(tmp_path / "p.aesgpack"), priority=100)
    memory.set_mode("INFERENCE")
    context = memory.retrieve(common - patterns[3])
    best = context.vectors[context.origins == 1][0] - common
    assert torch.cosine_similarity(best, -patterns[3], dim=0) > 0.99
    assert context.explanation > 0.9, "the memory itself knows nothing like it"
    again = memory.retrieve(common + patterns[3])
    assert again.explanation > 0.9


@pytest.mark.parametrize("approximate", [False, True])
def test_living_in_inference_mode_leaves_the_memory_trainable(approximate, make_memory):
    """What is kept of that time is written to and learnt through later."""
    _, _, batches = told()
    options = {"approximate_search_from": 10} if approximate else {}
    with torch.inference_mode():
        memory = make_memory(
            vector_dim=DIM, region_detection_interval=5, consolidation_epoch_interval=5, **options
        )
        live(memory, batches[:30])
    assert memory.stats()["common_part_removed"]
    live(memory, batches[30:])
    query = batches[0].clone().requires_grad_()
    memory.retrieve(query).weights.sum().backward()
    assert bool(query.grad.any())
    assert memory.check() == []
