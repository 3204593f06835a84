"""pack_rows: chosen rows to the front, without the host knowing how many there are.

Oracle: `aesg.ops.reference.pack_rows_ref`; kernel: `csrc/ops/gpu/pack_rows.cu`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed

_op = torch.ops.aesg.pack_rows.default


def pack_rows(
    rows: Tensor,  # [n, D] f32
    chosen: Tensor,  # [n] bool
    *,
    most: Tensor | None = None,  # [1] i64
) -> tuple[Tensor, Tensor, Tensor]:
    """Brings the chosen rows to the front in their order: (packed [n, D], places i64 [n], count i64 [1]).

    `packed` is zero behind the `count` rows; `places[i]` is where row i lies among them, -1 where it does
    not. `most`: at most so many are packed, the first ones; below 0 counts as 0. Rows that are not finite are
    packed as they are. On a CUDA device the host does not wait. O(n D). No gradient.

    Raises AESGMemoryError for tensors of wrong dtype, shape or device.
    """
    try:
        return _op(rows, chosen, most)
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::pack_rows")
def _fake(rows: Tensor, chosen: Tensor, most: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    expect_one_device(rows, chosen, most)
    n = rows.shape[0]
    places = rows.new_empty(n, dtype=torch.int64)
    return rows.new_empty(rows.shape), places, rows.new_empty(1, dtype=torch.int64)
