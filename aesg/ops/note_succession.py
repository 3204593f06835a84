"""note_succession_: which concept every query meant and what it followed.

Oracle: `aesg.ops.reference.note_succession_ref_`; arithmetic: `csrc/ops/note_succession_math.h`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed

_op = torch.ops.aesg.note_succession_.default


def note_succession_(
    last_seed: Tensor,  # [B] i64, changed: slot that each stream last meant, -1: none
    last_id: Tensor,  # [B] i64, changed: its identity then, 0: none
    seeds: Tensor,  # [B * steps, S] i64, best first, -1 padded
    similarities: Tensor,  # [B * steps, S] f32
    born_slots: Tensor,  # [B * steps] i64, the newborn that a novel row means, -1: none
    ids: Tensor,  # [N] or [G, 1024] i64
    active: Tensor,  # [N] or [G, 1024] bool or u8
    *,
    threshold: float,
    steps: int = 1,
    newborn: Tensor | None = None,  # [n] i64, slots: `born_slots` are places in it, -1: none
) -> tuple[Tensor, Tensor]:
    """Tells what every row followed and what it meant: (previous, current), i64 [B * steps], -1 for none.

    A row whose best similarity reaches `threshold` means its best seed, one below it the newborn given for
    it, one that is NaN nothing; without seeds (S = 0) all rows are below. Rows are stream-major: a row
    follows the one before in its stream, the first of a stream what that last meant, if this slot still holds
    the living concept of that identity. `last_seed` and `last_id` then tell of the last row of each stream.
    Slots outside the graph, and places outside `newborn`, count as none. O(B steps). No gradient.

    Raises AESGMemoryError for tensors of wrong dtype, shape, layout or device, before anything is written.
    """
    try:
        return _op(
            last_seed, last_id, seeds, similarities, born_slots, ids, active, threshold, steps, newborn
        )
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::note_succession_")
def _fake(
    last_seed: Tensor,
    last_id: Tensor,
    seeds: Tensor,
    similarities: Tensor,
    born_slots: Tensor,
    ids: Tensor,
    active: Tensor,
    threshold: float,
    steps: int,
    newborn: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    expect_one_device(last_seed, last_id, seeds, similarities, born_slots, ids, active, newborn)
    return torch.empty_like(born_slots), torch.empty_like(born_slots)
