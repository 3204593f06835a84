"""What a device learns ahead: the same answers, errors and bytes as without one, whatever is done in between.

Without a GPU the device is the CPU, and every query of a memory with a copy takes the way over the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.graph import awaited, device_learning, query_mean, use_log
from aesg.graph.device_copy import DeviceCopy
from aesg.graph.device_groups import Groups
from aesg.graph.query_mean import QueryMean
from aesg.memory import learning
from aesg.memory.calls import Query
from aesg.memory.controller import AESGMemory
from tests.graph.test_device_learning import assert_same_as_store
from tests.memory.failing_lives import FailingLife
from tests.memory.lives import Life, compare, same, told

DIM = 16


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query counts as one that another device answers where a copy is asked."""
    monkeypatch.setattr(Query, "on_host", property(lambda query: Life.on_host))


@pytest.mark.parametrize("kind", [Life, FailingLife])
@pytest.mark.parametrize("seed", range(10))
def test_a_random_life(tmp_path, monkeypatch, seed, kind) -> None:
    """With a log that is soon full, and room for few calls on their way."""
    rows = (7, 40, 1 << 16)[seed % 3]
    monkeypatch.setattr(use_log, "MAX_PENDING_ROWS", rows)
    monkeypatch.setattr(device_learning, "MAX_PENDING_ROWS", rows)
    monkeypatch.setattr(awaited, "MOST_CALLS", (3, 256)[seed % 2])
    monkeypatch.setattr(awaited, "MOST_ROWS", (1 << 16, 20)[seed % 2])
    assert compare(tmp_path, seed, 150 if kind is Life else 60, kind=kind).waited > 0


@pytest.mark.parametrize("seed", range(441, 444))
def test_a_random_life_with_common_parts(tmp_path, monkeypatch, seed) -> None:
    """What likeness leaves out is another direction, or none, after most sweeps."""
    taken = 0

    def settle(health: QueryMean, *_: float) -> Tensor | None:
        nonlocal taken
        turn = health.seen // 16 % 4
        if turn == 0:
            return None
        taken += 1
        return torch.nn.functional.normalize(torch.arange(turn, turn + len(health.mean)).double(), dim=0)

    monkeypatch.setattr(query_mean, "BLOCK", 16)
    monkeypatch.setattr(query_mean, "SPAN", 1 << 20)
    monkeypatch.setattr(QueryMean, "settle", settle)
    fields = {"consolidation_epoch_interval": 2, "novelty_birth_threshold": 1}
    assert compare(tmp_path, seed, 150, 0.2, **fields).waited > 0
    assert taken > 5


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))


def with_and_without_copy(
    make_memory: Callable[..., AESGMemory], ask: Callable[[AESGMemory], Any], **fields: Any
) -> AESGMemory:
    """Requires the same of both; returns the memory with the copy."""
    told = []
    for name in ("plain", "copied"):
        memory = make_memory(name, vector_dim=DIM, **{"novelty_birth_threshold": 1, **fields})
        Life.on_host = name == "plain"
        if name == "copied":
            memory.graph.use_copy("cpu")
        told.append(ask(memory))
    assert len(told[0]) == len(told[1])
    assert all(same(one, other) for one, other in zip(*told, strict=True))
    return memory


def test_what_fills_the_log_between_births_of_one_call(make_memory, monkeypatch) -> None:
    """Noting writes succession into blocks that the next births would take."""
    for module in (use_log, device_learning):
        monkeypatch.setattr(module, "MAX_PENDING_ROWS", 4)

    def ask(memory: AESGMemory) -> list[Any]:
        memory.graph.add_concepts(rows(6))
        memory.retrieve(rows(4))
        memory.retrieve(rows(4).flip(0))
        with memory.one_call():
            for batch in range(2, 7):  # of other streams each: no steps of one call
                memory.retrieve(rows(batch, seed=batch))
        return [memory.storage.core.edge_view().copy()]

    assert_same_as_store(with_and_without_copy(make_memory, ask, link_min_similarity=0.0))


@pytest.mark.parametrize("mode", ["TRAIN", "INFERENCE"])
def test_slots_that_another_concept_got_within_a_call(make_memory, mode) -> None:
    def ask(memory: AESGMemory) -> list[Any]:
        memory.graph.add_concepts(rows(6))
        other = AESGMemory(memory.directory, memory.config)
        memory.set_mode(mode)
        memory.retrieve(rows(6))
        with memory.one_call():
            memory.retrieve(rows(6))
            other.forget(ids=[1, 2, 3])
            other.graph.add_concepts(rows(3, seed=4))
        answer = told(memory.retrieve(-rows(6)))
        other.close()
        return answer

    with_and_without_copy(make_memory, ask)


def test_a_stream_made_by_a_call_that_failed_can_end(make_memory) -> None:
    memory = make_memory(vector_dim=DIM)
    memory.graph.add_concepts(rows(6))
    memory.graph.use_copy("cpu")
    Life.on_host = False
    memory.retrieve(rows(2))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(DeviceCopy, "refresh", out_of_memory)
        memory.retrieve(rows(1)[0], 7)
    memory.reset_state([7])
    assert memory.active_state.batch_size == 8


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("full")


