"""bear_: what a store does, bit for bit, in every layout, and what it refuses."""

import pytest
import torch
from bear_helpers import (
    CONFIDENCE,
    DIM,
    Births,
    assert_equal,
    bear_on_columns,
    bear_on_store,
    changed,
    flat,
    make_store,
    nodes_of,
    some_births,
)
from edge_helpers import Learnt, assert_learnt, learnt_of
from ops_helpers import needs_cuda

from aesg import _core
from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.graph.birth import bear_sensory
from aesg.memory.controller import AESGMemory
from aesg.ops import COUNTERS, bear_, seed_search
from aesg.ops.reference_learning import bear_ref_

STORES = {
    "nothing": (0, 0, 0.0),
    "one": (1, 0, 0.0),
    "young": (40, 3, 0.0),
    "with free slots": (300, 6, 0.2),
    "many groups": (2600, 9, 0.1),
}


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("n, links, count", [(0, 4, 0), (1, 1, 1), (9, 4, 5), (70, 3, 70), (600, 4, 599)])
def test_same_as_the_store(tmp_path, name, n, links, count):
    with make_store(tmp_path, *STORES[name][:2], dead=STORES[name][2]) as storage:
        for seed in range(2):  # the second call goes on from what the first one left
            births = some_births(storage, n, links, count, seed)
            grouped = learnt_of(storage, 2, 6)
            ours = changed(grouped, flat)
            oracle = changed(grouped, flat)
            want = bear_on_store(storage, births, 0.75)
            slots = bear_on_columns(grouped, births, 0.75)
            assert slots[:count].tolist() == want.tolist() and (slots[count:] == -1).all()
            assert_learnt(grouped, storage)
            assert torch.equal(bear_on_columns(ours, births, 0.75), slots)
            assert_equal(ours, changed(grouped, flat))
            if n <= 70:
                got = bear_ref_(
                    *births, nodes_of(oracle), oracle.edges, oracle.counters,
                    confidence=CONFIDENCE, relevance=0.75,
                )  # fmt: skip
                assert torch.equal(got, slots)
                assert_equal(oracle, ours)


def test_same_as_a_memory(tmp_path):
    """The search of `bear_sensory` and the op behind it."""
    config = AESGConfig(vector_dim=8, link_min_similarity=0.2)
    with AESGMemory(str(tmp_path), config=config) as memory:
        graph, storage = memory.graph, memory.storage
        torch.manual_seed(0)
        for _ in range(2):  # the first find nobody
            bear_sensory(graph, torch.randn(100, 8))
        vectors, learnt = torch.randn(50, 8), learnt_of(storage, 1, 2)
        cosines, neighbors = seed_search(
            vectors, learnt.nodes["vector"], config.link_count, inv_norm=learnt.nodes["inv_norm"],
            active=learnt.nodes["is_active"], min_score=config.link_min_similarity,
        )  # fmt: skip
        slots = bear_(
            vectors, torch.tensor([50]), neighbors, cosines, nodes_of(learnt), learnt.edges, learnt.counters,
            confidence=config.edge_initial_confidence,
        )  # fmt: skip
        assert slots.tolist() == bear_sensory(graph, vectors).tolist()
        assert_learnt(learnt, storage)
        assert int((neighbors >= 0).sum()) > 100


@pytest.mark.parametrize("count, born", [(-3, 0), (0, 0), (4, 4), (9, 6)])
def test_counts_outside_are_the_nearest_inside(tmp_path, count, born):
    with make_store(tmp_path, 40, 3) as storage:
        births, learnt = some_births(storage, 6, 3, count), learnt_of(storage, 1, 1)
        assert int((bear_on_columns(learnt, births) >= 0).sum()) == born
        bear_on_store(storage, births)
        assert_learnt(learnt, storage)


def test_full_head_blocks_and_long_chains(tmp_path):
    """All want the same neighbours, whose head blocks hold 0..7 edges."""
    with make_store(tmp_path, 40, 0) as storage:
        for source in range(1, 10):
            targets = torch.arange(20, 20 + source).numpy()
            ones = torch.full((source,), 0.5).numpy()
            _core.put_edges(storage.core, [source] * source, targets, ones, ones, 0)
        for n in (1, 3, 40, 300):
            births = some_births(storage, n, 9)._replace(neighbors=torch.arange(9).repeat(n, 1))
            learnt = learnt_of(storage, 1, 2)
            bear_on_columns(learnt, births)
            bear_on_store(storage, births)
            assert_learnt(learnt, storage)


