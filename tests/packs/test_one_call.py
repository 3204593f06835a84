"""Packs within one call of a model that asks step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from aesg import AESGMemory
from aesg.exceptions import AESGMemoryError
from aesg.nn.rnn import AESG_GRU
from aesg.packs import MemoryPack
from tests.packs.filling import DIM, Make, fill, queries


def steps_near(packs: list[MemoryPack], streams: int = 3, steps: int = 4) -> Tensor:
    """Queries [B, T, D], half of them near concepts of the first two packs."""
    near = torch.cat([pack.tensors.vectors[: streams * steps // 4] for pack in packs[:2]])
    rows = torch.cat([near, queries(streams * steps - len(near))])
    return (
        (rows + 0.05 * queries(len(rows), seed=8)).reshape(steps, streams, DIM).transpose(0, 1).contiguous()
    )


@pytest.mark.parametrize("mode", ["INFERENCE", "TRAIN"])
def test_all_steps_again_are_what_the_steps_were(
    home: AESGMemory, packs: list[MemoryPack], mode: str
) -> None:
    home.set_mode(mode)
    for pack, priority in zip(packs[:2], (90, 60), strict=True):
        home.attach_pack(pack, priority)
    query = steps_near(packs)
    with home.one_call():
        steps = [home.retrieve(step) for step in query.split(1, dim=1)]
        again = home.retrieve_again(query)
    indices = torch.cat([step.indices for step in steps], dim=1)
    assert set(again.origins[again.mask].tolist()) == {0, 1, 2}
    assert torch.equal(again.indices, indices)
    torch.testing.assert_close(again.weights, torch.cat([step.weights for step in steps], dim=1))
    torch.testing.assert_close(again.explanation, torch.cat([step.explanation for step in steps], dim=1))
    assert torch.equal(again.vectors, torch.cat([step.vectors for step in steps], dim=1))
    assert again.origin_names == steps[0].origin_names
    # [B][T][members] of paths, against one [B][1][members] for each step
    assert again.paths == [[step.paths[stream][0] for step in steps] for stream in range(len(query))]


def test_gradients_of_all_steps_again_are_those_of_the_steps(
    home: AESGMemory, packs: list[MemoryPack]
) -> None:
    home.attach_pack(packs[0])
    one, other = steps_near(packs).requires_grad_(), steps_near(packs).requires_grad_()
    with home.one_call():
        sum(home.retrieve(step).weights.sum() for step in one.split(1, dim=1)).backward()
        home.retrieve_again(other).weights.sum().backward()
    assert one.grad is not None and other.grad is not None and one.grad.abs().sum() > 0
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)


def test_a_recurrent_model_is_the_same_step_by_step_and_at_once(
    home: AESGMemory, packs: list[MemoryPack]
) -> None:
    home.attach_pack(packs[0], 100)
    cell = AESG_GRU(DIM, DIM, home)
    for parameter in cell.reader_gates.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # else what was read hardly shows
    x = queries(12).reshape(3, 4, DIM)
    at_once, _ = cell.sequence(x)
    with torch.no_grad():
        by_steps, _ = cell.sequence(x)
    torch.testing.assert_close(at_once.detach(), by_steps)
    home.detach_pack("medical")
    with torch.no_grad():
        alone, _ = cell.sequence(x)
    assert not torch.allclose(alone, by_steps)  # the pack did say something


def test_packs_must_stay_until_the_steps_are_asked_again(home: AESGMemory, packs: list[MemoryPack]) -> None:
    query = steps_near(packs, steps=2, streams=6)
    with home.one_call():
        home.retrieve(query[:, :1])
        home.attach_pack(packs[0])
        home.retrieve(query[:, 1:])
        with pytest.raises(AESGMemoryError, match="Packs: expected the same ones"):
            home.retrieve_again(query)


def test_one_call_leaves_the_memory_as_if_no_pack_had_been_there(
    make_memory: Make, packs: list[MemoryPack]
) -> None:
    """What primes the memory's next answer is its own, and a pack is primed by what it answered last."""
    answers: list[list[Any]] = []
    for name in ("with", "without"):
        memory = make_memory(name, vector_dim=DIM)
        fill(memory, 60, seed=1)
        memory.set_mode("INFERENCE")
        if name == "with":
            memory.attach_pack(packs[0], 100)
        with memory.one_call():
            memory.retrieve(queries(4, seed=5))
            memory.retrieve(torch.cat([queries(2, seed=6), packs[0].tensors.vectors[:2]]))
        if name == "with":
            far = -packs[0].tensors.vectors[:2]
            primed = memory.navigator.find(
                memory.navigator.check(torch.cat([far, far]), memory.active_state, 0), memory.active_state
            )[1][1]
            assert (primed.members[2:] == torch.arange(2)[:, None]).any(dim=1).all()
            memory.detach_pack("medical")
        context = memory.retrieve(queries(4, seed=7))
        answers.append([context.indices, context.weights, context.vectors])
    assert all(torch.equal(a, b) for a, b in zip(*answers, strict=True))
