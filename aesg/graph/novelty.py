"""NoveltyPool: inputs that nothing explained, waiting until they come often enough to be born."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aesg.ops import pool_novelty_


class NoveltyPool:
    """At most P candidates (running mean, count, time of last join); see `aesg.ops.pool_novelty_`.

    Shared by all streams and committed with the graph, so an input counts whenever it came.
    """

    def __init__(self, capacity: int, vector_dim: int) -> None:
        self.candidates = torch.zeros(capacity, vector_dim)  # [P, D] f32
        self.counts = torch.zeros(capacity, dtype=torch.int32)  # [P]
        self.stamps = torch.zeros(capacity, dtype=torch.int64)  # [P]
        self.state = torch.zeros(2, dtype=torch.int64)  # size, clock
        self.version: object = object()  # another one after every change

    def __len__(self) -> int:
        return int(self.state[0])

    @property
    def capacity(self) -> int:
        return self.candidates.shape[0]

    def offer(self, inputs: Tensor, *, threshold: float, birth_count: int, birth_first: bool) -> Tensor:
        """Takes novel inputs [n, D] in order; returns the vectors [m, D] that are born by them. O(n P D)."""
        self.changed()
        born, vectors = pool_novelty_(
            self.candidates,
            self.counts,
            self.stamps,
            self.state,
            inputs,
            threshold=threshold,
            birth_count=birth_count,
            birth_first=birth_first,
        )
        return vectors[born]

    def changed(self) -> None:
        """Says that somebody changes the candidates."""
        self.version = object()

    def drop_like(self, vectors: Tensor, threshold: float) -> None:
        """Removes the candidates with cosine >= threshold to any of `vectors` [n, D]. O(n P D)."""
        self.changed()
        size = len(self)
        units = torch.nn.functional.normalize(self.candidates[:size], dim=1)
        likeness = units @ torch.nn.functional.normalize(vectors, dim=1).T  # [size, n]
        keep = torch.nonzero((likeness < threshold).all(dim=1))[:, 0]
        for column in (self.candidates, self.counts, self.stamps):
            column[: len(keep)] = column[keep]
            column[len(keep) : size] = 0
        self.state[0] = len(keep)

    def to_state(self) -> dict[str, np.ndarray]:
        """The live part as arrays, for the small state."""
        size = len(self)
        return {
            "pool.candidates": self.candidates[:size].numpy().copy(),
            "pool.counts": self.counts[:size].numpy().copy(),
            "pool.stamps": self.stamps[:size].numpy().copy(),
            "pool.clock": self.state[1:].numpy().copy(),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over what `to_state` gave. A pool that grew smaller keeps its most recent candidates."""
        self.changed()
        stamps = state["pool.stamps"]
        recent = np.sort(np.argsort(stamps, kind="stable")[-self.capacity :])
        size = len(recent)
        self.candidates[:size] = torch.from_numpy(state["pool.candidates"][recent])
        self.counts[:size] = torch.from_numpy(state["pool.counts"][recent])
        self.stamps[:size] = torch.from_numpy(stamps[recent])
        self.state[0] = size
        self.state[1] = int(state["pool.clock"][0])
