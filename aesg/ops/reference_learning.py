"""Oracles of the ops that learn, as `aesg.ops.reference` has those of the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aesg.ops.edges import COUNTERS, Edges
from aesg.ops.reference import flat_rows

BLOCK_EDGES = 7
USED = 0x80  # the tag of a young similarity edge


def pack_rows_ref(
    rows: Tensor,  # [n, D]
    chosen: Tensor,  # [n]
    *,
    most: Tensor | None = None,  # [1]
) -> tuple[Tensor, Tensor, Tensor]:
    """Oracle of `aesg.ops.pack_rows`."""
    which = chosen.nonzero().flatten()
    if most is not None:
        which = which[: max(int(most), 0)]
    packed, places = torch.zeros_like(rows), torch.full((len(rows),), -1)
    packed[: len(which)] = rows[which]
    places[which] = torch.arange(len(which))
    return packed, places, torch.tensor([len(which)])


def bear_ref_(
    packed: Tensor,  # [n, D]
    count: Tensor,  # [1]
    neighbors: Tensor,  # [n, L]
    cosines: Tensor,  # [n, L]
    nodes: Sequence[Tensor],
    edges: Edges,
    counters: Tensor,  # [7]
    *,
    confidence: float,
    relevance: float = 1.0,
) -> Tensor:
    """Oracle of `aesg.ops.bear_`, on flat columns, where there is room."""
    at = dict(zip(COUNTERS, range(len(COUNTERS)), strict=True))
    n, births = len(packed), min(max(int(count), 0), len(packed))
    slots = torch.full((n,), -1)
    living = flat_rows(nodes[-1]) != 0
    for row in range(births):
        slot = int(counters[at["free_slot"]])
        if slot >= 0:
            counters[at["free_slot"]] = -int(edges.first_block[slot]) - 2
        else:
            slot = int(counters[at["node_count"]])
            counters[at["node_count"]] += 1
        slots[row] = slot
        norm = packed[row].double().square().sum().sqrt()
        inverse = float(1 / norm) if norm >= torch.finfo(torch.float32).tiny else 0.0
        nodes[0][slot] = packed[row]
        scalars = (int(counters[at["next_id"]]), inverse, 0, relevance, 0, 0, 1)
        for column, value in zip(nodes[1:], scalars, strict=True):
            column[slot] = value
        edges.first_block[slot] = -1
        counters[at["next_id"]] += 1
        counters[at["active_count"]] += 1
    for back in (False, True):
        for row in range(births):
            for other, cosine in zip(neighbors[row].tolist(), cosines[row], strict=True):
                if not (0 <= other < len(living) and living[other]):
                    continue
                source, target = (other, int(slots[row])) if back else (int(slots[row]), other)
                put_edge_ref_(edges, counters, source, target, cosine.clamp(0, 1), confidence)
    return slots


def put_edge_ref_(
    edges: Edges, counters: Tensor, source: int, target: int, weight: Tensor, confidence: float
) -> None:
    """A new similarity edge, in the head block of its source or in a fresh one."""
    at = dict(zip(COUNTERS, range(len(COUNTERS)), strict=True))
    block = int(edges.first_block[source])
    if block < 0 or int(edges.counts[block]) == BLOCK_EDGES:
        head, block = block, int(counters[at["free_block"]])
        if block >= 0:
            counters[at["free_block"]] = edges.next_block[block]
        else:
            block = int(counters[at["block_count"]])
            counters[at["block_count"]] += 1
        for column, value in zip(edges[1:], (-1, 0.0, head, 0, 0.0, 0.0, 0, 0, source), strict=True):
            column[block] = value
        edges.first_block[source] = block
    place = int(edges.counts[block])
    edges.counts[block] += 1
    edges.targets[block, place] = target
    edges.weights[block, place] = weight
    edges.confidences[block, place] = confidence
    edges.strengths[block, place] = edges.weights[block, place] * edges.confidences[block, place]
    edges.use_counts[block, place] = 0
    edges.tags[block, place] = USED
    counters[at["edge_count"]] += 1
