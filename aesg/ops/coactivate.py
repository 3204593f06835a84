"""coactivate_: edges between concepts that were meant together grow.

Oracle: `aesg.ops.reference_learning.coactivate_ref_`; arithmetic: `csrc/ops/coactivate_math.h`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed
from aesg.ops.edges import Edges

_pairs_op = torch.ops.aesg.coactivation_pairs.default
_op = torch.ops.aesg.coactivate_.default


def coactivate_(
    edges: Edges,  # strengths, confidences, use_counts and tags change
    active: Tensor,  # [N] or [G, 1024] bool or u8
    primaries: Tensor,  # [R, W] i64: slots, strongest first, -1 padded
    *,
    rate: float,
) -> None:
    """Strengthens every edge, not of succession, between living concepts of one row: confidence towards 1.

    An edge counts once for each place of a row that holds its source, if another place holds its target.
    Negative slots, those outside the graph and dead ones are left out. O(R W^2 + distinct pairs * degree),
    behind a sort of the R W (W - 1) pairs. Deterministic, with the bits of the CPU. No gradient.

    Raises AESGMemoryError for tensors of wrong dtype, shape, layout or device and a rate outside 0..1, before
    anything is changed.
    """
    try:
        # A device finds equal pairs side by side; on the CPU the op sorts them itself.
        pairs = torch.sort(_pairs_op(primaries)).values if primaries.is_cuda else None
        _op(*edges, active, primaries, pairs, rate)
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::coactivation_pairs")
def _fake_pairs(primaries: Tensor) -> Tensor:
    rows, width = primaries.shape
    return primaries.new_empty(rows * width * max(width - 1, 0))


@torch.library.register_fake("aesg::coactivate_")
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
    primaries: Tensor,
    pairs: Tensor | None,
    rate: float,
) -> None:
    expect_one_device(
        first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources,
        active, primaries, pairs,
    )  # fmt: skip
