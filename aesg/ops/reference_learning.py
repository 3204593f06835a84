"""Plain oracles of the ops that learn, one of the same name with `_ref_` each. Written to be read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aesg.ops.edges import COUNTERS, Edges
from aesg.ops.reference import flat_rows

BLOCK_EDGES = 7
SIMILARITY, SUCCESSION, KIND_MASK, USED_BIT = 0, 1, 0x03, 0x80  # of the tags of edges: csrc/storage/layout.h
EDGE_COUNT, FREE_BLOCK, BLOCK_COUNT = map(COUNTERS.index, ("edge_count", "free_block", "block_count"))


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
                place = new_edge_ref(edges, counters, source, target, SIMILARITY)
                edges.weights[place], edges.confidences[place] = cosine.clamp(0, 1), confidence
                edges.strengths[place] = edges.weights[place] * edges.confidences[place]
                edges.tags[place] |= USED_BIT  # young
    return slots


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
            taken = new_edge_ref(flat, counters, p, c, SUCCESSION)
            flat.weights[taken], flat.confidences[taken] = 1, initial
        else:
            flat.confidences[taken] += gain * (1 - flat.confidences[taken])
            flat.use_counts[taken] += 1
        flat.tags[taken] |= USED_BIT
        flat.strengths[taken] = flat.weights[taken] * flat.confidences[taken]
    write_back_ref(edges, flat)


def new_edge_ref(flat: Edges, counters: Tensor, source: int, target: int, kind: int) -> tuple[int, int]:
    """The place of a new edge of that kind, in the head block or in one that is handed out."""
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
    flat.targets[place], flat.tags[place], flat.use_counts[place] = target, kind, 0
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
