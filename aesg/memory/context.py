"""RetrievedContext: what a query brought back from the graph."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aesg.graph.use_log import PRIMARY_COUNT
from aesg.packs.ranking import ORIGIN_SHIFT, origins_of

Path = list[int]


class RetrievedContext:
    """The K strongest concepts of every query, strongest first. `...` is nothing, [B] or [B, T] as asked.

    vectors [..., K, D] f32, weights [..., K] f32 (energies in [0, 1], differentiable in the query),
    mask [..., K] bool, indices [..., K] i64 slots (-1 where fewer were activated),
    explanation [...] f32, the best seed's cosine (0 when nothing was like the query).
    The index of a member from an attached pack is 2^32 or more, so that it is never taken for one of the
    memory's slots: `origins` and `slots` take indices apart.
    The remaining attributes are views of these, made when asked for.
    """

    def __init__(
        self,
        vectors: Tensor,
        weights: Tensor,
        indices: Tensor,
        explanation: Tensor,
        projection: nn.Linear | None = None,
        trace: Callable[[int, int], Path] | None = None,
        origin_names: tuple[str, ...] = ("memory",),
    ) -> None:
        self.vectors = vectors
        self.weights = weights
        self.indices = indices
        self.explanation = explanation
        self._projection = projection
        self._trace = trace
        self.origin_names = origin_names  # what `origins` counts: the memory, then the packs that answered

    @property
    def mask(self) -> Tensor:
        """Which places hold a member, bool [..., K]."""
        return self.indices >= 0

    def aggregate(self) -> Tensor:
        """One vector a query, [..., D]: m + P m, m the energy-weighted mean, P the abstraction projection.

        Zero where nothing was retrieved.
        """
        total = self.weights.sum(-1, keepdim=True)
        share = self.weights / total.clamp(min=torch.finfo(total.dtype).tiny)  # 0 / tiny = 0
        mean = (share.unsqueeze(-2) @ self.vectors).squeeze(-2)
        return mean + self.projection(mean)

    def projection(self, mean: Tensor) -> Tensor:
        """P m of `aggregate()` for means [..., D]; zero where the memory has no projection."""
        if self._projection is None:
            return torch.zeros_like(mean)
        dtype = self._projection.weight.dtype  # a model may be converted to another precision
        return self._projection(mean.to(dtype)).to(mean.dtype)

    @property
    def origins(self) -> Tensor:
        """Where each member comes from, i64 [..., K]: 0 the memory, p the pack `origin_names[p]`, -1 none."""
        return origins_of(self.indices)

    @property
    def slots(self) -> Tensor:
        """Every member's slot in the graph it comes from, i64 [..., K], -1 where there is none."""
        return torch.where(self.mask, self.indices & ((1 << ORIGIN_SHIFT) - 1), -1)

    @property
    def primary_concepts(self) -> Any:
        """Slots of the three strongest: a list for one query, nested lists for batches."""
        return self._slots(0, PRIMARY_COUNT)

    @property
    def secondary_concepts(self) -> Any:
        """Slots of the others, as `primary_concepts`."""
        return self._slots(PRIMARY_COUNT, None)

    @property
    def activated_nodes(self) -> list[int]:
        """The distinct slots of the whole call in ascending order; [] when there are none."""
        return torch.unique(self.indices[self.mask]).tolist()

    @property
    def concept_vectors(self) -> Tensor | None:
        """The vectors [n, D] of `activated_nodes`; None when there are none."""
        slots, positions = torch.unique(self.indices[self.mask], return_inverse=True)
        if len(slots) == 0:
            return None
        rows = self.vectors[self.mask]
        distinct = rows.new_empty(len(slots), rows.shape[-1])
        distinct[positions] = rows  # equal slots carry equal vectors
        return distinct

    @property
    def paths(self) -> Any:
        """For each member the way its energy came: slots from a seed to the member. Lists as
        `primary_concepts`.
        """
        if self._trace is None:
            return []
        trace, rows = self._trace, self.indices.reshape(-1, self.indices.shape[-1]).tolist()
        found = [[trace(query, slot) for slot in row if slot >= 0] for query, row in enumerate(rows)]
        return _nest(found, self.indices.shape[:-1])

    def renewed(self) -> RetrievedContext:
        """The same tensors, which a replay has written over: nothing is known of their paths."""
        renewed = copy.copy(self)
        renewed._trace = copy.copy(self._trace)
        return renewed

    def _slots(self, start: int, stop: int | None) -> Any:
        rows = self.indices[..., start:stop].reshape(-1, self.indices[..., start:stop].shape[-1]).tolist()
        return _nest([[slot for slot in row if slot >= 0] for row in rows], self.indices.shape[:-1])


def _nest(rows: list[Any], shape: torch.Size) -> Any:
    """Rows in the shape of the queries: the row itself for one query, lists of rows for [B], of lists for [B,
    T].
    """
    if len(shape) == 0:
        return rows[0]
    if len(shape) == 1:
        return rows
    steps = shape[1]
    return (
        [rows[start : start + steps] for start in range(0, len(rows), steps)]
        if steps
        else [[] for _ in range(shape[0])]
    )
