"""What a memory learns by being asked: birth, links, succession, use, and what each mode forbids."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aesg.exceptions import AESGMemoryError


def directions(n: int, dim: int = 16) -> torch.Tensor:
    """n <= dim orthogonal unit vectors."""
    return torch.linalg.qr(torch.randn(dim, dim)).Q[:n].contiguous()


def edge(memory, source, target):
    found = [e for e in memory.storage.get_edges(source) if e["target"] == target]
    return found[0] if found else None


def test_the_first_query_of_an_empty_memory_is_born_at_once(make_memory):
    memory = make_memory()
    memory.retrieve(torch.randn(16))
    assert memory.storage.node_count == 1


def test_an_outlier_is_never_born_and_persistence_is(make_memory):
    memory = make_memory()
    first, outlier, steady = directions(3)
    memory.retrieve(first)
    memory.retrieve(outlier)
    for _ in range(2):
        memory.retrieve(steady)
        memory.reset_state()
    assert memory.storage.node_count == 1
    memory.retrieve(steady)
    assert memory.storage.node_count == 2
    assert torch.allclose(memory.graph.get_node_vector(1), steady)


def test_equal_novel_samples_of_one_batch_count_together_and_give_one_birth(make_memory):
    memory = make_memory()
    first, steady = directions(2)
    memory.retrieve(first)
    memory.retrieve(steady.expand(9, 16))
    assert memory.storage.node_count == 2
    memory.retrieve(steady.expand(9, 16))
    assert memory.storage.node_count == 2


def test_finetune_needs_ten_times_the_persistence(make_memory):
    memory = make_memory(memory_mode="FINETUNE")
    first, steady = directions(2)
    memory.retrieve(first)
    memory.retrieve(steady.expand(29, 16))
    assert memory.storage.node_count == 1
    memory.retrieve(steady)
    assert memory.storage.node_count == 2


def test_links_at_birth_go_both_ways_to_what_is_alike(make_memory):
    memory = make_memory()
    a, b, _ = directions(3)
    first = memory.cognitive_engine.create_sensory_concept(a)
    memory.cognitive_engine.create_sensory_concept(b)
    near = memory.cognitive_engine.create_sensory_concept(a + 0.3 * b)
    cosine = float(torch.cosine_similarity(a, a + 0.3 * b, dim=0))
    assert memory.storage.edge_count == 2
    for link in (edge(memory, first, near), edge(memory, near, first)):
        assert link["weight"] == pytest.approx(cosine, abs=1e-6)
        assert link["confidence"] == pytest.approx(0.5)


def test_succession_is_learnt_between_calls_and_along_time(make_memory):
    memory = make_memory()
    a, b, c = directions(3)
    slots = memory.graph.add_concepts(torch.stack([a, b, c]))
    memory.retrieve(a)
    memory.retrieve(b)  # a -> b across calls
    assert edge(memory, slots[0], slots[1])["confidence"] == pytest.approx(0.5)
    memory.reset_state()
    memory.retrieve(torch.stack([a, b, c])[None])  # a -> b, b -> c along T
    assert edge(memory, slots[0], slots[1])["confidence"] == pytest.approx(0.65)
    assert edge(memory, slots[1], slots[2])["confidence"] == pytest.approx(0.5)
    assert edge(memory, slots[2], slots[0]) is None


def test_successors_compete_so_that_the_latest_wins(make_memory):
    memory = make_memory()
    a, b, c = directions(3)
    slots = memory.graph.add_concepts(torch.stack([a, b, c]))
    for follower in (b, b, c):
        memory.reset_state()
        memory.retrieve(a)
        memory.retrieve(follower)
    to_b = edge(memory, slots[0], slots[1])["confidence"]
    assert to_b == pytest.approx(0.65 * 0.3)  # a new successor takes its share from the known ones
    assert edge(memory, slots[0], slots[2])["confidence"] == pytest.approx(0.5)


def test_use_is_counted_and_keeps_concepts_alive(make_memory):
    memory = make_memory()
    used, idle = memory.graph.add_concepts(directions(2))
    vector = memory.graph.get_node_vector(used)
    for _ in range(70):
        memory.retrieve(vector)
        memory.update_topology()
    assert memory.storage.nodes["use_frequency"][used] == 70
    assert memory.storage.nodes["is_active"][used] == 1
    assert memory.storage.nodes["is_active"][idle] == 0
    assert memory.storage.active_count == 1


def test_a_pruned_concept_is_never_returned(make_memory):
    memory = make_memory(survival_threshold_relevance=1.0, prune_min_age=1)
    vectors = directions(2)
    memory.graph.add_concepts(vectors)
    for _ in range(2):
        memory.update_topology()
    assert memory.storage.active_count == 0
    assert memory.retrieve(vectors[0]).activated_nodes == []


def test_the_weakest_above_max_concepts_go(make_memory):
    memory = make_memory(max_concepts=30)
    memory.graph.add_concepts(torch.randn(100, 16))
    memory.storage.nodes["relevance"][40] = 0.5
    assert memory.storage.node_count == 100
    memory.update_topology()
    assert memory.storage.active_count == 30
    assert memory.storage.nodes["is_active"][40] == 0


def test_a_sweep_frees_slots_for_reuse(make_memory):
    memory = make_memory(max_concepts=30, consolidation_epoch_interval=1)
    slots = memory.graph.add_concepts(torch.randn(100, 16))
    memory.graph.add_edges(slots[:99], slots[1:], [1.0] * 99, [0.9] * 99)
    memory.update_topology()
    living = memory.storage.nodes["is_active"][:100].astype(bool)
    kept = int((living[:-1] & living[1:]).sum())
    assert memory.storage.edge_count == kept
    memory.graph.add_concepts(torch.randn(70, 16))
    assert memory.storage.node_count == 100
    assert memory.storage.active_count == 100
    ids = memory.storage.nodes["id"][:100]
    assert len(set(ids.tolist())) == 100


def test_inference_changes_nothing(make_memory):
    memory = make_memory()
    memory.graph.add_concepts(torch.randn(50, 16))
    memory.retrieve(torch.randn(8, 16))
    memory.save()
    files = {path.name: path.read_bytes() for path in memory.directory.iterdir() if path.is_file()}
    columns = memory.storage.nodes["relevance"][:50].copy()
    memory.set_mode("INFERENCE")
    for _ in range(3):
        memory.retrieve(torch.randn(8, 16))
        memory.update_topology()
    assert memory.cognitive_engine.create_sensory_concept(torch.randn(16)) is None
    assert memory.cognitive_engine.consolidate() is None
    assert memory.cognitive_engine.apply_evolutionary_pressure() is None
    memory.save()
    assert (memory.storage.nodes["relevance"][:50] == columns).all()
    after = {path.name: path.read_bytes() for path in memory.directory.iterdir() if path.is_file()}
    assert after == files


@pytest.mark.parametrize("mode", ["FINETUNE", "ONLINE"])
def test_modes_without_pressure_never_prune(make_memory, mode):
    memory = make_memory(memory_mode=mode, max_concepts=10, survival_threshold_relevance=1.0, prune_min_age=1)
    memory.graph.add_concepts(torch.randn(10, 16))
    for _ in range(5):
        memory.update_topology()
    assert memory.cognitive_engine.apply_evolutionary_pressure() is None
    assert memory.storage.active_count == 10
    with pytest.warns(RuntimeWarning, match="max_concepts=10"):
        assert memory.cognitive_engine.create_sensory_concept(torch.randn(16)) is None


def test_unknown_mode(make_memory):
    memory = make_memory()
    with pytest.raises(AESGMemoryError) as error:
        memory.set_mode("INVALID")
    assert error.value.message == (
        "Invalid memory mode 'INVALID'. Valid modes: ['TRAIN', 'FINETUNE', 'INFERENCE', 'ONLINE']"
    )


def test_same_inputs_give_the_same_files(make_memory):
    def run(name):
        torch.manual_seed(1)
        memory = make_memory(name, novelty_birth_threshold=2, novelty_explanation_threshold=0.8)
        centres = torch.randn(20, 16)
        for _ in range(30):
            memory.retrieve(centres[torch.randint(0, 20, (8, 5))] + 0.1 * torch.randn(8, 5, 16))
            memory.update_topology()
        stats = memory.stats()
        memory.close()
        return stats, {
            path.name: path.read_bytes() for path in memory.directory.iterdir() if path.name != "LOCK"
        }

    (stats, first), (_, second) = run("one"), run("two")
    assert stats["active"] > 10 and stats["edges"] > 10
    assert first == second


@pytest.mark.parametrize("common", [None, 0], ids=["whole vectors", "without what all have in common"])
def test_a_novel_input_means_the_newborn_most_like_it(make_memory, common):
    """As the search has it, so that a device can tell the same; of equals the first."""
    memory = make_memory()
    bear = memory.cognitive_engine.create_sensory_concept
    vectors = torch.eye(16)[[1, 2, 2, 3]] + torch.eye(16)[[0]]
    born = np.array([bear(vector) for vector in vectors])[[3, 2, 1, 0]]
    if common is not None:
        memory.graph.state.queries.take(torch.eye(16, dtype=torch.float64)[common])
    rows = (
        3 * torch.eye(16)[[1, 2, 3, 4, 0]]
        + torch.tensor([[0.5], [0.5], [0.5], [2.0], [1.0]]) * torch.eye(16)[0]
    )
    meant = memory._learner._born_of(rows, born, 0.6).tolist()
    alike = -1 if common is not None else born[0]  # only by what all have in common
    assert meant == [born[3], born[1], born[0], -1, alike]
    assert memory._learner._born_of(rows, born[:0], 0.6).tolist() == [-1] * 5
