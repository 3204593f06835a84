"""retire_: death of doomed concepts, on columns.

Oracle: `aesg.ops.reference_learning.retire_ref_`; what happens to one: `csrc/ops/retire_math.h`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed
from aesg.ops.edges import Edges

_op = torch.ops.aesg.retire_.default


def retire_(
    edges: Edges,  # changed
    active: Tensor,  # [N] or [G, 1024] bool or u8, changed
    counters: Tensor,  # [7] i64 in the order of COUNTERS, changed
    doomed: Tensor,  # [N] or [G, 1024] bool or u8, as consolidate_ gives it
) -> Tensor:
    """Makes the doomed that live inactive and gives the blocks of their edges back: how many died, i64 [1].

    Slots go in ascending order, blocks in that of their chain, each to the head of the list of free blocks:
    as in a store, to the bit. Edges into the dead stay; a sweep takes them away. O(N + edges of the dead).
    No gradient.

    Raises AESGMemoryError for tensors of wrong dtype, shape or device, before anything is changed.
    """
    try:
        return _op(*edges, active, counters, doomed)
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::retire_")
def _fake(
    first_block: Tensor,
    targets: Tensor,
    strengths: Tensor,
    next_block: Tensor,
    counts: Tensor,
    weights: Tensor,
    confidences: Tensor,
    use_counts: Tensor,
    tags: Tensor,
    sources: Tensor,
    active: Tensor,
    counters: Tensor,
    doomed: Tensor,
) -> Tensor:
    # fmt: off
    expect_one_device(
        first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources,
        active, counters, doomed,
    )
    # fmt: on
    return torch.empty(1, dtype=torch.int64, device=first_block.device)
