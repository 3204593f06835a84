"""read_members: every position attends to the members of its own context.

Oracle: `aesg.ops.reference.read_members_ref`; kernels: `csrc/ops/cpu/read_members.cpp`,
`csrc/ops/gpu/read_members.cu`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd

from aesg._extension import has_cuda_kernels, raise_typed
from aesg.ops.reference import read_members_ref

_op = torch.ops.aesg.read_members.default
_backward_op = torch.ops.aesg.read_members_backward.default


def read_members(
    sought: Tensor,  # [B, H, D] f32
    queries: Tensor,  # [B, D] f32
    likeness_weight: Tensor,  # [H] f32
    vectors: Tensor,  # [B, K, D] f32
    energies: Tensor,  # [B, K] f32
) -> tuple[Tensor, Tensor]:
    """What H heads find among K members, [B, H, D], and the members' energy-weighted sum, [B, D].

    With m the members and u the query of length 1: score_hk = (sought_h + likeness_weight_h u) . m_k +
    log energy_k, found_h = sum_k softmax_k(score_h, 0) m_k; the further score 0 is of "nothing". A member
    without energy is none. Differentiable in all but `vectors`. O(B H K D), all threads, the same bits for
    any number of them. On a CUDA device K is at most 1024 and H at most 4096; on other devices, and without
    CUDA kernels, in torch's own operations.

    Raises AESGMemoryError for wrong dtypes and shapes.
    """
    if sought.device.type != "cpu" and not (sought.is_cuda and has_cuda_kernels()):
        return read_members_ref(sought, queries, likeness_weight, vectors, energies)
    try:
        if torch.compiler.is_compiling() or torch.is_grad_enabled():
            found, mean, _ = _op(sought, queries, likeness_weight, vectors, energies)
        else:
            with _AutoDispatchBelowAutograd():
                found, mean, _ = _op(sought, queries, likeness_weight, vectors, energies)
    except RuntimeError as error:
        raise_typed(error)
    return found, mean


@torch.library.register_fake("aesg::read_members")
def _fake(
    sought: Tensor, queries: Tensor, likeness_weight: Tensor, vectors: Tensor, energies: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, dim = sought.shape
    new = sought.new_empty
    return new((batch, heads, dim)), new((batch, dim)), new((batch, heads, energies.shape[1]))


@torch.library.register_fake("aesg::read_members_backward")
def _fake_backward(
    grad_found: Tensor, grad_mean: Tensor, shares: Tensor, sought: Tensor, *args: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, heads, members = shares.shape
    new = sought.new_empty
    return new(sought.shape), new((batch, sought.shape[2])), new((batch, heads)), new((batch, members))


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(output[2], *inputs)


def _backward(
    ctx: Any, grad_found: Tensor, grad_mean: Tensor, _grad_shares: Tensor | None
) -> tuple[Tensor | None, ...]:
    sought, queries, weight, energies = _backward_op(grad_found, grad_mean, *ctx.saved_tensors)
    return sought, queries, weight.sum(0), None, energies


torch.library.register_autograd("aesg::read_members", _backward, setup_context=_setup_context)
