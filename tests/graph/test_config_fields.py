"""Every field of AESGConfig does what it is documented for: one thing measured under two values."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from aesg.architectures import AESGGRUText
from aesg.config import AESGConfig
from aesg.exceptions import AESGStorageError
from aesg.memory.controller import AESGMemory
from aesg.trainer import AESGTrainer

E = torch.eye(16)


def near(cosine: float, at: int = 0, away: int = 1) -> torch.Tensor:
    """A unit vector with that cosine to E[at]."""
    return cosine * E[at] + (1 - cosine**2) ** 0.5 * E[away]


def updated(memory: AESGMemory, times: int) -> AESGMemory:
    for _ in range(times):
        memory.update_topology()
    return memory


def chain(memory: AESGMemory, count: int = 4, confidence: float = 1.0) -> AESGMemory:
    """Concepts E[0] -> E[1] -> ..."""
    memory.graph.add_concepts(E[:count])
    some = [1.0] * (count - 1)
    memory.graph.add_edges(list(range(count - 1)), list(range(1, count)), some, [confidence] * (count - 1))
    return memory


def reached(memory: AESGMemory, query: torch.Tensor = E[0]) -> int:
    return int(memory.retrieve(query).mask.sum())


def energy(memory: AESGMemory, slot: int, query: torch.Tensor = E[0]) -> float:
    context = memory.retrieve(query)
    return float(context.weights[context.indices == slot].sum())


def only_edge(memory: AESGMemory, slot: int = 0) -> Any:
    (edge,) = memory.storage.get_edges(slot)
    return edge


def crowded(memory: AESGMemory) -> int:
    """Splits by a sweep when concept 0 stands between two groups of 10."""
    vectors = torch.randn(21, 16)
    vectors[1:11] += 9 * E[0]
    vectors[11:] += 9 * E[1]
    memory.graph.add_concepts(vectors)
    memory.graph.add_edges([0] * 20, list(range(1, 21)), [1.0] * 20, [0.5] * 20)
    memory.cognitive_engine.sweep()
    return memory.stats()["splits"]


def two_alike(memory: AESGMemory) -> int:
    """Merges by a sweep of two linked concepts with cosine 0.9."""
    memory.graph.add_concepts(torch.stack([E[0], near(0.9)]))
    memory.graph.add_edges([0, 1], [1, 0], [0.9, 0.9], [0.5, 0.5])
    memory.cognitive_engine.sweep()
    return memory.stats()["merges"]


def told_apart(memory: AESGMemory) -> bool:
    """Whether a model asks differently about one token after two others."""
    model = AESGGRUText(8, 8, 1, memory)
    said = model.said(torch.tensor([[1, 3], [2, 3]]))
    assert said is not None
    return not torch.equal(said[0, 1], said[1, 1])


def pair_used(memory: AESGMemory) -> int:
    """Abstract concepts after two concepts were like one query five times."""
    memory.graph.add_concepts(E[:2])
    for _ in range(5):
        memory.retrieve(E[0] + E[1])
    memory.cognitive_engine.sweep()
    return memory.stats()["births"] - 2


def born(memory: AESGMemory, times: int, query: torch.Tensor) -> int:
    memory.graph.add_concepts(E[:1])
    for _ in range(times):
        memory.retrieve(query)
    return memory.storage.active_count - 1


def linked(memory: AESGMemory) -> list[float]:
    """Confidences of the edges of a newborn that has cosines 0.8, 0.7 and 0.4 to what is there."""
    memory.graph.add_concepts(torch.stack([near(0.8, 0, 1), near(0.7, 0, 2), near(0.4, 0, 3)]))
    slot = memory.cognitive_engine.create_sensory_concept(E[0])
    return memory.storage.get_edges(slot)["confidence"].tolist()


def followed(memory: AESGMemory, steps: tuple[int, ...]) -> dict[int, float]:
    """Confidence of concept 0's successor edges after streams 0 -> step."""
    memory.graph.add_concepts(E[:3])
    for step in steps:
        memory.retrieve(torch.stack([E[0], E[step]])[None])
    edges = memory.storage.get_edges(0)
    return {int(edge["target"]): round(float(edge["confidence"]), 4) for edge in edges}


def relevance_after_use(memory: AESGMemory) -> float:
    memory.graph.add_concepts(E[:1])
    memory.storage.nodes["relevance"][0] = 0.5
    memory.retrieve(E[0])
    return round(float(memory.storage.nodes["relevance"][0]), 4)


def coactivated(memory: AESGMemory) -> float:
    memory.graph.add_concepts(E[:2])
    memory.graph.add_edges([0], [1], [1.0], [0.5])
    memory.retrieve(E[0] + E[1])
    return round(float(only_edge(memory)["confidence"]), 4)


