"""project_out: vectors without their part along one direction, and the inverse lengths of what is left.

Oracles: `aesg.ops.reference.project_out_ref`, `project_out_inv_norm_ref_`; arithmetic:
`csrc/base/project_out_math.h`; kernels: `csrc/ops/gpu/project_out.cu`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed

_op = torch.ops.aesg.project_out.default
_lengths_op = torch.ops.aesg.project_out_inv_norm_.default


def project_out(
    vectors: Tensor,  # [..., D] f32
    direction: Tensor,  # [D] f64, of length 1, or zeros: nothing is left out
) -> Tensor:
    """v - (v.u) u of every vector, f32 [..., D]; zero where no more than 1e-6 of its length is left.

    Sums are in double and in a fixed order, so the bits are the same on every device. What is not finite
    stays so.
    Differentiable in the vectors: dL/dv = g - (g.u) u. O(n D).

    Raises AESGMemoryError for tensors of wrong dtype, shape or device.
    """
    try:
        if vectors.dim() in (0, 2):  # the former is refused there
            return _op(vectors, direction)
        return _op(vectors.reshape(-1, vectors.shape[-1]), direction).view(vectors.shape)
    except RuntimeError as error:
        raise_typed(error)


def project_out_inv_norm_(
    inv_norm: Tensor,  # [N] or [G, 1024] f32, written
    vectors: Tensor,  # [n, D] f32
    slots: Tensor,  # [n] i64
    direction: Tensor,  # [D] f64
) -> None:
    """Writes 1 / |project_out(vectors_i)| to `inv_norm` at slots_i, 0 where nothing is left.

    Slots outside the column are left out. The same bits on every device. O(n D). No gradient.

    REQUIRES: different slots.

    Raises AESGMemoryError for tensors of wrong dtype, shape, layout or device, before anything is written.
    """
    try:
        _lengths_op(inv_norm, vectors, slots, direction)
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::project_out")
def _fake(vectors: Tensor, direction: Tensor) -> Tensor:
    expect_one_device(vectors, direction)
    return vectors.new_empty(vectors.shape)


@torch.library.register_fake("aesg::project_out_inv_norm_")
def _lengths_fake(inv_norm: Tensor, vectors: Tensor, slots: Tensor, direction: Tensor) -> None:
    expect_one_device(inv_norm, vectors, slots, direction)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1], output)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    direction, rests = ctx.saved_tensors
    something = (rests != 0).any(dim=-1, keepdim=True)
    return torch.where(something, _op(gradient, direction), 0.0), None


torch.library.register_autograd("aesg::project_out", _backward, setup_context=_setup_context)
