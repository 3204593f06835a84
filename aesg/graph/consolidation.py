"""Consolidation: ageing, fading relevance, and death of what is neither relevant nor used."""

from __future__ import annotations

import numpy as np
import torch

from aesg import _core
from aesg.graph.core import SemanticGraph
from aesg.ops import consolidate_


def age_concepts(graph: SemanticGraph) -> np.ndarray:
    """age += 1 and relevance *= `relevance_decay` for every living concept, in place.

    Returns the slots i64 [n] that are now old enough and under both survival thresholds. O(N), columnar.
    """
    storage, config = graph.state.storage, graph.config
    doomed = consolidate_(
        storage.column("age"),
        storage.column("relevance"),
        storage.column("use_frequency"),
        storage.column("is_active"),
        count=storage.core.node_count,
        relevance_decay=config.relevance_decay,
        min_age=config.prune_min_age,
        relevance_threshold=config.survival_threshold_relevance,
        frequency_threshold=config.survival_threshold_frequency,
    )
    storage.mark("age")
    storage.mark("relevance")
    graph.state.counters["consolidations"] += 1
    graph.state.touch()
    return torch.nonzero(doomed.reshape(-1))[:, 0].numpy()


def find_doomed(graph: SemanticGraph) -> np.ndarray:
    """Slots i64 [n] of living concepts that consolidation would prune now. O(N)."""
    storage, config = graph.state.storage, graph.config
    doomed = (
        (storage.column("is_active") != 0)
        & (storage.column("age") > config.prune_min_age)
        & (storage.column("relevance") < config.survival_threshold_relevance)
        & (storage.column("use_frequency") < config.survival_threshold_frequency)
    )
    return torch.nonzero(doomed.reshape(-1))[:, 0].numpy()


def find_excess(graph: SemanticGraph) -> np.ndarray:
    """Slots i64 [n] of the weakest above `max_concepts`, ascending. O(N).

    A concept is kept for being recent or for being often used: its worth is r + u / (u + f) / 2, r its
    relevance, u its use and f `survival_threshold_frequency`. So what was just born is worth more than what
    was often used and is no more, and has time to be used itself. Of equals the higher slot goes.
    """
    storage, config = graph.state.storage, graph.config
    excess = storage.core.active_count - config.max_concepts
    if excess <= 0:
        return np.empty(0, dtype=np.int64)
    living = np.flatnonzero(storage.column("is_active").reshape(-1).numpy())
    relevance = storage.column("relevance").reshape(-1).numpy()[living].astype(np.float64)
    uses = storage.column("use_frequency").reshape(-1).numpy().view(np.uint32)[living].astype(np.float64)
    worth = relevance + 0.5 * uses / (uses + config.survival_threshold_frequency)
    bar = np.partition(worth, excess - 1)[excess - 1]
    below, equal = np.flatnonzero(worth < bar), np.flatnonzero(worth == bar)
    return np.sort(living[np.concatenate([below, equal[len(equal) - (excess - len(below)) :]])])


def retire(graph: SemanticGraph, slots: np.ndarray) -> int:
    """Makes concepts inactive at once and releases their edges; returns how many died."""
    if len(slots) == 0:
        return 0
    state = graph.state
    died = _core.retire(state.storage.core, slots, state.now())
    state.counters["prunes"] += died
    state.touch()
    return died
