"""QuerySpread: how much the recent queries differ. A memory is only as good as its queries are."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

RECENT = 256  # queries looked at: enough for a measure, few enough to take it at any time


class QuerySpread:
    """The directions of the last RECENT queries."""

    def __init__(self, vector_dim: int) -> None:
        self._vector_dim = vector_dim
        self._kept: deque[np.ndarray] = deque()  # the last calls' queries, [<= RECENT, D] each, latest last
        self._count = 0

    def add(self, rows: Tensor) -> None:
        """Takes in queries [Q, D] without gradient: a copy, everything else waits until somebody asks."""
        self._kept.append(rows.numpy()[-RECENT:].copy())
        self._count += len(self._kept[-1])
        while self._count - len(self._kept[0]) >= RECENT:
            self._count -= len(self._kept.popleft())

    def resultant(self) -> float:
        """Length of the mean direction, in [0, 1]: 1 when all queries point one way. 0 without queries."""
        units = self._recent()
        return float(units.mean(dim=0).norm()) if len(units) else 0.0

    def effective_rank(self) -> float:
        """exp(entropy) of the shares of variance along the principal axes: in how many directions the queries
        differ, 1..min(D, RECENT). 0 when they do not. (Roy and Vetterli, 2007.) O(RECENT^2 D).
        """
        units = self._recent()
        if len(units) < 2:
            return 0.0
        centred = units - units.mean(dim=0, keepdim=True)
        variances = torch.linalg.eigvalsh((centred @ centred.T).double()).clamp(min=0)
        total = variances.sum()
        if total <= 1e-9:
            return 0.0
        shares = variances[variances > 0] / total
        return float(torch.exp(-(shares * shares.log()).sum()))

    def _recent(self) -> Tensor:
        """Their directions [n, D]; zero vectors have none and are left out."""
        none = np.zeros((0, self._vector_dim), dtype=np.float32)
        rows = torch.from_numpy(np.concatenate([none, *self._kept])[-RECENT:])
        return torch.nn.functional.normalize(rows[rows.any(dim=1)], dim=1)
