"""The copy of the graph on a device: equal to the store after anything, for the price of what changed.

Without a GPU the device is the CPU: a true copy all the same, and the way over the device is taken by hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aesg._extension import has_cuda_kernels
from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.graph import device_groups, streamed_vectors
from aesg.graph.device_copy import DeviceCopy
from aesg.graph.query_mean import QueryMean
from aesg.memory.calls import Query
from aesg.memory.controller import AESGMemory
from aesg.memory.navigation import HOST, Navigator

DIM = 16
there = torch.cuda.is_available() and has_cuda_kernels()
needs_cuda = pytest.mark.skipif(not there, reason="no CUDA device or kernels")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, needs_cuda])]


def rows(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


def columns(storage) -> list[torch.Tensor]:
    names = ("vector", "id", "inv_norm", "region_id", "is_active")
    return [*(storage.column(name) for name in names), *storage.edge_blocks()]


def of_copy(copied: DeviceCopy) -> list[torch.Tensor]:
    copied.refresh()
    here = [copied.vector, copied.id, copied.inv_norm, copied.region_id, copied.is_active]
    return [*here, *copied.edge_blocks]


def assert_equal(copied: DeviceCopy, storage) -> None:
    for one, other in zip(of_copy(copied), columns(storage), strict=True):
        assert one.dtype == other.dtype and one.device == copied.device
        assert torch.equal(one.cpu(), other)


def brought(copied: DeviceCopy) -> tuple[int, int, int]:
    """Groups that the next refresh brings: of vectors, of other columns, of blocks."""
    before = copied.copied_groups
    copied.refresh()
    return tuple(now - then for now, then in zip(copied.copied_groups, before, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_it_equals_the_store_after_anything(make_memory, device) -> None:
    memory = make_memory(
        vector_dim=DIM, consolidation_epoch_interval=3, region_detection_interval=2, novelty_birth_threshold=1
    )
    copied = DeviceCopy(memory.storage, device)
    assert_equal(copied, memory.storage)  # nothing at all
    random = np.random.default_rng(3)

    def link() -> None:
        living = np.flatnonzero(memory.storage.column("is_active").numpy().reshape(-1))
        ends = random.choice(living, (2, 400))
        ends = ends[:, ends[0] != ends[1]]
        memory.graph.add_edges(ends[0], ends[1], random.random(ends.shape[1]), random.random(ends.shape[1]))

    def forget() -> None:
        living = memory.storage.column("is_active").numpy().reshape(-1) > 0
        ids = memory.storage.column("id").numpy().reshape(-1)[living]
        memory.forget(random.choice(ids, 60, replace=False))

    acts = [
        lambda: memory.graph.add_concepts(rows(int(random.integers(1, 700)), int(random.integers(99)))),
        link,
        forget,
        lambda: memory.storage.update([1, 5], vector=rows(2, 5).numpy()),
        lambda: memory.retrieve(rows(20, int(random.integers(5)))),
        memory.update_topology,
        memory.save,
        memory.compact,
    ]
    memory.graph.add_concepts(rows(1500))
    for act in random.integers(0, len(acts), 80):
        acts[act]()
        assert_equal(copied, memory.storage)
    assert memory.storage.core.node_groups > 3 and memory.storage.core.block_groups > 1
    assert brought(copied) == (0, 0, 0)


@pytest.mark.parametrize("device", DEVICES)
def test_only_what_changed_is_brought(make_memory, device) -> None:
    memory = make_memory(vector_dim=DIM)
    memory.graph.add_concepts(rows(5000))  # 5 groups
    copied = DeviceCopy(memory.storage, device)
    assert brought(copied) == (5, 5, 0)
    assert brought(copied) == (0, 0, 0)
    memory.graph.add_edges([1500], [7], [1.0], [1.0])  # the source gets its first block
    assert brought(copied) == (0, 1, 1)
    memory.graph.add_edges([1500], [7], [0.5], [0.5])
    assert brought(copied) == (0, 0, 1)
    memory.update_concept(3000, rows(1, 1)[0])
    assert brought(copied) == (1, 1, 0)
    memory.storage.update([1, 4500], relevance=0.5, age=2, use_frequency=4)  # nothing that retrieval reads
    memory.save()
    assert brought(copied) == (0, 0, 0)
    memory.storage.update([1, 4500], region_id=2)
    assert brought(copied) == (0, 2, 0)
    memory.graph.add_concepts(rows(200, 2))  # into the last group and one more
    assert brought(copied) == (2, 2, 0)
    assert_equal(copied, memory.storage)


def test_its_layout_tells_when_captured_work_no_longer_fits(make_memory) -> None:
    memory = make_memory(vector_dim=DIM)
    health = memory.graph.state.queries
    memory.graph.add_concepts(rows(100))
    copied = DeviceCopy(memory.storage, "cpu")

    def layout() -> tuple[int, ...]:
        copied.refresh()
        return copied.layout(health)

    first = layout()
    memory.graph.add_concepts(rows(100))  # into the same group
    memory.storage.update([1], region_id=2)
    assert layout() == first
    memory.graph.add_edges([1], [2], [1.0], [1.0])  # the first block
    second = layout()
    assert second != first
    memory.graph.add_concepts(rows(1000))
    third = layout()
    assert third != second
    health.take(torch.nn.functional.normalize(rows(1)[0].double(), dim=0))
    fourth = layout()
    assert fourth != third and layout() == fourth
    memory.update_concept(5, rows(1, 3)[0])
    assert layout() == fourth


def test_it_grows_by_half_at_least_and_goes_in_portions(make_memory, monkeypatch) -> None:
    memory = make_memory(vector_dim=DIM)
    monkeypatch.setattr(device_groups, "STAGED_BYTES", 3 * 1024 * DIM * 4)  # three groups of vectors
    copied = DeviceCopy(memory.storage, "cpu")
    sizes = []
    for seed in range(20):
        memory.graph.add_concepts(rows(1024, seed))
        assert_equal(copied, memory.storage)
        sizes.append(len(copied._vectors._words))
    assert sizes[:5] == [1, 2, 3, 4, 6] and len(set(sizes)) <= 9
    fresh = DeviceCopy(memory.storage, "cpu")
    assert_equal(fresh, memory.storage)
    assert fresh.copied_groups == (20, 20, 0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [0, 1, 1024, 4096, 5000])
def test_a_search_through_slabs_is_the_search(make_memory, monkeypatch, device, n) -> None:
    monkeypatch.setattr(streamed_vectors, "SLAB_BYTES", 2 * 1024 * DIM * 4)
    memory = make_memory(vector_dim=DIM)
    memory.graph.add_concepts(rows(n // 2).repeat(2, 1) if n > 1 else rows(n))  # ties across slabs
    copied = DeviceCopy(memory.storage, device, "host")
    health = memory.graph.state.queries
    for k, bar in ((4, 0.1), (30, -1.0), (700, 0.3)):
        for _ in range(2):
            copied.refresh()
            wanted = memory.graph.search(rows(9, 3), k, bar)
            got = copied.search(rows(9, 3).to(device), k, bar, health)
            assert all(torch.equal(one.cpu(), other) for one, other in zip(got, wanted, strict=True))
            if n > 2:
                memory.forget(ids=[int(memory.storage.column("id").reshape(-1)[int(wanted[1][0, 0])])])
                memory.update_concept(n - 2, rows(1, k)[0])


def test_memory_that_is_missing_is_told(make_memory, monkeypatch) -> None:
    memory = make_memory(vector_dim=DIM)
    memory.graph.add_concepts(rows(5000))
    copied = DeviceCopy(memory.storage, "cpu")

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as context:
        context.setattr(torch.Tensor, "new_empty", refuse)
        with pytest.raises(AESGMemoryError, match=r"needs 0.00 GiB in one piece.* residency='host'"):
            copied.refresh()
    assert_equal(copied, memory.storage)  # nothing was spoilt


def test_a_restored_smaller_state_and_a_closed_store(make_memory, tmp_path) -> None:
    small, memory = make_memory("small", vector_dim=DIM), make_memory(vector_dim=DIM)
    small.graph.add_concepts(rows(10, 1))
    small.save()
    memory.graph.add_concepts(rows(3000))
    memory.graph.add_edges([1, 2, 3], [5, 6, 7], [1.0] * 3, [1.0] * 3)
    copied = DeviceCopy(memory.storage, "cpu")
    assert_equal(copied, memory.storage)
    memory.restore(small.directory)
    assert_equal(copied, memory.storage)
    assert memory.storage.active_count == 10 == int(copied.is_active.sum())
    memory.graph.add_concepts(rows(5, 2))
    memory.close()
    assert_equal(copied, memory.storage)  # what was seen last stays readable


def test_a_reader_follows_the_writer(make_memory) -> None:
    writer = make_memory(vector_dim=DIM)
    writer.graph.add_concepts(rows(100))
    writer.save()
    reader = make_memory(vector_dim=DIM, read_only=True)
    copied = DeviceCopy(reader.storage, "cpu")
    assert_equal(copied, reader.storage)
    writer.graph.add_concepts(rows(2000, 1))
    writer.graph.add_edges([1], [2], [1.0], [1.0])
    writer.save()
    assert brought(copied) == (0, 0, 0)
    assert reader.storage.refresh()
    assert_equal(copied, reader.storage)
    assert len(copied.vector) == 3


def test_memories_on_one_directory_share_a_copy(make_memory) -> None:
    one, other = make_memory(vector_dim=DIM), make_memory(vector_dim=DIM)
    one.graph.use_copy("cpu")
    other.graph.use_copy("cpu")
    assert one.graph.copied is other.graph.copied
    one.graph.use_copy(None)
    assert one.graph.copied is None and other.graph.copied is not None


# -- a memory with a copy and one without ------------------------------------------------------------------


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.name != "LOCK"}


def told(context) -> list[torch.Tensor]:
    return [context.vectors, context.weights, context.indices, context.explanation]


def life(memory: AESGMemory, use) -> list[torch.Tensor]:
    """All that a memory answers in a life of births, links, use, merges, deaths, saving and restoring. `use`
    is called with every memory that is opened. The last: in how many steps likeness left out a common part.
    """
    answers: list[torch.Tensor] = []
    config, directory, clock = memory.config, memory.directory, memory._state.clock
    patterns, leaving_out = rows(60, 7), 0
    use(memory)
    for step in range(24):
        generator = torch.Generator().manual_seed(step)
        which = torch.randint(0, 60, (6, 5), generator=generator)
        batch = patterns[which] + 0.1 * torch.randn(6, 5, DIM, generator=generator)
        batch = batch + (3.0 if step > 4 else 0.0)
        memory.train(step % 2 == 0)
        answers += told(memory.retrieve(batch[:, 0]))
        answers += told(memory.retrieve(batch[:, 1]))  # primed by the last
        answers += told(memory.retrieve(batch))
        answers += told(memory.retrieve(batch[0, 0], batch_idx=3))
        with torch.no_grad():
            answers += told(memory.retrieve(batch[:, 2], learn=step % 3 > 0))
        with_gradient = batch[:, 3].clone().requires_grad_()
        context = memory.retrieve(with_gradient)
        context.weights.square().sum().backward()
        answers += [*told(context), with_gradient.grad]
        for traced in (False, True):
            with memory.one_call(traced):
                for at in range(5):
                    answers += told(memory.retrieve(batch[:, at : at + 1]))
                if traced:
                    answers += told(memory.retrieve_again(batch))
        memory.update_topology()
        if step == 5:
            memory.graph.add_concepts(rows(2500, 11))
        if step == 9:
            memory.forget(query=patterns[3], radius=0.2)
        if step == 11:
            memory.snapshot(directory.parent / f"{directory.name}-early")
        if step in (10, 14, 18):
            memory.set_mode({10: "FINETUNE", 14: "INFERENCE", 18: "ONLINE"}[step])
        if step == 16:
            memory.set_mode("TRAIN")
            memory.close()
            memory = AESGMemory(directory, config, clock=clock)
            use(memory)
        if step == 20:
            memory.restore(directory.parent / f"{directory.name}-early")
        memory.reset_state([step % 4])
        told_of = memory.stats()
        answers += [memory._learner.work.spread._recent(), torch.tensor(told_of["mean_explanation"])]
        leaving_out += told_of["common_part_removed"]
    memory.save()
    assert memory.check() == []
    memory.close()
    answers.append(torch.tensor(leaving_out))
    return [answer.detach().clone() for answer in answers]


def over_the_device(monkeypatch) -> list[bool]:
    """Answers are taken over as from another device wherever one would be asked; which calls those were."""
    asked_there: list[bool] = []
    check = Navigator.check

    def noting(self, query, streams, batch_idx, device=HOST):
        asked_there.append(device is not HOST)  # the copy's device is equal, but another object
        return check(self, query, streams, batch_idx, device)

    monkeypatch.setattr(Navigator, "check", noting)
    monkeypatch.setattr(Query, "on_host", property(lambda query: not asked_there[-1]))
    return asked_there


FIELDS = {
    "plain": {},
    "collapsed": {"query_collapse_threshold": 0.5},
    "unprimed": {"priming": 0.0, "spreading_activation_steps": 4},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("by_hand", [False, True], ids=["in place", "taken over"])
@pytest.mark.parametrize("residency", ["device", "host"])
def test_a_life_with_a_copy_is_the_same(make_memory, monkeypatch, fields, by_hand, residency) -> None:
    monkeypatch.setattr(streamed_vectors, "SLAB_BYTES", 2 * 1024 * DIM * 4)  # two groups, so that one is left
    fields = {
        "vector_dim": DIM, "consolidation_epoch_interval": 4, "region_detection_interval": 3,
        "novelty_birth_threshold": 2, "merge_similarity_threshold": 0.9, **fields,
    }  # fmt: skip
    if "query_collapse_threshold" in fields:  # decided here: so few queries do not show it
        common = torch.nn.functional.normalize(torch.ones(DIM, dtype=torch.float64), dim=0)
        monkeypatch.setattr(QueryMean, "settle", lambda *_: common)
    without = make_memory("without", **fields)
    plain = life(without, lambda memory: None)
    taken = over_the_device(monkeypatch) if by_hand else []
    with_copy = make_memory("with", **fields)
    copied = life(with_copy, lambda memory: memory.graph.use_copy("cpu", residency))
    assert len(plain) == len(copied)
    for place, (one, other) in enumerate(zip(plain, copied, strict=True)):
        assert torch.equal(one, other), place
    assert contents(without.directory) == contents(with_copy.directory)
    assert all(taken) and len(taken) > (400 if by_hand else -1)
    if "query_collapse_threshold" in fields:
        assert int(plain[-1]) > 5


def test_likeness_without_the_common_part(make_memory) -> None:
    memory = make_memory(vector_dim=DIM)
    memory.graph.add_concepts(rows(3000))
    for turn in range(3):
        common = torch.nn.functional.normalize(rows(1, turn)[0].double(), dim=0)
        memory.graph.state.queries.take(common)
        plain = memory.graph.seek(rows(9, 4), 4, 0.1)
        memory.graph.use_copy("cpu")
        assert all(map(torch.equal, plain, memory.graph.seek(rows(9, 4), 4, 0.1)))
        memory.update_concept(2000 + turn, rows(1, 8)[0])
        changed = memory.graph.seek(rows(9, 4), 4, 0.1)
        memory.graph.use_copy(None)
        assert all(map(torch.equal, changed, memory.graph.seek(rows(9, 4), 4, 0.1)))


# -- with a GPU --------------------------------------------------------------------------------------------


@pytest.mark.cuda
@needs_cuda
def test_a_memory_on_a_gpu_answers_there_as_on_the_host(make_memory, tmp_path) -> None:
    host = make_memory("host", vector_dim=DIM)
    host.graph.add_concepts(rows(5000))
    host.graph.add_edges(range(4000), range(1, 4001), [1.0] * 4000, [0.9] * 4000)
    host.save()
    for mode in ("INFERENCE", "TRAIN"):
        with AESGMemory(tmp_path / f"gpu-{mode}", host.config, device="cuda", clock=host._state.clock) as gpu:
            gpu.restore(host.directory)
            gpu.set_mode(mode)
            host.set_mode(mode)
            host.reset_state()
            for seed in range(4):
                query = rows(33, seed)
                wanted, got = host.retrieve(query, learn=False), gpu.retrieve(query.cuda(), learn=False)
                assert all(part.is_cuda for part in told(got))
                torch.testing.assert_close(got.explanation.cpu(), wanted.explanation)
                # A likeness rounded otherwise may let a member in or out.
                assert torch.isclose(got.weights.cpu(), wanted.weights).float().mean() > 0.99
                assert (got.indices.cpu() == wanted.indices).float().mean() > 0.99
            assert not gpu.retrieve(query, learn=False).vectors.is_cuda


@pytest.mark.cuda
@needs_cuda
def test_a_memory_on_a_gpu_learns_and_sees_it_at_once(tmp_path) -> None:
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=DIM, novelty_birth_threshold=1), "cuda") as memory:
        for _ in range(3):
            memory.retrieve(rows(50).cuda())
            memory.update_topology()
        assert memory.storage.active_count > 40
        context = memory.retrieve(rows(50).cuda())
        assert float(context.explanation.min()) >= memory.config.novelty_explanation_threshold
        slots = memory.graph.add_concepts(rows(2000, 9))
        assert memory.retrieve(rows(2000, 9)[-1:].cuda()).indices[0, 0] == int(slots[-1])
        with_gradient = rows(4).cuda().requires_grad_()
        memory.retrieve(with_gradient).weights.sum().backward()
        assert with_gradient.grad is not None and with_gradient.grad.is_cuda
        with pytest.raises(AESGNavigationError, match="finite"):
            memory.retrieve(torch.full((2, DIM), float("nan"), device="cuda"))
        assert memory.check() == []
