"""One context out of several: the answers of a memory and of its packs, ranked by energy and priority.

A member of an answer is one i64: origin * 2^32 + slot, origin 0 being the memory and p the p-th pack. So the
memory's members keep their slots, and a pack's can never be taken for one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ORIGIN_SHIFT = 32


def members_of(slots: Tensor, origin: int) -> Tensor:
    """Slots of one graph [...] i64 (-1: none) as members."""
    return slots if origin == 0 else torch.where(slots >= 0, slots + (origin << ORIGIN_SHIFT), slots)


def origins_of(members: Tensor) -> Tensor:
    """Where members [...] come from, i64: 0 the memory, p the p-th pack, -1 for none."""
    return members >> ORIGIN_SHIFT  # an arithmetic shift: -1 stays -1


def slots_in(members: Tensor, origin: int) -> Tensor:
    """The members of one graph as its slots [...] i64, -1 for all others."""
    slots = members & ((1 << ORIGIN_SHIFT) - 1)
    return torch.where(origins_of(members) == origin, slots, -1)


def shares_of(priorities: Sequence[int]) -> list[float]:
    """Priorities as shares of their sum: 90, 60, 20 -> 0.53, 0.35, 0.12. All zero: all 0."""
    total = sum(priorities)
    return [priority / total if total else 0.0 for priority in priorities]


def merge_answers(answers: Sequence[tuple[Tensor, Tensor]], shares: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The K strongest of several answers: (energies [Q, K] f32, members [Q, K] i64), strongest first.

    answers: energies [Q, K] (0 padded) and slots [Q, K] of each graph in the order of its origin, each
    sorted; shares: what scales the energies of each. Of equal ones the earlier graph comes first, then the
    lower slot. Differentiable in the energies.
    """
    width = answers[0][0].shape[1]
    energies = torch.cat(
        [found if share == 1.0 else found * share for (found, _), share in zip(answers, shares, strict=True)],
        dim=1,
    )
    members = torch.cat([members_of(slots, origin) for origin, (_, slots) in enumerate(answers)], dim=1)
    order = torch.sort(energies.detach(), dim=1, descending=True, stable=True).indices[:, :width]
    energies, members = energies.gather(1, order), members.gather(1, order)
    return energies, torch.where(energies.detach() > 0, members, -1)
