"""Regions: communities of like concepts, found by spherical k-means over their vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aesg.graph.clustering import evenly, nearest_center, refine_centers
from aesg.graph.core import SemanticGraph

NO_REGION = 0
MIN_CONCEPTS = 64  # below it everything is near everything: no regions
MAX_REGIONS = 4096
COLD_ROUNDS, WARM_ROUNDS = 4, 2  # Lloyd rounds from evenly spaced concepts, from the last detection's centres
SAMPLE_ROWS_PER_REGION = 16  # centres are estimated from a sample of this size, evenly spaced over the slots
DUE_ROWS = 1 << 14  # concepts that one detection inside `update_topology()` assigns anew


def region_count(concepts: int) -> int:
    """About the square root of the number of concepts; 0 when there are too few."""
    return 0 if concepts < MIN_CONCEPTS else min(MAX_REGIONS, round(math.sqrt(concepts)))


def assign_regions(graph: SemanticGraph, rows: int | None = None) -> dict[int, int]:
    """Writes region_id 1..R (0: too few concepts for regions); returns {region: size} of the living.

    rows: how many concepts are assigned, None: all. Those without a region come first, then the others in
    turn, going on where the last call stopped, so that every concept's region is renewed in the end.
    O(R^2 D) for the centres and O(rows R D).
    """
    state, storage = graph.state, graph.state.storage
    column = storage.column("region_id")  # [G, 1024]
    flat = column.reshape(-1).clone()
    living = torch.nonzero(storage.column("is_active").reshape(-1))[:, 0]
    wanted = _steady_count(state.centers, region_count(len(living)))
    if wanted == 0:
        chosen, regions, state.centers = living, torch.zeros(len(living), dtype=torch.int64), None
    else:
        picked = living[evenly(len(living), min(len(living), wanted * SAMPLE_ROWS_PER_REGION))]
        sample = graph.directions(graph.gather(picked))
        cold = state.centers is None or len(state.centers) != wanted
        start = sample[evenly(len(sample), wanted)] if cold else state.centers
        assert start is not None
        state.centers = refine_centers(sample, start, COLD_ROUNDS if cold else WARM_ROUNDS)
        # Numbers of another detection mean other centres: they are dropped, not mixed with the new ones.
        chosen = living if rows is None else _due(graph, living, flat[living], rows, cold)
        if cold:
            flat[living] = NO_REGION
        regions = nearest_center(state.queries.without(graph.gather(chosen)), state.centers) + 1
    flat[chosen] = regions.to(flat.dtype)
    column.copy_(flat.view_as(column))
    storage.mark("region_id")
    state.touch()
    sizes = torch.bincount(flat[living]).tolist()
    return {region: size for region, size in enumerate(sizes) if region and size}


def renew_centers(graph: SemanticGraph, regions: Tensor) -> None:
    """Makes the centres of these regions the means of who lives there now: no one else's trace stays."""
    state, storage = graph.state, graph.state.storage
    regions = torch.unique(regions[regions != NO_REGION])
    if state.centers is None or len(regions) == 0:
        return
    of = storage.column("region_id").reshape(-1).long()
    members = torch.nonzero(torch.isin(of, regions) & (storage.column("is_active").reshape(-1) != 0))[:, 0]
    units = graph.directions(graph.gather(members))
    sums = torch.zeros_like(state.centers).index_add_(0, of[members] - 1, units)
    rows = regions - 1
    state.centers[rows] = torch.nn.functional.normalize(sums[rows], dim=1)


def _steady_count(centers: Tensor | None, wanted: int) -> int:
    """The number of centres there are, while it is about right: growth alone does not begin anew."""
    there = 0 if centers is None else len(centers)
    return there if wanted and 0.7 * wanted <= there <= 1.4 * wanted else wanted


def _due(graph: SemanticGraph, living: Tensor, regions: Tensor, rows: int, cold: bool) -> Tensor:
    """At most `rows` of the `living` slots: those without a region, then the next in turn."""
    state = graph.state
    if cold:
        state.region_cursor = 0
        new, old = living[:0], living
    else:
        new, old = living[regions == NO_REGION][:rows], living[regions != NO_REGION]
    start = int(torch.searchsorted(old, state.region_cursor))
    turn = torch.cat([old[start:], old[:start]])[: rows - len(new)]
    if len(turn):
        state.region_cursor = int(turn[-1]) + 1
    return torch.cat([new, turn])