def primed(memory: AESGMemory) -> float:
    """Energy of what the stream was about before, under a query of something else."""
    memory.graph.add_concepts(E[:2])
    memory.retrieve(E[0])
    return round(energy(memory, 0, E[1]), 4)


def pooled(memory: AESGMemory) -> int:
    memory.graph.add_concepts(E[:1])
    memory.retrieve(E[1:8])
    return memory.stats()["candidates"]


def facilitated(memory: AESGMemory) -> float:
    chain(memory, 2, confidence=0.5)
    memory.storage.nodes["region_id"][:2] = 1
    return round(energy(memory, 1), 4)


def collapsed(memory: AESGMemory) -> bool:
    patterns = 3 * E[0] + torch.nn.functional.normalize(torch.randn(8, 16), dim=1)  # resultant about 0.95
    for _ in range(20):
        memory.retrieve(patterns[torch.randint(0, 8, (64,))])
        memory.update_topology()
    return memory.stats()["common_part_removed"]


def how_searched(memory: AESGMemory) -> str:
    """4,000 concepts in 40 clusters."""
    centers = 4 * torch.randn(40, 16)
    memory.graph.add_concepts(centers.repeat(100, 1) + torch.randn(4000, 16))
    memory.retrieve(centers)
    return memory.stats()["search"]


def told(memory: AESGMemory) -> list[str]:
    heard: list[str] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.levelname)

    handler = Heard()
    logging.getLogger("aesg.memory").addHandler(handler)
    try:
        memory.save()
        memory.set_mode("ONLINE")
    finally:
        logging.getLogger("aesg.memory").removeHandler(handler)
    return heard


def model_of(memory: AESGMemory) -> torch.nn.Module:
    model = torch.nn.Linear(2, 2)
    model.memory = memory
    return model


class Case(NamedTuple):
    one: Any  # a value of the field
    other: Any
    measure: Callable[[AESGMemory], Any]
    expected: tuple[Any, Any]
    fields: tuple[tuple[str, Any], ...] = ()  # what else must be set to see it


