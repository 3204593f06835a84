"""A memory and the models on a device that is only pretended: everything is where it should be, the answers
are those of the host, and the host waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aesg import AESGTrainer
from aesg.memory.controller import AESGMemory
from tests.architectures.zoo import ALL, build, fill, inputs, loss
from tests.pretended_cuda import DEVICE, Pretended, PretendedCuda, needs_no_cuda, pretended_cuda

DIM = 16

pytestmark = needs_no_cuda


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))


def test_it_refuses_two_devices_and_counts_waiting() -> None:
    with pretended_cuda() as mode:
        there = torch.ones(3).to(DEVICE)
        mode.waits.clear()
        assert isinstance(there * 2, Pretended) and (there[1:] + there[:2]).device == DEVICE
        assert mode.waits == []
        with pytest.raises(RuntimeError, match="one on the CPU"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert float(there.sum()) == 3.0 and there.tolist() == [1.0, 1.0, 1.0]
        assert torch.ones(3).to(DEVICE, non_blocking=True).device == DEVICE
        assert mode.waits == ["_local_scalar_dense", "_to_copy"]


Ask = Callable[[AESGMemory, Tensor], list[Tensor]]


def told(context: Any) -> list[Tensor]:
    return [context.vectors, context.weights, context.indices, context.explanation, context.aggregate()]


def with_gradient(memory: AESGMemory, query: Tensor) -> list[Tensor]:
    query = query.clone().requires_grad_()
    answer = told(memory.retrieve(query))
    (gradient,) = torch.autograd.grad(answer[-1].square().sum(), query)
    return [*answer, gradient]


def step_by_step(memory: AESGMemory, query: Tensor) -> list[Tensor]:
    query, answers = query[:, None].expand(-1, 3, -1).clone(), []
    with memory.one_call():
        for step in range(3):
            answers += told(memory.retrieve(query[:, step : step + 1]))
        again = query.clone().requires_grad_()
        answers += told(memory.retrieve_again(again))
        answers += torch.autograd.grad(answers[-1].square().sum(), again)
    return answers


def without_gradient(memory: AESGMemory, query: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return told(memory.retrieve(query))


def in_a_checkpoint(memory: AESGMemory, query: Tensor) -> list[Tensor]:
    query = query.clone().requires_grad_()
    answer = checkpoint(lambda q: memory.retrieve(q).aggregate(), query, use_reentrant=False)
    return [answer, *torch.autograd.grad(answer.square().sum(), query)]


ASKS: dict[str, Ask] = {
    "batch": lambda memory, query: told(memory.retrieve(query)),
    "one": lambda memory, query: told(memory.retrieve(query[0], batch_idx=2)),
    "steps": lambda memory, query: told(memory.retrieve(query[:, None].expand(-1, 3, -1))),
    "half": lambda memory, query: told(memory.retrieve(query.bfloat16())),
    "unlearnt": lambda memory, query: told(memory.retrieve(query, learn=False)),
    "gradient": with_gradient,
    "no_grad": without_gradient,
    "one_call": step_by_step,
    "checkpoint": in_a_checkpoint,
}


def life(
    memory: AESGMemory, ask: Ask, device: torch.device | str, mode: PretendedCuda | None
) -> list[Tensor]:
    """What was told, and what of it was learnt."""
    answers: list[Tensor] = []
    memory.graph.add_concepts(rows(30, seed=9))
    memory.graph.add_edges(range(20), range(1, 21), [1.0] * 20, [1.0] * 20)
    for step in range(8):
        query = (rows(5, seed=step // 2) + 0.1 * rows(5, seed=step + 50)).to(device)
        if mode is not None:
            mode.waits.clear()
        answers += ask(memory, query)
        if mode is not None and ask is not in_a_checkpoint:  # its second pass looks for what it asked
            assert mode.waits == []
        if step == 3:
            memory.reset_state([1, 2])
        if step == 5:
            memory.set_mode("INFERENCE")
        memory.update_topology()
    memory.save()
    answers = [answer.to("cpu") for answer in answers]
    return [*answers, *(torch.tensor(float(value)) for key, value in memory.stats().items() if key in KNOWN)]


KNOWN = ("concepts", "active", "edges", "candidates", "births", "queries", "mean_explanation")


@pytest.mark.parametrize("residency", ["device", "host"])
@pytest.mark.parametrize("name", ASKS)
def test_a_memory_answers_there_as_on_the_host_and_waits_for_nothing(make_memory, name, residency) -> None:
    fields = {"vector_dim": DIM, "novelty_birth_threshold": 2, "consolidation_epoch_interval": 2}
    host, memory = make_memory("host", **fields), make_memory("there", **fields)
    memory.residency = residency
    wanted = life(host, ASKS[name], "cpu", None)
    host.close()
    with pretended_cuda() as mode:
        memory.to(DEVICE)
        assert memory.asked_on == DEVICE
        got = life(memory, ASKS[name], DEVICE, mode if residency == "device" else None)
        memory.close()
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)
    for path in host.directory.iterdir():
        if path.name not in ("LOCK", "state.aesg"):  # which holds the configuration's directory
            assert path.read_bytes() == (memory.directory / path.name).read_bytes(), path.name


def test_packs_answer_from_the_host(make_memory, tmp_path) -> None:
    memory, other = make_memory("memory", vector_dim=DIM), make_memory("other", vector_dim=DIM)
    memory.graph.add_concepts(rows(30))
    other.graph.add_concepts(rows(30, seed=1))
    other.export_pack(tmp_path / "pack.aesgpack", name="pack", format_version=2)
    query = rows(4, seed=1)
    with pretended_cuda():
        memory.to(DEVICE)
        alone = memory.retrieve(query.to(DEVICE), learn=False).indices.tolist()
        memory.reset_state()
        memory.attach_pack(memory.load_pack(tmp_path / "pack.aesgpack"))
        context = memory.retrieve(query.to(DEVICE), learn=False)
        assert memory.asked_on.type == "cpu" and context.indices.device == DEVICE
        assert int(context.indices.max()) >= 1 << 32
        memory.detach_pack("pack")
        memory.reset_state()
        assert memory.retrieve(query.to(DEVICE), learn=False).indices.tolist() == alone
        memory.close()


@pytest.mark.parametrize(
    "name, options, common",
    [
        *((name, {}, False) for name in ALL),
        ("AESGTransformer", {"causal": True}, False),
        ("AESGTransformer", {}, True),
    ],
)
def test_a_model_trains_there_without_waiting(make_memory, name, options, common) -> None:
    """common: likeness leaves out a part of every query, as of models that have just begun to learn."""

    def trained(memory: AESGMemory, device: torch.device | str, mode: PretendedCuda | None) -> list[Tensor]:
        model = build(name, fill(memory), **options).to(device)
        if common:
            direction = torch.nn.functional.normalize(torch.ones(memory.vector_dim).double(), dim=0)
            memory._state.queries.take(direction)
        answers = []
        for seed in range(3):
            x = inputs(name, seed=seed).to(device)
            if mode is not None:
                mode.waits.clear()
            model.zero_grad()
            output = model(x)
            assert mode is None or mode.waits == []
            loss(output).backward()
            # The gradient of a part of a weight: torch's C++ makes its zeros where it believes the weight is.
            assert mode is None or set(mode.waits) <= {"copy_"}
            if mode is not None:
                mode.waits.clear()
            memory.update_topology()
            memory.reset_state()
            assert mode is None or mode.waits == []
            answers.append(output.detach().to("cpu"))
        answers += [part.grad.to("cpu") for part in model.parameters() if part.grad is not None]
        return [*answers, torch.tensor([memory.stats()[name] for name in ("queries", "active", "edges")])]

    host, memory = make_memory("host", novelty_birth_threshold=2), make_memory("m", novelty_birth_threshold=2)
    wanted = trained(host, "cpu", None)
    with pretended_cuda() as mode:
        got = trained(memory, DEVICE, mode)
        memory.close()
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_trainer_fits_a_model_there(make_memory) -> None:
    memory = make_memory("m")
    tokens = inputs("AESGTransformer", 8)
    with pretended_cuda():
        model = build("AESGTransformer", memory).to(DEVICE)
        trainer = AESGTrainer(model, device=DEVICE)
        trainer.fit([(row, row) for row in tokens], epochs=2)
        assert next(model.parameters()).device == DEVICE
        assert memory.stats()["queries"] == 8 * 2 * 2  # samples, epochs, layers
        memory.close()
