"""Every mode against every way of changing a graph: what a row forbids does not happen, however called."""

from __future__ import annotations

import pytest
import torch

from aesg.exceptions import AESGMemoryError

# What each call needs of the mode's row; None: it is asked for by name and raises in INFERENCE.
CALLS = {
    "create_sensory_concept": ("create", lambda m: m.cognitive_engine.create_sensory_concept(torch.ones(16))),
    "create_abstract_concept": ("create", lambda m: m.cognitive_engine.create_abstract_concept([0, 1])),
    "merge_concepts": ("reorganize", lambda m: m.cognitive_engine.merge_concepts(0, 1)),
    "split_concept": ("reorganize", lambda m: m.cognitive_engine.split_concept(0)),
    "find_semantic_regions": ("reorganize", lambda m: m.cognitive_engine.find_semantic_regions()),
    "consolidate": ("consolidate", lambda m: m.cognitive_engine.consolidate()),
    "sweep": ("consolidate", lambda m: m.cognitive_engine.sweep()),
    "apply_evolutionary_pressure": ("press", lambda m: m.cognitive_engine.apply_evolutionary_pressure()),
}
BY_NAME = {
    "forget": lambda m: m.forget(ids=[2]),
    "update_concept": lambda m: m.update_concept(2, torch.ones(16)),
    "add_concepts": lambda m: m.graph.add_concepts(torch.ones(1, 16)),
    "add_edges": lambda m: m.graph.add_edges([0], [2], [1.0], [0.9]),
    "absorb": lambda m: m.absorb(a_pack(m)),
}


def a_pack(memory):
    """A pack of one concept that the memory does not know, made beside it."""
    from aesg.config import AESGConfig
    from aesg.memory.controller import AESGMemory

    with AESGMemory(f"{memory.directory}-other", AESGConfig(vector_dim=16)) as other:
        if other.storage.node_count == 0:
            other.graph.add_concepts(-7 * torch.eye(16)[5:6])
        other.export_pack(f"{memory.directory}.aesgpack")
    return memory.load_pack(f"{memory.directory}.aesgpack")


GRANTED = {
    "TRAIN": {"create", "consolidate", "reorganize", "press"},
    "FINETUNE": {"create", "consolidate"},
    "ONLINE": {"create", "consolidate"},
    "INFERENCE": set(),
}


@pytest.fixture
def grown(make_memory):
    """80 concepts, concept 0 between two groups, everything weak enough to be pruned."""
    memory = make_memory(prune_min_age=1, survival_threshold_relevance=1.0, max_concepts=1000)
    vectors = torch.randn(80, 16)
    vectors[1:10] += 9 * torch.eye(16)[0]
    vectors[10:20] += 9 * torch.eye(16)[1]
    memory.graph.add_concepts(vectors)
    around = list(range(1, 20))
    memory.graph.add_edges([0] * 19, around, [1.0] * 19, [0.5] * 19)
    memory.storage.nodes["age"][:80] = 5
    memory.storage.nodes["relevance"][:80] = 0.5
    memory.save()
    return memory


def image(memory):
    core = memory.storage.core
    return core.node_view().tobytes(), core.edge_view().tobytes(), len(memory.logger.get_history())


@pytest.mark.parametrize("mode", GRANTED)
@pytest.mark.parametrize("call", CALLS)
def test_engine_methods_do_what_the_row_grants(grown, mode, call):
    needs, run = CALLS[call]
    grown.set_mode(mode)
    before = image(grown)
    result = run(grown)
    if needs in GRANTED[mode]:
        assert result is not None and image(grown) != before
    else:
        assert result is None and image(grown) == before


@pytest.mark.parametrize("mode", GRANTED)
def test_an_update_does_what_the_row_grants(grown, mode):
    grown.set_mode(mode)
    before = image(grown)
    active = grown.storage.active_count
    grown.update_topology()
    assert (image(grown) != before) == ("consolidate" in GRANTED[mode])
    assert (grown.storage.active_count < active) == ("press" in GRANTED[mode])


@pytest.mark.parametrize("mode", GRANTED)
@pytest.mark.parametrize("way", ["update_topology", "sweep", "calls", "consolidate"])
def test_what_needs_reorganisation_happens_where_it_is_granted(make_memory, mode, way):
    """A duplicate to merge, a crowded concept to split, a pair to abstract, enough concepts for regions."""
    memory = make_memory(
        consolidation_epoch_interval=1,
        region_detection_interval=1,
        coactivation_threshold_create=2,
        split_density_threshold=15,
        survival_threshold_relevance=0.0,
    )
    vectors = torch.randn(80, 16)
    vectors[1:11] += 9 * torch.eye(16)[0]
    vectors[11:21] += 9 * torch.eye(16)[1]
    vectors[31] = vectors[30]
    vectors[41] = vectors[40] + 0.5 * torch.randn(16)
    memory.graph.add_concepts(vectors)
    memory.graph.add_edges([0] * 20, list(range(1, 21)), [1.0] * 20, [0.5] * 20)
    memory.graph.add_edges([30, 31], [31, 30], [1.0, 1.0], [0.5, 0.5])
    for _ in range(3):
        memory.retrieve(vectors[40:42].mean(dim=0))
    memory.reset_state()
    memory.set_mode(mode)
    before = image(memory)
    if way == "calls":
        engine = memory.cognitive_engine
        done = [engine.merge_concepts(30, 31), engine.split_concept(0), engine.find_semantic_regions()]
        assert all((result is not None) == ("reorganize" in GRANTED[mode]) for result in done)
    elif way == "update_topology":
        memory.update_topology()
    else:
        getattr(memory.cognitive_engine, way)()
    stats, regions = memory.stats(), memory.storage.nodes["region_id"][:80]
    granted = "reorganize" in GRANTED[mode] and way != "consolidate"
    assert (stats["merges"] > 0, stats["splits"] > 0) == (granted, granted)
    assert (stats["births"] > 80) == granted
    if way != "sweep":
        assert regions.any() == granted
    if mode == "INFERENCE":
        assert image(memory) == before


