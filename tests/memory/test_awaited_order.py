"""Calls that a device answered, and what comes between them: kept objects, interruptions, other streams.

Without a GPU the device is the CPU, or one that is pretended (`tests/pretended_cuda.py`).
"""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError
from aesg.graph import awaited
from aesg.graph.awaited import Awaited
from aesg.memory import compiled
from aesg.memory.calls import Query
from aesg.memory.captured import CapturedRetrieve
from aesg.memory.controller import AESGMemory
from aesg.memory.device_streams import DeviceStreams
from tests.pretended_cuda import DEVICE, needs_no_cuda, pretended_cuda

DIM = 16


def rows(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query counts as one that another device answers."""
    monkeypatch.setattr(Query, "on_host", property(lambda query: False))


def with_copy(memory: AESGMemory, residency: str = "device") -> AESGMemory:
    memory.graph.add_concepts(rows(50))
    memory.graph.use_copy("cpu", residency)
    return memory


def waiting(memory: AESGMemory) -> int:
    """Calls on their way."""
    assert memory._state.awaited is not None
    return len(memory._state.awaited._queue)


# -- what was kept from before the call --------------------------------------------------------------------

CHANGES = {
    "add_node": lambda storage, logger: storage.add_node(900, rows(1, 99)[0]),
    "add_edge": lambda storage, logger: storage.add_edge(0, 2, 0.5),
    "update": lambda storage, logger: storage.update([3], relevance=0.5),
    "assign": lambda storage, logger: storage.nodes["relevance"].__setitem__(3, 0.5),
    "log_event": lambda storage, logger: logger.log_event("CREATE", 1),
    "commit": lambda storage, logger: storage.commit(),
    "flush": lambda storage, logger: storage.flush(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_through_kept_objects_comes_behind_what_was_asked_before(
    make_memory, elsewhere, change
) -> None:
    def life(name: str) -> tuple[list, list, list]:
        memory = make_memory(name, vector_dim=DIM, novelty_birth_threshold=1)
        memory.graph.add_concepts(rows(50))
        if name == "copied":
            memory.graph.use_copy("cpu")
        storage, logger = memory.storage, memory.logger
        memory.retrieve(rows(5, 7))
        change(storage, logger)
        assert name == "plain" or waiting(memory) == 0
        counts = storage.core.active_count, storage.core.edge_count, storage.core.generation
        return counts, storage.nodes["id"][:].tolist(), logger.get_history().array["id1"].tolist()

    told = life("copied")
    with pytest.MonkeyPatch.context() as context:
        context.setattr(Query, "on_host", property(lambda query: True))
        assert life("plain") == told


def test_a_reader_takes_in_what_it_asked_before_it_follows_the_writer(make_memory, elsewhere) -> None:
    with make_memory(vector_dim=DIM) as writer:
        writer.graph.add_concepts(rows(50))
        writer.save()
        reader = AESGMemory(writer.directory, read_only=True)
        reader.graph.use_copy("cpu")
        storage = reader.storage
        reader.retrieve(rows(3))
        storage.refresh()
        assert waiting(reader) == 0
        reader.close()


# -- interrupted, failed, moved ----------------------------------------------------------------------------


def test_a_memory_that_is_collected_while_another_learns(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM))
    memory.set_mode("INFERENCE")
    other = AESGMemory(memory.directory, memory.config)
    other.cycle = other  # left to the collector
    del other
    queue, learn, collected = memory._state.awaited, memory._learner.take_in, []
    rounds = iter(range(1000))
    settle = Awaited.settle

    def collecting(calls) -> None:
        collected.append(gc.collect())
        learn(calls)

    def counted(queue: Awaited) -> None:
        assert next(rounds, None) is not None, "never ends"
        settle(queue)

    memory.retrieve(rows(3))
    memory.retrieve(rows(3, 1))
    memory._learner.take_in = collecting
    with pytest.MonkeyPatch.context() as context:
        context.setattr(Awaited, "settle", counted)
        memory._state.settle()
        assert next(rounds, None) is not None
    assert len(collected) == 2 and not queue


def test_streams_after_a_call_that_could_not_be_sent(make_memory, elsewhere, monkeypatch) -> None:
    def full(transfer: object, tensors: object) -> None:
        raise RuntimeError("out of memory")

    memory, plain = with_copy(make_memory("one", vector_dim=DIM)), with_copy(make_memory("2", vector_dim=DIM))
    for each in (memory, plain):
        each.set_mode("INFERENCE")
        each.retrieve(rows(3))
    with monkeypatch.context() as context, pytest.raises(RuntimeError, match="out of memory"):
        context.setattr(awaited._Transfer, "__init__", full)
        memory.retrieve(rows(50)[10:13])
    wanted = plain.retrieve(-rows(50)[10:13]).weights
    assert torch.equal(memory.retrieve(-rows(50)[10:13]).weights, wanted)


def test_moved_to_the_host_within_a_call(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM))
    with memory.one_call():
        memory.retrieve(rows(3))
        memory.graph.use_copy(None)
    assert memory.stats()["queries"] == 3


def test_asked_in_both_places_within_a_call(make_memory, elsewhere, monkeypatch) -> None:
    memory = with_copy(make_memory(vector_dim=DIM))
    taken = []
    with memory.one_call():
        memory.retrieve(rows(3))
        with monkeypatch.context() as context:
            context.setattr(Query, "on_host", property(lambda query: True))
            memory.retrieve(rows(3, 1))
        monkeypatch.setattr(Query, "on_host", property(lambda query: torch.equal(query.rows, rows(3, 1))))
        remember = memory._learner.remember
        memory._learner.remember = lambda query, answers: (
            taken.append(query.rows[0, 0].item()), remember(query, answers)
        )  # fmt: skip
    memory._state.settle()
    assert taken == [rows(3)[0, 0].item(), rows(3, 1)[0, 0].item()]


# -- kinds of tensors --------------------------------------------------------------------------------------


def test_vectors_on_the_host_first_searched_in_inference_mode(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM), "host")
    with torch.inference_mode():
        memory.retrieve(rows(3))
    query = rows(3).requires_grad_()
    memory.retrieve(query).weights.sum().backward()
    assert query.grad is not None


@needs_no_cuda
def test_a_common_part_first_brought_in_inference_mode(make_memory) -> None:
    with pretended_cuda():
        memory = make_memory(vector_dim=DIM)
        memory.graph.add_concepts(rows(50))
        memory.to(DEVICE)
        memory._state.bare_queries.take(torch.nn.functional.normalize(rows(1)[0].double(), dim=0))
        copied = memory.graph.copied
        with torch.inference_mode():
            there = copied.common_of(memory._state.bare_queries)
        assert not there.is_inference()
        memory.close()


@needs_no_cuda
@pytest.mark.parametrize("common", [False, True])
def test_a_compiled_retrieve_does_not_wait(make_memory, common) -> None:
    with pretended_cuda() as mode:
        memory = make_memory(vector_dim=DIM)
        memory.graph.add_concepts(rows(50))
        memory.set_mode("INFERENCE")
        memory.to(DEVICE)
        if common:
            memory._state.bare_queries.take(torch.nn.functional.normalize(rows(1)[0].double(), dim=0))
        query, op = rows(4).to(DEVICE), compiled._retrieve._init_fn
        mode.waits.clear()
        parts = op(query, memory.clock, memory.number, [4], 0, True, True)
        assert mode.waits == [] and all(part.device == DEVICE for part in parts)
        memory.close()


# -- CUDA streams and graphs -------------------------------------------------------------------------------


@needs_no_cuda
def test_streams_are_touched_behind_what_was_asked_on_another_cuda_stream(make_memory, monkeypatch) -> None:
    order = []
    follow = DeviceStreams.follow
    monkeypatch.setattr(
        DeviceStreams, "follow", lambda self, streams: (order.append("touched"), follow(self, streams))
    )
    with pretended_cuda():
        memory = make_memory(vector_dim=DIM)
        memory.graph.add_concepts(rows(50))
        memory.set_mode("INFERENCE")
        memory.to(DEVICE)
        memory.retrieve(rows(2).to(DEVICE))
        other = SimpleNamespace(
            wait_stream=lambda stream: order.append("ordered"), record_event=lambda: None,
            wait_event=lambda event: None,
        )  # fmt: skip
        order.clear()
        with monkeypatch.context() as context:
            context.setattr(torch.cuda, "current_stream", lambda device=None: other)
            memory.retrieve(rows(5).to(DEVICE))  # more streams: what is known of the first is copied
        assert order == ["ordered", "touched"]
        memory.close()


def test_a_rehearsal_is_not_kept_for_a_second_pass(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM))
    memory.retrieve(rows(4))
    with torch.no_grad(), memory.rehearsing():
        memory.retrieve(rows(4, 1), learn=False)
    assert not memory._replays._calls


def test_what_was_captured_is_refused_once_the_host_is_asked(make_memory) -> None:
    with pytest.raises(AESGMemoryError, match="one asked on the host"):
        make_memory(vector_dim=DIM).made_ready(rows(3), 0)


@needs_no_cuda
def test_a_captured_retrieve_writes_its_query_behind_the_last_replay(make_memory, monkeypatch) -> None:
    with pretended_cuda():
        memory = make_memory(vector_dim=DIM)
        memory.to(DEVICE)
        captured = memory.capture(rows(4))
        seen = []

        def ready(query: Tensor, *_: object) -> tuple[object, ...]:  # orders the CUDA streams
            seen.append(query.tolist() == rows(4).tolist())
            return ()

        def capture(self: CapturedRetrieve, *_: object) -> None:
            graph = SimpleNamespace(replay=lambda: seen.append(self._query.tolist() == rows(4, 1).tolist()))
            self._graph, self._context = graph, memory.retrieve(self._query, learn=False)

        monkeypatch.setattr(memory, "made_ready", ready)
        monkeypatch.setattr(CapturedRetrieve, "_capture", capture)
        captured(rows(4, 1).to(DEVICE))
        assert seen == [True, True]
        memory.close()


def test_paths_of_what_was_written_over_are_found_anew(make_memory) -> None:
    memory = make_memory(vector_dim=DIM)
    memory.graph.add_concepts(torch.eye(DIM)[:10])
    memory.graph.add_edges([0, 9], [1, 1], [1.0, 1.0], [1.0, 1.0])
    context, other = (memory.retrieve(torch.eye(DIM)[slot][None], learn=False) for slot in (0, 9))
    told, wanted = context.paths, other.paths
    assert told[0][1] == [0, 1] and wanted[0][1] == [9, 1]
    answers = (each._trace._answers[0].found for each in (context, other))
    for part, new in zip(*(found[:4] for found in answers), strict=True):
        part.copy_(new)  # as a replay does
    assert context.renewed().paths == wanted


@needs_no_cuda
def test_a_captured_retrieve_does_not_follow_to_another_device(make_memory) -> None:
    with pretended_cuda():
        memory = make_memory(vector_dim=DIM)
        memory.graph.add_concepts(rows(20))
        memory.to(DEVICE)
        captured = memory.capture(rows(3))
        captured._query = rows(3)  # as if captured on another
        with pytest.raises(
            AESGMemoryError, match="expected a memory on cpu, got one that was moved to cuda:0"
        ):
            captured(rows(3))
        memory.close()
