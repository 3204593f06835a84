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


def bear_abstract(
    graph: SemanticGraph, parents: np.ndarray, counts: np.ndarray, vectors: Tensor
) -> np.ndarray:
    """Bears m concepts with the given vectors [m, D] above their parents; returns their slots i64 [m].

    parents: slots i64 [sum counts], those of each concept behind one another, `counts` [m] of them. Each
    concept is linked both ways to its parents: weight = cosine (0 where they are opposed), confidence =
    `edge_initial_confidence`.
    """
    state = graph.state
    slots = _core.bear(state.storage.core, vectors.numpy(), state.now(), log=False)
    children = np.repeat(slots, counts)
    rows = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    ones = graph.directions(graph.gather(torch.from_numpy(parents)))
    cosines = (ones * graph.directions(vectors)[rows]).sum(dim=1)
    _link(graph, parents, children, cosines.clamp(0.0, 1.0).numpy(), ABSTRACTION)
    first = np.cumsum(counts) - counts
    named = torch.from_numpy(np.stack([slots, parents[first]]))
    for child, parent, count in zip(*graph.ids(named).tolist(), counts.tolist(), strict=True):
        state.logger.log_event(EventType.CREATE, child % 2**64, parent % 2**64, count)
    state.counters["births"] += len(slots)
    state.touch()
    return slots


def _link(graph: SemanticGraph, ones: np.ndarray, others: np.ndarray, weights: np.ndarray, kind: int) -> None:
    """Edges both ways between ones[i] and others[i]; for abstractions, others[i] is the abstract one."""
    if len(ones) == 0:
        return
    core = graph.state.storage.core
    confidences = np.full(len(weights), graph.config.edge_initial_confidence, dtype=np.float32)
    _core.put_edges(core, ones, others, weights, confidences, kind, up=kind == ABSTRACTION)
    _core.put_edges(core, others, ones, weights, confidences, kind)
