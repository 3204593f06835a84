"""A device that fails at something: what it answered is learnt once, or not at all where that was raised.

Without a GPU the device is the CPU, as in `test_ahead`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError
from aesg.graph import device_copy, device_learning, state
from aesg.graph.device_copy import DeviceCopy
from aesg.graph.query_mean import QueryMean
from aesg.memory import device_streams
from aesg.memory.calls import Query
from aesg.memory.controller import AESGMemory
from tests.graph.test_device_learning import assert_same_as_store
from tests.memory.lives import Life, same, told

DIM = 16

pytestmark = pytest.mark.filterwarnings("ignore:What the device was to learn:RuntimeWarning")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query counts as one that another device answers where a copy is asked."""
    monkeypatch.setattr(Query, "on_host", property(lambda query: Life.on_host))


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))


def bytes_of(directory: Path) -> dict[str, bytes]:
    """All but the configuration, which names the directory, and the lock."""
    paths = [
        path for path in directory.iterdir() if path.name not in ("LOCK", "state.aesg", "checksums.aesg")
    ]
    return {path.name: path.read_bytes() for path in paths}


FIELDS = {
    "vector_dim": DIM, "novelty_birth_threshold": 1, "prune_min_age": 1, "survival_threshold_relevance": 0.9,
    "max_concepts": 9,
}  # fmt: skip

ACTS: list[Callable[[AESGMemory], list[Any]]] = [
    lambda memory: told(memory.retrieve(rows(2, seed=7))),
    lambda memory: told(memory.retrieve(rows(4, seed=1))),
    lambda memory: memory.update_topology() or [],
    lambda memory: told(memory.retrieve(rows(4, seed=2))),
    lambda memory: memory.reset_state([1]) or [],
    lambda memory: told(memory.retrieve(rows(6, seed=2))),
    lambda memory: [str(memory.check())],
    lambda memory: memory.update_topology() or [],
    lambda memory: told(memory.retrieve(rows(4, seed=4))),
]  # fmt: skip


def live(memory: AESGMemory, insist: Callable[[Callable[[], list[Any]]], list[Any]]) -> list[Any]:
    """Everything that a short life says."""
    memory.graph.add_concepts(rows(6))
    answers = [insist(lambda act=act: act(memory)) for act in ACTS]
    stats = memory.stats()
    memory.save()
    counts = [stats[name] for name in ("queries", "births", "prunes", "consolidations", "edges")]
    return [*(part for answer in answers for part in answer), counts]


def lives(make_memory: Callable[..., AESGMemory]) -> Callable[..., AESGMemory]:
    """Compares a life on the host with as many as are asked for on a device."""
    Life.on_host = True
    plain = make_memory("plain", **FIELDS)
    wanted, files = live(plain, lambda act: act()), bytes_of(plain.directory)

    def compare(name: str, insist: Callable[[Callable[[], list[Any]]], list[Any]]) -> AESGMemory:
        Life.on_host = False
        memory = make_memory(name, **FIELDS)
        memory.graph.use_copy("cpu")
        got = live(memory, insist)
        assert len(got) == len(wanted)
        assert all(same(one, other) for one, other in zip(got, wanted, strict=True))
        assert bytes_of(memory.directory) == files
        return memory

    return compare


OPS = {
    "pool_novelty_": device_learning, "pack_rows": device_learning, "bear_": device_learning,
    "seed_search": device_learning, "count_use_": device_learning, "coactivate_": device_learning,
    "follow_": device_learning, "consolidate_": device_learning, "retire_": device_learning,
    "keep_primary_": device_streams, "note_succession_": device_streams,
    "project_out_inv_norm_": device_copy,
}  # fmt: skip


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", OPS)
def test_what_the_device_does_by_itself_may_fail(make_memory, monkeypatch, name, after) -> None:
    """Whether it was done then or not: the answer was given, and the host learns it, once."""
    if name == "project_out_inv_norm_":
        monkeypatch.setattr(state, "QueryMean", LeavesSomethingOut)
    compare, op, failed = lives(make_memory), getattr(OPS[name], name), iter([True])

    def fail(*args: Any, **kwargs: Any) -> Any:
        if next(failed, False):
            if after:
                op(*args, **kwargs)
            raise RuntimeError("no")
        return op(*args, **kwargs)

    monkeypatch.setattr(OPS[name], name, fail)
    memory = compare("failing", lambda act: act())
    assert not next(failed, False)
    memory.retrieve(rows(2))
    assert_same_as_store(memory)


class LeavesSomethingOut(QueryMean):
    """From the start."""

    def __init__(self, vector_dim: int) -> None:
        super().__init__(vector_dim)
        self.take(torch.nn.functional.normalize(torch.arange(1.0, vector_dim + 1).double(), dim=0))


@pytest.mark.parametrize("kind", ["cat", "empty", "full"])
def test_no_room_for_anything(make_memory, monkeypatch, kind) -> None:
    """At whatever piece it happens: what raises has done nothing, and is asked once more."""
    compare = lives(make_memory)
    places = {"cat": (torch, "cat"), "empty": (torch, "empty"), "full": (Tensor, "new_full")}
    where, name = places[kind]
    allocate, asked, fails_at = getattr(where, name), 0, 0

    def scarce(*args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += acting
        if asked == fails_at:
            asked += 1
            raise torch.OutOfMemoryError("full")
        return allocate(*args, **kwargs)

    def insist(act: Callable[[], list[Any]]) -> list[Any]:
        nonlocal acting
        acting = True
        try:
            return act()
        except torch.OutOfMemoryError:
            return act()
        finally:
            acting = False

    acting = False
    monkeypatch.setattr(where, name, scarce)
    while asked >= fails_at:
        asked, fails_at = 0, fails_at + 1
        memory = compare(f"scarce{fails_at}", insist)
        memory.close()
    assert fails_at > 5


def test_the_host_is_told_why_the_device_does_not_learn(make_memory, monkeypatch) -> None:
    memory = make_memory(vector_dim=DIM)
    memory.graph.add_concepts(rows(4))
    memory.graph.use_copy("cpu")
    Life.on_host = False
    monkeypatch.setattr(DeviceCopy, "reserve", no_room)
    with pytest.warns(
        RuntimeWarning, match="learns from the host, which takes longer and changes no answer: no room"
    ):
        memory.retrieve(rows(2000))
    assert memory.stats()["queries"] == 2000


def no_room(*_: object) -> None:
    raise AESGMemoryError("no room")
