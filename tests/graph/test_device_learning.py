"""What a device learns ahead of the store: the store, once it has taken everything in, holds the same bits.

Without a GPU the device is the CPU: a copy of the graph learns by the ops, the store by its own code.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aesg._extension import has_cuda_kernels
from aesg.config import AESGConfig
from aesg.exceptions import AESGNavigationError
from aesg.graph import use_log
from aesg.graph.device_learning import DeviceLearning
from aesg.graph.query_mean import QueryMean
from aesg.memory.calls import Query
from aesg.memory.controller import AESGMemory
from aesg.ops import COUNTERS

DIM = 16
there = torch.cuda.is_available() and has_cuda_kernels()
needs_cuda = pytest.mark.skipif(not there, reason="no CUDA device or kernels")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, needs_cuda])]


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query counts as one that another device answers."""
    monkeypatch.setattr(Query, "on_host", property(lambda query: False))


def learning_of(memory: AESGMemory) -> DeviceLearning:
    copied = memory.graph.copied
    assert copied is not None and copied.learning is not None
    return copied.learning


def waiting(memory: AESGMemory) -> int:
    assert memory._state.awaited is not None
    return len(memory._state.awaited._queue)


def with_copy(memory: AESGMemory, device: str = "cpu") -> AESGMemory:
    memory.graph.use_copy(device)
    return memory


def assert_same_as_store(memory: AESGMemory) -> None:
    """Everything that the copy learnt is what the store holds, to the last bit, and it stays in step."""
    memory._state.settle()
    copied, learning, state = memory.graph.copied, learning_of(memory), memory._state
    assert copied is not None and learning.in_step
    for seen, use in zip(learning._log, state.bare_log.pending, strict=True):
        for ours, theirs in zip(seen, (use.members, use.energies, use.previous, use.current), strict=True):
            assert np.array_equal(ours.cpu().numpy(), theirs)
    state.digest()  # whoever reads the store does that
    assert learning.in_step
    storage, core = state.bare_storage, state.bare_storage.core
    groups, blocks = core.node_groups, core.block_groups
    for name in ("vector", "id", "inv_norm", "region_id", "is_active", "use_frequency", "relevance", "age"):
        assert torch.equal(getattr(copied, name)[:groups].cpu(), storage.column(name)), name
        assert not bool(getattr(copied, name)[groups:].any()), name
    lengths, wanted = copied.inverse_norms(state.bare_queries), state.bare_queries.inverse_norms(storage)
    assert len(lengths) == len(copied.vector) and torch.equal(lengths[:groups].cpu(), wanted)
    edges = copied.edges
    assert torch.equal(edges.first_block[:groups].cpu(), storage.column("first_block"))
    whole = torch.from_numpy(core.edge_view().copy()).view(torch.uint8).view(blocks, 160 * 1024)
    hot = whole[:, : 64 * 1024].reshape(blocks, 1024, 64)
    cold = whole[:, 64 * 1024 :].reshape(blocks, 1024, 96)
    parts = {
        "targets": hot[..., :28], "strengths": hot[..., 28:56], "next_block": hot[..., 56:60],
        "counts": hot[..., 60:], "weights": cold[..., :28], "confidences": cold[..., 28:56],
        "use_counts": cold[..., 56:84], "tags": cold[..., 84:91], "sources": cold[..., 92:],
    }  # fmt: skip
    for name, part in parts.items():
        ours = getattr(edges, name)[:blocks].contiguous().cpu().flatten().view(torch.uint8)
        assert torch.equal(ours, part.flatten()), name
    assert learning._counters.tolist() == [getattr(core.counters, name) for name in COUNTERS]
    pool = state.bare_pool
    for ours, theirs in zip(
        learning._pool, (pool.candidates, pool.counts, pool.stamps, pool.state), strict=True
    ):
        assert torch.equal(ours.cpu(), theirs)


