"""Work: what one memory did since it was made."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from aesg.memory.spread import QuerySpread


class Work:
    """What one memory did since it was made. An object of its own: setting attributes of a module is slow."""

    def __init__(self, vector_dim: int) -> None:
        self.queries = 0
        self.spread = QuerySpread(vector_dim)
        self.explained = 0.0  # sum over the queries of their best similarity
        self.retrieval_seconds = 0.0
        self.topology_seconds = 0.0

    def note(self, rows: Tensor, explanation: Tensor, seconds: float) -> None:
        """One call: its queries [Q, D], their best similarities [Q], and how long it took. No gradients."""
        self.spread.add(rows)
        self.queries += rows.shape[0]
        self.explained += float(explanation.numpy().sum(dtype=np.float64))
        self.retrieval_seconds += seconds
