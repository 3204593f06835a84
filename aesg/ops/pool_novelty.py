"""pool_novelty_: novel inputs gather into candidates, and candidates met often enough are born.

Oracle: `aesg.ops.reference.pool_novelty_ref_`; kernels: `csrc/ops/cpu/pool_novelty.cpp`,
`csrc/ops/gpu/pool_novelty.cu`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed
from aesg.exceptions import AESGNavigationError

_op = torch.ops.aesg.pool_novelty_.default


def pool_novelty_(
    candidates: Tensor,  # [P, D] f32, changed: running means
    counts: Tensor,  # [P] i32, changed: inputs that joined
    stamps: Tensor,  # [P] i64, changed: clock of the last join
    state: Tensor,  # [2] i64, changed: candidates in use, clock
    inputs: Tensor,  # [n, D] f32
    *,
    threshold: float,
    birth_count: int,
    birth_first: bool = False,
    living: Tensor | None = None,  # [1] i64
) -> tuple[Tensor, Tensor]:
    """Takes `inputs` in order into the pool: (born [n] bool, vectors born [n, D], zero where nothing was).

    An input joins the candidate of highest cosine >= `threshold` (of equals the lower row; count + 1,
    running mean) or becomes a candidate; in a full pool it takes the place of the one with the lowest count,
    then the oldest stamp. A candidate whose count reaches `birth_count` is born: born[i] is set for the input
    that did it, with the mean of that moment. It stays to the end of the call and absorbs what still joins
    it, so equal inputs of one call make one birth, then leaves; the others keep their order. `birth_first`:
    the first input is born whatever its count, with `living`, the number of living concepts, only where that
    is 0; so a device can tell by itself that a graph is empty. Zero inputs are left out: they change nothing,
    wherever they stand. Deterministic; at most O(n P D), n without zero inputs on a CUDA device. No gradient.

    Raises AESGNavigationError for inputs that are not finite or of another dimension; AESGMemoryError for
    pool tensors or `living` of wrong dtype or shape. On a CUDA device inputs that are not finite are left out
    instead.
    """
    try:
        return _op(candidates, counts, stamps, state, inputs, threshold, birth_count, birth_first, living)
    except RuntimeError as error:
        raise_typed(error, AESGNavigationError)


@torch.library.register_fake("aesg::pool_novelty_")
def _fake(
    candidates: Tensor,
    counts: Tensor,
    stamps: Tensor,
    state: Tensor,
    inputs: Tensor,
    threshold: float,
    birth_count: int,
    birth_first: bool,
    living: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    expect_one_device(inputs, candidates, counts, stamps, state, living)
    return inputs.new_empty(inputs.shape[0], dtype=torch.bool), torch.empty_like(inputs)
