"""consolidate_: one pass of ageing over all concepts.

Oracle: `aesg.ops.reference.consolidate_ref_`; kernel: `csrc/ops/cpu/consolidate.cpp`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed

_op = torch.ops.aesg.consolidate_.default


def consolidate_(
    age: Tensor,  # [N] or [G, 1024] i32 or u32, changed
    relevance: Tensor,  # f32, changed
    use_frequency: Tensor,  # i32 or u32
    active: Tensor,  # bool or u8
    *,
    count: int,
    relevance_decay: float,
    min_age: int,
    relevance_threshold: float,
    frequency_threshold: int,
) -> Tensor:
    """Ages the active concepts below `count` in place and tells which are doomed: u8 of the shape of `age`.

    age += 1 and relevance *= relevance_decay; doomed are those with age > min_age and
    relevance < relevance_threshold and use_frequency < frequency_threshold. Nothing is deactivated. i32 is
    read as the u32 it is stored as. O(count), all threads, same bits for any number of them. No gradient.

    Raises AESGMemoryError for columns of wrong dtype or differing shape and values out of range.
    """
    try:
        # fmt: off
        return _op(
            age, relevance, use_frequency, active, count, relevance_decay, min_age, relevance_threshold,
            frequency_threshold,
        )
        # fmt: on
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::consolidate_")
def _fake(
    age: Tensor,
    relevance: Tensor,
    use_frequency: Tensor,
    active: Tensor,
    count: int,
    relevance_decay: float,
    min_age: int,
    relevance_threshold: float,
    frequency_threshold: int,
) -> Tensor:
    expect_one_device(age, relevance, use_frequency, active)
    return torch.empty(age.shape, dtype=torch.uint8, device=age.device)
