"""Plain oracles of the ops that learn, one of the same name with `_ref_` each. Written to be read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aesg.ops.edges import COUNTERS, Edges
from aesg.ops.reference import flat_rows

BLOCK_EDGES = 7
SUCCESSION, KIND_MASK, USED_BIT = 1, 0x03, 0x80  # of the tags of edges: csrc/storage/layout.h


def count_use_ref_(
    use_frequency: Tensor,
    relevance: Tensor,
    active: Tensor,
    members: Tensor,
    energies: Tensor,
    *,
    gain: float,
) -> None:
    """Oracle of `aesg.ops.count_use_`; changes the first two."""
    alive = flat_rows(active).tolist()
    uses, worth = flat_rows(use_frequency).tolist(), list(flat_rows(relevance).clone())
    step = torch.tensor(gain, dtype=relevance.dtype)
    for slot, energy in zip(members.flatten().tolist(), energies.flatten(), strict=True):
        if not 0 <= slot < len(alive) or not alive[slot]:
            continue
        uses[slot] = (uses[slot] + 1 + 2**31) % 2**32 - 2**31  # u32, seen as i32
        if worth[slot] < 1:
            worth[slot] = worth[slot] + step * energy * (1 - worth[slot])
    use_frequency.copy_(torch.tensor(uses, dtype=use_frequency.dtype).reshape(use_frequency.shape))
    if worth:
        relevance.copy_(torch.stack(worth).reshape(relevance.shape))


def coactivate_ref_(edges: Edges, active: Tensor, primaries: Tensor, *, rate: float) -> None:
    """Oracle of `aesg.ops.coactivate_`: row after row, place after place, edge after edge."""
    alive, heads = flat_rows(active).tolist(), flat_rows(edges.first_block).tolist()
    following, counts = flat_rows(edges.next_block).tolist(), flat_rows(edges.counts).tolist()

    def lives(slot: int) -> bool:
        return 0 <= slot < len(alive) and bool(alive[slot])

    def at(column: Tensor, block: int, index: int) -> tuple[int, ...]:
        return (block, index) if column.dim() == 2 else (block // 1024, block % 1024, index)

    def strengthen(block: int, index: int) -> None:
        place = at(edges.tags, block, index)
        edges.use_counts[at(edges.use_counts, block, index)] += 1
        edges.tags[place] |= USED_BIT
        confidence = edges.confidences[at(edges.confidences, block, index)]
        confidence += torch.tensor(rate) * (1 - confidence)
        weight = edges.weights[at(edges.weights, block, index)]
        edges.strengths[at(edges.strengths, block, index)] = weight * confidence

    for row in primaries.tolist():
        for i, source in enumerate(row):
            if not lives(source):
                continue
            others = {slot for slot in row[:i] + row[i + 1 :] if lives(slot)}
            block = heads[source]
            while block >= 0:
                for index in range(counts[block]):
                    kind = int(edges.tags[at(edges.tags, block, index)]) & KIND_MASK
                    target = int(edges.targets[at(edges.targets, block, index)])
                    if kind != SUCCESSION and target in others:
                        strengthen(block, index)
                block = following[block]


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
        values = (packed[row], int(counters[at["next_id"]]), inverse, 0, relevance, 0, 0, 1)
        for column, value in zip(nodes, values, strict=True):
            column[slot] = value
        edges.first_block[slot] = -1
        counters[at["next_id"]] += 1
        counters[at["active_count"]] += 1
    for back in (False, True):
        for row in range(births):
            for other, cosine in zip(neighbors[row].tolist(), cosines[row], strict=True):
                if not (0 <= other < len(living) and living[other]):
                    continue
                pair = (other, int(slots[row])) if back else (int(slots[row]), other)
                put_edge_ref_(edges, counters, *pair, cosine.clamp(0, 1), confidence)
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
    edges.tags[block, place] = USED_BIT  # a young similarity edge
    counters[at["edge_count"]] += 1
