"""coactivate_: the oracle's and the store's bits in every layout, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from edge_helpers import Learnt, assert_learnt, learnt_of
from ops_helpers import needs_cuda
from torch import Tensor

from aesg import _core
from aesg.exceptions import AESGMemoryError
from aesg.ops import COUNTERS, Edges, coactivate_
from aesg.ops.reference_learning import coactivate_ref_
from aesg.storage.engine import AESGStorage
from tests.pretended_cuda import Pretended, needs_no_cuda, pretended_cuda

RATE = 0.05
CHANGED = ("strengths", "confidences", "use_counts", "tags")


def build(storage: AESGStorage, n: int, edges: int, hub: int = 0, seed: int = 0) -> None:
    """n concepts, every eleventh dead, with edges of all kinds; slot 1 has `hub` more."""
    generator = torch.Generator().manual_seed(seed)
    core = storage.core
    _core.bear(core, torch.randn(n, 3, generator=generator).numpy(), 0)
    for kind in range(3):
        for sources, count in ((torch.randint(n, (edges,), generator=generator), edges), (None, hub)):
            if n < 2 or count == 0:
                continue
            sources = torch.ones(count, dtype=torch.int64) if sources is None else sources
            targets = (sources + torch.randint(1, n, (count,), generator=generator)) % n
            weights, confidences = torch.rand(2, count, generator=generator)
            _core.put_edges(core, *(part.numpy() for part in (sources, targets, weights, confidences)), kind)
    _core.sweep(core, 0.0, 1.0)  # then no edge counts as used, and all stay
    _core.retire(core, list(range(0, n, 11)), 0)


def rows_of(n: int, rows: int, width: int = 3, hub: bool = False, seed: int = 0) -> Tensor:
    """Slots, some of them negative or outside, some twice in a row; slot 1 in every row of a hub."""
    generator = torch.Generator().manual_seed(seed)
    slots = torch.randint(-2, n + 2, (rows, width), generator=generator)
    twice = torch.rand(rows, generator=generator) < 0.2
    if width > 1:
        slots[twice, -1] = slots[twice, 0]
    if hub:
        slots[:, seed % width] = 1
    return slots


def flat(learnt: Learnt) -> tuple[Edges, Tensor]:
    """Edges and active as flat tensors of their own."""
    edges = Edges(*(column.flatten(0, 1).clone() for column in learnt.edges))
    return edges, learnt.nodes["is_active"].flatten().clone()


def same(ours: Edges, theirs: Edges) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def copied(edges: Edges) -> Edges:
    return Edges(*(column.clone() for column in edges))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Edges, Tensor]:
    """30 slots and just as many blocks as they need: nothing lies behind."""
    with AESGStorage(str(tmp_path_factory.mktemp("small")), 3) as storage:
        build(storage, 30, 150, hub=25)
        learnt = learnt_of(storage)
    edges, active = flat(learnt)
    blocks = int(learnt.counters[COUNTERS.index("block_count")])
    first_block, *others = edges
    return Edges(first_block[:30].clone(), *(column[:blocks].clone() for column in others)), active[
        :30
    ].clone()


@pytest.mark.parametrize("rows, width", [(0, 3), (1, 3), (40, 3), (40, 2), (40, 1), (40, 0), (25, 7)])
def test_same_as_the_oracle(small, rows, width):
    edges, active = small
    ours, theirs = copied(edges), copied(edges)
    primaries = rows_of(30, rows, width)
    coactivate_(ours, active, primaries, rate=RATE)
    coactivate_ref_(theirs, active, primaries, rate=RATE)
    assert same(ours, theirs)
    changed = [
        name
        for name, one, other in zip(Edges._fields, ours, edges, strict=True)
        if not torch.equal(one, other)
    ]
    assert not changed if rows * width < 40 or width < 2 else set(changed) >= {"confidences", "use_counts"}


def test_a_slot_that_a_row_holds_twice_strengthens_twice(small):
    """And what it leads to, held twice, strengthens once."""
    edges, active = small
    alive = {slot for slot in range(30) if active[slot]}
    for block, source in enumerate(edges.sources.tolist()):
        kind, target = int(edges.tags[block, 0]) & 3, int(edges.targets[block, 0])
        if source in alive and target in alive and kind == 0:
            break
    for row, times in (
        ([source, target, -1], 1),
        ([source, target, source], 2),
        ([target, source, target], 1),
        ([source, source, source], 0),
        ([source, target, source, target], 2),
    ):
        ours = copied(edges)
        coactivate_(ours, active, torch.tensor([row]), rate=RATE)
        theirs = copied(edges)
        coactivate_ref_(theirs, active, torch.tensor([row]), rate=RATE)
        assert same(ours, theirs)
        assert ours.use_counts[block, 0] - edges.use_counts[block, 0] == times


def test_an_edge_strengthened_without_end_comes_to_rest(small):
    edges, active = small
    rows = rows_of(30, 40).repeat(60, 1)
    ours, theirs = copied(edges), copied(edges)
    coactivate_(ours, active, rows, rate=0.9)
    coactivate_ref_(theirs, active, rows, rate=0.9)
    assert same(ours, theirs)


@pytest.mark.parametrize(
    "n, edges, hub, rows",
    [(1, 0, 0, 3), (40, 100, 0, 50), (1500, 9000, 0, 700), (1500, 3000, 700, 900)],
    ids=["one", "small", "two groups", "a long chain"],
)
def test_as_the_store_does(tmp_path, n, edges, hub, rows):
    with AESGStorage(str(tmp_path), 3) as storage:
        build(storage, n, edges, hub)
        learnt = learnt_of(storage, more_nodes=1, more_blocks=1)
        apart = flat(learnt)
        for seed, rate in enumerate((RATE, 1.0, 0.0)):
            primaries = rows_of(n, rows, hub=hub > 0, seed=seed)
            coactivate_(learnt.edges, learnt.nodes["is_active"], primaries, rate=rate)
            coactivate_(*apart, primaries, rate=rate)
            before = [column.clone() for column in learnt_of(storage).edges]
            _core.coactivate(storage.core, primaries.numpy(), rate)
            assert_learnt(learnt, storage)
            assert same(flat(learnt)[0], apart[0])
            after = learnt_of(storage).edges
            assert n == 1 or not all(map(torch.equal, before, after)), "nothing was coactivated"


def test_primaries_that_are_a_view(small):
    edges, active = small
    wide = rows_of(30, 40, 10)
    ours, theirs = copied(edges), copied(edges)
    coactivate_(ours, active, wide[:, :3], rate=RATE)
    coactivate_(theirs, active, wide[:, :3].contiguous(), rate=RATE)
    assert same(ours, theirs) and not same(ours, edges)


def test_given_pairs_are_those_it_makes(small):
    edges, active = small
    rows = rows_of(30, 40, 4)
    ours, theirs = copied(edges), copied(edges)
    coactivate_(theirs, active, rows, rate=RATE)
    pairs = torch.sort(torch.ops.aesg.coactivation_pairs(rows)).values
    torch.ops.aesg.coactivate_(*ours, active, rows[:0], pairs, RATE)
    assert same(ours, theirs) and not same(ours, edges)


def test_pairs_are_each_of_a_row_with_every_other_slot():
    rows = torch.tensor([[5, 7, 7], [3, -1, 2**31]])
    pairs = torch.ops.aesg.coactivation_pairs(rows)
    five, seven = 5 << 32, 7 << 32
    assert pairs.tolist() == [five + 7, -1, seven + 5, seven + 7, seven + 5, seven + 7, *[-1] * 6]


def ring(blocks: int, length: int) -> tuple[Edges, Tensor]:
    """Two concepts, and an edge from 0 to 1 in each block of a chain that comes back to its head."""
    edges = Edges(
        torch.tensor([0, -1], dtype=torch.int32),
        torch.ones(blocks, 7, dtype=torch.int32),
        torch.zeros(blocks, 7),
        (torch.arange(blocks, dtype=torch.int32) + 1) % length,
        torch.ones(blocks, dtype=torch.int32),
        torch.ones(blocks, 7),
        torch.zeros(blocks, 7),
        torch.zeros(blocks, 7, dtype=torch.int32),
        torch.zeros(blocks, 7, dtype=torch.uint8),
        torch.zeros(blocks, dtype=torch.int32),
    )
    return edges, torch.ones(2, dtype=torch.uint8)


@pytest.mark.parametrize("length", [1, 2, 5, 64])
def test_a_ring_is_not_gone_through_for_every_block_there_is(length):
    edges, active = ring(5000, length)
    coactivate_(edges, active, torch.tensor([[0, 1]]), rate=RATE)
    uses = edges.use_counts[:, 0]
    assert bool((uses[:length] >= 1).all()) and int(uses.sum()) <= 4 * length


def test_damaged_chains_end(small):
    edges, active = small
    generator = torch.Generator().manual_seed(0)
    blocks = len(edges.targets)
    damaged = copied(edges)._replace(
        next_block=torch.randint(-3, blocks + 3, (blocks,), generator=generator, dtype=torch.int32),
        counts=torch.randint(-9, 99, (blocks,), generator=generator, dtype=torch.int32),
        first_block=torch.randint(-9, blocks + 9, (30,), generator=generator, dtype=torch.int32),
    )
    before = copied(damaged)
    coactivate_(damaged, active, rows_of(30, 200), rate=RATE)
    for name, one, other in zip(Edges._fields, damaged, before, strict=True):
        assert torch.equal(one, other) is (name not in CHANGED), name


@pytest.mark.parametrize("slots, blocks", [(0, 0), (3, 0), (0, 2)])
def test_empty_graphs(slots, blocks):
    numbers = torch.full((blocks,), -1, dtype=torch.int32)
    sevens = torch.zeros(blocks, 7)
    edges = Edges(
        torch.full((slots,), -1, dtype=torch.int32), sevens.int(), sevens.clone(), numbers, numbers.clone(),
        sevens.clone(), sevens.clone(), sevens.int(), sevens.byte(), numbers.clone(),
    )  # fmt: skip
    before = copied(edges)
    coactivate_(edges, torch.ones(slots, dtype=torch.bool), torch.tensor([[0, 1, 2]]), rate=RATE)
    assert same(edges, before)


def test_opcheck_and_compile(small):
    edges, active = small
    rows = rows_of(30, 40)
    op = torch.ops.aesg.coactivate_.default
    torch.library.opcheck(op, (*copied(edges), active, rows, None, RATE))
    torch.library.opcheck(torch.ops.aesg.coactivation_pairs.default, (rows,))

    def run(*given):
        coactivate_(Edges(*given), active, rows, rate=RATE)
        return [given[Edges._fields.index(name)] + 0 for name in CHANGED]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert all(map(torch.equal, compiled(*copied(edges)), run(*copied(edges))))


@pytest.mark.parametrize(
    "text, change, rate",
    [
        ("targets: expected int32", {"targets": torch.zeros(9, 7)}, RATE),
        ("confidences: expected 7 values a row", {"confidences": torch.zeros(9, 6)}, RATE),
        ("tags: expected .* blocks as in targets", {"tags": torch.zeros(2, 7, dtype=torch.uint8)}, RATE),
        ("active: expected bool or uint8", {"active": torch.zeros(30)}, RATE),
        ("active: expected 30 rows as in first_block", {"active": torch.zeros(29).bool()}, RATE),
        ("primaries: expected int64", {"primaries": torch.zeros(4, 3)}, RATE),
        (r"primaries: expected shape \[R, W\]", {"primaries": torch.zeros(4).long()}, RATE),
        (r"primaries: expected R \* W \* W", {"primaries": torch.zeros(1, 1).long().expand(2**20, 99)}, RATE),
        ("rate: expected 0..1, got -0.5", {}, -0.5),
        ("rate: expected 0..1, got nan", {}, float("nan")),
        ("expected all on cpu", {"primaries": torch.zeros(4, 3, device="meta").long()}, RATE),
    ],
)
def test_bad_input_changes_nothing(small, text, change, rate):
    edges, active = small
    given = {**copied(edges)._asdict(), "active": active, "primaries": rows_of(30, 40), **change}
    before = {name: part.clone() for name, part in given.items() if name in Edges._fields}
    with pytest.raises(AESGMemoryError, match=text):
        coactivate_(
            Edges(*(given[name] for name in Edges._fields)), given["active"], given["primaries"], rate=rate
        )
    assert all(torch.equal(given[name], part) for name, part in before.items())


@pytest.mark.parametrize(
    "text, pairs",
    [
        ("pairs: expected int64", torch.zeros(3)),
        (r"pairs: expected shape \[P\]", torch.zeros(3, 1).long()),
        ("pairs: expected a contiguous tensor", torch.zeros(6).long()[::2]),
    ],
)
def test_pairs_of_another_kind_are_refused(small, text, pairs):
    edges, active = small
    with pytest.raises(RuntimeError, match="AESGMemoryError: " + text):
        torch.ops.aesg.coactivate_(*edges, active, rows_of(30, 4), pairs, RATE)


@needs_no_cuda
def test_on_a_device_the_host_waits_for_nothing(small):
    """There the op gets the pairs, sorted."""
    edges, active = small
    rows, host, device = rows_of(30, 40), copied(edges), copied(edges)
    coactivate_(host, active, rows, rate=RATE)
    with pretended_cuda() as mode:
        coactivate_(Edges(*map(Pretended, device)), Pretended(active), Pretended(rows), rate=RATE)
    assert same(device, host) and not mode.waits


@needs_cuda
@pytest.mark.parametrize("rows, width", [(0, 3), (1, 3), (5000, 3), (40, 1), (25, 7)])
def test_cuda_has_the_bits_of_the_cpu(small, rows, width):
    edges, active = small
    host, device = copied(edges), Edges(*(column.cuda() for column in edges))
    primaries = rows_of(30, rows, width)
    coactivate_(host, active, primaries, rate=RATE)
    coactivate_(device, active.cuda(), primaries.cuda(), rate=RATE)
    assert same(Edges(*(column.cpu() for column in device)), host)


@needs_cuda
def test_a_captured_cuda_graph_takes_what_lies_there_then(small):
    edges, active = small
    host, device = copied(edges), Edges(*(column.cuda() for column in edges))
    alive, rows = active.cuda(), rows_of(30, 40).cuda()
    coactivate_(copied(device), alive, rows, rate=RATE)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        coactivate_(device, alive, rows, rate=RATE)
    later = rows_of(30, 40, seed=1)
    rows.copy_(later)
    coactivate_(host, active, later, rate=RATE)
    graph.replay()
    assert same(Edges(*(column.cpu() for column in device)), host)
