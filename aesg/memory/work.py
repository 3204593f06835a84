"""Work: what one memory did since it was made."""

from __future__ import annotations

import torch
from torch import Tensor

from aesg.memory.spread import QuerySpread


class Work:
    """What one memory did since it was made. An object of its own: setting attributes of a module is slow."""

    def __init__(self, vector_dim: int) -> None:
        self.queries = 0
        self.spread = QuerySpread(vector_dim)
        self.explained = torch.zeros((), dtype=torch.float64)  # sum over the queries of their best similarity
        self.retrieval_seconds = 0.0
        self.topology_seconds = 0.0

    def note(self, rows: Tensor, explanation: Tensor, seconds: float) -> None:
        """One call: its queries [Q, D], their best similarities [Q], and how long it took."""
        self.spread.add(rows)
        self.queries += explanation.shape[0]
        self.explained += explanation.sum()
        self.retrieval_seconds += seconds
