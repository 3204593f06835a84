"""Regions: communities of like concepts, found by spherical k-means over their vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aesg.ops import seed_search

NO_REGION = 0
MIN_CONCEPTS = 64  # below it everything is near everything: no regions
MAX_REGIONS = 4096
ROUNDS = 8  # Lloyd rounds; from the last detection's centres two are enough
TRAINING_ROWS_PER_REGION = (
    64  # centres are estimated from a sample of this size, evenly spaced over the slots
)


def region_count(concepts: int) -> int:
    """About the square root of the number of concepts; 0 when there are too few."""
    return 0 if concepts < MIN_CONCEPTS else min(MAX_REGIONS, round(math.sqrt(concepts)))


def find_regions(vectors: Tensor, centers: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Groups unit vectors [n, D] into regions of like direction.

    Returns (region of each row, i64 [n], 1..R; 0 when there are too few rows, centres [R, D]). Starts from
    `centers` when their number still fits, else from evenly spaced rows: deterministic, no random numbers.
    O(n R D) once plus O(R^2 D) a round.
    """
    rows = vectors.shape[0]
    wanted = region_count(rows)
    if wanted == 0:
        return torch.zeros(rows, dtype=torch.int64), vectors[:0]
    warm = centers is not None and len(centers) == wanted
    if not warm:
        centers = vectors[_evenly(rows, wanted)].clone()
    assert centers is not None
    sample = vectors[_evenly(rows, min(rows, wanted * TRAINING_ROWS_PER_REGION))]
    for _ in range(2 if warm else ROUNDS):
        nearest = _nearest(sample, centers)
        sums = torch.zeros_like(centers).index_add_(0, nearest, sample)
        norms = sums.norm(dim=1, keepdim=True)
        centers = torch.where(norms > 0, sums / norms.clamp(min=1e-12), centers)  # an empty one stays
    return _nearest(vectors, centers) + 1, centers


def _nearest(vectors: Tensor, centers: Tensor) -> Tensor:
    _, nearest = seed_search(vectors, centers, 1, min_score=-2.0)
    return nearest[:, 0].clamp(min=0)


def _evenly(rows: int, count: int) -> Tensor:
    return torch.arange(count) * rows // count
