"""What a device learns ahead: the same answers, errors and bytes as without one, whatever is done in between.

Without a GPU the device is the CPU, and every query of a memory with a copy takes the way over the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from aesg.exceptions import AESGNavigationError
from aesg.graph import awaited, device_learning, use_log
from aesg.graph.device_copy import DeviceCopy
from aesg.graph.device_groups import Groups
from aesg.memory.calls import Query
from aesg.memory.controller import AESGMemory
from tests.graph.test_device_learning import assert_same_as_store
from tests.memory.lives import Life, compare, same, told

DIM = 16


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query counts as one that another device answers where a copy is asked."""
    monkeypatch.setattr(Query, "on_host", property(lambda query: Life.on_host))


@pytest.mark.parametrize("seed", range(10))
def test_a_random_life(tmp_path, monkeypatch, seed) -> None:
    """With a log that is soon full, and room for few calls on their way."""
    rows = (7, 40, 1 << 16)[seed % 3]
    monkeypatch.setattr(use_log, "MAX_PENDING_ROWS", rows)
    monkeypatch.setattr(device_learning, "MAX_PENDING_ROWS", rows)
    monkeypatch.setattr(awaited, "MOST_CALLS", (3, 256)[seed % 2])
    monkeypatch.setattr(awaited, "MOST_ROWS", (1 << 16, 20)[seed % 2])
    assert compare(tmp_path, seed, 150).waited > 0


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


@pytest.mark.parametrize("left", range(0, 12, 2))
def test_a_device_that_has_no_more_room(make_memory, left) -> None:
    """At whatever buffer it happens; the calls asked meanwhile are answered, or raise, and are learnt."""
    allocated = Groups._allocated

    def scarce(self: Groups, wanted: int, needed: int) -> Tensor:
        nonlocal left
        left -= 1
        return out_of_memory() if left < 0 else allocated(self, wanted, needed)  # type: ignore[return-value]

    def ask(memory: AESGMemory) -> list[Any]:
        memory.graph.add_concepts(rows(1000))
        memory.retrieve(rows(2, seed=1))
        with pytest.MonkeyPatch.context() as patch:
            if memory.graph.copied is not None:
                patch.setattr(Groups, "_allocated", scarce)
            for seed in range(2, 5):
                with contextlib.suppress(torch.OutOfMemoryError):
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