@pytest.mark.filterwarnings("ignore:What the device was to learn:RuntimeWarning")
@pytest.mark.parametrize("left", range(0, 12, 2))
def test_a_device_that_has_no_more_room(make_memory, left) -> None:
    """At whatever buffer it happens: the calls asked meanwhile are answered, and the host learns them."""
    allocated = Groups._allocated

    def scarce(self: Groups, wanted: int, needed: int) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise AESGMemoryError("needs more in one piece")  # as that does
        return allocated(self, wanted, needed)

    def ask(memory: AESGMemory) -> list[Any]:
        memory.graph.add_concepts(rows(1000))
        memory.retrieve(rows(2, seed=1))
        with pytest.MonkeyPatch.context() as patch:
            if memory.graph.copied is not None:
                patch.setattr(Groups, "_allocated", scarce)
            for seed in range(2, 5):
                memory.retrieve(rows(40, seed=seed))
        return [*told(memory.retrieve(rows(40, seed=7))), memory.storage.active_count]

    assert_same_as_store(with_and_without_copy(make_memory, ask))


def test_what_did_not_come_is_not_on_the_device_either(make_memory) -> None:
    memory = make_memory(vector_dim=DIM, novelty_birth_threshold=1)
    memory.graph.add_concepts(rows(6))
    memory.graph.use_copy("cpu")
    Life.on_host = False
    memory.retrieve(rows(2))
    memory.retrieve(rows(3, seed=1))  # bears what the next call does not see
    arrived, lost = awaited._Transfer.arrived, iter([True])

    def gone(transfer: awaited._Transfer) -> list[Tensor]:
        if next(lost, False):
            raise RuntimeError("the device is gone")
        return arrived(transfer)

    memory.storage.settle()
    memory.retrieve(rows(3, seed=2))
    memory.retrieve(rows(2), learn=False)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="gone"):
        patch.setattr(awaited._Transfer, "arrived", gone)
        memory.storage.settle()
    memory.retrieve(rows(2))
    memory.retrieve(rows(2))
    assert_same_as_store(memory)


def test_not_finite_where_likeness_leaves_out_a_common_part(make_memory) -> None:
    """Nothing is left of such a query: it must not pass for one that is like nothing."""
    memory = make_memory(vector_dim=DIM)
    memory.graph.add_concepts(rows(5))
    memory._state.queries.take(torch.nn.functional.normalize(rows(1)[0].double(), dim=0))
    query = rows(3)
    query[1, 0] = float("nan")
    Life.on_host = True
    with pytest.raises(AESGNavigationError, match="finite"):
        memory.retrieve(query)
    assert not memory._state.queries._block.any()


# -- what is behind a call that failed ---------------------------------------------------------------------

Failing = Callable[[pytest.MonkeyPatch, AESGMemory], None]


def not_finite(patch: pytest.MonkeyPatch, memory: AESGMemory) -> None:
    """The first of what comes; on a real device the query was so from the start."""
    first = iter([True])

    def refuse(copies: Sequence[Tensor]) -> None:
        if next(first, False):
            raise AESGNavigationError("queries: expected finite values")

    patch.setattr(learning, "require_finite", refuse)


def gone(patch: pytest.MonkeyPatch, memory: AESGMemory) -> None:
    arrived, first = awaited._Transfer.arrived, iter([True])

    def lost(transfer: awaited._Transfer) -> list[Tensor]:
        if next(first, False):
            raise AESGNavigationError("the device is gone")
        return arrived(transfer)

    patch.setattr(awaited._Transfer, "arrived", lost)


def settle_all(memory: AESGMemory) -> int:
    """Takes everything in; returns how often that failed."""
    failures = 0
    while True:
        try:
            memory._state.settle()
            return failures
        except (AESGNavigationError, AESGMemoryError):
            failures += 1


BEHIND: dict[str, Callable[[AESGMemory], Any]] = {
    "calls": lambda memory: [memory.retrieve(rows(5, seed=seed)) for seed in (3, 2, 3, 4)],
    "steps": lambda memory: memory.retrieve(rows(3, 4, seed=3)),
    "one call": lambda memory: asked_in_one_call(memory),
    "not learnt from": lambda memory: [
        memory.retrieve(rows(4, seed=2), learn=False),
        memory.retrieve(rows(4)),
    ],
    "an update": lambda memory: [memory.update_topology(), memory.retrieve(rows(5, seed=2))],
    "ended streams": lambda memory: [memory.reset_state([1]), memory.retrieve(rows(5, seed=2))],
    "alone": lambda memory: memory.retrieve(rows(3, seed=2)[1]),
}


