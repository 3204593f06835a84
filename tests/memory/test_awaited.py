"""Calls that a device answered: learnt from when somebody needs to know, in order, once, and as at once.

Without a GPU the device is the CPU: a copy of the graph answers, and the answers go the way over the device.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import warnings
from pathlib import Path

import pytest
import torch

from aesg._extension import has_cuda_kernels
from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.memory.calls import Query
from aesg.memory.controller import AESGMemory

DIM = 16


def rows(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query counts as one that another device answers."""
    monkeypatch.setattr(Query, "on_host", property(lambda query: False))


def with_copy(memory: AESGMemory) -> AESGMemory:
    memory.graph.use_copy("cpu")
    return memory


def waiting(memory: AESGMemory) -> int:
    """Calls on their way."""
    assert memory._state.awaited is not None
    return len(memory._state.awaited._queue)


def test_nothing_is_learnt_before_somebody_needs_it(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM, novelty_birth_threshold=1))
    core = memory.storage.core
    memory.retrieve(rows(5))
    assert waiting(memory) == 1 and core.active_count == 0
    assert memory.storage.active_count > 0 and waiting(memory) == 0


READS = {
    "active_count": lambda memory: memory.storage.active_count,
    "column": lambda memory: memory.storage.nodes["use_frequency"][:1],
    "stats": lambda memory: memory.stats(),
    "save": lambda memory: memory.save(),
    "check": lambda memory: memory.check(),
    "set_mode": lambda memory: memory.set_mode("ONLINE"),
    "active_state": lambda memory: memory.active_state,
    "forget": lambda memory: memory.forget(query=rows(1)[0], radius=0.1),
    "add_concepts": lambda memory: memory.graph.add_concepts(rows(1)),
    "add_edges": lambda memory: memory.graph.add_edges([0], [1], [1.0], [1.0]),
    "neighbors": lambda memory: memory.graph.find_nearest_neighbors(rows(1)[0]),
    "engine": lambda memory: memory.cognitive_engine.create_sensory_concept(rows(1)[0]),
    "novelty": lambda memory: memory.cognitive_engine.observe_novelty(rows(1)),
    "history": lambda memory: memory.logger.get_history(),
    "edges": lambda memory: memory.storage.get_edges(0),
    "pool": lambda memory: len(memory._state.pool),
    "snapshot": lambda memory: memory.snapshot(memory.directory.parent / "copied"),
    "close": lambda memory: memory.close(),
}
# What the device does by itself, ahead of the host; where the vectors stay on the host it does not learn.
AHEAD = {
    "update_topology": lambda memory: memory.update_topology(),
    "reset_state": lambda memory: memory.reset_state(),
    "on": lambda memory: memory.retrieve(rows(1)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_whoever_needs_it_settles_it(make_memory, elsewhere, read) -> None:
    memory = with_copy(make_memory(vector_dim=DIM, novelty_birth_threshold=1))
    memory.graph.add_concepts(rows(3, 5))
    memory.retrieve(rows(5))
    assert memory.storage.core.active_count >= 3
    memory.retrieve(rows(5, 1))
    before = memory._state.awaited._queue[0]
    read(memory)
    assert before not in memory._state.awaited._queue


@pytest.mark.parametrize("residency", ["device", "host"])
@pytest.mark.parametrize("act", AHEAD.values(), ids=AHEAD)
def test_what_a_device_does_ahead_settles_nothing(make_memory, elsewhere, act, residency) -> None:
    memory = make_memory(vector_dim=DIM, novelty_birth_threshold=1)
    memory.graph.use_copy("cpu", residency)
    memory.graph.add_concepts(rows(3, 5))
    memory.retrieve(rows(5))
    before = memory._state.awaited._queue[0]
    act(memory)
    assert (before in memory._state.awaited._queue) == (residency == "device")


def test_where_nothing_is_learnt_calls_follow_each_other_without_waiting(make_memory, elsewhere) -> None:
    plain, memory = make_memory("plain", vector_dim=DIM), make_memory("copied", vector_dim=DIM)
    for each in (plain, memory):
        each.graph.add_concepts(rows(50))
        each.graph.add_edges(range(40), range(1, 41), [1.0] * 40, [1.0] * 40)
        each.set_mode("INFERENCE")
    with_copy(memory)
    asked = [rows(4, seed)[: 4 - seed % 2] for seed in range(9)]
    told = [memory.retrieve(query) for query in asked]
    told.append(memory.retrieve(asked[0][0], batch_idx=6))  # a stream that was not there before
    told.append(memory.retrieve(asked[0], learn=False))
    assert waiting(memory) == 11
    with pytest.MonkeyPatch.context() as context:
        context.setattr(Query, "on_host", property(lambda query: True))
        wanted = [plain.retrieve(query) for query in asked]
        wanted.append(plain.retrieve(asked[0][0], batch_idx=6))
        wanted.append(plain.retrieve(asked[0], learn=False))
    for one, other in zip(told, wanted, strict=True):
        assert torch.equal(one.indices, other.indices) and torch.equal(one.weights, other.weights)
    assert memory.active_state.to_state() == plain.active_state.to_state()
    same = ("queries", "mean_explanation", "query_resultant", "query_effective_rank")
    assert [memory.stats()[name] for name in same] == [plain.stats()[name] for name in same]


def test_streams_ended_or_set_meanwhile(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM))
    memory.graph.add_concepts(rows(50))
    memory.set_mode("INFERENCE")
    far, near = -rows(50)[:2], rows(50)[:2]
    fresh = memory.retrieve(far).weights
    memory.reset_state()
    memory.retrieve(near)
    assert not torch.equal(memory.retrieve(far).weights, fresh)  # primed by what was near
    memory.retrieve(near)
    memory.reset_state([1])
    again = memory.retrieve(far).weights
    assert torch.equal(again[1], fresh[1]) and not torch.equal(again[0], fresh[0])
    memory.retrieve(near)
    memory.active_state = type(memory.active_state)()
    assert torch.equal(memory.retrieve(far).weights, fresh)


def test_a_query_that_is_not_finite_is_refused_when_it_comes(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM))
    memory.graph.add_concepts(rows(20))
    memory.save()
    memory.retrieve(rows(3))
    kept = memory.active_state.to_state()
    before = memory.stats()
    query = rows(2)
    query[1, 3] = float("nan")
    with pytest.MonkeyPatch.context() as context:
        context.setattr(  # as a device does: it finds nothing
            memory.graph, "seek", lambda q, k, bar: (torch.zeros(len(q), k), torch.full((len(q), k), -1))
        )
        memory.retrieve(query)
    with pytest.raises(AESGNavigationError, match="finite"):
        memory.save()
    assert memory.stats() == before and memory.active_state.to_state() == kept
    assert memory.retrieve(rows(3)).indices[0, 0] >= 0
    memory.save()


