"""Arguments of the wrong kind: AESGMemoryError, and nothing has changed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from aesg import AESGConfig, AESGMemory
from aesg.exceptions import AESGMemoryError, AESGNavigationError

V = torch.ones(16)
NAN = torch.full((16,), float("nan"))
COMPLEX = torch.ones(16, dtype=torch.complex64)
BIG = 2**70
NO_SLOTS = ["a", None, 1.5, 0.0, True, BIG, -1, 99, [0, 1], object(), torch.tensor([0, 1])]


def no_slot(call, dead=True):
    """The call with everything that is no slot; slot 4 holds no living concept."""
    return [lambda m, value=value: call(m, value) for value in [*NO_SLOTS, *([4] if dead else [])]]


def each(call, *values):
    return [lambda m, value=value: call(m, value) for value in values]


ROW = torch.ones(1, 16)
CALLS = [
    *no_slot(lambda m, x: m.graph.get_node_vector(x), dead=False),
    *no_slot(lambda m, x: m.graph.update_relevance(x, 0.1)),
    *each(lambda m, x: m.graph.update_relevance(0, x), "a", None, float("nan"), float("inf"), 1j, [0.1, 0.2]),
    *each(
        lambda m, x: m.graph.find_nearest_neighbors(x),
        "a",
        [1.0] * 16,
        NAN,
        COMPLEX,
        torch.ones(8),
        ROW,
        None,
    ),
    *each(lambda m, x: m.graph.find_nearest_neighbors(V, x), 0, -1, "3", 1.5, None),
    *each(
        lambda m, x: m.graph.add_concepts(x),
        [[1.0] * 16, [1.0]],
        "abc",
        [["a"] * 16],
        None,
        V,
        NAN[None],
        COMPLEX[None],
        torch.full((1, 16), 1e300, dtype=torch.float64),
        np.array([[object()] * 16]),
        torch.ones(0, 3),
        torch.ones(2, 8),
    ),
    *each(
        lambda m, x: m.graph.add_concepts(ROW, ids=x),
        ["a"],
        [1.5],
        [-3],
        [0],
        [2**64],
        [None],
        [True],
        "7",
        7,
        [1],
    ),
    *each(lambda m, x: m.graph.add_concepts(torch.ones(2, 16), ids=x), [[70], [71]], [70], [70, 70]),
    *each(lambda m, x: m.graph.add_edges([x], [2], [1.0], [1.0]), "a", None, 0.5, 4, 99, -1, BIG, 2),
    *each(lambda m, x: m.graph.add_edges([0], [x], [1.0], [1.0]), "a", None, 0.5, 4, 99, -1, BIG, 0),
    *each(lambda m, x: m.graph.add_edges([0], [2], [x], [1.0]), "x", None, 1j, 1.5, -0.1, float("nan")),
    *each(lambda m, x: m.graph.add_edges([0], [2], [1.0], [x]), "x", None, 1j, 1.5, -0.1, float("nan")),
    *each(lambda m, x: m.graph.add_edges([0], [2], [1.0], [1.0], x), "x", 7, -1, 1.5, None),
    lambda m: m.graph.add_edges([[0], [1, 2]], [2], [1.0], [1.0]),
    lambda m: m.graph.add_edges([0, 1], [2], [1.0], [1.0]),
    *each(
        lambda m, x: m.forget(x), ["a"], "a", [[1], [2, 3]], [None], [1.0], [True], [BIG], object(), [99], [5]
    ),
    *each(lambda m, x: m.forget(query=V, radius=x), "a", None, torch.tensor([0.1, 0.2]), True, -0.1, 2.1),
    *each(lambda m, x: m.forget(query=x, radius=0.1), "a", NAN, COMPLEX, torch.ones(8), ROW),
    lambda m: m.forget(),
    lambda m: m.forget([1], radius=0.1),
    lambda m: m.forget([1], query=V),
    *no_slot(lambda m, x: m.update_concept(x, V)),
    *each(lambda m, x: m.update_concept(0, x), "a", None, NAN, COMPLEX, torch.ones(8), ROW),
    *each(lambda m, x: m.reset_state(x), 3, "ab", ["a"], [-1], [1.5], [None], [BIG], torch.ones(2)),
    *each(lambda m, x: m.set_mode(x), None, 3, ["TRAIN"], "train"),
    *each(
        lambda m, x: m.cognitive_engine.create_sensory_concept(x), "a", None, [1.0] * 16, NAN, COMPLEX, ROW
    ),
    *each(
        lambda m, x: m.cognitive_engine.create_abstract_concept(x),
        [],
        "a",
        ["a"],
        [0.7, 1.2],
        None,
        [[0], [1, 2]],
        [[0, 1]],
        [True, False],
        1,
        [BIG],
        [0, 4],
        [0, 99],
        [1, 1],
    ),
    *no_slot(lambda m, x: m.cognitive_engine.merge_concepts(x, 1)),
    *no_slot(lambda m, x: m.cognitive_engine.merge_concepts(1, x)),
    lambda m: m.cognitive_engine.merge_concepts(1, 1),
    *no_slot(lambda m, x: m.cognitive_engine.split_concept(x)),
    *each(lambda m, x: m.cognitive_engine.observe_novelty(x), "a", V, NAN[None], torch.ones(1, 8), None),
    *each(lambda m, x: m.absorb(x), None, "pack"),
]


@pytest.mark.parametrize("call", CALLS)
def test_wrong_arguments_change_nothing(make_memory, call):
    memory = make_memory()
    memory.graph.add_concepts(torch.randn(5, 16))
    memory.graph.add_edges([0, 1], [1, 2], [1.0, 1.0], [0.9, 0.9])
    memory.forget(ids=[5])  # slot 4 is free
    core = memory.storage.core

    def image():
        stats = memory.stats()
        counted = [stats[name] for name in ("births", "prunes", "candidates", "merges", "splits")]
        streams = memory.active_state.to_state()
        events = len(memory.logger.get_history())
        return core.node_view().tobytes(), core.edge_view().tobytes(), events, counted, streams, memory.mode

    before = image()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AESGMemoryError):
            call(memory)
    assert image() == before


def test_numbers_of_any_kind_are_taken(make_memory):
    memory = make_memory()
    for vectors in (ROW.bfloat16(), ROW.double().numpy(), ROW.int(), [[1] * 16], ROW.requires_grad_()):
        (slot,) = memory.graph.add_concepts(vectors)
        assert torch.equal(memory.graph.get_node_vector(np.int32(slot)), V)
    ids = [10, np.uint64(2**63), torch.tensor(12)]
    for wanted in ids:
        (slot,) = memory.graph.add_concepts(ROW, ids=[wanted])
        assert int(memory.storage.nodes["id"][slot]) == int(wanted)
    memory.reset_state({0, 2})
    memory.reset_state(number for number in range(3))
    memory.reset_state(torch.tensor([1]))
    assert memory.forget(torch.tensor([10])) == 1


def test_vectors_too_short_for_a_norm_count_as_zero(tmp_path):
    """1 / |v| of them leaves f32; as infinity it would poison every search."""
    short = torch.full((1, 4), 1e-40)
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=4, seed_min_similarity=0.0)) as memory:
        memory.graph.add_concepts(torch.cat([short, short, torch.eye(4)]))
        memory.storage.nodes["vector"][1] = short[0].numpy()
        memory.storage.add_node(100, short[0].numpy())
        assert torch.isfinite(memory.storage.column("inv_norm")).all()
        scores, slots = memory.graph.search(torch.eye(4)[:1], 3, -1.0)
        assert torch.isfinite(scores).all() and int(slots[0, 0]) == 2
        assert memory.check() == []


def test_queries_that_no_call_can_hold_are_refused(tmp_path):
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=4)) as memory:
        with pytest.raises(AESGNavigationError, match="dense"):
            memory.retrieve(torch.eye(4).to_sparse())
        with pytest.raises(AESGNavigationError, match="batch_idx"):
            memory.retrieve(torch.ones(4), batch_idx=10**12)
