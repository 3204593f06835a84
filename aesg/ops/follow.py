"""follow_: learning which concept followed which, on columns.

Oracle: `aesg.ops.reference_learning.follow_ref_`; rule: "Succession" in
docs/self_organisation.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed
from aesg.ops.edges import Edges

_op = torch.ops.aesg.follow_.default


def follow_(
    edges: Edges,  # changed
    active: Tensor,  # [N] or [G, 1024] bool or u8
    counters: Tensor,  # [7] i64 in the order of COUNTERS, changed
    previous: Tensor,  # [n] i64
    current: Tensor,  # [n] i64
    *,
    initial: float,
    rate: float,
    yield_: float,
) -> None:
    """Learns in order that concept current[i] came right after concept previous[i], in place.

    The succession edge between them is strengthened, c += rate (1 - c), and the other succession edges of
    `previous` keep c (1 - rate); or it is made, with weight 1 and c = `initial`, and they keep
    c (1 - yield_). Equal slots, and slots that are negative, outside or not alive, are no event. Everything
    gets the bits that a store gets by the same events, numbers of blocks too. O(n degree); on a CUDA device
    all edges go through the events of their source at once. No gradient.

    Raises AESGMemoryError for columns and events of wrong dtype, shape or device, shares outside 0..1 and, on
    the CPU, where new edges want more blocks than there are: before anything is changed. On a CUDA device
    edges that find no block are not made.
    """
    # Equal values keep the order of the events. The CPU takes them as they come and needs no order.
    order = torch.sort(previous, stable=True).indices if previous.is_cuda else None
    try:
        _op(*edges, active, counters, previous, current, order, initial, rate, yield_)
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::follow_")
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
    previous: Tensor,
    current: Tensor,
    order: Tensor | None,
    initial: float,
    rate: float,
    yield_: float,
) -> None:
    # fmt: off
    expect_one_device(
        first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources,
        active, counters, previous, current, order,
    )
    # fmt: on
