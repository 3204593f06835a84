"""Forgetting on request: concepts, their edges, and what was abstracted from them alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.graph.consolidation import retire
from aesg.graph.core import SemanticGraph


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
    """Slots of living concepts with cosine distance 1 - cos <= radius to the query [D]. O(N D)."""
    living = torch.nonzero(graph.state.storage.column("is_active").reshape(-1))[:, 0]
    if len(living) == 0:
        return living.numpy()
    units = torch.nn.functional.normalize(graph.gather(living), dim=1)
    distance = 1.0 - units @ torch.nn.functional.normalize(query, dim=0)
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
    gone = _with_orphans(graph, np.unique(slots))
    vectors = graph.gather(torch.from_numpy(gone))
    died = retire(graph, gone)
    _core.bury(state.storage.core)
    state.pool.drop_like(vectors, config.novelty_explanation_threshold)
    state.log.pairs.forget(state.storage.column("is_active").reshape(-1).numpy() == 0)
    return died


def _with_orphans(graph: SemanticGraph, slots: np.ndarray) -> np.ndarray:
    """These slots and, level by level, the abstract concepts whose parents are all among them."""
    core = graph.state.storage.core
    gone = set(slots.tolist())
    frontier = sorted(gone)
    while frontier:
        above = sorted({int(end) for slot in frontier for end in _core.abstractions(core, slot)} - gone)
        frontier = [slot for slot in above if _is_orphan(graph, slot, gone)]
        gone.update(frontier)
    return np.array(sorted(gone), dtype=np.int64)


def _is_orphan(graph: SemanticGraph, slot: int, gone: set[int]) -> bool:
    """Whether `slot` was abstracted from concepts (younger ids are what was abstracted from it) all of which
    go.
    """
    storage = graph.state.storage
    ids = storage.column("id")
    rows = ids.shape[1]

    def identity(of: int) -> int:
        return int(ids[of // rows, of % rows])

    ends = [int(end) for end in _core.abstractions(storage.core, slot)]
    parents = [end for end in ends if identity(end) < identity(slot)]
    return bool(parents) and all(parent in gone for parent in parents)
