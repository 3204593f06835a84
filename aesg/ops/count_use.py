"""count_use_: what was retrieved counts as used.

Oracle: `aesg.ops.reference_learning.count_use_ref_`; arithmetic: `csrc/base/reinforce_math.h`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed

_op = torch.ops.aesg.count_use_.default


def count_use_(
    use_frequency: Tensor,  # [N] or [G, 1024] i32 or u32, changed
    relevance: Tensor,  # as use_frequency, f32, changed
    active: Tensor,  # as use_frequency, bool or u8
    members: Tensor,  # i64, any shape: slots
    energies: Tensor,  # f32, the shape of members
    *,
    gain: float,
) -> None:
    """Every member in order: its use count rises by 1, its relevance moves towards 1 by gain times energy.

    Members that are negative, outside the graph or dead are left out. O(members), on CUDA behind a sort of
    them. Deterministic, with the bits of the CPU. No gradient.

    Raises AESGMemoryError for tensors of wrong dtype, shape, layout or device and a gain outside 0..1, before
    anything is changed.
    """
    try:
        # A device takes the uses of one slot one after the other, and finds them side by side.
        order = torch.sort(members.reshape(-1), stable=True).indices if members.is_cuda else None
        _op(use_frequency, relevance, active, members, energies, order, gain)
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::count_use_")
def _fake(
    use_frequency: Tensor,
    relevance: Tensor,
    active: Tensor,
    members: Tensor,
    energies: Tensor,
    order: Tensor | None,
    gain: float,
) -> None:
    expect_one_device(use_frequency, relevance, active, members, energies, order)
