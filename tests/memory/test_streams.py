"""Streams remember concepts, not slots; and what copies of a memory share."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.memory.controller import AESGMemory
from aesg.memory.spread import QuerySpread

X = torch.eye(16)


def test_a_slot_given_to_another_concept_primes_nothing(make_memory):
    memory = make_memory(novelty_birth_threshold=1000)
    first = memory.graph.add_concepts(X[:2])
    memory.retrieve(X[0])
    memory.forget(ids=memory.storage.nodes["id"][first[:1]].tolist())
    (again,) = memory.graph.add_concepts(X[5:6])
    assert again == first[0], "the slot is used again"
    assert memory.retrieve(X[1]).activated_nodes == [1]
    assert memory.storage.edge_count == 0, "and nothing followed the newcomer"
    memory.reset_state()
    memory.retrieve(X[5])
    assert sorted(memory.retrieve(X[1]).activated_nodes) == [0, 1], "a living one primes"


def test_streams_survive_a_saving(make_memory):
    memory = make_memory()
    memory.graph.add_concepts(X[:2])
    memory.retrieve(X[0])
    memory.close()
    memory = make_memory()
    assert sorted(memory.retrieve(X[1]).activated_nodes) == [0, 1]
    assert memory.storage.get_edges(0)["target"].tolist() == [1]  # 0 was followed by 1, across the processes


def test_the_context_is_led_by_what_the_query_means(make_memory):
    """However much energy meets elsewhere: seeds stay, and nothing is more active than the best of them."""
    memory = make_memory(memory_mode="INFERENCE", context_size=4)
    memory.set_mode("TRAIN")
    slots = memory.graph.add_concepts(torch.cat([X[:2], X[2:12]]))
    hubs = slots[2:].tolist()
    for seed in (0, 1):
        memory.graph.add_edges([seed] * 10, hubs, [1.0] * 10, [1.0] * 10)
    for a in hubs:
        memory.graph.add_edges([a] * 9, [b for b in hubs if b != a], [1.0] * 9, [1.0] * 9)
    memory.set_mode("INFERENCE")
    found = memory.retrieve(X[0] + 0.9 * X[1])
    assert found.indices[0] == 0 and 1 in found.indices
    assert (found.weights[1:] <= found.weights[:-1]).all()
    assert found.weights.max() == found.explanation


def test_a_deep_copy_shares_the_graph_and_has_its_own_parameters(make_memory):
    memory = make_memory()
    memory.graph.add_concepts(X[:3])
    memory.retrieve(X[0])
    model = torch.nn.ModuleDict({"memory": memory, "head": torch.nn.Linear(16, 4)})
    memory.set_mode("ONLINE")
    twin = copy.deepcopy(model)["memory"]
    assert twin.storage is memory.storage and twin.mode is memory.mode
    assert torch.equal(twin.active_state.primary, memory.active_state.primary)
    assert twin.active_state.primary is not memory.active_state.primary
    torch.nn.init.eye_(twin.abstraction_projection.weight)
    assert not memory.abstraction_projection.weight.any()
    slot = twin.cognitive_engine.create_abstract_concept([0, 1])
    assert torch.allclose(memory.graph.get_node_vector(slot), X[0] + X[1]), "its own projection made it"
    twin.set_mode("INFERENCE")
    assert memory.mode.value == "ONLINE"


def test_a_pickled_copy_reads_what_was_saved_for_it(make_memory):
    memory = make_memory()
    vectors = torch.randn(3, 16)
    memory.graph.add_concepts(vectors)
    torch.nn.init.eye_(memory.abstraction_projection.weight)
    memory.save()
    memory.graph.add_concepts(X[3:4])
    text = pickle.dumps(memory)
    assert vectors[0].numpy().tobytes() not in text, "the graph does not travel"
    copied = pickle.loads(text)
    assert copied.storage.read_only and copied.mode.value == "INFERENCE"
    assert copied.storage.node_count == 4 and copied.config == memory.config
    assert torch.equal(copied.abstraction_projection.weight, memory.abstraction_projection.weight)
    with pytest.raises(AESGMemoryError, match="reading only"):
        copied.set_mode("TRAIN")
    copied.close()


def test_a_fresh_memory_can_be_pickled(tmp_path):
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=8)) as memory:
        copied = pickle.loads(pickle.dumps(memory))
        assert copied.storage.node_count == 0
        copied.close()


def test_spread_tells_collapsed_queries_from_different_ones():
    spread = QuerySpread(16)
    assert spread.resultant() == spread.effective_rank() == 0.0
    spread.add(torch.randn(100, 16))
    spread.add(torch.randn(1000, 16))
    assert spread.resultant() < 0.2 and 13 < spread.effective_rank() <= 16
    spread.add(X[:4].repeat(64, 1))
    assert spread.resultant() == pytest.approx(0.5)
    assert spread.effective_rank() == pytest.approx(3.0, rel=1e-3)  # four points span three directions
    spread.add(torch.ones(16).repeat(300, 1))
    assert spread.resultant() == pytest.approx(1.0) and spread.effective_rank() == 0.0
    spread.add(torch.zeros(5, 16))
    assert spread.resultant() == pytest.approx(1.0)


def test_stats_tell_the_spread(make_memory):
    memory = make_memory()
    memory.retrieve(torch.ones(5, 16))
    stats = memory.stats()
    assert stats["query_resultant"] == pytest.approx(1.0) and stats["query_effective_rank"] == 0.0
    assert {"births", "prunes", "merges", "splits", "queries"} <= set(stats)
