"""spread_activation: energy runs from the seeds along the edges, hop by hop.

Oracle: `aesg.ops.reference.spread_activation_ref`; kernels: `csrc/ops/cpu/spread_activation.cpp`,
`csrc/ops/gpu/spread_activation.cu`, and for gradients `csrc/ops/cpu/spread_trace.cpp`,
`csrc/ops/gpu/spread_tangents.cuh`, `csrc/ops/gpu/spread_activation_backward.cu`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd

from aesg._extension import direct_call, expect_one_device, is_negative_view, is_unwatched, raise_typed
from aesg.exceptions import AESGNavigationError

_op = torch.ops.aesg.spread_activation.default
_backward_op = torch.ops.aesg.spread_activation_backward.default
_is_compiling, _is_grad_enabled = torch.compiler.is_compiling, torch.is_grad_enabled
_try_direct = direct_call("try_spread_activation")


def spread_activation(
    seed_indices: Tensor,  # [B, S] i64, -1: none
    seed_energies: Tensor,  # [B, S] f32
    first_block: Tensor,  # [N] or [G, 1024] i32
    targets: Tensor,  # [M, 7] or [Gb, 1024, 7] i32
    strengths: Tensor,  # like targets, f32
    next_block: Tensor,  # [M] or [Gb, 1024] i32
    active: Tensor,  # [N] or [G, 1024] bool or u8
    *,
    regions: Tensor | None = None,  # [N] or [G, 1024] i32
    hops: int,
    decay: float,
    facilitation: float = 1.0,
    source_floor: float = 0.1,
    transfer_floor: float = 0.05,
    k: int,
) -> tuple[Tensor, Tensor]:
    """The k strongest concepts after `hops` hops: (energies [B, k] f32, indices [B, k] i64).

    Strongest first, of equals the lower slot first, seeds included; padded with 0 and -1. One hop, from the
    energies before it: every concept i with a_i >= `source_floor` sends
    x = ((a_i * strength) * decay) * (`facilitation` if the target lies in the first seed's region, else 1)
    along each edge to a living target; what exceeds `transfer_floor` is summed to n, then
    a = max(a, min(1, n)). Of parallel edges the strongest counts, of equal seeds too; dead seeds are left
    out.

    Sums are made in fixed point (2^-24): the result has the same bits for any number of threads and device.
    The cost follows the edges touched, nothing is O(N). Blocks may lie anywhere (strided views of a store).

    Differentiable in `seed_energies` and `strengths`; the derivative with respect to the seeds is taken in
    the forward pass, so the graph may change before backward. Gradients have the same bits for any number of
    threads; on a CUDA device the same in every run, and near the CPU's: sums are rounded at other places.

    Raises AESGNavigationError for seeds outside -1..N-1, energies that are not finite, k < 1, hops < 0;
    AESGMemoryError for columns of wrong dtype, shape or device and for damaged chains. On a CUDA device
    values are not looked at: such seeds and energies count as none, damaged chains end; k is at most 1024,
    and hops at most 64 in backward to `strengths`, else AESGNavigationError.
    """
    try:
        compiling = _is_compiling()
        wanted = (_is_grad_enabled() or compiling) and (
            seed_energies.requires_grad or strengths.requires_grad
        )
        direct = not (wanted or compiling)
        # fmt: off
        if direct:
            # The dispatcher takes longer to hand over fifteen arguments than one query takes to spread.
            if _try_direct is not None and is_unwatched():
                found: tuple[Tensor, Tensor] | None = _try_direct(
                    seed_indices, seed_energies, first_block, targets, strengths, next_block, active, regions,
                    hops, decay, facilitation, source_floor, transfer_floor, k,
                )
                if found is not None and not is_negative_view(seed_energies, strengths):
                    return found
            with _AutoDispatchBelowAutograd():
                energies, indices, _ = _op(
                    seed_indices, seed_energies, first_block, targets, strengths, next_block, active, regions,
                    hops, decay, facilitation, source_floor, transfer_floor, k, False,
                )
        else:
            energies, indices, _ = _op(
                seed_indices, seed_energies, first_block, targets, strengths, next_block, active, regions,
                hops, decay, facilitation, source_floor, transfer_floor, k, wanted,
            )
        # fmt: on
        return energies, indices
    except RuntimeError as error:
        raise_typed(error, AESGNavigationError)
    except AttributeError:
        raise AESGNavigationError(
            f"seed_energies, strengths: expected tensors, got {type(seed_energies).__name__}, "
            f"{type(strengths).__name__}"
        ) from None


@torch.library.register_fake("aesg::spread_activation")
def _fake(seed_indices: Tensor, seed_energies: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    expect_one_device(seed_indices, seed_energies, *args[:6])
    k, jacobian = args[-2], args[-1]
    batch, seeds = seed_indices.shape
    return (
        seed_energies.new_empty((batch, k)),
        seed_energies.new_empty((batch, k), dtype=torch.int64),
        seed_energies.new_empty((batch if jacobian else 0, k, seeds)),
    )


@torch.library.register_fake("aesg::spread_activation_backward")
def _fake_backward(
    gradients: Tensor,
    indices: Tensor,
    seed_indices: Tensor,
    seed_energies: Tensor,
    first_block: Tensor,
    targets: Tensor,
    strengths: Tensor,
    *args: Any,
) -> Tensor:
    return strengths.new_empty(strengths.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    seed_indices, seed_energies, first_block, targets, strengths, next_block, active, regions, *rules = inputs
    _, indices, jacobian = output
    ctx.mark_non_differentiable(indices, jacobian)
    ctx.rules = rules[:5]
    ctx.seeds = seed_energies.shape[1]
    # The graph is kept only for the gradient of its strengths; else it is free to grow.
    graph = (seed_indices, seed_energies, first_block, targets, strengths, next_block, active, regions)
    ctx.save_for_backward(indices, jacobian, *(graph if ctx.needs_input_grad[4] else ()))


def _backward(
    ctx: Any, grad_energies: Tensor, _grad_indices: Tensor | None, _grad_jacobian: Tensor | None
) -> tuple[Tensor | None, ...]:
    indices, jacobian, *graph = ctx.saved_tensors
    grad_seeds = grad_strengths = None
    if ctx.needs_input_grad[1]:
        if jacobian.shape[0] != grad_energies.shape[0]:
            raise AESGNavigationError("jacobian: expected True where a gradient is asked for, got False")
        grad_seeds = torch.einsum("bk,bks->bs", grad_energies, jacobian)
    if ctx.needs_input_grad[4]:
        try:
            grad_strengths = _backward_op(grad_energies, indices, *graph, *ctx.rules)
        except RuntimeError as error:
            raise_typed(error, AESGNavigationError)
    return (None, grad_seeds, None, None, grad_strengths, *([None] * 10))


torch.library.register_autograd("aesg::spread_activation", _backward, setup_context=_setup_context)
