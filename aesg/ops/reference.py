"""Plain-torch oracles of the ops, one of the same name with `_ref` each. Written to be read, never tuned.

They work in any floating dtype; in float64 they pass gradcheck. Where an op rounds to fixed point the oracle
does so for float32 and computes exactly otherwise, and rounding lets gradients through unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

FIXED_ONE = 2.0**24  # a unit of energy in the fixed-point sums of spreading
GROUP_ROWS = 1024


def flat_rows(column: Tensor, trailing: int = 0) -> Tensor:
    """A column [N, ..] or [G, 1024, ..] with `trailing` dimensions a row, as [N, ..]."""
    return column if column.dim() == 1 + trailing else column.flatten(0, 1)


def normalize_ref(vectors: Tensor) -> Tensor:
    """Rows scaled to length 1; rows too short for a finite f32 inverse become 0."""
    norm = vectors.double().norm(dim=-1, keepdim=True)
    good = norm >= torch.finfo(torch.float32).tiny
    return torch.where(good, vectors / torch.where(good, norm, 1.0), 0.0).to(vectors.dtype)


def seed_search_ref(
    queries: Tensor,  # [B, D]
    vectors: Tensor,  # [N, D] or [G, 1024, D]
    k: int,
    *,
    inv_norm: Tensor | None = None,
    active: Tensor | None = None,
    count: int | None = None,
    min_score: float = 0.1,
    exact: bool = True,  # there is no other way here
) -> tuple[Tensor, Tensor]:
    """Oracle of `aesg.ops.seed_search`; writes out all B x N similarities."""
    rows = flat_rows(vectors, 1)
    n = rows.shape[0] if count is None else count
    unit = normalize_ref(rows[:n])
    if inv_norm is not None:  # a stored norm may say 0 where a row must not match
        unit = torch.where(flat_rows(inv_norm)[:n, None] != 0, unit, 0.0)
    similarity = (normalize_ref(queries) @ unit.T).clamp(-1, 1)  # [B, n]
    allowed = similarity >= min_score
    if active is not None:
        allowed = allowed & (flat_rows(active)[:n] != 0)
    ranked = torch.where(allowed, similarity, float("-inf"))
    order = ranked.argsort(dim=1, descending=True, stable=True)[:, :k]  # stable: lower slot first
    found = allowed.gather(1, order)
    scores = torch.where(found, similarity.gather(1, order), 0.0)
    indices = torch.where(found, order, -1)
    missing = (0, k - order.shape[1])
    return pad(scores, missing), pad(indices, missing, value=-1)


def region_search_ref(
    queries: Tensor,  # [B, D]
    vectors: Tensor,  # [N, D] or [G, 1024, D]
    k: int,
    centers: Tensor,
    heads: Tensor,
    panels: Tensor,
    pending: Tensor,
    *,
    inv_norm: Tensor,
    active: Tensor,
    probes: int,
    pool: int,
    min_score: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Oracle of `aesg.ops.region_search`, which tells what the columns of the cells hold: panel by panel."""
    alive = flat_rows(active) != 0
    rows, norms = flat_rows(vectors, 1), flat_rows(inv_norm)
    dim = queries.shape[1]

    def rough(query: Tensor, panel: Tensor) -> Tensor:
        most = query.abs().max()
        factor = 63.0 / most if most > 0 else torch.zeros(())
        signed = (query * factor).round().clamp(-63, 63).long()
        codes = panel[..., 320:].unflatten(-1, (-1, 32, 4)).transpose(-3, -2)  # [.., 32, Q, 4]
        values = codes.flatten(-2)[..., :dim].long() - 128
        return (values @ signed).float() * panel[..., 192:320].view(torch.float32)

    def first(found: list[tuple[float, int]], count: int) -> list[int]:
        return [slot for _, slot in sorted(found, key=lambda pair: (-pair[0], pair[1]))[:count]]

    scores = torch.zeros(queries.shape[0], k, dtype=queries.dtype)
    indices = torch.full((queries.shape[0], k), -1)
    for b, unit in enumerate(normalize_ref(queries)):
        nearness = rough(unit, centers).flatten()[: heads.shape[0]]
        looked: list[tuple[float, int]] = []
        for cell in first([(value, c) for c, value in enumerate(nearness.tolist())], probes):
            at = int(heads[cell])
            while at >= 0:
                slots = panels[at, 64:192].view(torch.int32).tolist()
                values = rough(unit, panels[at]).tolist()
                looked += [(v, s) for v, s in zip(values, slots, strict=True) if s >= 0 and alive[s]]
                at = int(panels[at, :4].view(torch.int32))
        chosen = first(looked, pool) + [s for s in pending.tolist() if alive[s]]
        exact = [(float((rows[s] * norms[s]) @ unit), s) for s in chosen]
        kept = first([(value, s) for value, s in exact if value >= min_score], k)
        for i, slot in enumerate(kept):
            scores[b, i] = ((rows[slot] * norms[slot]) @ unit).clamp(-1, 1)
            indices[b, i] = slot
    return scores, indices


