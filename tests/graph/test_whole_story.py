"""A whole life against a slow, obvious model: who lives, who is linked, and that the events tell it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aesg.config import AESGConfig
from aesg.memory.controller import AESGMemory

DIM = 8
number = st.integers(0, 10**6)


def replay(history: np.ndarray) -> set[int]:
    """Living ids, from the events alone."""
    living: set[int] = set()
    for kind, id1, id2 in zip(history["type"], history["id1"], history["id2"], strict=True):
        if kind == 0:
            assert int(id1) not in living
            living.add(int(id1))
        elif kind == 1:
            assert int(id1) in living
            living.remove(int(id2))
        elif kind == 2:
            assert int(id1) in living and int(id2) not in living
            living.add(int(id2))
        elif kind == 3:
            living.remove(int(id1))
    return living


class Life(RuleBasedStateMachine):
    """The model knows living ids and, by ids, the edges of abstraction and those put by hand."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="aesg-life-"))
        self.generator = torch.Generator().manual_seed(0)
        self.config = AESGConfig(
            vector_dim=DIM,
            novelty_birth_threshold=2,
            consolidation_epoch_interval=3,
            region_detection_interval=4,
            coactivation_threshold_create=4,
            split_density_threshold=6,
            max_concepts=40,
        )
        self.memory = AESGMemory(self.directory, self.config, clock=lambda: 0.0)
        self.removed: set[int] = set()

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            self.memory.close()
            shutil.rmtree(self.directory)

    def slots(self) -> np.ndarray:
        return np.flatnonzero(self.memory.storage.nodes["is_active"][: self.memory.storage.node_count])

    def ids(self) -> set[int]:
        return set(self.memory.storage.nodes["id"][self.slots()].tolist()) if len(self.slots()) else set()

    def pick(self, which: int) -> int:
        slots = self.slots()
        return int(slots[which % len(slots)])

    def some(self) -> bool:
        return len(self.slots()) >= 3

    def id_of(self, slot: int) -> int:
        return int(self.memory.storage.nodes["id"][slot])

    @rule(n=st.integers(1, 12))
    def add(self, n: int) -> None:
        before = self.ids()
        slots = self.memory.graph.add_concepts(torch.randn(n, DIM, generator=self.generator))
        born = set(self.memory.storage.nodes["id"][slots].tolist())
        assert len(born) == n and not born & before and not born & self.removed
        assert self.ids() == before | born

    @rule(n=st.integers(1, 6))
    def ask(self, n: int) -> None:
        before = self.ids()
        self.memory.retrieve(torch.randn(n, 2, DIM, generator=self.generator))
        assert before <= self.ids()  # asking kills nobody

    @precondition(lambda self: self.some())
    @rule(which=number, n=st.integers(1, 4))
    def ask_for_known(self, which: int, n: int) -> None:
        vector = self.memory.graph.get_node_vector(self.pick(which))
        found = self.memory.retrieve(vector + 0.1 * torch.randn(n, DIM, generator=self.generator))
        active = self.memory.storage.nodes["is_active"]
        assert all(active[slot] for slot in found.activated_nodes)

    @precondition(lambda self: self.some())
    @rule(a=number, b=number, kind=st.integers(0, 1))
    def link(self, a: int, b: int, kind: int) -> None:
        one, other = self.pick(a), self.pick(b)
        if one == other:
            return
        count = self.memory.storage.edge_count
        fresh = self.memory.graph.add_edges([one], [other], [1.0], [0.9], kind)
        assert self.memory.storage.edge_count == count + fresh
        edges = self.memory.storage.get_edges(one)
        assert ((edges["target"] == other) & (edges["kind"] == kind)).sum() == 1

    @rule()
    def update(self) -> None:
        before, sweeps = self.ids(), self.memory.stats()["sweeps"]
        self.memory.update_topology()
        if self.memory.stats()["sweeps"] > sweeps:
            living = set(self.slots().tolist())
            assert all(
                set(self.memory.storage.get_edges(slot)["target"].tolist()) <= living for slot in living
            )
        assert len(self.ids()) <= self.config.max_concepts
        self.removed |= before - self.ids()

    @precondition(lambda self: self.some())
    @rule(a=number, b=number)
    def merge(self, a: int, b: int) -> None:
        one, other = self.pick(a), self.pick(b)
        if one == other:
            return
        before, gone = self.ids(), self.id_of(other)
        assert self.memory.cognitive_engine.merge_concepts(one, other) == one
        assert self.ids() == before - {gone}
        self.removed.add(gone)

    @precondition(lambda self: self.some())
    @rule(which=number)
    def split(self, which: int) -> None:
        before = self.ids()
        fresh = self.memory.cognitive_engine.split_concept(self.pick(which))
        assert self.ids() == (before if fresh is None else before | {self.id_of(fresh)})

    @precondition(lambda self: self.some())
    @rule(a=number, b=number)
    def abstract(self, a: int, b: int) -> None:
        parents = sorted({self.pick(a), self.pick(b)})
        before = self.ids()
        fresh = self.memory.cognitive_engine.create_abstract_concept(parents)
        assert self.ids() == before | {self.id_of(fresh)}

    @precondition(lambda self: self.some())
    @rule(which=number)
    def forget(self, which: int) -> None:
        before, gone = self.ids(), self.id_of(self.pick(which))
        died = self.memory.forget(ids=[gone])
        after = self.ids()
        assert gone not in after and after < before and len(before) - len(after) == died
        self.removed |= before - after
        dead = self.memory.storage.nodes["is_active"][: self.memory.storage.node_count] == 0
        assert not self.memory.storage.nodes["vector"][: len(dead)][dead].any()

    @rule()
    def save(self) -> None:
        self.memory.save()
        assert self.memory.storage.verify() == []

    @rule()
    def reopen(self) -> None:
        before, edges = self.ids(), self.memory.storage.edge_count
        self.memory.close()
        self.memory = AESGMemory(self.directory, clock=lambda: 0.0)
        assert self.memory.config == self.config
        assert (self.ids(), self.memory.storage.edge_count) == (before, edges)

    @invariant()
    def sound(self) -> None:
        if not hasattr(self, "memory"):
            return
        assert self.memory.check() == []
        living = self.ids()
        relevance = self.memory.storage.nodes["relevance"][self.slots()]
        assert ((relevance >= 0) & (relevance <= 1)).all(), "nothing here was imported"
        assert len(living) == self.memory.storage.active_count
        assert replay(self.memory.logger.get_history().array) == living
        assert not living & self.removed, "no identity comes back"
        assert self.memory.storage.edge_count == sum(
            len(self.memory.storage.get_edges(int(slot))) for slot in self.slots()
        )


Life.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase


def test_a_sweep_leaves_no_edge_to_the_dead(make_memory):
    memory = make_memory(max_concepts=50)
    slots = memory.graph.add_concepts(torch.randn(200, 16))
    memory.graph.add_edges(slots[:-1], slots[1:], [1.0] * 199, [0.9] * 199)
    memory.update_topology()
    active = memory.storage.nodes["is_active"][:200]
    targets = [t for slot in np.flatnonzero(active) for t in memory.storage.get_edges(slot)["target"]]
    assert not active[targets].all(), "until the sweep they may stand"
    memory.cognitive_engine.sweep()
    targets = [t for slot in np.flatnonzero(active) for t in memory.storage.get_edges(slot)["target"]]
    assert active[targets].all()
    assert memory.check() == []