def test_the_steps_of_one_call_come_together(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM, novelty_birth_threshold=2))
    with memory.one_call():
        for seed in range(3):
            memory.retrieve(rows(4, seed % 2)[:, None])
        assert waiting(memory) == 0
    assert waiting(memory) == 1
    assert memory.storage.active_count == 4 and memory.stats()["queries"] == 12


def test_a_memory_that_is_dropped_loses_nothing_and_gives_its_directory_free(tmp_path, elsewhere) -> None:
    config = AESGConfig(vector_dim=DIM, novelty_birth_threshold=1)
    memory = with_copy(AESGMemory(tmp_path / "m", config))
    memory.retrieve(rows(5))
    gc.disable()
    try:
        del memory
        assert len(list(tmp_path.iterdir())) == 1
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_active_count, (tmp_path / "m",)) > 0
    finally:
        gc.enable()


def _active_count(directory: Path) -> int:
    with AESGMemory(directory) as memory:
        return memory.storage.active_count


def test_what_cannot_be_learnt_at_the_end_is_told(tmp_path, elsewhere) -> None:
    memory = with_copy(AESGMemory(tmp_path / "m", AESGConfig(vector_dim=DIM)))
    memory.retrieve(rows(5))
    memory.graph.seek = lambda q, k, bar: (torch.zeros(len(q), k), torch.full((len(q), k), -1))
    memory.retrieve(torch.full((1, DIM), float("inf")))
    with pytest.warns(RuntimeWarning, match=r"not learnt in '.*m': queries: expected finite"):
        memory.close()
    assert memory.closed