def asked_in_one_call(memory: AESGMemory) -> None:
    with memory.one_call():
        for seed in (3, 2, 3):
            memory.retrieve(rows(4, seed=seed)[:, None])
        memory.retrieve(rows(2, seed=3))


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("failing", [not_finite, gone])
def test_behind_a_call_that_failed_the_host_learns_as_if_that_had_not_been(
    make_memory, failing, behind
) -> None:
    """The device answered it, and what follows, with concepts that the host never has."""

    def learn(memory: AESGMemory, fails: bool) -> AESGMemory:
        Life.on_host = True
        memory.graph.add_concepts(rows(3, seed=5))
        memory.retrieve(rows(3, seed=5))
        if fails:
            memory.graph.use_copy("cpu")
            Life.on_host = False
        memory.retrieve(rows(3, seed=1))
        if fails:
            memory._state.settle()
            memory.retrieve(rows(3, seed=2))  # is not learnt
        BEHIND[behind](memory)
        if fails:
            copied = memory.graph.copied
            assert copied is not None and copied.learning is not None and copied.learning.in_step
            with pytest.MonkeyPatch.context() as patch:
                failing(patch, memory)
                assert settle_all(memory) == 1
        told.append([str(memory.active_state.to_state()), memory.stats()["queries"]])
        return memory

    told: list[Any] = []
    fields = {"vector_dim": DIM, "novelty_birth_threshold": 1, "link_min_similarity": 0.0}
    memories = [learn(make_memory(name, **fields), name == "copied") for name in ("plain", "copied")]
    assert told[0] == told[1]
    for memory in memories:
        Life.on_host = memory.graph.copied is None
        memory.retrieve(rows(5, seed=3))
        memory.retrieve(rows(5, seed=3).flip(0))
        memory.update_topology()
        memory.save()
    assert_same_as_store(memories[1])
    paths = [
        sorted(path for path in memory.directory.iterdir() if path.name != "LOCK") for memory in memories
    ]
    assert [path.name for path in paths[0]] == [path.name for path in paths[1]]
    for one, other in zip(*paths, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_behind_a_call_that_was_learnt_in_part(make_memory) -> None:
    """The graph is sound, and each concept has the use that its own queries gave it."""
    memory = make_memory(
        vector_dim=DIM, novelty_birth_threshold=1, context_size=1, seed_top_k=1, link_min_similarity=1.0
    )
    memory.graph.add_concepts(rows(4))
    memory.graph.use_copy("cpu")
    Life.on_host = False
    memory.retrieve(rows(4))
    memory._state.settle()
    one, other = rows(2, seed=1)
    memory.retrieve(one)
    memory.retrieve(other)
    memory.retrieve(one)
    first = iter([True])
    bear = memory.cognitive_engine.bear_novel

    def fail(inputs: Tensor) -> Any:
        if next(first, False):
            raise AESGMemoryError("no")
        return bear(inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory.cognitive_engine, "bear_novel", fail)
        assert settle_all(memory) == 1
    memory.retrieve(one)
    assert memory.storage.node_count == 6 and memory.check() == []
    assert torch.equal(memory.graph.get_node_vector(4), other)
    assert torch.equal(memory.graph.get_node_vector(5), one)
    memory.update_topology()
    assert memory.storage.nodes["use_frequency"][4:6].tolist() == [0, 1]
    assert_same_as_store(memory)


def test_answered_before_a_failure_and_sent_behind_it(make_memory) -> None:
    """Within a `one_call` somebody looks, and goes on."""
    memory = make_memory(vector_dim=DIM, novelty_birth_threshold=1, context_size=1, seed_top_k=1)
    memory.graph.add_concepts(rows(4))
    memory.graph.use_copy("cpu")
    Life.on_host = False
    memory.retrieve(rows(4))
    memory._state.settle()
    memory.retrieve(rows(2, seed=1))
    with memory.one_call(), pytest.MonkeyPatch.context() as patch:
        found = memory.retrieve(rows(2, seed=1))
        assert found.indices[:, 0].tolist() == [4, 5]
        not_finite(patch, memory)
        assert settle_all(memory) == 1
    memory._state.settle()
    assert memory.storage.node_count == 6  # born, not used: what was asked is as new to the host
    memory.update_topology()
    assert memory.storage.nodes["use_frequency"][4:6].tolist() == [0, 0]
    memory.retrieve(rows(2, seed=1))
    assert_same_as_store(memory)


@pytest.mark.parametrize("act", ["ask", "update", "reset"])
def test_an_earlier_error_comes_before_what_is_asked(make_memory, monkeypatch, act) -> None:
    """So nothing that raises was done."""
    monkeypatch.setattr(awaited, "MOST_CALLS", 2)
    memory = make_memory(vector_dim=DIM, novelty_birth_threshold=1)
    memory.graph.add_concepts(rows(4))
    memory.graph.use_copy("cpu")
    Life.on_host = False
    memory.retrieve(rows(4))
    memory._state.settle()
    memory.retrieve(rows(2, seed=1))
    memory.retrieve(rows(2, seed=2))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AESGNavigationError):
        not_finite(patch, memory)
        if act == "ask":
            memory.retrieve(rows(3, seed=3))
        elif act == "update":
            memory.update_topology()
        else:
            memory.reset_state()
    assert memory._state.awaited is not None and len(memory._state.awaited._queue) == 1
    assert memory.stats()["queries"] == 6 and memory.stats()["consolidations"] == 0
    assert memory.active_state.to_state()["primary"][0][0] >= 0