FIELDS = {
    "plain": {},
    "few": {"max_concepts": 40, "prune_min_age": 1, "survival_threshold_relevance": 0.97},
    "links": {"link_count": 9, "link_min_similarity": 0.2},
    "finetune": {"memory_mode": "FINETUNE", "novelty_birth_threshold": 1, "max_concepts": 60},
    "online": {"memory_mode": "ONLINE", "max_concepts": 50},
    "common part": {"query_collapse_threshold": 0.5, "novelty_explanation_threshold": 0.9},
    "one hop": {"spreading_activation_steps": 1, "context_size": 2, "seed_top_k": 1},
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_life_is_learnt_ahead_to_the_last_bit(make_memory, monkeypatch, fields, device) -> None:
    monkeypatch.setattr(use_log, "MAX_PENDING_ROWS", 90)
    monkeypatch.setattr("aesg.graph.device_learning.MAX_PENDING_ROWS", 90)
    fields = {"vector_dim": DIM, "novelty_birth_threshold": 2, "consolidation_epoch_interval": 9, **fields}
    common = None
    if "query_collapse_threshold" in fields:  # decided here: so few queries do not show it
        common = torch.nn.functional.normalize(rows(1)[0].double(), dim=0)
        monkeypatch.setattr(QueryMean, "settle", lambda queries, *_: common if queries.seen else None)
    memory = with_copy(make_memory(**fields), device)
    memory.graph.add_concepts(rows(5, seed=1))
    patterns, learning, ahead = rows(60, seed=7), learning_of(memory), 0
    if common is not None:
        patterns += 4 * common.float()
    for step in range(30):
        generator = torch.Generator().manual_seed(step)
        which = torch.randint(0, 20 + step, (6, 5), generator=generator)
        batch = (patterns[which] + 0.1 * torch.randn(6, 5, DIM, generator=generator)).to(device)
        memory.retrieve(batch[:, 0])
        memory.retrieve(batch)
        memory.retrieve(batch[0, 0], batch_idx=3)
        memory.retrieve(batch[:, 2], learn=step % 3 > 0)
        with memory.one_call(step % 2 == 0):
            for at in range(5):
                memory.retrieve(batch[:, at : at + 1])
        memory.reset_state([step % 4])
        memory.update_topology()
        memory.retrieve(batch[:2, 3])
        ahead += waiting(memory) > 5
        if step % 3 == 0:
            if waiting(memory) > 5:
                assert_same_as_store(memory)
            else:
                memory._state.settle()
        if step == 12:
            memory.save()
            assert_same_as_store(memory)
        if step == 15:
            memory.forget(query=patterns[3], radius=0.2)
            memory.graph.add_concepts(rows(1500, seed=3))
            memory.graph.add_edges(range(100, 140), range(101, 141), [0.5] * 40, [0.5] * 40)
    assert ahead > 20 and learning.epoch < 12
    assert memory.check() == [] and memory.stats()["common_part_removed"] == (common is not None)


def test_the_host_waits_for_what_it_alone_can_do(make_memory) -> None:
    """Sweeps, and another common part to leave out of likeness; then the device goes on by itself."""
    memory = with_copy(make_memory(vector_dim=DIM, consolidation_epoch_interval=3))
    memory.graph.add_concepts(rows(50))
    learning = learning_of(memory)
    for step in range(1, 7):
        memory.retrieve(rows(4, seed=step))
        memory.update_topology()
        assert waiting(memory) == (0 if step % 3 == 0 else 2 * (step % 3))
    assert learning.epoch == 2
    for common in (torch.nn.functional.normalize(rows(1)[0].double(), dim=0), None):
        memory._state.queries.take(common)
        for seed in range(1, 3):
            memory.retrieve(rows(4, seed=seed))
            assert waiting(memory) == seed and learning.in_step
        assert_same_as_store(memory)


def test_what_the_device_learnt_is_not_brought(make_memory) -> None:
    memory = with_copy(make_memory(vector_dim=DIM, novelty_birth_threshold=1))
    memory.graph.add_concepts(rows(50))
    copied = memory.graph.copied
    memory.retrieve(rows(4, seed=1))
    assert copied is not None
    before = copied.copied_groups
    for seed in range(20):
        memory.retrieve(rows(9, seed=seed))
        if seed % 4 == 3:
            memory.update_topology()
        if seed % 7 == 6:
            memory.save()
    assert memory.storage.active_count > 60
    memory.retrieve(rows(4, seed=1))
    assert copied.copied_groups == before
    memory.update_concept(3, rows(1)[0])  # the first group of vectors, and its norms
    memory.retrieve(rows(4, seed=1))
    assert copied.copied_groups == (before[0] + 1, before[1] + 1, before[2])
    assert_same_as_store(memory)


def test_a_query_that_is_not_finite_costs_the_device_what_it_learnt(make_memory) -> None:
    memory = with_copy(make_memory(vector_dim=DIM, novelty_birth_threshold=1))
    memory.graph.add_concepts(rows(50))
    memory.retrieve(rows(4, seed=1))
    query = rows(2)
    query[1, 3] = float("nan")
    memory.graph.seek = lambda q, k, bar: (torch.zeros(len(q), k), torch.full((len(q), k), -1))
    memory.retrieve(query)  # as a device does: it finds nothing
    del memory.graph.seek
    with pytest.raises(AESGNavigationError, match="finite"):
        memory._state.settle()
    assert learning_of(memory).lost
    memory.retrieve(rows(4, seed=3))
    memory.retrieve(rows(4, seed=4))
    assert waiting(memory) == 2
    assert_same_as_store(memory)


def test_stamps_are_those_of_the_call(tmp_path) -> None:
    """Not of when the host came to know."""
    now = [100.0]
    config = AESGConfig(vector_dim=DIM, novelty_birth_threshold=1)
    memory = with_copy(AESGMemory(tmp_path / "m", config, clock=lambda: now[0]))
    memory.graph.add_concepts(rows(5))
    for second in range(3):
        now[0] = 200.0 + second
        memory.retrieve(rows(3, seed=second + 1))
    memory.update_topology()
    now[0] = 900.0
    assert sorted(set(memory.storage.nodes["created_at"][:].tolist())) == [100, 200, 201, 202]
    history = memory.logger.get_history().array
    assert int(history["timestamp"].max()) == 202
    memory.close()
