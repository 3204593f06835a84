"""Forgetting on request: concepts, their edges, and what was abstracted from them alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.graph.consolidation import retire
from aesg.graph.core import SemanticGraph
from aesg.graph.regions import renew_centers


def slots_of_ids(graph: SemanticGraph, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slots i64 of living concepts with these ids, and the ids that no living concept has. O(N)."""
    storage = graph.state.storage
    column = storage.column("id").reshape(-1).numpy()
    living = np.flatnonzero(storage.column("is_active").reshape(-1).numpy())
    order = living[np.argsort(column[living], kind="stable")]
    known = column[order]
    place = np.searchsorted(known, ids)
    there = (
        (place < len(known)) & (known[np.minimum(place, len(known) - 1)] == ids) if len(known) else ids < 0
    )
    return order[place[there]], ids[~there]


def slots_near(graph: SemanticGraph, query: Tensor, radius: float) -> np.ndarray:
    """Slots of living concepts with cosine distance 1 - cos <= radius to the query [D], by the likeness that
    search goes by. O(N D).
    """
    living = torch.nonzero(graph.state.storage.column("is_active").reshape(-1))[:, 0]
    if len(living) == 0:
        return living.numpy()
    distance = 1.0 - graph.directions(graph.gather(living)) @ graph.directions(query)
    return living[distance <= radius].numpy()


def forget(graph: SemanticGraph, slots: np.ndarray) -> int:
    """Removes living concepts, the edges from and into them, and abstract concepts that lose every parent.

    Also drops novelty candidates that resemble them, so that they are not born again from the pool. The slots
    are zeroed and free afterwards. Returns how many concepts went. O(N + E).
    """
    if len(slots) == 0:
        return 0
    state, config = graph.state, graph.config
    state.log.digest()
    gone = _core.with_orphans(state.storage.core, slots)
    vectors = graph.gather(torch.from_numpy(gone))
    regions = state.storage.column("region_id").reshape(-1)[torch.from_numpy(gone)].long()
    died = retire(graph, gone)
    _core.bury(state.storage.core)
    state.pool.drop_like(state.queries.without(vectors), config.novelty_explanation_threshold)
    state.queries.forget()
    renew_centers(graph, regions)
    state.log.pairs.forget(state.storage.column("is_active").reshape(-1).numpy() == 0)
    return died