def test_no_links(tmp_path):
    with make_store(tmp_path, 40, 3) as storage:
        births, learnt = some_births(storage, 5, 1), learnt_of(storage, 1, 1)
        none = births._replace(neighbors=torch.empty(5, 0, dtype=torch.int64), cosines=torch.empty(5, 0))
        bear_on_columns(learnt, none)
        bear_on_store(storage, births._replace(neighbors=torch.full((5, 1), -1)))
        assert_learnt(learnt, storage)


def test_neighbours_that_do_not_live_are_none(tmp_path):
    """Dead ones, unknown ones, and slots that this very call fills."""
    with make_store(tmp_path, 40, 3) as storage:
        _core.retire(storage.core, [4], 2)  # not buried: dead, and not free
        births = some_births(storage, 3, 4)
        odd = torch.tensor([[4, 7, 40, 2**40], [-9, 1024 * 5, 41, -(2**40)], [3, 42, 2047, 2048]])
        learnt = learnt_of(storage, 1, 1)
        bear_on_columns(learnt, births._replace(neighbors=odd))
        bear_on_store(
            storage,
            births._replace(neighbors=torch.where((odd == 7) | (odd == 3), odd, -1)),
        )
        assert_learnt(learnt, storage)


def room(learnt: Learnt, slots: int, blocks: int) -> Learnt:
    """Flat, with so many rows left behind the last."""
    made = changed(learnt, flat)
    used = dict(zip(COUNTERS, made.counters.tolist(), strict=True))
    n, m = used["node_count"] + slots, used["block_count"] + blocks
    nodes = {name: column[:n].clone() for name, column in made.nodes.items()}
    edges = [column[:m].clone() for column in made.edges[1:]]
    return Learnt(nodes, type(made.edges)(nodes["first_block"], *edges), made.counters)


def test_just_enough_room_and_one_less(tmp_path):
    with make_store(tmp_path, 300, 6, dead=0.1) as storage:
        births = some_births(storage, 90, 4)
        whole = learnt_of(storage, 1, 1)
        before = dict(zip(COUNTERS, whole.counters.tolist(), strict=True))
        bear_on_columns(whole, births)
        after = dict(zip(COUNTERS, whole.counters.tolist(), strict=True))
        slots, blocks = (after[name] - before[name] for name in ("node_count", "block_count"))
        assert slots == 60 and blocks > 0 and after["free_slot"] == -1
        bear_on_columns(room(learnt_of(storage, 1, 1), slots, blocks), births)
        for text, less in (("slots: expected room for 60 more", (1, 0)), ("blocks: expected room", (0, 1))):
            learnt = room(learnt_of(storage, 1, 1), slots - less[0], blocks - less[1])
            expect_refused(learnt, births, text)


def expect_refused(learnt: Learnt, births: Births, text: str, **options) -> None:
    before = changed(learnt, torch.clone)
    options = {"confidence": CONFIDENCE} | options
    with pytest.raises(AESGMemoryError, match=text):
        bear_(*births, nodes_of(learnt), learnt.edges, learnt.counters, **options)
    assert_equal(learnt, before)


def test_damaged_lists_are_refused(tmp_path):
    at = {name: place for place, name in enumerate(COUNTERS)}
    with make_store(tmp_path, 300, 6, dead=0.1) as storage:
        births = some_births(storage, 60, 4)

        def damaged() -> tuple[Learnt, int, int]:
            learnt = changed(learnt_of(storage, 1, 1), flat)
            return learnt, int(learnt.counters[at["free_slot"]]), int(learnt.counters[at["free_block"]])

        learnt, slot, _ = damaged()
        learnt.nodes["is_active"][slot] = 1
        expect_refused(learnt, births, "expected a list of free slots")
        learnt, slot, _ = damaged()
        learnt.nodes["id"][slot] = 8
        expect_refused(learnt, births, "expected a list of free slots")
        learnt, slot, _ = damaged()
        learnt.edges.first_block[slot] = -slot - 2  # a ring
        expect_refused(learnt, births, "expected a list of free slots")
        learnt, slot, _ = damaged()
        learnt.edges.first_block[slot] = -(10**6)
        bear_on_columns(learnt, births._replace(count=torch.tensor([0])))
        expect_refused(learnt, births, "expected a list of free slots")
        learnt, _, _ = damaged()
        learnt.counters[at["free_slot"]] = 5000
        expect_refused(learnt, births, "expected a list of free slots")
        learnt, _, block = damaged()
        learnt.edges.sources[block] = 3
        expect_refused(learnt, births, "expected a list of free blocks")
        learnt, _, block = damaged()
        learnt.edges.next_block[block] = block
        expect_refused(learnt, births, "expected a list of free blocks")
        for name in ("node_count", "block_count"):
            for value in (-1, 10**6):
                learnt, _, _ = damaged()
                learnt.counters[at[name]] = value
                expect_refused(learnt, births, f"{name} in 0|expected a list|expected room")


