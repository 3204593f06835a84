"""Vectors in clusters and memories made of them, for the benchmarks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from aesg.config import AESGConfig
from aesg.memory.controller import AESGMemory

CLUSTERS = 1000
NOISE = 0.5  # length of what sets a vector apart from its cluster's unit centre
NONE = torch.empty(0, dtype=torch.int64)


def clustered(rows: int, dim: int, seed: int) -> Tensor:
    """Unit vectors [rows, D] in CLUSTERS clusters, which are the same for every seed."""
    centers = torch.randn(CLUSTERS, dim, generator=torch.Generator().manual_seed(0))
    centers = torch.nn.functional.normalize(centers, dim=1)
    generator = torch.Generator().manual_seed(seed + 1)
    which = torch.randint(0, CLUSTERS, (rows,), generator=generator)
    noise = torch.randn(rows, dim, generator=generator) * (NOISE / dim**0.5)
    return torch.nn.functional.normalize(centers[which] + noise, dim=1)


def make_memory(
    directory: Path, vectors: Tensor, degree: int, config: AESGConfig, device: str = "cpu"
) -> AESGMemory:
    """A memory of these concepts with `degree` edges each to random others, weight 0.2 to 1, confidence 1."""
    memory = AESGMemory(directory, config, device)
    memory.graph.add_concepts(vectors)
    edges = random_edges(len(vectors), degree)
    if degree:
        memory.graph.add_edges(*edges, torch.ones(len(edges[0])).numpy())
    memory.save()
    memory.set_mode("INFERENCE")
    return memory


def random_edges(rows: int, degree: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, targets and weights [rows * degree] of edges to random others."""
    generator = torch.Generator().manual_seed(2)
    sources = torch.arange(rows).repeat_interleave(degree)
    targets = (sources + torch.randint(1, rows, (len(sources),), generator=generator)) % rows
    return sources, targets, 0.2 + 0.8 * torch.rand(len(sources), generator=generator)
