"""Random memories and queries for the tests of attached packs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from aesg import AESGMemory

DIM = 16
Make = Callable[..., AESGMemory]


def fill(memory: AESGMemory, n: int, seed: int, degree: int = 4) -> Tensor:
    """n random concepts with `degree` edges each."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((n, DIM)).astype(np.float32)
    slots = memory.graph.add_concepts(vectors)
    sources = np.repeat(slots, degree)
    targets = random.choice(slots, len(sources))
    good = sources != targets
    weights = random.uniform(0.5, 1, good.sum())
    memory.graph.add_edges(sources[good], targets[good], weights, np.full(good.sum(), 0.3))
    return torch.from_numpy(vectors)


def queries(n: int = 7, seed: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32))
