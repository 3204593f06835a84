"""What a device learns ahead of the store: the store, once it has taken everything in, holds the same bits.

Without a GPU the device is the CPU: a copy of the graph learns by the ops, the store by its own code.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aesg.graph import use_log
from aesg.graph.device_learning import DeviceLearning
from aesg.memory.calls import Query
from aesg.memory.controller import AESGMemory
from aesg.ops import COUNTERS

DIM = 16


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


def with_copy(memory: AESGMemory) -> AESGMemory:
    memory.graph.use_copy("cpu")
    return memory


def assert_same_as_store(memory: AESGMemory) -> None:
    """Everything that the copy learnt is what the store holds, to the last bit, and it stays in step."""
    memory._state.settle()
    copied, learning, state = memory.graph.copied, learning_of(memory), memory._state
    assert copied is not None and learning.in_step
    for seen, use in zip(learning._log, state.bare_log.pending, strict=True):
        for ours, theirs in zip(seen, (use.members, use.energies, use.previous, use.current), strict=True):
            assert np.array_equal(ours.numpy(), theirs)
    state.digest()  # whoever reads the store does that
    assert learning.in_step
    storage, core = state.bare_storage, state.bare_storage.core
    groups, blocks = core.node_groups, core.block_groups
    for name in ("vector", "id", "inv_norm", "region_id", "is_active", "use_frequency", "relevance", "age"):
        assert torch.equal(getattr(copied, name)[:groups], storage.column(name)), name
        assert not bool(getattr(copied, name)[groups:].any()), name
    edges = copied.edges
    assert torch.equal(edges.first_block[:groups], storage.column("first_block"))
    whole = torch.from_numpy(core.edge_view().copy()).view(torch.uint8).view(blocks, 160 * 1024)
    hot = whole[:, : 64 * 1024].reshape(blocks, 1024, 64)
    cold = whole[:, 64 * 1024 :].reshape(blocks, 1024, 96)
    parts = {
        "targets": hot[..., :28], "strengths": hot[..., 28:56], "next_block": hot[..., 56:60],
        "counts": hot[..., 60:], "weights": cold[..., :28], "confidences": cold[..., 28:56],
        "use_counts": cold[..., 56:84], "tags": cold[..., 84:91], "sources": cold[..., 92:],
    }  # fmt: skip
    for name, part in parts.items():
        ours = getattr(edges, name)[:blocks].contiguous().flatten().view(torch.uint8)
        assert torch.equal(ours, part.flatten()), name
    assert learning._counters.tolist() == [getattr(core.counters, name) for name in COUNTERS]
    pool = state.bare_pool
    for ours, theirs in zip(
        learning._pool, (pool.candidates, pool.counts, pool.stamps, pool.state), strict=True
    ):
        assert torch.equal(ours, theirs)


FIELDS = {
    "plain": {},
    "few": {"max_concepts": 40, "prune_min_age": 1, "survival_threshold_relevance": 0.97},
    "links": {"link_count": 9, "link_min_similarity": 0.2},
    "finetune": {"memory_mode": "FINETUNE", "novelty_birth_threshold": 1, "max_concepts": 60},
    "online": {"memory_mode": "ONLINE", "max_concepts": 50},
    "one hop": {"spreading_activation_steps": 1, "context_size": 2, "seed_top_k": 1},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_life_is_learnt_ahead_to_the_last_bit(make_memory, monkeypatch, fields) -> None:
    monkeypatch.setattr(use_log, "MAX_PENDING_ROWS", 90)
    monkeypatch.setattr("aesg.graph.device_learning.MAX_PENDING_ROWS", 90)
    fields = {"vector_dim": DIM, "novelty_birth_threshold": 2, "consolidation_epoch_interval": 9, **fields}
    memory = with_copy(make_memory(**fields))
    memory.graph.add_concepts(rows(5, seed=1))
    patterns, learning, ahead = rows(60, seed=7), learning_of(memory), 0
    for step in range(30):
        generator = torch.Generator().manual_seed(step)
        which = torch.randint(0, 20 + step, (6, 5), generator=generator)
        batch = patterns[which] + 0.1 * torch.randn(6, 5, DIM, generator=generator)
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
    assert memory.check() == []
