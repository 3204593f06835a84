"""Forgetting on request: by ids, by likeness, with what was abstracted from it alone, down to the bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aesg.exceptions import AESGMemoryError, AESGStorageError


def ids_of(memory, slots):
    return memory.storage.nodes["id"][np.asarray(slots)].tolist()


def living(memory):
    nodes, count = memory.storage.nodes, memory.storage.node_count
    return set(nodes["id"][:count][nodes["is_active"][:count] != 0].tolist())


def files_with(memory, vector):
    wanted = vector.numpy().astype("<f4").tobytes()
    return [path.name for path in memory.directory.iterdir() if wanted in path.read_bytes()]


def test_forgetting_by_ids_takes_the_edges_along(make_memory):
    memory = make_memory()
    slots = memory.graph.add_concepts(torch.randn(6, 16))
    memory.graph.add_edges([0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [1.0] * 5, [0.9] * 5)
    gone = ids_of(memory, slots[[1, 4]])
    kept = living(memory) - set(gone)
    assert memory.forget(ids=gone) == 2
    assert living(memory) == kept
    assert memory.storage.edge_count == 1  # 2 -> 3
    assert memory.check() == []
    assert memory.retrieve(torch.randn(16)).activated_nodes is not None


def test_forgetting_by_likeness(make_memory):
    memory = make_memory()
    vectors = torch.eye(16)[:4].clone()
    vectors[1] = vectors[0] + 0.3 * vectors[1]  # cosine 0.958 to the first
    memory.graph.add_concepts(vectors)
    assert memory.forget(query=vectors[0], radius=0.02) == 1
    assert memory.forget(query=vectors[0], radius=0.1) == 1
    assert memory.forget(query=vectors[0], radius=0.1) == 0
    assert memory.storage.active_count == 2


@pytest.mark.parametrize("bulk", [3, 3000])  # the journal, and row groups written straight into the file
def test_forgotten_vectors_are_in_no_file(make_memory, bulk):
    memory = make_memory()
    vectors = torch.randn(bulk, 16)
    slots = memory.graph.add_concepts(vectors)
    memory.retrieve(vectors[:2])
    memory.update_topology()
    memory.cognitive_engine.find_semantic_regions()
    memory.save()
    assert files_with(memory, vectors[1])
    memory.save()
    memory.storage.core.fold()  # a fold leaves its records behind
    memory.forget(ids=ids_of(memory, slots[1:2]))
    memory.save()
    memory.compact()
    assert files_with(memory, vectors[1]) == []
    assert files_with(memory, vectors[2])
    assert memory.check() == [] and memory.storage.verify() == []


def test_what_is_only_a_candidate_is_forgotten_with_it(make_memory):
    memory = make_memory()
    memory.graph.add_concepts(torch.eye(16)[:1])
    near = torch.eye(16)[0] * 0.7 + torch.eye(16)[1]  # cosine 0.57: novel, yet like what goes
    memory.forget(query=torch.eye(16)[0], radius=0.1)
    memory.graph.add_concepts(torch.eye(16)[5:6])
    memory.retrieve(near)
    memory.save()
    assert files_with(memory, near)
    (other,) = memory.graph.add_concepts(near[None])
    memory.forget(ids=ids_of(memory, [other]))
    memory.compact()
    assert memory.stats()["candidates"] == 0
    assert files_with(memory, near) == []


def test_compact_says_when_a_reader_stands_in_the_way(make_memory):
    memory = make_memory()
    vectors = torch.randn(3, 16)
    memory.graph.add_concepts(vectors)
    memory.save()
    reader = make_memory(read_only=True)
    memory.forget(query=vectors[0], radius=0.01)
    with pytest.raises(AESGStorageError, match="reader"):
        memory.compact()
    reader.close()
    memory.compact()
    assert files_with(memory, vectors[0]) == []


def test_abstract_concepts_go_with_their_last_parent(make_memory):
    memory = make_memory()
    a, b, c = memory.graph.add_concepts(torch.eye(16)[:3])
    engine = memory.cognitive_engine
    pair = engine.create_abstract_concept([a, b])
    higher = engine.create_abstract_concept([pair])
    mixed = engine.create_abstract_concept([pair, c])
    first, second = ids_of(memory, [a]), ids_of(memory, [b])
    assert memory.forget(ids=first) == 1  # b still holds the pair
    assert memory.storage.nodes["is_active"][pair] == 1
    assert memory.forget(ids=second) == 3
    active = memory.storage.nodes["is_active"]
    assert active[higher] == 0 and active[pair] == 0
    assert active[mixed] == 1 and active[c] == 1
    assert memory.check() == []


def test_provenance_survives_merging_fading_and_saving(make_memory):
    """Parents that merged into a younger concept are still parents, however weak the edges became."""
    memory = make_memory(edge_fade=0.1, consolidation_epoch_interval=1, survival_threshold_relevance=0.0)
    a, b = memory.graph.add_concepts(torch.eye(16)[:2])
    engine = memory.cognitive_engine
    above = engine.create_abstract_concept([a, b])
    (young,) = memory.graph.add_concepts(torch.eye(16)[:1])
    assert engine.merge_concepts(young, a) == young
    for _ in range(6):
        memory.update_topology()
    memory.close()
    memory = make_memory(edge_fade=0.1, consolidation_epoch_interval=1, survival_threshold_relevance=0.0)
    assert memory.forget(ids=ids_of(memory, [b])) == 1
    assert memory.storage.nodes["is_active"][above] == 1
    assert memory.forget(ids=ids_of(memory, [young])) == 2
    assert memory.storage.active_count == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either"),
        ({"ids": [1], "query": torch.ones(16), "radius": 0.1}, "either"),
        ({"query": torch.ones(16)}, "radius"),
        ({"query": torch.ones(16), "radius": 3.0}, "radius"),
        ({"query": torch.ones(16), "radius": float("nan")}, "radius"),
        ({"query": torch.ones(8), "radius": 0.1}, "expected 16, got 8"),
        ({"query": torch.full((16,), float("inf")), "radius": 0.1}, "finite"),
        ({"ids": [1, 99]}, "99"),
        ({"ids": [0]}, "0"),
        ({"ids": [-1]}, "-1"),
    ],
)
def test_bad_requests_change_nothing(make_memory, arguments, words):
    memory = make_memory()
    memory.graph.add_concepts(torch.randn(3, 16))
    events = len(memory.logger.get_history())
    with pytest.raises(AESGMemoryError, match=words):
        memory.forget(**arguments)
    assert memory.storage.active_count == 3 and len(memory.logger.get_history()) == events


def test_updating_a_concept_keeps_its_edges(make_memory):
    memory = make_memory()
    slots = memory.graph.add_concepts(torch.eye(16)[:2])
    memory.graph.add_edges(slots[:1], slots[1:], [1.0], [0.9])
    memory.update_concept(slots[0], torch.eye(16)[5])
    assert memory.retrieve(torch.eye(16)[5]).primary_concepts[0] == slots[0]
    assert memory.storage.edge_count == 1 and memory.check() == []
    for slot, vector in (
        (9, torch.ones(16)),
        (-1, torch.ones(16)),
        (0, torch.ones(8)),
        (0, torch.ones(16) / 0),
    ):
        with pytest.raises(AESGMemoryError):
            memory.update_concept(slot, vector)
    assert torch.equal(memory.graph.get_node_vector(0), torch.eye(16)[5])
    memory.set_mode("INFERENCE")
    with pytest.raises(AESGMemoryError, match="INFERENCE"):
        memory.update_concept(0, torch.ones(16))
