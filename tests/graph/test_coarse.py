"""Approximate search of a large graph: its recall, and that it misses nothing that has just changed."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from aesg.config import AESGConfig
from aesg.exceptions import AESGConfigError
from aesg.graph.consolidation import retire
from aesg.memory.controller import AESGMemory

CONFIG = AESGConfig(vector_dim=16, approximate_search_from=1000, priming=0.0)


def clustered(rows, seed=0, clusters=40):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(clusters, 16, generator=torch.Generator().manual_seed(99))
    noise = 0.4 * torch.randn(rows, 16, generator=generator)
    return centers[torch.randint(0, clusters, (rows,), generator=generator)] + noise


@pytest.fixture
def memory(tmp_path):
    with AESGMemory(tmp_path / "memory", CONFIG) as made:
        made.graph.add_concepts(clustered(4000))
        yield made


def found(memory, query, k=10):
    return memory.graph.seek(query.reshape(1, -1), k, -1.0)[1][0].tolist()


def test_the_recall_asked_for_is_reached_and_told(memory):
    queries = clustered(200, 1)
    exact, _ = memory.graph.search(queries, 10, -1.0)
    probes = []
    for target in (0.5, 0.95, 0.99):
        graph = AESGMemory(memory.directory, replace(CONFIG, recall_target=target)).graph
        scores, slots = graph.seek(queries, 10, -1.0)
        stats = memory.stats()
        assert stats["search"] == "approximate" and stats["search_recall"] >= target
        assert float(((scores >= exact[:, -1:]) & (slots >= 0)).float().mean()) >= target - 0.03
        probes.append(stats["search_probes"])
    assert probes == sorted(probes) and probes[0] < probes[-1]


def test_the_recall_is_measured_on_what_is_asked(memory):
    found(memory, clustered(1, 2))
    before = memory.stats()["search_probes"]
    lost = torch.randn(400, 16, generator=torch.Generator().manual_seed(7))  # like nothing that is stored
    for query in lost:
        found(memory, query)
    memory.graph.state.coarse.renew()
    stats = memory.stats()
    assert stats["search"] == "exact" or stats["search_probes"] > before


def test_cells_are_made_of_the_living_where_most_have_died(memory):
    vectors = clustered(4000)
    retire(memory.graph, np.arange(1100, 4000))
    assert memory.storage.active_count == 1100 and memory.storage.node_count == 4000
    exact, _ = memory.graph.search(vectors[:50], 10, -1.0)
    scores, slots = memory.graph.seek(vectors[:50], 10, -1.0)
    assert memory.stats()["search"] == "approximate" and int(slots.max()) < 1100
    assert float((scores >= exact[:, -1:]).float().mean()) >= 0.9


def test_small_graphs_and_a_target_of_one_are_searched_exactly(tmp_path):
    for name, config, rows in (
        ("small", CONFIG, 999),
        ("sure", replace(CONFIG, recall_target=1.0), 4000),
    ):
        with AESGMemory(tmp_path / name, config) as memory:
            memory.graph.add_concepts(clustered(rows))
            queries = clustered(20, 3)
            exact, seek = memory.graph.search(queries, 10, -1.0), memory.graph.seek(queries, 10, -1.0)
            assert torch.equal(exact[0], seek[0]) and torch.equal(exact[1], seek[1])
            assert memory.stats()["search"] == "exact" and memory.stats()["search_recall"] == 1.0


def test_where_cells_do_not_pay_the_search_is_exact(tmp_path):
    with AESGMemory(tmp_path / "memory", replace(CONFIG, vector_dim=64, recall_target=0.999)) as memory:
        memory.graph.add_concepts(torch.randn(2000, 64, generator=torch.Generator().manual_seed(0)))
        queries = torch.randn(20, 64, generator=torch.Generator().manual_seed(1))
        exact, seek = memory.graph.search(queries, 10, -1.0), memory.graph.seek(queries, 10, -1.0)
        assert torch.equal(exact[0], seek[0]) and memory.stats()["search"] == "exact"


@pytest.mark.parametrize("births", [1, 100, 1000])
def test_what_is_born_is_found_at_once(memory, births):
    found(memory, clustered(1, 2))  # makes the cells
    slots = memory.graph.add_concepts(clustered(births, 5))
    for slot in slots[:: max(1, births // 10)].tolist():
        assert found(memory, memory.graph.get_node_vector(slot), 1) == [slot]
    assert memory.stats()["search"] == "approximate"


def test_what_died_is_never_found_and_its_slot_is_found_anew(memory):
    query = memory.graph.get_node_vector(17)
    assert found(memory, query, 1) == [17]
    memory.forget([int(memory.graph.ids(torch.tensor(17)))])
    assert 17 not in found(memory, query)
    slots = memory.graph.add_concepts(-query[None])
    assert slots.tolist() == [17] and found(memory, -query, 1) == [17] and 17 not in found(memory, query)


def test_a_changed_vector_is_found_where_it_is_now(memory):
    query = memory.graph.get_node_vector(5)
    assert found(memory, query, 1) == [5]
    memory.update_concept(5, -query)
    assert found(memory, -query, 1) == [5] and 5 not in found(memory, query)
    memory.storage.nodes["vector"][6] = 2 * query.numpy()
    assert found(memory, query, 1) == [6]


def test_another_directory_restored_is_searched_anew(memory, tmp_path):
    with AESGMemory(tmp_path / "other", CONFIG) as other:
        other.graph.add_concepts(clustered(2000, 8))
    query = memory.graph.get_node_vector(3000)
    assert found(memory, query, 1) == [3000]
    memory.restore(tmp_path / "other")
    assert memory.graph.seek(query[None], 1, -1.0)[1].item() < 2000


def test_a_life_of_births_deaths_and_changes_keeps_its_recall(memory):
    generator = torch.Generator().manual_seed(4)
    for step in range(12):
        memory.graph.add_concepts(clustered(400, 20 + step))
        living = torch.nonzero(memory.storage.column("is_active").reshape(-1))[:, 0]
        gone = living[torch.randperm(len(living), generator=generator)[:300]]
        memory.forget(memory.graph.ids(gone))
        queries = clustered(50, 40 + step)
        exact, slots = memory.graph.search(queries, 10, -1.0)[0], None
        scores, slots = memory.graph.seek(queries, 10, -1.0)
        assert float(((scores >= exact[:, -1:]) & (slots >= 0)).float().mean()) >= 0.9
        assert all(len(set(row)) == 10 for row in slots.tolist())
    assert memory.stats()["search"] == "approximate"


def test_equal_lives_give_equal_answers(tmp_path):
    answers = []
    for name in ("a", "b"):
        with AESGMemory(tmp_path / name, CONFIG, clock=lambda: 0.0) as memory:
            for step in range(4):
                memory.graph.add_concepts(clustered(900, step))
                memory.retrieve(clustered(7, 100 + step))
                memory.update_topology()
            answers.append(memory.retrieve(clustered(30, 50)))
    assert torch.equal(answers[0].indices, answers[1].indices)
    assert torch.equal(answers[0].weights, answers[1].weights)


def test_a_dropped_memory_gives_its_directory_free(tmp_path):
    memory = AESGMemory(tmp_path / "memory", CONFIG)
    memory.graph.add_concepts(clustered(1500))
    memory.retrieve(clustered(3))
    state = weakref.ref(memory._state)
    del memory
    assert state() is None  # without a garbage collection: the index is no part of a cycle


@pytest.mark.parametrize("bad", [{"approximate_search_from": 0}, {"recall_target": 1.5}])
def test_bad_settings_are_refused(tmp_path, bad):
    with pytest.raises(AESGConfigError, match=next(iter(bad))):
        AESGMemory(tmp_path / "memory", replace(CONFIG, **bad))


def test_whoever_reopens_finds_what_the_process_that_went_on_finds(tmp_path):
    config = replace(CONFIG, recall_target=0.6)  # so low that cells of another making find others
    queries = clustered(300, 5)
    with AESGMemory(tmp_path / "memory", config) as memory:
        for part in clustered(4000).split(500):  # cells that grew with the graph
            memory.graph.add_concepts(part)
            memory.graph.seek(queries[:5] + torch.randn(5, 16), 10, -1.0)
        grown = memory.graph.seek(queries, 10, -1.0)[1]
        memory.save()
        memory.snapshot(tmp_path / "copy")
        went_on = memory.graph.seek(queries, 10, -1.0)
        assert memory.stats()["search"] == "approximate"
    assert not torch.equal(grown, went_on[1])
    with AESGMemory(tmp_path / "copy") as reopened:
        scores, slots = reopened.graph.seek(queries, 10, -1.0)
        assert torch.equal(slots, went_on[1]) and torch.equal(scores, went_on[0])
