"""When what a device answered is taken in at an awkward moment: in the middle of a call, behind a change, by
somebody else, at the end.

Without a GPU the device is the CPU, as in `test_ahead`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aesg.exceptions import AESGError, AESGNavigationError
from aesg.graph.awaited import Awaited
from aesg.graph.device_copy import DeviceCopy
from aesg.graph.state import _end
from aesg.memory.calls import Query
from aesg.memory.controller import AESGMemory
from aesg.memory.learning import Learner
from tests.graph.test_device_learning import assert_same_as_store
from tests.memory.lives import Life, same, told
from tests.memory.test_ahead import not_finite, settle_all

DIM = 64
FIELDS = {"vector_dim": DIM, "novelty_birth_threshold": 1, "link_min_similarity": 0.0}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query counts as one that another device answers where a copy is asked."""
    monkeypatch.setattr(Query, "on_host", property(lambda query: Life.on_host))


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))


def begun(make_memory: Callable[..., AESGMemory], name: str = "copied", copied: bool = True) -> AESGMemory:
    """A memory that learns ahead, or the same on the host."""
    memory = make_memory(name, **FIELDS)
    Life.on_host = True
    memory.graph.add_concepts(rows(6))
    Life.on_host = not copied
    if copied:
        memory.graph.use_copy("cpu")
    memory.retrieve(rows(8))
    memory._state.settle()
    return memory


def compare(make_memory: Callable[..., AESGMemory], act: Callable[[AESGMemory], list[Any]]) -> AESGMemory:
    """Requires the same of a memory that learns ahead as of one that does not; returns the former."""
    wanted = act(begun(make_memory, "plain", copied=False))
    memory = begun(make_memory)
    assert all(same(one, other) for one, other in zip(act(memory), wanted, strict=True))
    memory.retrieve(rows(2))
    assert_same_as_store(memory)
    return memory


