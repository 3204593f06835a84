"""Spherical k-means: centres of like direction, found without random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from aesg.ops import seed_search


def refine_centers(sample: Tensor, centers: Tensor, rounds: int) -> Tensor:
    """Unit centres [R, D] after so many Lloyd rounds from `centers` in the unit vectors `sample` [n, D].

    A centre that nothing is nearest to stays. Deterministic. O(n R D) a round.
    """
    for _ in range(rounds):
        nearest = nearest_center(sample, centers)
        sums = torch.zeros_like(centers).index_add_(0, nearest, sample)
        norms = sums.norm(dim=1, keepdim=True)
        centers = torch.where(norms > 0, sums / norms.clamp(min=1e-12), centers)
    return centers


def nearest_center(vectors: Tensor, centers: Tensor) -> Tensor:
    """The row of the nearest of `centers` [R, D] for each vector [n, D], i64 [n]. O(n R D)."""
    _, nearest = seed_search(vectors, centers, 1, min_score=-2.0)
    return nearest[:, 0].clamp(min=0)


def evenly(rows: int, count: int) -> Tensor:
    """`count` row numbers spread evenly over 0..rows-1."""
    return torch.arange(count) * rows // count
