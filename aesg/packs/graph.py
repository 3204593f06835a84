"""PackGraph: a pack as the navigator asks it, with the names of `SemanticGraph`. Reads only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.config import AESGConfig
from aesg.graph.core import spreading_rules
from aesg.graph.query_mean import QueryMean
from aesg.ops import Activated, Primed, activate_context, seed_search
from aesg.packs.columns import BLOCK_EDGES
from aesg.packs.pack import MemoryPack


class PackGraph:
    """One pack under the rules of one memory's config. Made for a call; it holds no data of its own."""

    def __init__(self, pack: MemoryPack, config: AESGConfig, queries: QueryMean | None = None) -> None:
        self.config = config
        self._pack = pack
        self._tensors = pack.tensors
        # A pack answers by the memory's likeness.
        self._queries = QueryMean(pack.vector_dim) if queries is None else queries

    @property
    def vector_dim(self) -> int:
        return self._tensors.vectors.shape[1]

    def search(self, queries: Tensor, k: int, min_score: float) -> tuple[Tensor, Tensor]:
        """Exact cosine top-k: scores [B, k] f32, slots [B, k] i64. See `seed_search`."""
        tensors = self._tensors
        return seed_search(
            self._queries.without(queries),
            tensors.vectors,
            k,
            inv_norm=self._queries.inverse_norms_of(self._pack, tensors.vectors, tensors.inv_norm),
            active=tensors.active,
            min_score=min_score,
        )

    def seek(self, queries: Tensor, k: int, min_score: float) -> tuple[Tensor, Tensor]:
        """As `SemanticGraph.seek`: through cells where the pack is large."""
        config, pack = self.config, self._pack
        exact = self._queries.common is not None or config.recall_target >= 1
        if exact or pack.rows.living < config.approximate_search_from:
            return self.search(queries, k, min_score)
        return pack.coarse.search(queries, k, min_score, config.recall_target)

    def activate(
        self,
        similarities: Tensor,
        seeds: Tensor,
        *,
        bar: Tensor | None = None,
        primed: Primed | None = None,
        gather: bool = True,
        jacobian: bool = False,
    ) -> Activated:
        """Contexts from what `search` found [B, S]. See `activate_context`."""
        tensors = self._tensors
        return activate_context(
            similarities,
            seeds,
            tensors.vectors,
            tensors.first_block,
            tensors.targets,
            tensors.strengths,
            tensors.next_block,
            tensors.active,
            regions=tensors.regions,
            bar=bar,
            primed=primed,
            gather=gather,
            jacobian=jacobian,
            **spreading_rules(self.config),
        )

    @property
    def store(self) -> None:
        """None: nothing changes in a pack, so a slot is its concept's identity."""
        return None

    def without(self, vectors: Tensor) -> Tensor:
        """As `SemanticGraph.without`."""
        return self._queries.without(vectors)

    def gather(self, slots: Tensor) -> Tensor:
        """Copies of the vectors [..., D] of slots [...]; zero where the slot is negative."""
        vectors = self._tensors.vectors
        if len(vectors) == 0:
            return torch.zeros(*slots.shape, self.vector_dim)
        return vectors[slots.clamp(min=0)].masked_fill_((slots < 0).unsqueeze(-1), 0.0)

    def gather_members(self, members: Tensor, origin: int, vectors: Tensor) -> None:
        """Writes the vectors of those `members` [Q, K] that are of this origin to `vectors` [Q, K, D]."""
        _core.gather_of(self._tensors.vectors.numpy(), members.numpy(), origin, vectors.numpy())

    # For `aesg.memory.trace`, one concept at a time.

    def is_active(self, slot: int) -> bool:
        return bool(self._tensors.active[slot])

    def region(self, slot: int) -> int:
        return int(self._tensors.regions[slot])

    def out_edges(self, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """Targets i64 [e] and strengths f32 [e] of a concept's edges."""
        tensors, block = self._tensors, int(self._tensors.first_block[slot])
        targets, strengths = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        while block >= 0:
            filled = tensors.targets[block].numpy() >= 0
            assert len(filled) == BLOCK_EDGES
            targets.append(tensors.targets[block].numpy()[filled].astype(np.int64))
            strengths.append(tensors.strengths[block].numpy()[filled])
            block = int(tensors.next_block[block])
        return np.concatenate(targets), np.concatenate(strengths)
