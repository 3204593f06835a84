"""Captured calls that learn: a CUDA graph of a retrieve, of what it is learnt by, and of nothing else.

The device and its graphs are pretended (`tests/pretended_cuda.py`): a graph does again what was captured, on
the tensors that it was captured with.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.graph.awaited import Awaited
from aesg.graph.query_mean import QueryMean
from aesg.memory.captured import CapturedRetrieve
from aesg.memory.controller import AESGMemory
from tests.memory.test_ahead import gone, not_finite
from tests.pretended_cuda import DEVICE, PretendedCuda, needs_no_cuda, pretended_cuda

DIM = 16

pytestmark = needs_no_cuda


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))


def asked(lead: tuple[int, ...], seed: int) -> Tensor:
    """Queries that come again and again, with some noise."""
    which = torch.randint(0, 30 + seed, lead, generator=torch.Generator().manual_seed(seed))
    return rows(300, seed=5)[which] + 0.05 * rows(*lead, seed=seed + 100)


def told(context) -> list[Tensor]:
    return [part.detach().to("cpu").clone() for part in (context.indices, context.weights, context.vectors)]


def bytes_of(directory: Path) -> dict[str, bytes]:
    """All but the configuration, which names the directory, and the lock."""
    paths = [path for path in directory.iterdir() if path.name not in ("LOCK", "state.aesg")]
    return {path.name: path.read_bytes() for path in paths}


def life(
    memory: AESGMemory, lead: tuple[int, ...], device: object, mode: PretendedCuda | None
) -> list[Tensor]:
    """All answers of a life in which the same call comes again and again, captured where there is a mode."""
    answers: list[Tensor] = []
    memory.graph.add_concepts(rows(20, seed=3))
    captured = None if mode is None else memory.capture(asked(lead, 0), learn=True)
    for step in range(30):
        query = asked(lead, step)
        if step == 11:
            memory.forget(ids=[3])
        if step in (13, 16, 19):
            memory.set_mode({13: "INFERENCE", 16: "ONLINE", 19: "TRAIN"}[step])
        if captured is None or step % 5 == 4:  # an ordinary call in between
            answers += told(memory.retrieve(query.to(device)))
        else:
            assert mode is not None
            query = query.to(device)
            mode.waits.clear()
            context = captured(query)
            assert mode.waits == [] or step in (11, 13, 16, 19)  # changed on the host
            answers += told(context)
        if step == 21:
            memory.reset_state([0])
        if step % 3 == 2:
            memory.update_topology()
    memory.save()
    if captured is not None:
        assert 1 <= captured.captures < 12
    return answers


@pytest.mark.parametrize("common", [False, True], ids=["whole vectors", "without a common part"])
@pytest.mark.parametrize("lead", [(), (6,), (3, 4), (200,)], ids=str)
def test_captured_calls_learn_as_others_do(make_memory, monkeypatch, lead, common) -> None:
    if common:
        direction = torch.nn.functional.normalize(rows(1, seed=5)[0].double(), dim=0)
        monkeypatch.setattr(QueryMean, "settle", lambda *_: direction)
    fields = {"vector_dim": DIM, "novelty_birth_threshold": 2, "consolidation_epoch_interval": 4}
    host, memory = make_memory("host", **fields), make_memory("there", **fields)
    wanted = life(host, lead, "cpu", None)
    with pretended_cuda() as mode:
        memory.to(DEVICE)
        got = life(memory, lead, DEVICE, mode)
        assert memory.stats()["active"] == host.stats()["active"] > 22
        uncounted = memory.stats()["queries"] * 30 // 28  # two of them were captured in INFERENCE
        assert uncounted == host.stats()["queries"]
        assert memory.stats()["common_part_removed"] == common
        memory.close()
    host.close()
    for place, (one, other) in enumerate(zip(got, wanted, strict=True)):
        assert torch.equal(one, other), place
    assert bytes_of(host.directory) == bytes_of(memory.directory)


def test_it_is_captured_anew_when_there_is_no_more_room(make_memory) -> None:
    with pretended_cuda():
        memory = make_memory(vector_dim=256, novelty_birth_threshold=1)
        memory.to(DEVICE)
        novel = torch.randn(12, 500, 256, generator=torch.Generator().manual_seed(1))
        captured = memory.capture(novel[0], learn=True)
        for query in novel:
            captured(query.to(DEVICE))
        assert 2 <= captured.captures <= 5
        assert memory.storage.active_count == 6000 and memory.check() == []
        memory.close()


@pytest.mark.parametrize("how", ["refused", "gone", "interrupted", "in the graph"])
def test_behind_a_captured_call_that_failed(make_memory, how) -> None:
    """The host learns as if that had not been, and the captured graph goes on."""
    fields = {"vector_dim": DIM, "novelty_birth_threshold": 1, "consolidation_epoch_interval": 4}
    host, memory = make_memory("host", **fields), make_memory("there", **fields)
    errors = AESGNavigationError, KeyboardInterrupt, ZeroDivisionError

    def insist(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except errors:
            return act()

    def lose(patch: pytest.MonkeyPatch, captured: CapturedRetrieve) -> None:
        """One more call, of which the host learns nothing."""
        memory._state.settle()
        if how == "interrupted":
            patch.setattr(Awaited, "send", interrupted)
        elif how == "in the graph":
            replay = type(captured._graph).replay
            patch.setattr(type(captured._graph), "replay", lambda graph: replay(graph) or 1 // 0)
        with pytest.raises(errors) if how in ("interrupted", "in the graph") else nullcontext():
            captured(asked((6,), 99).to(DEVICE))
        patch.undo()
        if how in ("refused", "gone"):
            (not_finite if how == "refused" else gone)(patch, memory)

    def life(memory: AESGMemory, device: object) -> list[Tensor]:
        memory.graph.add_concepts(rows(20, seed=3))
        captured = None if device == "cpu" else memory.capture(asked((6,), 0), learn=True)
        answers: list[Tensor] = []
        with pytest.MonkeyPatch.context() as patch:
            for step in range(14):
                if step == 6 and captured is not None:
                    lose(patch, captured)
                query = asked((6,), step).to(device)
                ask = memory.retrieve if captured is None or step % 5 == 4 else captured
                answer = insist(lambda ask=ask, query=query: told(ask(query)))
                answers += [] if step in (6, 7) else answer  # those behind it are another's
                if step % 3 == 2:
                    insist(memory.update_topology)
                if step == 7:
                    insist(memory.check)
        memory.save()
        return answers

    wanted = life(host, "cpu")
    with pretended_cuda():
        memory.to(DEVICE)
        got = life(memory, DEVICE)
        assert [part.tolist() for part in got] == [part.tolist() for part in wanted]
        memory.close()
    host.close()
    assert bytes_of(host.directory) == bytes_of(memory.directory)


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_what_cannot_learn_there_says_so(make_memory) -> None:
    with pretended_cuda():
        made = make_memory(vector_dim=DIM)
        made.close()
        memory = AESGMemory(made.directory, residency="host")
        memory.graph.add_concepts(rows(20))
        memory.to(DEVICE)
        captured = memory.capture(rows(3), learn=True)
        with pytest.raises(AESGMemoryError, match="expected a memory that learns on its device"):
            captured(rows(3).to(DEVICE))
        memory.close()


def test_a_graph_of_ones_own_must_not_learn(make_memory) -> None:
    with pretended_cuda():
        memory = make_memory(vector_dim=DIM)
        memory.graph.add_concepts(rows(20))
        memory.to(DEVICE)
        query = rows(3).to(DEVICE)
        memory.retrieve(query)
        with (
            pytest.raises(AESGMemoryError, match=r"expected learn=False, .*capture\(learn=True\)"),
            torch.cuda.graph(torch.cuda.CUDAGraph()),
        ):
            memory.retrieve(query)
        memory.close()
