"""keep_primary_: what every stream was last about, kept to prime its next query.

Oracle: `aesg.ops.reference.keep_primary_ref_`; arithmetic: `csrc/ops/keep_primary_math.h`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed

_op = torch.ops.aesg.keep_primary_.default


def keep_primary_(
    slots: Tensor,  # [B, P] i64, written
    slot_ids: Tensor,  # [B, P] i64, written
    slot_energies: Tensor,  # [B, P] f32, written
    members: Tensor,  # [B * steps, K] i64, strongest first, -1 padded
    energies: Tensor,  # [B * steps, K] f32
    ids: Tensor,  # [N] or [G, 1024] i64
    *,
    steps: int = 1,
) -> None:
    """Writes the P strongest members of each stream's last step, with their identities and energies.

    Where there are fewer than P: slot -1, identity 0. A member outside the graph counts as none. O(B P). No
    gradient.

    Raises AESGMemoryError for tensors of wrong dtype, shape, layout or device, before anything is written.
    """
    try:
        _op(slots, slot_ids, slot_energies, members, energies, ids, steps)
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::keep_primary_")
def _fake(
    slots: Tensor,
    slot_ids: Tensor,
    slot_energies: Tensor,
    members: Tensor,
    energies: Tensor,
    ids: Tensor,
    steps: int,
) -> None:
    expect_one_device(slots, slot_ids, slot_energies, members, energies, ids)
