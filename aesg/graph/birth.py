"""Birth: new concepts, linked to what they resemble."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.graph.core import ABSTRACTION, SIMILARITY, SemanticGraph
from aesg.storage.logger import EventType


def bear_sensory(graph: SemanticGraph, vectors: Tensor) -> np.ndarray:
    """Bears concepts from vectors [n, D], linked both ways to their nearest; returns slots i64 [n]. O(n N D).

    Links go to at most `link_count` concepts that live before this birth, with cosine >=
    `link_min_similarity`: weight = cosine, confidence = `edge_initial_confidence`.
    """
    state, config = graph.state, graph.config
    cosines, neighbors = graph.search(vectors, config.link_count, config.link_min_similarity)
    slots = _core.bear(state.storage.core, vectors.numpy(), state.now())
    rows, columns = torch.nonzero(neighbors >= 0, as_tuple=True)
    _link(
        graph,
        slots[rows.numpy()],
        neighbors[rows, columns].numpy(),
        cosines[rows, columns].clamp(0.0, 1.0).numpy(),
        SIMILARITY,
    )
    state.counters["births"] += len(slots)
    state.touch()
    return slots


def bear_abstract(graph: SemanticGraph, parents: np.ndarray, vector: Tensor) -> int:
    """Bears one concept above `parents` [m] with the given vector [D], linked to each both ways; returns its
    slot.

    weight = cosine between parent and concept (0 where they are opposed), confidence =
    `edge_initial_confidence`.
    """
    state = graph.state
    slot = int(_core.bear(state.storage.core, vector[None].numpy(), state.now(), log=False)[0])
    cosines = torch.cosine_similarity(graph.gather(torch.from_numpy(parents)), vector[None], dim=1)
    _link(graph, np.full(len(parents), slot), parents, cosines.clamp(0.0, 1.0).numpy(), ABSTRACTION)
    ids = state.storage.column("id")
    rows = ids.shape[1]
    state.logger.log_event(
        EventType.CREATE,
        int(ids[slot // rows, slot % rows]),
        int(ids[int(parents[0]) // rows, int(parents[0]) % rows]),
        float(len(parents)),
    )
    state.counters["births"] += 1
    state.touch()
    return slot


def _link(graph: SemanticGraph, ones: np.ndarray, others: np.ndarray, weights: np.ndarray, kind: int) -> None:
    """Edges both ways between ones[i] and others[i]."""
    if len(ones) == 0:
        return
    core = graph.state.storage.core
    confidences = np.full(len(weights), graph.config.edge_initial_confidence, dtype=np.float32)
    _core.put_edges(core, ones, others, weights, confidences, kind)
    _core.put_edges(core, others, ones, weights, confidences, kind)
