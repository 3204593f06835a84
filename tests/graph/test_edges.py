"""Edges, death and sweeps against a slow, obvious model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aesg import _core
from aesg.exceptions import AESGMemoryError
from aesg.storage.engine import AESGStorage

CONCEPTS = 12
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.integers(0, CONCEPTS - 1),
            st.integers(0, CONCEPTS - 1),
            st.integers(0, 2),
            st.floats(0, 1, width=32),
        ),
        st.tuples(st.just("retire"), st.integers(0, CONCEPTS - 1)),
        st.tuples(st.just("sweep"), st.sampled_from([0.0, 0.3, 0.7])),
        st.tuples(st.just("follow"), st.lists(st.integers(-1, CONCEPTS - 1), min_size=2, max_size=12)),
    ),
    max_size=40,
)


class Model:
    """Edges in a dict (source, target, kind) -> [weight, confidence]."""

    def __init__(self) -> None:
        self.alive = set(range(CONCEPTS))
        self.edges: dict[tuple[int, int, int], list[np.float32]] = {}

    def put(self, source, target, kind, confidence):
        self.edges[source, target, kind] = [np.float32(1), np.float32(confidence)]

    def retire(self, slot):
        self.alive.discard(slot)
        self.edges = {key: value for key, value in self.edges.items() if key[0] != slot}

    def sweep(self, threshold):
        self.edges = {
            key: value
            for key, value in self.edges.items()
            if key[1] in self.alive and (value[1] >= np.float32(threshold) or key[2] == 2)
        }

    def follow(self, sequence):
        rate = np.float32(0.25)
        for previous, current in itertools.pairwise(sequence):
            if previous == current or not {previous, current} <= self.alive:
                continue
            known = self.edges.get((previous, current, 1))
            lost = np.float32(0.5) if known is None else rate
            for (source, target, kind), value in self.edges.items():
                if source == previous and kind == 1 and target != current:
                    value[1] = value[1] * (np.float32(1) - lost)
            if known is None:
                self.edges[previous, current, 1] = [np.float32(1), np.float32(0.5)]
            else:
                known[1] = known[1] + rate * (np.float32(1) - known[1])


def edges_of(storage: AESGStorage) -> dict[tuple[int, int, int], list[np.float32]]:
    found = {}
    for slot in range(CONCEPTS):
        for edge in storage.get_edges(slot):
            key = (slot, int(edge["target"]), int(edge["kind"]))
            assert key not in found, "a pair holds one edge of each kind"
            found[key] = [edge["weight"], edge["confidence"]]
    return found


@given(steps)
@settings(max_examples=60, deadline=None)
def test_edges_equal_the_model(tmp_path_factory, sequence):
    model = Model()
    with AESGStorage(str(tmp_path_factory.mktemp("graph")), 4) as storage:
        core = storage.core
        _core.bear(core, torch.randn(CONCEPTS, 4).numpy(), 0)
        for name, *arguments in sequence:
            if name == "put":
                source, target, kind, confidence = arguments
                if source == target or not {source, target} <= model.alive:
                    with pytest.raises(AESGMemoryError):
                        _core.put_edges(core, [source], [target], [1.0], [confidence], kind)
                    continue
                _core.put_edges(core, [source], [target], [1.0], [confidence], kind)
                model.put(*arguments)
            elif name == "retire":
                _core.retire(core, arguments, 0)
                model.retire(*arguments)
            elif name == "sweep":
                # Without fading, and without freeing slots for the model's sake: the dead keep their numbers.
                _core.sweep(core, arguments[0], 1.0)
                model.sweep(*arguments)
            else:
                (slots,) = arguments
                _core.follow(core, slots[:-1], slots[1:], 0.5, 0.25, 0.5)
                model.follow(slots)
            assert edges_of(storage) == model.edges
            assert storage.edge_count == len(model.edges)
            assert storage.active_count == len(model.alive)
        storage.commit()
        assert storage.verify() == []


@pytest.fixture
def storage(tmp_path):
    with AESGStorage(str(tmp_path / "graph"), 4) as made:
        _core.bear(made.core, torch.randn(5, 4).numpy(), 0)
        yield made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0], [9], [1.0], [1.0]), "0..4"),
        (([-1], [1], [1.0], [1.0]), "0..4"),
        (([0], [1, 2], [1.0], [1.0]), "expected 1 values, got 2"),
        (([0], [1], [1.5], [1.0]), "0, 1"),
        (([0], [1], [1.0], [float("nan")]), "0, 1"),
        (([2], [2], [1.0], [1.0]), "two different"),
    ],
)
def test_bad_edges_change_nothing(storage, arguments, words):
    with pytest.raises(AESGMemoryError, match=words):
        _core.put_edges(storage.core, *arguments)
    assert storage.edge_count == 0


@pytest.mark.parametrize("vectors", [np.zeros((2, 3)), np.full((1, 4), np.nan), np.zeros(4)])
def test_bad_concepts_change_nothing(storage, vectors):
    with pytest.raises(AESGMemoryError):
        _core.bear(storage.core, vectors.astype(np.float32), 0)
    assert storage.node_count == 5


def test_a_hub_keeps_its_chain_through_growth_and_removal(storage):
    _core.bear(storage.core, torch.randn(100, 4).numpy(), 0)
    targets = list(range(1, 101))
    _core.put_edges(storage.core, [0] * 100, targets, [1.0] * 100, [c / 100 for c in targets])
    assert sorted(storage.get_edges(0)["target"].tolist()) == targets
    edges, _ = _core.sweep(storage.core, 0.505, 1.0)
    assert edges == 50
    assert sorted(storage.get_edges(0)["target"].tolist()) == targets[50:]
    assert storage.edge_count == 50
