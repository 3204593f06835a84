"""Retrieval as ops that torch.compile takes into its graph whole: no break, the same answers and learning.

The ops call the memory behind a number. That they change it is declared by a tensor, the memory's `clock`,
which every one of them counts up: so none is left out, doubled or moved past another.
"""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError
from aesg.memory.context import RetrievedContext
from aesg.ops import Activated, project_out, replay_energies

if TYPE_CHECKING:
    from aesg.memory.asking import AskMethods

# The fields of `Activated`, and the direction [D] f64 that likeness leaves out (zeros: none).
Parts = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

_numbers = itertools.count(1)
_memories: weakref.WeakValueDictionary[int, AskMethods] = weakref.WeakValueDictionary()


def number_of(memory: AskMethods) -> int:
    """A number of its own for a new memory."""
    number = next(_numbers)
    _memories[number] = memory
    return number


def _memory(number: int) -> AskMethods:
    memory = _memories.get(number)
    if memory is None:
        raise AESGMemoryError(f"Compiled model: its memory (number {number}) is gone")
    return memory


@torch.library.custom_op("aesg::memory_retrieve", mutates_args=("clock",))
def _retrieve(
    rows: Tensor, clock: Tensor, number: int, lead: list[int], batch_idx: int, learn: bool, traced: bool
) -> Parts:
    clock.add_(1)
    memory = _memory(number)
    # As the answer knew it: what is learnt from the call may change it.
    common = memory.common_part(rows.device)
    return _own(memory.answer(rows, torch.Size(lead), batch_idx, learn=learn, traced=traced), common)


@_retrieve.register_fake
def _(
    rows: Tensor, clock: Tensor, number: int, lead: list[int], batch_idx: int, learn: bool, traced: bool
) -> Parts:
    return _shapes(rows, number, traced)


@torch.library.custom_op("aesg::memory_retrieve_again", mutates_args=("clock",))
def _retrieve_again(rows: Tensor, clock: Tensor, number: int, lead: list[int]) -> Parts:
    clock.add_(1)
    memory = _memory(number)
    return _own(memory.answer_again(rows, torch.Size(lead)), memory.common_part(rows.device))


@_retrieve_again.register_fake
def _(rows: Tensor, clock: Tensor, number: int, lead: list[int]) -> Parts:
    return _shapes(rows, number, True)


@torch.library.custom_op("aesg::memory_begin_call", mutates_args=("clock",))
def begin_call(clock: Tensor, number: int, traced: bool) -> None:
    clock.add_(1)
    _memory(number).begin_call(traced)


@torch.library.custom_op("aesg::memory_end_call", mutates_args=("clock",))
def end_call(clock: Tensor, number: int) -> None:
    clock.add_(1)
    _memory(number).end_call()


for _silent in (begin_call, end_call):
    _silent.register_fake(lambda *_: None)


def _own(found: Activated, common: Tensor) -> Parts:
    """Tensors of their own, as an op's results must be: none is a view, or kept for a replay."""
    return tuple(part.clone() for part in (*found, common))  # type: ignore[return-value]


def _shapes(rows: Tensor, number: int, traced: bool) -> Parts:
    config, (batch, dim) = _memory(number).config, rows.shape
    count, k, kept = config.seed_top_k, config.context_size, rows.shape[0] if traced else 0
    new = rows.new_empty
    return (
        new((batch, count), dtype=torch.int64), new((batch, count)), new((batch, k), dtype=torch.int64),
        new((batch, k)), new((batch, k, dim)), new((kept, k, count)), new((kept, count, dim)),
        new((dim,), dtype=torch.float64),
    )  # fmt: skip


def retrieve(
    memory: AskMethods, query: Tensor, batch_idx: int, learn: bool = True, *, again: bool = False
) -> RetrievedContext:
    """`memory.retrieve`, or `retrieve_again`, to be traced; without `paths`."""
    lead, dim = query.shape[:-1], query.shape[-1]
    if dim != memory.vector_dim or len(lead) > 2:
        raise AESGMemoryError(
            f"Query: expected [..., {memory.vector_dim}] of rank 1 to 3, got {list(query.shape)}"
        )
    rows = query.reshape(-1, dim).to(memory.asked_on, torch.float32)
    wanted = torch.is_grad_enabled() and rows.requires_grad
    bare, number = rows.detach(), memory.number
    if again:
        parts = torch.ops.aesg.memory_retrieve_again(bare, memory.clock, number, list(lead))
    else:
        parts = torch.ops.aesg.memory_retrieve(
            bare, memory.clock, number, list(lead), batch_idx, learn, wanted
        )
    found, common = Activated(*parts[:-1]), parts[-1]
    energies = found.energies
    if wanted:
        compared = found._replace(seed_vectors=project_out(found.seed_vectors, common))
        energies = replay_energies(project_out(rows, common), compared)
    k, device = energies.shape[1], query.device
    return RetrievedContext(
        vectors=found.vectors.reshape(*lead, k, dim).to(device),
        weights=energies.reshape(*lead, k).to(device),
        indices=found.members.reshape(*lead, k).to(device),
        explanation=found.similarities[:, 0].reshape(lead).to(device),
        projection=memory.abstraction_projection,
    )