@pytest.mark.parametrize(
    "text, change",
    [
        ("packed: expected float32", {"packed": torch.zeros(3, DIM).double()}),
        ("packed: expected shape", {"packed": torch.zeros(3)}),
        ("packed: expected D >= 1", {"packed": torch.zeros(3, 0)}),
        ("vector: expected 4 values a row", {"packed": torch.zeros(3, 4)}),
        ("count: expected int64", {"count": torch.zeros(1)}),
        ("count: expected shape", {"count": torch.zeros(2, dtype=torch.int64)}),
        ("neighbors: expected int64", {"neighbors": torch.zeros(3, 2)}),
        ("neighbors: expected 3 rows", {"neighbors": torch.zeros(4, 2, dtype=torch.int64)}),
        ("cosines: expected the shape of neighbors", {"cosines": torch.zeros(3, 3)}),
        ("cosines: expected float32", {"cosines": torch.zeros(3, 2, dtype=torch.int64)}),
        ("expected all on cpu", {"cosines": torch.zeros(3, 2, device="meta")}),
        ("confidence: expected 0..1, got 1.5", {"confidence": 1.5}),
        ("confidence: expected 0..1, got nan", {"confidence": float("nan")}),
        ("relevance: expected a number >= 0, got -1", {"relevance": -1.0}),
        ("id: expected int64", {"id": torch.zeros(2, 1024)}),
        ("age: expected 2048 rows as in first_block", {"age": torch.zeros(2047, dtype=torch.int32)}),
        ("is_active: expected bool or uint8", {"is_active": torch.zeros(2, 1024)}),
        ("targets: expected int32", {"targets": torch.zeros(8, 7)}),
        ("tags: expected 2048 blocks", {"tags": torch.zeros(5, 7, dtype=torch.uint8)}),
        ("counters: expected 7", {"counters": torch.zeros(6, dtype=torch.int64)}),
    ],
)
def test_bad_input_changes_nothing(tmp_path, text, change):
    with make_store(tmp_path, 40, 3) as storage:
        learnt, births = learnt_of(storage, 1, 1), some_births(storage, 3, 2)
        change, options = dict(change), {}
        for name in ("confidence", "relevance"):
            if name in change and isinstance(change[name], float):
                options[name] = change.pop(name)
        for name, value in change.items():
            if name in Births._fields:
                births = births._replace(**{name: value})
            elif name in learnt.nodes:
                learnt.nodes[name] = value
            elif name == "counters":
                learnt = learnt._replace(counters=value)
            else:
                learnt = learnt._replace(edges=learnt.edges._replace(**{name: value}))
        expect_refused(learnt, births, text, **options)


def test_opcheck_and_compile(tmp_path):
    with make_store(tmp_path, 40, 3) as storage:
        births, learnt = some_births(storage, 6, 3), changed(learnt_of(storage, 1, 1), flat)

    def copied() -> Learnt:
        return changed(learnt, torch.clone)

    one = copied()
    torch.library.opcheck(
        torch.ops.aesg.bear_.default, (*births, *nodes_of(one), *one.edges, one.counters, CONFIDENCE, 1.0)
    )

    def run(births, nodes, edges, counters):
        return bear_(*births, nodes, edges, counters, confidence=CONFIDENCE)

    one, other = copied(), copied()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    slots = compiled(births, nodes_of(one), one.edges, one.counters)
    assert torch.equal(slots, bear_on_columns(other, births))
    assert_equal(one, other)


@needs_cuda
@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("n, links, count", [(0, 4, 0), (9, 4, 5), (600, 4, 599)])
def test_cuda_has_the_bits_of_the_cpu(tmp_path, name, n, links, count):
    with make_store(tmp_path, *STORES[name][:2], dead=STORES[name][2]) as storage:
        births, host = some_births(storage, n, links, count), changed(learnt_of(storage, 2, 6), flat)
    device = changed(host, torch.Tensor.cuda)
    slots = bear_on_columns(device, Births(*(part.cuda() for part in births)))
    assert torch.equal(slots.cpu(), bear_on_columns(host, births))
    assert_equal(changed(device, torch.Tensor.cpu), host)
