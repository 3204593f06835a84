"""Plain oracles of the ops that learn, one of the same name with `_ref_` each. Written to be read."""

from __future__ import annotations

import torch
from torch import Tensor

from aesg.ops.edges import Edges
from aesg.ops.reference import flat_rows

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