@pytest.mark.parametrize("mode", GRANTED)
@pytest.mark.parametrize("way", ["retrieve", "observe_novelty", "one_call"])
def test_births_from_experience_happen_where_they_are_granted(make_memory, mode, way):
    memory = make_memory(novelty_birth_threshold=1)
    memory.graph.add_concepts(torch.eye(16)[:1])
    memory.set_mode(mode)
    before = image(memory)
    novel = torch.eye(16)[1].expand(10, 16).contiguous()
    if way == "observe_novelty":
        memory.cognitive_engine.observe_novelty(novel)
    elif way == "retrieve":
        memory.retrieve(novel)
    else:
        with memory.one_call():
            for row in novel:
                memory.retrieve(row)
    assert memory.storage.active_count == (2 if "create" in GRANTED[mode] else 1)
    assert len(memory._state.pool) == 0
    if mode == "INFERENCE":
        memory.save()
        assert image(memory) == before


@pytest.mark.parametrize("mode", GRANTED)
@pytest.mark.parametrize("call", BY_NAME)
def test_what_is_asked_for_by_name_raises_in_inference(grown, mode, call):
    grown.set_mode(mode)
    before = image(grown)
    if mode == "INFERENCE":
        with pytest.raises(AESGMemoryError, match="INFERENCE"):
            BY_NAME[call](grown)
        assert image(grown) == before
    else:
        BY_NAME[call](grown)
        assert image(grown) != before


@pytest.mark.parametrize("mode", GRANTED)
def test_relevance_moves_where_something_is_learnt(grown, mode):
    grown.set_mode(mode)
    grown.graph.update_relevance(0, 0.25)
    assert grown.storage.nodes["relevance"][0] == (0.5 if mode == "INFERENCE" else 0.75)
    grown.graph.update_relevance(0, 9.0)
    assert grown.storage.nodes["relevance"][0] <= 1.0


def test_what_was_noted_in_train_is_not_digested_in_inference(grown):
    grown.retrieve(torch.randn(4, 16))
    grown.set_mode("INFERENCE")
    before = image(grown)
    grown.retrieve(torch.randn(4, 16))
    assert grown.storage.active_count > 0 and image(grown) == before


def test_finetune_learns_at_a_tenth(make_memory):
    gains = {}
    for mode in ("TRAIN", "FINETUNE"):
        memory = make_memory(mode, memory_mode=mode)
        memory.graph.add_concepts(torch.eye(16)[:2])
        memory.graph.add_edges([0], [1], [1.0], [0.5], 1)
        memory.storage.nodes["relevance"][:2] = 0.5
        memory.retrieve(torch.eye(16)[:2][None])
        gains[mode] = (
            float(memory.storage.nodes["relevance"][0]) - 0.5,
            float(memory.storage.get_edges(0)["confidence"][0]) - 0.5,
        )
    assert gains["FINETUNE"] == pytest.approx([0.1 * gain for gain in gains["TRAIN"]], rel=1e-5)


def test_survival_waits_after_a_time_without_pruning(make_memory):
    memory = make_memory(memory_mode="ONLINE", survival_threshold_relevance=1.0, prune_min_age=1)
    memory.graph.add_concepts(torch.randn(4, 16))
    for _ in range(3):
        memory.update_topology()
    memory.close()
    memory = make_memory(survival_threshold_relevance=1.0, prune_min_age=1)  # TRAIN
    for update in range(20):
        memory.update_topology()
        assert memory.storage.active_count == 4, update
    memory.set_mode("INFERENCE")
    memory.set_mode("TRAIN")  # nothing aged meanwhile: nothing to wait for
    memory.update_topology()
    assert memory.storage.active_count == 0


def test_the_limit_holds_while_survival_waits(make_memory):
    memory = make_memory(memory_mode="ONLINE", max_concepts=10)
    memory.graph.add_concepts(torch.randn(30, 16))
    memory.update_topology()
    assert memory.storage.active_count == 30
    memory.set_mode("TRAIN")
    memory.update_topology()
    assert memory.storage.active_count == 10
