"""One context out of several: the answers of a memory and of its packs, ranked by energy and priority.

A member of an answer is one i64: origin * 2^32 + slot, origin 0 being the memory and p the p-th pack. So the
memory's members keep their slots, and a pack's can never be taken for one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aesg import _core

ORIGIN_SHIFT = 32


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
    energies = [found for found, _ in answers]
    order, merged, members = _core.merge_answers(
        [found.detach().numpy() for found in energies], [slots.numpy() for _, slots in answers], shares
    )
    if not (torch.is_grad_enabled() and any(found.requires_grad for found in energies)):
        return torch.from_numpy(merged), torch.from_numpy(members)
    scaled = [found if share == 1.0 else found * share for found, share in zip(energies, shares, strict=True)]
    return torch.cat(scaled, dim=1).gather(1, torch.from_numpy(order)), torch.from_numpy(members)
