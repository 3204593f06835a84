"""Merging, splitting, abstraction and regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aesg.exceptions import AESGMemoryError
from aesg.graph.core import ABSTRACTION, SIMILARITY, SUCCESSION

EVENTS = {"CREATE": 0, "MERGE": 1, "SPLIT": 2, "PRUNE": 3, "CONSOLIDATE": 4, "RESTRUCTURE": 5}


def edges(memory, slot):
    """{(target, kind): confidence}"""
    return {
        (int(e["target"]), int(e["kind"])): float(e["confidence"]) for e in memory.storage.get_edges(slot)
    }


def events(memory, name):
    array = memory.logger.get_history().array
    return array[array["type"] == EVENTS[name]]


def link(memory, pairs, kind=SIMILARITY, confidence=0.5):
    for a, b in pairs:
        memory.graph.add_edges([a, b], [b, a], [1.0, 1.0], [confidence, confidence], kind)


# -- merge -------------------------------------------------------------------------------------------------


def test_merge_keeps_what_both_had(make_memory):
    memory = make_memory()
    vectors = torch.randn(5, 16)
    memory.graph.add_concepts(vectors)
    nodes = memory.storage.nodes
    nodes["use_frequency"][0] = 2
    nodes["relevance"][:2] = np.array([0.3, 0.8])
    link(memory, [(0, 2), (1, 3), (0, 1)])
    memory.graph.add_edges([1, 4], [2, 1], [1.0, 1.0], [0.9, 0.7], SIMILARITY)
    assert memory.cognitive_engine.merge_concepts(0, 1) == 0
    assert nodes["is_active"][1] == 0 and nodes["use_frequency"][0] == 2
    assert nodes["relevance"][0] == pytest.approx(0.8)
    weighted = (3 * vectors[0] + vectors[1]) / 4
    assert torch.allclose(memory.graph.get_node_vector(0), weighted, atol=1e-6)
    assert edges(memory, 0) == pytest.approx({(2, 0): 0.9, (3, 0): 0.5})
    assert edges(memory, 3) == pytest.approx({(0, 0): 0.5})
    assert edges(memory, 4) == pytest.approx({(0, 0): 0.7})
    (event,) = events(memory, "MERGE")
    assert (event["id1"], event["id2"]) == (nodes["id"][0], nodes["id"][1])
    assert memory.check() == []


def test_a_sweep_merges_duplicates_with_like_neighbourhoods_only(make_memory):
    memory = make_memory(abstraction_enabled=False)
    x = torch.eye(16)
    twins = [x[0], x[0] + 0.1 * x[1], x[2], x[2] + 0.1 * x[3], x[4], x[5], x[6]]
    memory.graph.add_concepts(torch.stack(twins))
    # 0 and 1 share their neighbour 4; 2 and 3 have a neighbour each; 5 and 6 are linked but not alike.
    link(memory, [(0, 1), (0, 4), (1, 4), (2, 3), (2, 5), (3, 6), (5, 6)])
    memory.cognitive_engine.sweep()
    assert memory.storage.nodes["is_active"][:7].tolist() == [1, 0, 1, 1, 1, 1, 1]
    assert memory.stats()["merges"] == 1
    assert memory.check() == []


def test_equal_concepts_without_a_link_stay_apart_and_the_more_used_is_kept(make_memory):
    memory = make_memory(abstraction_enabled=False)
    memory.graph.add_concepts(torch.ones(4, 16))
    memory.storage.nodes["use_frequency"][3] = 7
    link(memory, [(2, 3)])
    memory.cognitive_engine.sweep()
    assert memory.storage.active_count == 3
    (event,) = events(memory, "MERGE")
    assert event["id1"] == memory.storage.nodes["id"][3]


def test_merging_many_pairs_at_once_leads_edges_between_them(make_memory):
    memory = make_memory(abstraction_enabled=False)
    x = torch.eye(16)
    memory.graph.add_concepts(torch.stack([x[0], x[0], x[1], x[1]]))
    link(memory, [(0, 1), (2, 3)])
    link(memory, [(1, 3)], SUCCESSION, 0.7)
    memory.cognitive_engine.sweep()
    assert memory.storage.active_count == 2
    assert edges(memory, 0) == pytest.approx({(2, SUCCESSION): 0.7})
    assert edges(memory, 2) == pytest.approx({(0, SUCCESSION): 0.7})
    assert memory.check() == []


# -- split -------------------------------------------------------------------------------------------------


def crowded(make_memory, **fields):
    """Concept 0 between six neighbours near x and six near y."""
    memory = make_memory(abstraction_enabled=False, merge_similarity_threshold=1.0, **fields)
    x, y = torch.eye(16)[:2]
    around = [x + 0.1 * torch.randn(16) for _ in range(6)] + [y + 0.1 * torch.randn(16) for _ in range(6)]
    memory.graph.add_concepts(torch.stack([x + y, *around]))
    link(memory, [(0, n) for n in range(1, 13)])
    return memory, x, y


def test_split_gives_each_half_its_cluster(make_memory):
    memory, x, y = crowded(make_memory)
    memory.graph.add_edges([5], [0], [1.0], [0.8], SUCCESSION)
    fresh = memory.cognitive_engine.split_concept(0)
    assert fresh == 13
    halves = [{target for target, _ in edges(memory, slot)} for slot in (0, fresh)]
    groups = [set(range(1, 7)), set(range(7, 13))]
    assert sorted(map(sorted, (halves[0] - {fresh}, halves[1] - {0}))) == sorted(map(sorted, groups))
    assert fresh in halves[0] and 0 in halves[1]
    for slot, half in ((0, halves[0]), (fresh, halves[1])):
        near, far = (x, y) if 1 in half else (y, x)
        vector = memory.graph.get_node_vector(slot)
        assert (
            torch.cosine_similarity(vector, near, dim=0) > 0.9 > torch.cosine_similarity(vector, far, dim=0)
        )
        assert vector.norm() == pytest.approx(float((x + y).norm()), rel=1e-5)
        for target in half - {0, fresh}:
            assert (slot, SIMILARITY) in edges(memory, target)
            assert ((13 if slot == 0 else 0), SIMILARITY) not in edges(memory, target)
    owner = 0 if 5 in halves[0] else fresh
    assert edges(memory, 5)[owner, SUCCESSION] == pytest.approx(0.8)
    (event,) = events(memory, "SPLIT")
    assert (event["id1"], event["id2"]) == tuple(memory.storage.nodes["id"][np.array([0, fresh])])
    assert memory.check() == []


@pytest.mark.parametrize("limit", ["split_density_threshold", "max_edges_per_node"])
def test_a_sweep_splits_what_is_crowded(make_memory, limit):
    memory, _, _ = crowded(make_memory, **{limit: 12})
    memory.cognitive_engine.sweep()
    assert memory.stats()["splits"] == 0
    memory.graph.add_concepts(torch.randn(1, 16))
    link(memory, [(0, 13)])
    memory.cognitive_engine.sweep()
    assert memory.stats()["splits"] == 1 and memory.check() == []


def test_what_has_no_two_groups_is_not_split(make_memory):
    memory = make_memory()
    memory.graph.add_concepts(torch.ones(4, 16))
    assert memory.cognitive_engine.split_concept(0) is None
    link(memory, [(0, 1), (0, 2), (0, 3)])
    assert memory.cognitive_engine.split_concept(0) is None
    assert memory.storage.active_count == 4 and len(events(memory, "SPLIT")) == 0


# -- abstraction -------------------------------------------------------------------------------------------


def test_an_abstract_concept_stands_above_its_parents(make_memory):
    memory = make_memory()
    vectors = torch.eye(16)[:3]
    slots = memory.graph.add_concepts(vectors)
    above = memory.cognitive_engine.create_abstract_concept(slots)
    assert torch.allclose(memory.graph.get_node_vector(above), vectors.mean(dim=0))
    assert edges(memory, above) == {(int(slot), ABSTRACTION): 0.5 for slot in slots}
    assert all((above, ABSTRACTION) in edges(memory, slot) for slot in slots)
    event = events(memory, "CREATE")[-1]
    assert event["id2"] == memory.storage.nodes["id"][slots[0]] and event["val"] == 3
    torch.nn.init.eye_(memory.abstraction_projection.weight)
    again = memory.cognitive_engine.create_abstract_concept(slots[:2])
    assert torch.allclose(memory.graph.get_node_vector(again), 2 * vectors[:2].mean(dim=0))


def test_pairs_used_together_get_an_abstract_concept_once(make_memory):
    memory = make_memory(coactivation_threshold_create=8, merge_similarity_threshold=1.0)
    x = torch.eye(16)
    a, b, c = memory.graph.add_concepts(torch.stack([x[0], x[0] + x[1], x[9]]))
    for round in range(3):
        for _ in range(7 if round == 0 else 8):
            for query in (x[0] + 0.3 * x[1], x[9]):
                memory.reset_state()
                memory.retrieve(query)
        memory.cognitive_engine.sweep()
        assert memory.storage.active_count == (3 if round == 0 else 4), round
    assert {(3, ABSTRACTION)} <= set(edges(memory, a)) & set(edges(memory, b))
    assert (3, ABSTRACTION) not in edges(memory, c)


def test_abstraction_can_be_switched_off(make_memory):
    memory = make_memory(coactivation_threshold_create=2, abstraction_enabled=False)
    x = torch.eye(16)
    slots = memory.graph.add_concepts(torch.stack([x[0], x[0] + x[1]]))
    for _ in range(5):
        memory.retrieve(x[0] + 0.3 * x[1])
    memory.cognitive_engine.sweep()
    assert memory.cognitive_engine.create_abstract_concept(slots) is None
    assert memory.storage.active_count == 2


# -- regions -----------------------------------------------------------------------------------------------


def clustered(make_memory, clusters=8, each=32, **fields):
    memory = make_memory(vector_dim=32, **fields)
    centres = torch.linalg.qr(torch.randn(32, 32)).Q[:clusters]
    label = torch.arange(clusters * each) % clusters
    memory.graph.add_concepts(centres[label] + 0.05 * torch.randn(clusters * each, 32))
    return memory, label


def test_regions_hold_what_is_alike(make_memory):
    memory, label = clustered(make_memory)
    sizes = memory.cognitive_engine.find_semantic_regions()
    regions = memory.storage.nodes["region_id"][: len(label)]
    assert sizes == dict(zip(*np.unique(regions, return_counts=True), strict=True))
    assert sum(sizes.values()) == len(label) and 0 not in sizes
    for region in sizes:
        assert len(set(label[torch.from_numpy(regions == region)].tolist())) == 1, (
            "a region within one cluster"
        )
    assert memory.cognitive_engine.find_semantic_regions() == sizes
    assert len(events(memory, "RESTRUCTURE")) == 2


def test_a_few_concepts_have_no_regions(make_memory):
    memory = make_memory()
    memory.graph.add_concepts(torch.randn(63, 16))
    assert memory.cognitive_engine.find_semantic_regions() == {}


def test_edges_into_the_region_of_the_best_seed_carry_more(make_memory):
    memory, label = clustered(make_memory, memory_mode="TRAIN", spreading_activation_steps=1)
    memory.cognitive_engine.find_semantic_regions()
    regions = memory.storage.nodes["region_id"][: len(label)]
    here = int(np.flatnonzero(regions == regions[0])[1])
    there = int(np.flatnonzero(regions != regions[0])[0])
    memory.graph.add_edges([0, 0], [here, there], [0.5, 0.5], [1.0, 1.0])
    memory.set_mode("INFERENCE")
    energies, slots = memory.graph.spread(torch.tensor([[0]]), torch.tensor([[1.0]]), hops=1, k=3)
    found = dict(zip(slots[0].tolist(), energies[0].tolist(), strict=True))
    assert found[here] == pytest.approx(0.5 * 0.8 * 1.5) and found[there] == pytest.approx(0.5 * 0.8)


def test_detection_in_turns_reaches_everyone(make_memory, monkeypatch):
    memory, label = clustered(make_memory, region_detection_interval=1)
    monkeypatch.setattr("aesg.graph.cognitive_engine.DUE_ROWS", 50)
    without = []
    for _ in range(7):
        memory.update_topology()
        without.append(int((memory.storage.nodes["region_id"][: len(label)] == 0).sum()))
    assert without[0] == len(label) - 50 and without[-1] == 0
    assert without == sorted(without, reverse=True)


# -- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda e: e.merge_concepts(0, 0), "two different"),
        (lambda e: e.merge_concepts(0, 99), "0..4"),
        (lambda e: e.merge_concepts(-1, 0), "0..4"),
        (lambda e: e.merge_concepts(0, 4), "no living"),
        (lambda e: e.split_concept(4), "no living"),
        (lambda e: e.split_concept(5), "0..4"),
        (lambda e: e.create_abstract_concept([]), "different slots"),
        (lambda e: e.create_abstract_concept([1, 1]), "different slots"),
        (lambda e: e.create_abstract_concept([1, 7]), "0..4"),
        (lambda e: e.create_sensory_concept(torch.full((16,), float("nan"))), "finite"),
        (lambda e: e.create_sensory_concept(torch.ones(8)), "expected 16, got 8"),
        (lambda e: e.create_sensory_concept(torch.ones(2, 16)), "shape"),
        (lambda e: e.graph.add_concepts(torch.ones(1, 16), ids=[1]), "taken"),
        (lambda e: e.graph.add_concepts(torch.ones(2, 16), ids=[50, 50]), "twice"),
        (lambda e: e.graph.add_concepts(torch.ones(1, 16), ids=[0]), "got 0"),
        (lambda e: e.graph.add_concepts(torch.ones(2, 16), ids=[50]), "expected 2"),
        (lambda e: e.graph.get_node_vector(5), "0..4"),
        (lambda e: e.graph.update_relevance(-1, 0.1), "0..4"),
        (lambda e: e.graph.update_relevance(0, float("inf")), "finite"),
    ],
)
@pytest.mark.parametrize("mode", ["TRAIN", "INFERENCE"])
def test_bad_input_changes_nothing(make_memory, call, words, mode):
    memory = make_memory()
    memory.graph.add_concepts(torch.randn(5, 16))
    link(memory, [(0, 1), (1, 2)])
    memory.forget(ids=[5])  # slot 4 is free
    memory.set_mode(mode)
    if mode == "INFERENCE" and "add_concepts" in call.__code__.co_names:
        words = "INFERENCE"  # asked for by name: refused, whatever the arguments
    before = memory.storage.core.node_view().tobytes(), memory.storage.core.edge_view().tobytes()
    told = len(memory.logger.get_history()), memory.stats()["births"]
    with pytest.raises(AESGMemoryError, match=words):
        call(memory.cognitive_engine)
    assert (memory.storage.core.node_view().tobytes(), memory.storage.core.edge_view().tobytes()) == before
    assert (len(memory.logger.get_history()), memory.stats()["births"]) == told