@contextlib.contextmanager
def the_first_is_refused(memory: AESGMemory) -> Iterator[None]:
    """What is asked inside stands behind a call of which the host learns nothing, if it is elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        if not Life.on_host:
            memory.retrieve(rows(2, seed=77))
            not_finite(patch, memory)
        yield


def test_what_was_asked_before_a_pack_came_is_answered_without(make_memory, tmp_path) -> None:
    Life.on_host = True
    other = make_memory("other", vector_dim=DIM)
    other.graph.add_concepts(rows(8, seed=1))
    other.export_pack(tmp_path / "p.aesgpack", name="p", format_version=2)

    def act(memory: AESGMemory) -> list[Any]:
        pack = memory.load_pack(tmp_path / "p.aesgpack")
        with the_first_is_refused(memory):
            memory.retrieve(rows(8, seed=1))
            try:
                memory.attach_pack(pack)
            except AESGNavigationError:
                assert not memory.pack_manager.in_use
                memory.attach_pack(pack)
            memory.detach_pack("p")
        return [memory.stats()["births"], str(memory.active_state.to_state())]

    compare(make_memory, act)


def test_collected_while_a_call_is_answered(make_memory) -> None:
    """What it answers may hold what the refused call bore."""

    def act(memory: AESGMemory) -> list[Any]:
        with the_first_is_refused(memory), pytest.MonkeyPatch.context() as patch:
            find = memory.graph.activate

            def collected(*args: Any, **kwargs: Any) -> Any:
                found = find(*args, **kwargs)
                memory._state.settle_at_the_end()
                return found

            if not Life.on_host:
                patch.setattr(memory.graph, "activate", collected)
            with warned(not Life.on_host):
                memory.retrieve(rows(4, seed=77))
        return [memory.stats()["births"], str(memory.active_state.to_state()), str(memory.check())]

    compare(make_memory, act)


def warned(expected: bool) -> Any:
    return pytest.warns(RuntimeWarning, match="not learnt") if expected else contextlib.nullcontext()


def test_collected_before_the_device_learns(make_memory, monkeypatch) -> None:
    """The host is then a call ahead of what the device knows of the streams."""
    taught = Learner._taught

    def collected(self: Learner, *args: Any) -> Any:
        self.graph.state.settle_at_the_end()
        yield from taught(self, *args)

    def act(memory: AESGMemory) -> list[Any]:
        memory.forget(ids=[2])  # what the streams last meant is brought anew
        for seed in (3, 3, 4):
            memory.retrieve(rows(4, seed=seed))
        return [memory.stats()["edges"], str(memory.active_state.to_state())]

    monkeypatch.setattr(Learner, "_taught", collected)
    compare(make_memory, act)


def test_streams_that_somebody_keeps(make_memory) -> None:
    """They end behind what was asked before."""

    def act(memory: AESGMemory) -> list[Any]:
        streams = memory.active_state
        memory.retrieve(rows(4, seed=3))
        streams.reset([0, 2])
        told_so = told(memory.retrieve(rows(4, seed=4)))
        return [*told_so, str(streams.to_state()), str(memory.active_state.to_state())]

    compare(make_memory, act)


def test_what_was_given_up_is_not_counted(make_memory) -> None:
    def act(memory: AESGMemory) -> list[Any]:
        for traced in (True, False):
            with contextlib.suppress(AESGError), memory.one_call(traced):
                memory.retrieve(rows(3))
                memory.retrieve(rows(3)[:, None])
                raise AESGError("given up")
        with memory.one_call():
            memory.retrieve(rows(3))
        stats = memory.stats()
        return [stats["queries"], round(stats["mean_explanation"], 6)]

    assert compare(make_memory, act).stats()["queries"] == 8 + 3 + 2


@pytest.mark.parametrize("error", [RuntimeError, ValueError, MemoryError])
@pytest.mark.parametrize("end", [AESGMemory.close, lambda memory: _end(memory._state)], ids=["close", "end"])
def test_one_call_that_cannot_be_learnt_at_the_end(make_memory, end, error) -> None:
    """Whatever it fails with, those behind are learnt, and everything is saved."""
    memory = begun(make_memory)
    bear, first = memory.cognitive_engine.bear_novel, iter([True])

    def fail(inputs: Tensor) -> Any:
        if next(first, False):
            raise error("odd")
        return bear(inputs)

    memory.cognitive_engine.bear_novel = fail  # type: ignore[method-assign]
    memory.retrieve(rows(3, seed=1))
    memory.retrieve(rows(4, seed=2))
    births = memory._state.bare_counters["births"]
    with pytest.warns(RuntimeWarning, match="not learnt in .*: odd"):
        end(memory)
    assert memory.closed
    with AESGMemory(memory.directory) as reopened:
        assert reopened.stats()["births"] == births + 4


def test_a_device_that_is_gone_keeps_nobody_from_saving(make_memory, monkeypatch) -> None:
    memory = begun(make_memory)
    memory.retrieve(rows(3, seed=1))
    uses = memory.storage.nodes["use_frequency"][:].sum()
    memory.retrieve(rows(3, seed=1))
    memory._state.settle()

    def gone(copied: DeviceCopy) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(DeviceCopy, "join_streams", gone)
    with pytest.warns(RuntimeWarning, match="the device is gone"):
        memory.close()
    with AESGMemory(memory.directory) as reopened:
        assert reopened.storage.nodes["use_frequency"][:].sum() > uses


def test_another_memory_fails_within_a_call(make_memory) -> None:
    """Each learns its own."""
    one = begun(make_memory)
    two = AESGMemory(one.directory, one.config)
    two.graph.use_copy("cpu")
    one.graph.use_copy(None)
    births = one.stats()["births"]
    with pytest.MonkeyPatch.context() as patch:
        not_finite(patch, two)
        with pytest.raises(AESGNavigationError), one.one_call():
            Life.on_host = True
            one.retrieve(rows(3, seed=4))
            Life.on_host = False
            two.retrieve(rows(2, seed=9))
            two.retrieve(rows(5, seed=5))
            Life.on_host = True
    assert one.stats()["births"] == births + 3 + 5
    two.close()


def test_interrupted_before_the_host_hears_of_an_update(make_memory) -> None:
    memory = begun(make_memory)
    memory.retrieve(rows(3))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Awaited, "defer", interrupted)
        memory.update_topology()
    memory.retrieve(rows(3))
    memory.retrieve(rows(3))
    assert_same_as_store(memory)
    assert memory.stats()["consolidations"] == 0


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_second_pass_through_what_was_taken_back(make_memory, use_reentrant) -> None:
    """The first found concepts that the host never had, more than a group of them."""
    memory = begun(make_memory)
    memory.train()
    memory.retrieve(rows(2000, seed=8))
    query = rows(2000, seed=8).requires_grad_()
    answer = checkpoint(
        lambda asked: memory.retrieve(asked, learn=False).aggregate(), query, use_reentrant=use_reentrant
    )
    with pytest.MonkeyPatch.context() as patch:
        not_finite(patch, memory)
        assert settle_all(memory) == 1
    assert memory.storage.node_count < 1024
    answer.sum().backward()
    assert query.grad is not None and bool(torch.isfinite(query.grad).all())


def test_more_born_in_a_call_than_a_group_holds(make_memory) -> None:
    def act(memory: AESGMemory) -> list[Any]:
        answers = told(memory.retrieve(rows(1500, seed=5)))
        memory.update_topology()
        with memory.one_call():
            answers += told(memory.retrieve(rows(1100, seed=7)))
            answers += told(memory.retrieve(rows(1200, seed=8)))
        answers += told(memory.retrieve(rows(100, seed=8)))
        return [*answers, memory.stats()["active"], str(memory.check())]

    assert compare(make_memory, act).storage.active_count > 3000
