"""activate_context: from the seeds of every query to its context, in one call; replay_energies: its gradient.

Oracles: `aesg.ops.reference`, the same names with `_ref`; kernels: `csrc/ops/cpu/activate_context.cpp`,
`csrc/ops/gpu/activate_context.cu`, and of the gradient `csrc/ops/replay_energies.cpp`,
`csrc/ops/gpu/replay_energies.cu`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd

from aesg._extension import direct_call, is_negative_view, is_unwatched, raise_typed
from aesg.exceptions import AESGNavigationError

_op = torch.ops.aesg.activate_context.default
_is_compiling = torch.compiler.is_compiling
_try_direct = direct_call("try_activate_context")
_replay_op = torch.ops.aesg.replay_energies.default
_replay_backward_op = torch.ops.aesg.replay_energies_backward.default


class Activated(NamedTuple):
    """Contexts of B queries: S seeds, K members, D wide. No gradient: see `replay_energies`."""

    seeds: Tensor  # [B, S] i64 slots, -1 where a likeness is too weak to count
    similarities: Tensor  # [B, S] f32, 0 there
    members: Tensor  # [B, K] i64 slots, strongest first, -1 padded
    energies: Tensor  # [B, K] f32, 0 padded
    vectors: Tensor  # [B, K, D] f32, copies, 0 padded; [0, K, D] unless gathered
    jacobian: Tensor  # [B, K, S] f32, d energy / d similarity; [0, K, S] unless asked for
    seed_vectors: Tensor  # [B, S, D] f32; [0, S, D] unless the jacobian was asked for


class Primed(NamedTuple):
    """What the streams were last about: P concepts each."""

    slots: Tensor  # [B, P] i64, -1: none
    ids: Tensor  # [B, P] i64, what the slots held then
    energies: Tensor  # [B, P] f32
    share: float  # of these energies, what carries over


def activate_context(
    similarities: Tensor,  # [B, S] f32, best first
    seeds: Tensor,  # [B, S] i64, -1: none
    vectors: Tensor,  # [N, D] or [G, 1024, D] f32
    first_block: Tensor,  # this and the next four as `spread_activation` takes them
    targets: Tensor,
    strengths: Tensor,
    next_block: Tensor,
    active: Tensor,
    *,
    regions: Tensor | None = None,
    bar: Tensor | None = None,  # [B] f32
    primed: Primed | None = None,
    ids: Tensor | None = None,  # [N] or [G, 1024] i64; None: a slot keeps its concept for ever
    relative: float,
    hops: int,
    decay: float,
    facilitation: float,
    source_floor: float,
    transfer_floor: float,
    k: int,
    gather: bool = True,
    jacobian: bool = False,
) -> Activated:
    """Contexts from what a search found: seeds, priming, spreading, and the seeds in front.

    1. A likeness counts as a seed when it reaches `relative` times the best of its query, or of `bar` where
       that is higher.
    2. Primed concepts that still live, and still are what they were, start with `share` of their energy.
    3. Energy spreads (`spread_activation`).
    4. No member has more energy than the best seed, unless there is no seed; all seeds are members, in the
       place of the weakest if need be; K are kept.

    The same bits for any number of threads. O(B (S + P + K) D), then by edges touched. No gradient.
    Raises AESGNavigationError and AESGMemoryError as `spread_activation` does; on a CUDA device also for S or
    k above 1024, and what is not finite or outside the graph counts there as none. The jacobian there is
    near the CPU's, and all else has its bits (see `spread_activation`); it takes a run for every 4 seeds.
    """
    slots, slot_ids, energies, share = (None, None, None, 0.0) if primed is None else primed
    arguments = (
        similarities, seeds, bar, slots, slot_ids, energies, vectors, ids, first_block, targets, strengths,
        next_block, active, regions, relative, share, hops, decay, facilitation, source_floor, transfer_floor,
        k, gather, jacobian,
    )  # fmt: skip
    try:
        # The dispatcher takes longer to hand over so many arguments than one query takes.
        if not _is_compiling() and _try_direct is not None and is_unwatched():
            found: tuple[Tensor, ...] | None = _try_direct(*arguments)
            if found is not None and not is_negative_view(similarities, vectors, strengths, bar, energies):
                return Activated(*found)
        with _AutoDispatchBelowAutograd():
            return Activated(*_op(*arguments))
    except RuntimeError as error:
        raise_typed(error, AESGNavigationError)


@torch.library.register_fake("aesg::activate_context")
def _fake(similarities: Tensor, seeds: Tensor, *args: Any) -> tuple[Tensor, ...]:
    vectors, (k, gather, jacobian) = args[4], args[-3:]
    batch, count = seeds.shape
    found, traced, dim = batch if gather else 0, batch if jacobian else 0, vectors.shape[-1]
    new, slots = similarities.new_empty, seeds.new_empty
    # fmt: off
    return (
        slots((batch, count)), new((batch, count)), slots((batch, k)), new((batch, k)), new((found, k, dim)),
        new((traced, k, count)), new((traced, count, dim)),
    )
    # fmt: on


def replay_energies(queries: Tensor, found: Activated) -> Tensor:
    """The energies [B, K] found for `queries` [B, D] f32, with their gradient to the queries.

    By the chain rule through the cosines of the seeds:
    d energy_k / d q = sum_s jacobian_ks d cos(q, v_s) / d q. Nothing of the graph, which may have changed, is
    asked again. `found` needs its jacobian. The same bits for any number of threads and device.
    O(B S (K + D)).

    Raises AESGNavigationError for dtypes and shapes that do not belong together, so without a jacobian,
    AESGMemoryError for tensors on several devices.
    """
    try:
        # fmt: off
        return _replay_op(
            queries, found.energies, found.seeds, found.similarities, found.jacobian, found.seed_vectors
        )
        # fmt: on
    except RuntimeError as error:
        raise_typed(error, AESGNavigationError)


@torch.library.register_fake("aesg::replay_energies")
def _fake_replay(queries: Tensor, energies: Tensor, *args: Tensor) -> Tensor:
    return torch.empty_like(energies, memory_format=torch.contiguous_format)


@torch.library.register_fake("aesg::replay_energies_backward")
def _fake_replay_backward(gradients: Tensor, queries: Tensor, *args: Tensor) -> Tensor:
    return torch.empty_like(queries, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    queries, _, *found = inputs
    ctx.save_for_backward(queries, *found)


def _backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
    return (_replay_backward_op(gradients, *ctx.saved_tensors), *([None] * 5))


torch.library.register_autograd("aesg::replay_energies", _backward, setup_context=_setup_context)
