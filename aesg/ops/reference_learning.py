"""Plain oracles of the ops that learn, one of the same name with `_ref` each. Written to be read."""

from __future__ import annotations

import torch
from torch import Tensor

from aesg.ops.edges import COUNTERS, Edges
from aesg.ops.reference import flat_rows

SUCCESSION, KIND_MASK, USED_BIT = 1, 0x03, 0x80  # of the tags of edges: csrc/storage/layout.h
EDGE_COUNT, FREE_BLOCK, BLOCK_COUNT = map(COUNTERS.index, ("edge_count", "free_block", "block_count"))
BLOCK_EDGES = 7


def flat_edges_ref(edges: Edges) -> Edges:
    """Copies of the columns, flat."""
    width = edges.targets.dim() - edges.counts.dim()
    return Edges(*(flat_rows(c, width if c.shape[-1:] == (7,) else 0).clone() for c in edges))


def write_back_ref(edges: Edges, flat: Edges) -> None:
    """What `flat_edges_ref` took, after its changes."""
    for column, values in zip(edges, flat, strict=True):
        column.copy_(values.reshape(column.shape))


def chain_ref(flat: Edges, slot: int) -> list[int]:
    """The blocks of a concept, from the head on."""
    chain: list[int] = []
    block = int(flat.first_block[slot])
    while 0 <= block < len(flat.targets) and len(chain) < len(flat.targets):
        chain.append(block)
        block = int(flat.next_block[block])
    return chain


def empty_block_ref(flat: Edges, block: int, following: int) -> None:
    """A block as it is when it is handed out or given back."""
    flat.targets[block] = flat.sources[block] = -1
    for column in (flat.strengths, flat.weights, flat.confidences, flat.use_counts, flat.tags, flat.counts):
        column[block] = 0
    flat.next_block[block] = following


def follow_ref_(
    edges: Edges,
    active: Tensor,
    counters: Tensor,
    previous: Tensor,
    current: Tensor,
    *,
    initial: float,
    rate: float,
    yield_: float,
) -> None:
    """Oracle of `aesg.ops.follow_`, where there is room: event after event, edge after edge."""
    alive = flat_rows(active).tolist()[: int(counters[0])]
    flat = flat_edges_ref(edges)
    gain, loss = torch.tensor(rate, dtype=torch.float32), torch.tensor(yield_, dtype=torch.float32)
    for p, c in zip(previous.tolist(), current.tolist(), strict=True):
        if p == c or not (0 <= p < len(alive) and 0 <= c < len(alive)) or not (alive[p] and alive[c]):
            continue
        places = [(b, i) for b in chain_ref(flat, p) for i in range(int(flat.counts[b]))]
        places = [place for place in places if int(flat.tags[place]) & KIND_MASK == SUCCESSION]
        taken = next((place for place in places if int(flat.targets[place]) == c), None)
        for place in places:
            if int(flat.targets[place]) != c:
                flat.confidences[place] *= 1 - (loss if taken is None else gain)
                flat.strengths[place] = flat.weights[place] * flat.confidences[place]
        if taken is None:
            taken = new_edge_ref(flat, counters, p, c)
            flat.weights[taken], flat.confidences[taken] = 1, initial
        else:
            flat.confidences[taken] += gain * (1 - flat.confidences[taken])
            flat.use_counts[taken] += 1
        flat.tags[taken] |= USED_BIT
        flat.strengths[taken] = flat.weights[taken] * flat.confidences[taken]
    write_back_ref(edges, flat)


def new_edge_ref(flat: Edges, counters: Tensor, source: int, target: int) -> tuple[int, int]:
    """The place of a new succession edge, in the head block or in one that is handed out."""
    head = int(flat.first_block[source])
    if head < 0 or int(flat.counts[head]) == BLOCK_EDGES:
        fresh = int(counters[FREE_BLOCK])
        if fresh >= 0:
            counters[FREE_BLOCK] = flat.next_block[fresh]
        else:
            fresh = int(counters[BLOCK_COUNT])
            counters[BLOCK_COUNT] += 1
        empty_block_ref(flat, fresh, head)
        flat.sources[fresh], flat.first_block[source], head = source, fresh, fresh
    place = head, int(flat.counts[head])
    flat.targets[place], flat.tags[place], flat.use_counts[place] = target, SUCCESSION, 0
    flat.counts[head] += 1
    counters[EDGE_COUNT] += 1
    return place


def retire_ref_(edges: Edges, active: Tensor, counters: Tensor, doomed: Tensor) -> Tensor:
    """Oracle of `aesg.ops.retire_`: slot after slot, block after block."""
    flat, alive = flat_edges_ref(edges), flat_rows(active).clone()
    gone = torch.nonzero((flat_rows(doomed) != 0) & (alive != 0))[:, 0].tolist()
    for slot in gone:
        alive[slot] = 0
        counters[COUNTERS.index("active_count")] -= 1
        chain = chain_ref(flat, slot)
        if not any(int(flat.counts[block]) for block in chain):
            continue
        counters[EDGE_COUNT] -= sum(int(flat.counts[block]) for block in chain)
        for block in chain:
            empty_block_ref(flat, block, int(counters[FREE_BLOCK]))
            counters[FREE_BLOCK] = block
        flat.first_block[slot] = -1
    write_back_ref(edges, flat)
    active.copy_(alive.reshape(active.shape))
    return torch.tensor([len(gone)])