CASES = {
    "vector_dim": Case(
        16, 24, lambda m: m.graph.add_concepts(torch.ones(1, m.vector_dim)).size * m.vector_dim, (16, 24)
    ),
    "max_concepts": Case(
        3, 9, lambda m: (m.graph.add_concepts(E), updated(m, 1).storage.active_count)[1], (3, 9)
    ),
    "max_edges_per_node": Case(10, 30, crowded, (1, 0)),
    "split_density_threshold": Case(10, 30, crowded, (1, 0)),
    "spreading_activation_decay": Case(0.8, 0.4, lambda m: round(energy(chain(m), 1), 4), (0.8, 0.4)),
    "spreading_activation_steps": Case(1, 2, lambda m: reached(chain(m)), (2, 3)),
    "region_facilitation_multiplier": Case(1.5, 1.0, facilitated, (0.6, 0.4)),
    "consolidation_epoch_interval": Case(2, 3, lambda m: updated(m, 6).stats()["sweeps"], (3, 2)),
    "prune_confidence_threshold": Case(
        0.1,
        0.4,
        lambda m: (chain(m, 2, 0.3).cognitive_engine.sweep(), m.storage.edge_count)[1],
        (1, 0),
    ),
    "survival_threshold_relevance": Case(
        0.05, 0.5, lambda m: updated(chain(m), 20).storage.active_count, (4, 0), (("relevance_decay", 0.95),)
    ),
    "survival_threshold_frequency": Case(
        3,
        4,
        lambda m: ([m.retrieve(E[0]) for _ in range(4)], updated(m, 10).storage.active_count)[1],
        (1, 0),
        (("survival_threshold_relevance", 1.0), ("relevance_gain", 0.0)),
    ),
    "prune_min_age": Case(
        3,
        8,
        lambda m: updated(chain(m), 5).storage.active_count,
        (0, 4),
        (("survival_threshold_relevance", 1.0),),
    ),
    "coactivation_threshold_create": Case(5, 6, pair_used, (1, 0)),
    "abstraction_enabled": Case(True, False, pair_used, (1, 0), (("coactivation_threshold_create", 5),)),
    "merge_similarity_threshold": Case(0.85, 0.95, two_alike, (1, 0)),
    "novelty_explanation_threshold": Case(0.6, 0.8, lambda m: born(m, 3, near(0.7)), (0, 1)),
    "novelty_birth_threshold": Case(3, 5, lambda m: born(m, 4, E[1]), (1, 0)),
    "novelty_pool_size": Case(3, 100, pooled, (3, 7)),
    "learning_rate": Case(
        0.5, 0.25, lambda m: AESGTrainer(model_of(m)).optimizer.param_groups[0]["lr"], (0.5, 0.25)
    ),
    "batch_size": Case(2, 5, lambda m: AESGTrainer(model_of(m)).batch_size, (2, 5)),
    "region_detection_interval": Case(
        2,
        4,
        lambda m: (
            m.graph.add_concepts(torch.randn(80, 16)),
            updated(m, 3).storage.nodes["region_id"][:80].any(),
        )[1],
        (True, False),
    ),
    "log_level": Case("DEBUG", "WARNING", told, (["DEBUG", "INFO"], [])),
    "memory_mode": Case("TRAIN", "ONLINE", lambda m: m.mode.value, ("TRAIN", "ONLINE")),
    "seed_top_k": Case(2, 5, lambda m: (m.graph.add_concepts(E[:8]), reached(m, E[:8].sum(0)))[1], (2, 5)),
    "context_size": Case(2, 4, lambda m: len(chain(m).retrieve(E[0]).indices), (2, 4)),
    "seed_min_similarity": Case(0.1, 0.5, lambda m: reached(chain(m, 2), near(0.3, 0, 9)), (2, 0)),
    "seed_relative_similarity": Case(
        0.5, 0.9, lambda m: (m.graph.add_concepts(E[:2]), reached(m, near(0.8)))[1], (2, 1)
    ),
    "source_energy_floor": Case(0.1, 0.9, lambda m: reached(chain(m)), (4, 2), (("transfer_floor", 0.0),)),
    "transfer_floor": Case(0.05, 0.7, lambda m: reached(chain(m)), (4, 2)),
    "priming": Case(0.5, 0.25, primed, (0.5, 0.25)),
    "link_count": Case(1, 4, lambda m: len(linked(m)), (1, 2)),
    "link_min_similarity": Case(0.5, 0.3, lambda m: len(linked(m)), (2, 3)),
    "edge_initial_confidence": Case(0.5, 0.25, lambda m: linked(m), ([0.5, 0.5], [0.25, 0.25])),
    "edge_fade": Case(
        1.0,
        0.5,
        lambda m: (
            chain(m, 2, 0.8).cognitive_engine.sweep(),
            m.cognitive_engine.sweep(),
            round(float(only_edge(m)["confidence"]), 4),
        )[2],
        (0.8, 0.4),
    ),
    "succession_rate": Case(0.3, 0.5, lambda m: followed(m, (1, 1)), ({1: 0.65}, {1: 0.75})),
    "succession_yield": Case(0.7, 0.2, lambda m: followed(m, (1, 2)), ({1: 0.15, 2: 0.5}, {1: 0.4, 2: 0.5})),
    "coactivation_rate": Case(0.05, 0.5, coactivated, (0.525, 0.75)),
    "relevance_gain": Case(0.1, 0.4, relevance_after_use, (0.55, 0.7)),
    "relevance_decay": Case(
        0.9, 0.5, lambda m: round(float(updated(chain(m), 2).storage.nodes["relevance"][0]), 4), (0.81, 0.25)
    ),
    "query_context": Case(0.0, 0.6, told_apart, (False, True)),
    "query_collapse_threshold": Case(0.9, 1.0, collapsed, (True, False)),
    "approximate_search_from": Case(1000, 5000, how_searched, ("approximate", "exact")),
    "recall_target": Case(
        0.9, 1.0, how_searched, ("approximate", "exact"), (("approximate_search_from", 1000),)
    ),
}


@pytest.mark.parametrize("field", CASES)
def test_a_field_does_what_it_is_for(make_memory, field):
    case = CASES[field]
    found = []
    for value in (case.one, case.other):
        torch.manual_seed(0)
        memory = make_memory(f"{len(found)}", **{**dict(case.fields), field: value})
        found.append(case.measure(memory))
    assert tuple(found) == case.expected


def test_the_storage_directory_is_where_a_memory_without_one_lies(tmp_path):
    config = AESGConfig(vector_dim=16, storage_directory=str(tmp_path / "from_config"))
    with AESGMemory(config=config) as memory:
        assert memory.directory == tmp_path / "from_config"
    with AESGMemory(tmp_path / "given", config) as memory:
        assert memory.directory == tmp_path / "given"
    with pytest.raises(AESGStorageError, match="directory: expected a path, got None"):
        AESGMemory(config=AESGConfig(vector_dim=16))


def test_what_the_trainer_is_given_wins(make_memory):
    model = model_of(make_memory(batch_size=8, learning_rate=0.5))
    trainer = AESGTrainer(model, batch_size=32, learning_rate=1e-3)
    assert (trainer.batch_size, trainer.optimizer.param_groups[0]["lr"]) == (32, 1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = AESGTrainer(torch.nn.Linear(2, 2))
    assert (trainer.batch_size, trainer.learning_rate) == (32, 1e-3)


def test_no_field_is_left_out():
    assert {field.name for field in dataclasses.fields(AESGConfig)} == {*CASES, "storage_directory"}
    assert np.all([case.expected[0] != case.expected[1] for case in CASES.values()])