def edges_ref(first_block: Tensor, targets: Tensor, next_block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All edges of the chains as (source, target, place in the flattened targets), chain by chain."""
    heads, following = flat_rows(first_block).tolist(), flat_rows(next_block).tolist()
    rows = flat_rows(targets, 1).tolist()
    edges = []
    for source, block in enumerate(heads):
        while block >= 0:
            edges += [(source, t, 7 * block + i) for i, t in enumerate(rows[block]) if t >= 0]
            block = following[block]
    table = torch.tensor(edges, dtype=torch.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def strongest_edges_ref(source: Tensor, target: Tensor, place: Tensor, strength: Tensor) -> Tensor:
    """Which edges count: of parallel ones the strongest, the first of equals."""
    best: dict[tuple[int, int], int] = {}
    pairs = list(zip(source.tolist(), target.tolist(), strict=True))
    values = strength.flatten()[place].tolist()
    for edge, pair in enumerate(pairs):
        if pair not in best or values[edge] > values[best[pair]]:
            best[pair] = edge
    return torch.tensor([best[pair] == edge for edge, pair in enumerate(pairs)], dtype=torch.bool)


def spread_activation_ref(
    seed_indices: Tensor,  # [B, S] i64
    seed_energies: Tensor,  # [B, S]
    first_block: Tensor,  # [N]
    targets: Tensor,  # [M, 7]
    strengths: Tensor,  # [M, 7]
    next_block: Tensor,  # [M]
    active: Tensor,  # [N]
    *,
    regions: Tensor | None = None,  # [N]
    hops: int,
    decay: float,
    facilitation: float = 1.0,
    source_floor: float = 0.1,
    transfer_floor: float = 0.05,
    k: int,
) -> tuple[Tensor, Tensor]:
    """Oracle of `aesg.ops.spread_activation`: every edge in every hop, O(B (N + E) T)."""
    dtype = seed_energies.dtype
    alive = flat_rows(active) != 0
    n, batch = alive.shape[0], seed_indices.shape[0]
    source, target, place = edges_ref(first_block, targets, next_block)
    flat_strengths = flat_rows(strengths, 1).reshape(-1)
    used = alive[target] & strongest_edges_ref(source, target, place, flat_strengths.detach())
    source, target, place = source[used], target[used], place[used]
    strength = flat_strengths[place]
    numbers = torch.tensor([decay, facilitation, source_floor, transfer_floor], dtype=torch.float32).to(dtype)
    decay_, facilitation_, source_floor_, transfer_floor_ = numbers

    rows = []
    for b in range(batch):
        energy: list[Tensor] = [torch.zeros((), dtype=dtype)] * n
        for s, slot in enumerate(seed_indices[b].tolist()):
            if slot >= 0 and alive[slot] and seed_energies[b, s] > energy[slot]:
                energy[slot] = seed_energies[b, s]
        a = torch.stack(energy) if n else torch.zeros(0, dtype=dtype)
        factor = torch.ones(target.shape[0], dtype=dtype)
        if regions is not None and seed_indices.shape[1] > 0 and int(seed_indices[b, 0]) >= 0:
            region = flat_rows(regions)
            dominant = region[seed_indices[b, 0]]
            if dominant != 0:
                factor = torch.where(region[target] == dominant, facilitation_, factor)
        for _ in range(hops):
            x = ((a[source] * strength) * decay_) * factor
            carried = (a[source] >= source_floor_) & (x > transfer_floor_)
            x = torch.where(carried, x, 0.0)
            total = torch.zeros(n, dtype=dtype).index_add(0, target, x)
            if dtype == torch.float32:
                fixed = torch.round(x.detach().clamp(max=1.0) * FIXED_ONE).to(torch.int64)
                n_fixed = torch.zeros(n, dtype=torch.int64).index_add(0, target, fixed)
                exact = (n_fixed.clamp(max=int(FIXED_ONE)).to(dtype) / FIXED_ONE).detach()
                saturated = n_fixed >= int(FIXED_ONE)
                arriving = torch.where(saturated, exact, exact + (total - total.detach()))
            else:
                arriving = torch.where(total >= 1, 1.0, total)
            a = torch.where(arriving > a, arriving, a)
        rows.append(a)
    energies = torch.stack(rows) if batch else torch.zeros(0, n, dtype=dtype)
    order = energies.detach().argsort(dim=1, descending=True, stable=True)[:, :k]
    values = energies.gather(1, order)
    found = values > 0
    values, slots = torch.where(found, values, 0.0), torch.where(found, order, -1)
    missing = (0, k - order.shape[1])
    return pad(values, missing), pad(slots, missing, value=-1)


def consolidate_ref_(
    age: Tensor,
    relevance: Tensor,
    use_frequency: Tensor,
    active: Tensor,
    *,
    count: int,
    relevance_decay: float,
    min_age: int,
    relevance_threshold: float,
    frequency_threshold: int,
) -> Tensor:
    """Oracle of `aesg.ops.consolidate_`; changes age and relevance in place."""
    used = torch.arange(age.numel()).reshape(age.shape) < count
    lives = used & (active != 0)
    older = (age.to(torch.int64) & 0xFFFFFFFF) + 1  # stored as u32, seen as i32
    wrapped = torch.where(older >= 2**31, older - 2**32, older)
    age.copy_(torch.where(lives, wrapped, age.to(torch.int64)).to(age.dtype))
    faded = relevance * torch.tensor(relevance_decay, dtype=relevance.dtype)
    relevance.copy_(torch.where(lives, faded, relevance))
    weak = relevance < torch.tensor(relevance_threshold, dtype=relevance.dtype)
    rare = (use_frequency.to(torch.int64) & 0xFFFFFFFF) < frequency_threshold
    return (lives & (older > min_age) & weak & rare).to(torch.uint8)


def project_out_ref(vectors: Tensor, direction: Tensor) -> Tensor:
    """Oracle of `aesg.ops.project_out`, up to the order of its sums."""
    wide = vectors.double()
    rest = wide - (wide * direction).sum(dim=-1, keepdim=True) * direction
    gone = rest.norm(dim=-1, keepdim=True) <= 1e-6 * wide.norm(dim=-1, keepdim=True)
    return torch.where(gone, 0.0, rest).to(vectors.dtype)


def project_out_inv_norm_ref_(inv_norm: Tensor, vectors: Tensor, slots: Tensor, direction: Tensor) -> None:
    """Oracle of `aesg.ops.project_out_inv_norm_`, on a flat column; writes the first."""
    for vector, slot in zip(project_out_ref(vectors.double(), direction), slots.tolist(), strict=True):
        norm = float(vector.norm())
        if 0 <= slot < len(inv_norm):
            inv_norm[slot] = 1 / norm if norm >= torch.finfo(torch.float32).tiny else 0.0


def keep_primary_ref_(
    slots: Tensor,
    slot_ids: Tensor,
    slot_energies: Tensor,
    members: Tensor,
    energies: Tensor,
    ids: Tensor,
    *,
    steps: int = 1,
) -> None:
    """Oracle of `aesg.ops.keep_primary_`; writes the first three."""
    flat = ids.reshape(-1)
    for b in range(len(slots)):
        last = (b + 1) * steps - 1
        for p in range(slots.shape[1]):
            slot = int(members[last, p]) if p < members.shape[1] else -1
            there = 0 <= slot < len(flat)
            slots[b, p] = slot if there else -1
            slot_ids[b, p] = flat[slot] if there else 0
            slot_energies[b, p] = energies[last, p] if p < members.shape[1] else 0.0


def note_succession_ref_(
    last_seed: Tensor,  # [B] i64
    last_id: Tensor,  # [B] i64
    seeds: Tensor,  # [B * steps, S] i64
    similarities: Tensor,  # [B * steps, S]
    born_slots: Tensor,  # [B * steps] i64
    ids: Tensor,  # [N] i64
    active: Tensor,  # [N]
    *,
    threshold: float,
    steps: int = 1,
    newborn: Tensor | None = None,  # [n] i64
) -> tuple[Tensor, Tensor]:
    """Oracle of `aesg.ops.note_succession_`; writes the first two."""
    if newborn is not None:
        known = dict(enumerate(newborn.tolist()))
        born_slots = torch.tensor([known.get(place, -1) for place in born_slots.tolist()], dtype=torch.int64)
    identities, alive = flat_rows(ids), flat_rows(active) != 0
    n, (rows, width) = len(identities), seeds.shape
    best = similarities[:, 0] if width else torch.full((rows,), float("-inf"))
    bar = torch.tensor(threshold, dtype=best.dtype)
    own = seeds[:, 0] if width else torch.full((rows,), -1)
    meant = torch.where(best >= bar, own, torch.where(best < bar, born_slots, -1))
    current = torch.where((meant >= 0) & (meant < n), meant, -1)
    previous = torch.empty_like(current)
    for b in range(len(last_seed)):
        slot = int(last_seed[b])
        still = 0 <= slot < n and bool(alive[slot]) and int(identities[slot]) == int(last_id[b])
        slot = slot if still else -1
        for row in range(b * steps, (b + 1) * steps):
            previous[row] = slot
            slot = int(current[row])
        last_seed[b] = slot
        last_id[b] = identities[slot] if slot >= 0 else 0
    return previous, current


def pool_novelty_ref_(
    candidates: Tensor,  # [P, D]
    counts: Tensor,  # [P] i32
    stamps: Tensor,  # [P] i64
    state: Tensor,  # [2] i64: size, clock
    inputs: Tensor,  # [n, D]
    *,
    threshold: float,
    birth_count: int,
    birth_first: bool = False,
    living: Tensor | None = None,  # [1] i64
) -> tuple[Tensor, Tensor]:
    """Oracle of `aesg.ops.pool_novelty_`: the plain loop."""
    birth_first = birth_first and (living is None or int(living) == 0)
    size, clock, capacity = int(state[0]), int(state[1]), candidates.shape[0]
    has_born = [False] * capacity
    born = torch.zeros(inputs.shape[0], dtype=torch.bool)
    vectors = torch.zeros_like(inputs)
    bar = torch.tensor(threshold, dtype=inputs.dtype)
    for i, vector in enumerate(inputs):
        unit = normalize_ref(vector)
        if not bool(unit.any()):
            continue
        similarity = (normalize_ref(candidates[:size]) @ unit).clamp(-1, 1)
        if size and similarity.max() >= bar:
            row = int((similarity == similarity.max()).nonzero()[0])
            counts[row] += 1
            candidates[row] += (vector - candidates[row]) / counts[row]
        else:
            if size < capacity:
                row, size = size, size + 1
            else:
                row = min(range(size), key=lambda r: (has_born[r], int(counts[r]), int(stamps[r])))
            candidates[row], counts[row], has_born[row] = vector, 1, False
        stamps[row] = clock
        clock += 1
        if has_born[row] or (int(counts[row]) < birth_count and not birth_first):
            continue
        birth_first = False
        has_born[row] = born[i] = True
        vectors[i] = candidates[row]
    kept = [row for row in range(size) if not has_born[row]]
    for column in (candidates, counts, stamps):
        column[: len(kept)] = column[kept].clone()
    state[0], state[1] = len(kept), clock
    return born, vectors


def activate_context_ref(
    similarities: Tensor,  # [B, S], differentiable
    seeds: Tensor,  # [B, S] i64
    vectors: Tensor,  # [N, D]
    first_block: Tensor,  # [N]
    targets: Tensor,  # [M, 7]
    strengths: Tensor,  # [M, 7]
    next_block: Tensor,  # [M]
    active: Tensor,  # [N]
    *,
    regions: Tensor | None = None,
    bar: Tensor | None = None,
    primed: tuple[Tensor, Tensor, Tensor, float] | None = None,
    ids: Tensor | None = None,
    relative: float,
    k: int,
    **rules: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Oracle of `aesg.ops.activate_context`: seeds, similarities, members, energies, vectors."""
    best = similarities[:, :1] if bar is None else torch.maximum(similarities[:, :1], bar[:, None])
    strong = similarities >= relative * best
    similarities = torch.where(strong, similarities, 0.0)
    seeds = torch.where(strong, seeds, -1)
    starts, start_energies = seeds, similarities
    if primed is not None:
        slots, slot_ids, primed_energies, share = primed
        places = slots.clamp(min=0)
        still = (slots >= 0) & (flat_rows(active)[places] != 0)
        if ids is not None:
            still = still & (flat_rows(ids)[places] == slot_ids)
        starts = torch.cat([seeds, torch.where(still, slots, -1)], dim=1)
        start_energies = torch.cat([similarities, torch.where(still, primed_energies * share, 0.0)], dim=1)
    graph = (first_block, targets, strengths, next_block, active)
    energies, members = spread_activation_ref(
        starts,
        start_energies,
        *graph,
        regions=regions,
        k=k,
        **rules,  # type: ignore[arg-type]
    )
    members, energies = led_by_seeds_ref(seeds, similarities, members, energies)
    rows = flat_rows(vectors, 1)[members.clamp(min=0)] * (members >= 0).unsqueeze(-1)
    return seeds, similarities.detach(), members, energies, rows


def led_by_seeds_ref(
    seeds: Tensor, similarities: Tensor, members: Tensor, energies: Tensor
) -> tuple[Tensor, Tensor]:
    """The context (slots, energies [B, K]) with all seeds [B, S] in it and nothing above the best of them."""
    width = members.shape[1]
    best = similarities[:, :1]
    energies = torch.where(best > 0, torch.minimum(energies, best), energies)
    same = seeds[:, :, None] == members[:, None, :]  # [B, S, K]
    missing = (seeds >= 0) & ~same.any(dim=2)
    slots = torch.cat([torch.where(missing, seeds, -1), members], dim=1)
    values = torch.cat([torch.where(missing, similarities, 0.0), energies], dim=1)
    leads = torch.cat([missing, (same & (seeds >= 0)[:, :, None]).any(dim=1)], dim=1)
    strongest = torch.argsort(values.detach(), dim=1, descending=True, stable=True)
    seeds_first = torch.argsort(leads.gather(1, strongest).byte(), dim=1, descending=True, stable=True)
    kept = strongest.gather(1, seeds_first)[:, :width]  # seeds, then the strongest of the others
    values, order = torch.sort(values.gather(1, kept), dim=1, descending=True, stable=True)
    return slots.gather(1, kept).gather(1, order), values


def read_members_ref(
    sought: Tensor,  # [B, H, D]
    queries: Tensor,  # [B, D]
    likeness_weight: Tensor,  # [H]
    vectors: Tensor,  # [B, K, D]
    energies: Tensor,  # [B, K]
) -> tuple[Tensor, Tensor]:
    """Oracle of `aesg.ops.read_members`."""
    present = energies > 0

    def unit(rows: Tensor) -> Tensor:
        length = rows.norm(dim=-1, keepdim=True)
        return rows / torch.where(length > 0, length, 1.0)

    members = unit(vectors) * present.unsqueeze(-1)  # [B, K, D]
    sought = sought + likeness_weight[:, None] * unit(queries)[:, None]  # [B, H, D]
    scores = sought @ members.mT + torch.where(present, energies, 1.0).log()[:, None]
    scores = scores.masked_fill(~present[:, None], float("-inf"))
    shares = torch.softmax(pad(scores, (0, 1)), dim=-1)[..., :-1]  # the last is "nothing"
    return shares @ members, (energies[:, None] @ vectors).squeeze(1)