def test_memories_on_one_directory_learn_in_the_order_of_their_calls(make_memory, elsewhere) -> None:
    def life(name: str, use) -> tuple[list[torch.Tensor], dict]:
        one = make_memory(name, vector_dim=DIM, novelty_birth_threshold=2)
        other = AESGMemory(one.directory, one.config, clock=one._state.clock)
        use(one)
        use(other)
        told = []
        for seed in range(6):
            told += [one.retrieve(rows(4, seed // 2)).weights, other.retrieve(rows(4, seed // 3)).weights]
        other.update_topology()
        return told, one.stats()

    told, stats = life("copied", with_copy)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(Query, "on_host", property(lambda query: True))
        wanted, known = life("plain", lambda memory: None)
    assert all(torch.equal(one, other) for one, other in zip(told, wanted, strict=True))
    assert (stats["active"], stats["edges"], stats["births"]) == (
        known["active"], known["edges"], known["births"]
    )  # fmt: skip


def test_a_forked_child_leaves_what_is_awaited_alone(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM, novelty_birth_threshold=1))
    memory.retrieve(rows(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if memory.storage.core.active_count == 0 == memory.storage.active_count else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert memory.storage.active_count > 0


def test_a_compiled_model_asks_the_copy(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM))
    memory.graph.add_concepts(rows(50))
    query = rows(6, 3).requires_grad_()

    def ask(query: torch.Tensor) -> torch.Tensor:
        return memory.retrieve(query).aggregate().square().sum()

    compiled = torch.compile(ask, fullgraph=True, backend="aot_eager")
    (got,) = torch.autograd.grad(compiled(query), query)
    assert waiting(memory) == 1
    memory.reset_state()
    (wanted,) = torch.autograd.grad(ask(query), query)
    torch.testing.assert_close(got, wanted)


def test_what_is_rehearsed_leaves_no_trace(make_memory, elsewhere) -> None:
    memory = with_copy(make_memory(vector_dim=DIM))
    memory.graph.add_concepts(rows(50))
    memory.set_mode("INFERENCE")
    memory.retrieve(rows(4))
    layout = memory.made_ready(rows(4), 0)
    streams = memory._learner.there
    kept = [part.clone() for part in (streams.primary, streams.primary_ids, streams.energies)]
    with memory.rehearsing():
        memory.retrieve(rows(4, 1))
        assert not torch.equal(streams.primary, kept[0])
    now = [streams.primary, streams.primary_ids, streams.energies]
    assert all(torch.equal(one, other) for one, other in zip(now, kept, strict=True))
    assert waiting(memory) == 1 and memory.stats()["queries"] == 4
    memory.reset_state()
    assert memory.made_ready(rows(4), 0) == layout  # in place
    assert (streams.primary == -1).all()
    assert memory.made_ready(rows(9), 0) != layout
    memory.graph.use_copy(None)
    with (
        pytest.raises(AESGMemoryError, match="got one asked on the host"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(Query, "on_host", property(lambda query: True))
        memory.made_ready(rows(4), 0)


def test_only_a_gpu_captures(make_memory) -> None:
    with pytest.raises(AESGMemoryError, match="expected a memory that is asked on a CUDA device"):
        make_memory(vector_dim=DIM).capture(rows(3))


# -- with a GPU --------------------------------------------------------------------------------------------

there = torch.cuda.is_available() and has_cuda_kernels()
needs_cuda = pytest.mark.skipif(not there, reason="no CUDA device or kernels")


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("mode", ["TRAIN", "INFERENCE"])
def test_the_host_does_not_wait_for_a_retrieve(tmp_path, mode) -> None:
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=DIM), "cuda") as memory:
        memory.graph.add_concepts(rows(5000))
        memory.set_mode(mode)
        query = rows(32).cuda().requires_grad_()
        for _ in range(3):  # warm: modules, the allocators' memory, the copy
            memory.retrieve(query).weights.sum().backward()
            memory.update_topology()
        torch.cuda.synchronize()
        done = torch.cuda.Event()
        torch.cuda._sleep(1_000_000_000)  # hundreds of milliseconds
        for _ in range(1 if mode == "TRAIN" else 5):
            memory.retrieve(query).weights.sum().backward()
        done.record()
        assert not done.query()
        assert waiting(memory) == (1 if mode == "TRAIN" else 5)
        memory.update_topology()
        assert waiting(memory) == 0


@pytest.mark.cuda
@needs_cuda
def test_a_life_on_a_gpu_writes_what_the_host_writes(make_memory) -> None:
    def life(name: str, device: str) -> dict[str, bytes]:
        memory = make_memory(name, vector_dim=DIM, novelty_birth_threshold=2)
        memory.to(device)
        for step in range(12):
            query = torch.cat([rows(16, step // 2), rows(16, step // 3)]).to(device)
            memory.retrieve(query)
            memory.retrieve(query.flip(0), learn=False)
            memory.update_topology()
        memory.save()
        memory.close()
        return {path.name: path.read_bytes() for path in memory.directory.iterdir() if path.name != "LOCK"}

    assert life("gpu", "cuda") == life("host", "cpu")


@pytest.mark.cuda
@needs_cuda
def test_moving_a_memory_moves_where_it_is_asked(tmp_path) -> None:
    memory = AESGMemory(tmp_path / "m", AESGConfig(vector_dim=DIM))
    model = torch.nn.Sequential(torch.nn.Linear(DIM, DIM), memory)
    memory.graph.add_concepts(rows(100))
    model.to("cuda")
    assert memory.device.type == "cuda" and memory.asked_on == memory.device
    assert memory.retrieve(rows(3).cuda()).indices.is_cuda
    model.cpu()
    assert memory.device.type == "cpu" and memory.asked_on.type == "cpu"
    assert memory.stats()["queries"] == 3


@pytest.mark.cuda
@needs_cuda
def test_a_captured_retrieve_answers_as_an_eager_one(make_memory, tmp_path) -> None:
    eager, memory = make_memory("eager", vector_dim=DIM), make_memory("captured", vector_dim=DIM)
    for each in (eager, memory):
        each.to("cuda")
        each.graph.add_concepts(rows(3000))
        each.graph.add_edges(range(2000), range(1, 2001), [1.0] * 2000, [0.9] * 2000)
    captured = memory.capture(rows(8))
    for seed in range(12):
        if seed == 4:  # into the last group: the same buffers
            for each in (eager, memory):
                each.graph.add_concepts(rows(10, 99))
            assert captured.captures == 1
        if seed == 7:  # another group
            for each in (eager, memory):
                each.graph.add_concepts(rows(2000, 98))
        if seed == 9:
            for each in (eager, memory):
                each.reset_state()
        query = rows(8, seed).cuda()
        got, wanted = captured(query), eager.retrieve(query, learn=False)
        assert torch.equal(got.indices, wanted.indices) and torch.equal(got.weights, wanted.weights)
        assert torch.equal(got.vectors, wanted.vectors)
    assert captured.captures == 2
    assert memory.stats()["queries"] == 0
    with pytest.raises(AESGNavigationError, match="as captured"):
        captured(rows(9).cuda())


@pytest.mark.cuda
@needs_cuda
def test_what_a_cuda_graph_cannot_do_is_refused(tmp_path) -> None:
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=DIM), "cuda") as memory:
        memory.graph.add_concepts(rows(50))
        query = rows(4).cuda()
        memory.retrieve(query)
        for learn, text in ((True, "cannot learn"), (False, "changed since")):
            graph = torch.cuda.CUDAGraph()
            with pytest.raises(AESGMemoryError, match=text), torch.cuda.graph(graph):
                memory.retrieve(query, learn=learn)
        memory.retrieve(query, learn=False)
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            memory.retrieve(query, learn=False)


# What moves on the device in between: every call bears and the copy grows; or streams are asked that are new.
MOVING = {"copy": ("TRAIN", lambda step: 700), "streams": ("INFERENCE", lambda step: 2 + 3 * step)}


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize("mode, size", MOVING.values(), ids=MOVING)
def test_asked_on_other_cuda_streams(make_memory, mode, size) -> None:
    fields = {"vector_dim": DIM, "novelty_birth_threshold": 1}
    memory, plain = make_memory("there", **fields), make_memory("plain", **fields)
    for each in (memory, plain):
        each.graph.add_concepts(rows(500))
        each.set_mode(mode)
    memory.to("cuda")
    streams = [torch.cuda.Stream() for _ in range(3)]
    for step in range(9):
        query = rows(size(step), step)
        with torch.cuda.stream(streams[step % 3]):
            there = query.cuda(non_blocking=True)
            torch.cuda._sleep(50_000_000)
            got = memory.retrieve(there)
        wanted = plain.retrieve(query)
        torch.cuda.current_stream().wait_stream(streams[step % 3])
        assert torch.equal(got.indices.cpu(), wanted.indices)
        assert torch.equal(got.weights.cpu(), wanted.weights)
        assert torch.equal(got.vectors.cpu(), wanted.vectors)
