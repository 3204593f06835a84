"""follow_: the oracle's and the store's bits in every layout, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from edge_helpers import Learnt, assert_learnt, assert_no_block_is_shared, learnt_of
from ops_helpers import needs_cuda
from torch import Tensor

from aesg import _core
from aesg.exceptions import AESGMemoryError
from aesg.ops import COUNTERS, Edges, follow_
from aesg.ops.reference_learning import follow_ref_
from aesg.storage.engine import AESGStorage

SHARES = {"initial": 0.5, "rate": 0.3, "yield_": 0.7}
Events = tuple[Tensor, Tensor]


def grow(storage: AESGStorage, n: int, edges: int, hub: int = 0, seed: int = 0) -> None:
    """n concepts with edges of all kinds and free blocks between; slot 1 has `hub` successors more."""
    generator = torch.Generator().manual_seed(seed)
    core = storage.core
    _core.bear(core, torch.randn(n, 3, generator=generator).numpy(), 0)
    if n < 2:
        return
    for kind in range(3):
        for sources in (torch.randint(n, (edges,), generator=generator), torch.ones(hub, dtype=torch.int64)):
            targets = (sources + torch.randint(1, n, sources.shape, generator=generator)) % n
            weights, shares = torch.rand(2, len(sources), generator=generator)
            given = [part.numpy() for part in (sources, targets, weights, shares)]
            if kind == 1 or len(sources) == edges:
                _core.put_edges(core, *given, kind)
    _core.sweep(core, 0.0, 1.0)  # no edge counts as used any more
    # Slot 1 lives. The blocks of the others come back in the order of dying, not in that of their numbers.
    _core.retire(core, [slot for slot in torch.randperm(n, generator=generator).tolist() if slot % 7 == 3], 0)


def events(n: int, count: int, seed: int = 0, hub: float = 0.0, sources: int | None = None) -> Events:
    """Pairs of slots, some of them negative, outside, dead or equal; a share `hub` of them follows slot 1."""
    generator = torch.Generator().manual_seed(seed)
    previous = torch.randint(-1, sources or n + 1, (count,), generator=generator)
    current = torch.randint(-1, n + 1, (count,), generator=generator)
    previous[torch.rand(count, generator=generator) < hub] = 1
    again = torch.rand(count, generator=generator) < 0.3  # what came before comes again
    order = torch.randperm(count, generator=generator)
    previous, current = (torch.where(again, part[order], part) for part in (previous, current))
    if count > 8:
        previous[3], current[5], previous[7], current[7] = 2**40 + 1, -(2**62), -(2**32) + 2, 2**63 - 1
    return previous, current


def follow_in(storage: AESGStorage, pairs: Events, shares: dict[str, float] = SHARES) -> None:
    _core.follow(storage.core, *(part.numpy() for part in pairs), *shares.values())


def arguments(learnt: Learnt) -> tuple[Edges, Tensor, Tensor]:
    return learnt.edges, learnt.nodes["is_active"], learnt.counters


def flat(learnt: Learnt) -> tuple[Edges, Tensor, Tensor]:
    """The same in flat tensors of their own."""
    edges = Edges(*(column.flatten(0, 1).clone() for column in learnt.edges))
    return edges, learnt.nodes["is_active"].flatten().clone(), learnt.counters.clone()


def tensors(given: tuple[Edges, Tensor, Tensor]) -> Iterator[Tensor]:
    yield from given[0]
    yield from given[1:]


def assert_same(ours: tuple[Edges, Tensor, Tensor], theirs: tuple[Edges, Tensor, Tensor]) -> None:
    names = [*Edges._fields, "active", "counters"]
    for name, one, other in zip(names, tensors(ours), tensors(theirs), strict=True):
        assert torch.equal(one, other), name


# Concepts, edges of each kind, successors of slot 1, events, share of events at slot 1.
CASES: dict[str, tuple[int, int, int, int, float]] = {
    "nothing": (0, 0, 0, 5, 0.0),
    "no events": (9, 20, 0, 0, 0.0),
    "one concept": (1, 0, 0, 9, 0.0),
    "two concepts": (2, 1, 0, 33, 0.0),
    "no edges": (40, 0, 0, 100, 0.0),
    "some": (60, 200, 0, 257, 0.1),
    "several groups": (2500, 6000, 0, 1000, 0.0),
    "a hub": (400, 300, 250, 500, 0.6),
    "few sources": (300, 0, 0, 700, 0.3),
}


def case(name: str) -> tuple[dict[str, Any], Events]:
    """How to grow the store, and what then happens there."""
    n, edges, hub, count, share = CASES[name]
    pairs = events(n, count, seed=len(name), hub=share, sources=5 if name == "few sources" else None)
    return {"n": n, "edges": edges, "hub": hub}, pairs


@pytest.mark.parametrize("name", CASES)
def test_same_as_the_store_and_the_oracle(tmp_path, name):
    grown, pairs = case(name)
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, **grown)
        learnt = learnt_of(storage, more_nodes=1, more_blocks=1)
        grouped, oracle = flat(learnt), flat(learnt)
        follow_(*arguments(learnt), *pairs, **SHARES)
        follow_(*grouped, *pairs, **SHARES)
        follow_ref_(*oracle, *pairs, **SHARES)
        before = storage.edge_count
        follow_in(storage, pairs)
        assert_learnt(learnt, storage)
        assert_same(grouped, oracle)
        assert_same(flat(learnt), oracle)
        assert storage.edge_count > before or name in ("nothing", "no events", "one concept")


def test_two_calls_are_one(tmp_path):
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, 60, 100)
        once, twice = learnt_of(storage, more_blocks=1), learnt_of(storage, more_blocks=1)
        previous, current = events(60, 300)
        follow_(*arguments(once), previous, current, **SHARES)
        follow_(*arguments(twice), previous[:111], current[:111], **SHARES)
        follow_(*arguments(twice), previous[111:], current[111:], **SHARES)
        assert_same(arguments(once), arguments(twice))


def test_an_edge_of_another_kind_is_another(tmp_path):
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        _core.bear(storage.core, torch.randn(3, 3).numpy(), 0)
        _core.put_edges(storage.core, [0, 0], [1, 2], [0.5, 0.5], [0.25, 0.25], 2)
        learnt = learnt_of(storage)
        pairs = torch.tensor([0, 0, 0]), torch.tensor([1, 2, 1])
        follow_(*arguments(learnt), *pairs, **SHARES)
        follow_in(storage, pairs)
        assert_learnt(learnt, storage)
        assert storage.edge_count == 4
        assert storage.get_edges(0)["confidence"][:2].tolist() == [0.25, 0.25]


def small(n: int = 20) -> tuple[Edges, Tensor, Tensor]:
    """n living concepts without edges and room for 4 blocks, of which 2 and then 0 are free."""
    numbers = dict.fromkeys(COUNTERS, 0) | {"node_count": n, "active_count": n, "free_slot": -1}
    numbers |= {"block_count": 3, "free_block": 2}
    edges = Edges(
        torch.full((n,), -1, dtype=torch.int32),
        torch.full((4, 7), -1, dtype=torch.int32),
        torch.zeros(4, 7),
        torch.tensor([-1, -1, 0, 0], dtype=torch.int32),
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(4, 7),
        torch.zeros(4, 7),
        torch.zeros(4, 7, dtype=torch.int32),
        torch.zeros(4, 7, dtype=torch.uint8),
        torch.full((4,), -1, dtype=torch.int32),
    )
    return edges, torch.ones(n, dtype=torch.uint8), torch.tensor([*numbers.values()])


def copied(given: tuple[Edges, Tensor, Tensor]) -> tuple[Edges, Tensor, Tensor]:
    return Edges(*(column.clone() for column in given[0])), given[1].clone(), given[2].clone()


def test_all_room_is_used_and_no_more(tmp_path):
    """Blocks go to events in their order, whosever they are: 2, 0 and then the last, 3."""
    given = small()
    sources = [7, 5, 7] + [5] * 7
    targets = [0, 0, 1, *range(10, 17)]
    pairs = torch.tensor(sources + sources), torch.tensor(targets + targets)
    follow_(*given, *pairs, **SHARES)
    assert given[0].first_block[[7, 5]].tolist() == [2, 3]
    assert given[0].next_block.tolist() == [-1, -1, -1, 0]
    assert given[2].tolist() == [20, 20, 0, -1, 4, -1, 10]

    before = copied(given)
    full = torch.tensor([7, 9, 5]), torch.tensor([3, 3, 3])
    with pytest.raises(AESGMemoryError, match="edges: expected room for 1 more blocks, got 0"):
        follow_(*given, *full, **SHARES)
    assert_same(given, before)
    follow_(*given, full[0][::2], full[1][::2], **SHARES)
    assert given[2][COUNTERS.index("edge_count")] == 12


def test_room_is_counted_to_the_block():
    """Of one source, 7 new successors a block, however often they come; of another an edge that is there."""
    given = small(40)
    follow_(*given, torch.tensor([30]), torch.tensor([31]), **SHARES)
    many = torch.tensor([1] * 28 + [30]), torch.tensor([*range(10, 24)] * 2 + [31])
    follow_(*given, *many, **SHARES)
    assert given[2][COUNTERS.index("block_count")] == 4 and given[2][COUNTERS.index("edge_count")] == 15
    before = copied(given)
    more = torch.tensor([2, 1, 2] + [30] * 8), torch.tensor([3, 25, 3, *range(8)])
    with pytest.raises(AESGMemoryError, match="edges: expected room for 3 more blocks, got 0"):
        follow_(*given, *more, **SHARES)
    assert_same(given, before)


def test_opcheck_and_compile():
    pairs = torch.tensor([1, 1, 2]), torch.tensor([2, 3, 1])
    given = small(), pairs
    torch.library.opcheck(
        torch.ops.aesg.follow_.default, (*tensors(given[0]), *pairs, None, *SHARES.values())
    )

    def run(*columns):
        follow_(Edges(*columns[:10]), *columns[10:12], *columns[12:], **SHARES)
        return [column + 0 for column in columns]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*tensors(small()), *pairs), run(*tensors(small()), *pairs), strict=True):
        assert torch.equal(got, want)


INT64 = torch.int64


@pytest.mark.parametrize(
    "text, change",
    [
        ("first_block: expected int32, got float32", {"first_block": torch.zeros(20)}),
        ("strengths: expected 4 blocks as in targets, got .5, 7.", {"strengths": torch.zeros(5, 7)}),
        ("weights: expected float32", {"weights": torch.zeros(4, 7, dtype=torch.float64)}),
        ("tags: expected 7 values a row", {"tags": torch.zeros(4, 6, dtype=torch.uint8)}),
        ("active: expected 20 rows as in first_block, got .19.", {"active": torch.ones(19) > 0}),
        ("active: expected bool or uint8", {"active": torch.ones(20)}),
        ("counters: expected 7 contiguous values", {"counters": torch.zeros(6, dtype=INT64)}),
        ("previous: expected int64, got int32", {"previous": torch.zeros(3, dtype=torch.int32)}),
        ("previous: expected shape .n., got .1, 3.", {"previous": torch.zeros(1, 3, dtype=INT64)}),
        ("current: expected the shape of previous, .3., got .4.", {"current": torch.zeros(4, dtype=INT64)}),
        ("current: expected int64", {"current": torch.zeros(3)}),
        ("initial: expected 0..1, got 1.5", {"initial": 1.5}),
        ("rate: expected 0..1, got -0.1", {"rate": -0.1}),
        ("yield_: expected 0..1, got nan", {"yield_": float("nan")}),
        ("expected all on cpu", {"current": torch.zeros(3, dtype=INT64, device="meta")}),
    ],
)
def test_bad_input_changes_nothing(text, change):
    edges, active, counters = small()
    given = {"active": active, "counters": counters, **SHARES}
    given |= {"previous": torch.tensor([0, 1, 2]), "current": torch.tensor([1, 2, 3])}
    columns = edges._asdict()
    (columns if next(iter(change)) in columns else given).update(change)
    before = [part.clone() for part in (*columns.values(), *given.values()) if isinstance(part, Tensor)]
    with pytest.raises(AESGMemoryError, match=text):
        follow_(Edges(**columns), **given)
    after = [part for part in (*columns.values(), *given.values()) if isinstance(part, Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True) if a.device.type == "cpu")


def test_damaged_chains_end():
    """Chains and lists that run in circles or lead outside: the call comes back."""
    for broken in (0, 2, 99, -7):
        edges, active, counters = small()
        edges.first_block[:] = broken
        edges.next_block[:] = broken
        edges.counts[:] = torch.tensor([9, 7, -3, 7])
        counters[COUNTERS.index("free_block")], counters[COUNTERS.index("block_count")] = broken, 1
        alive = active.clone()
        follow_(edges, active, counters, torch.tensor([1, 1, 2]), torch.tensor([2, 3, 1]), **SHARES)
        assert torch.equal(active, alive)


def damaged_list(kind: str) -> tuple[Edges, Tensor, Tensor]:
    """`small`, whose list of free blocks is not only 2 and then 0."""
    given = small()
    edges, _, counters = given
    if kind == "ring of one":
        edges.next_block[2] = 2
    elif kind == "ring of two":
        edges.next_block[0] = 2
    elif kind == "into a chain":
        edges.sources[0], edges.counts[0], edges.first_block[11], edges.targets[0, 0] = 11, 1, 0, 5
    elif kind == "behind the last":
        edges.next_block[2] = 3
    else:
        counters[COUNTERS.index("free_block")] = 3
    return given


# Blocks that four new sources get from a damaged list, and then from behind the last.
HANDED_OUT = {
    "ring of one": [2, 3, -1, -1],
    "ring of two": [2, 0, 3, -1],
    "into a chain": [2, 3, -1, -1],
    "behind the last": [2, 3, -1, -1],
    "head behind the last": [3, -1, -1, -1],
}
SOURCES = torch.tensor([7, 5, 9, 8])


@pytest.mark.parametrize("kind", HANDED_OUT)
def test_no_block_goes_to_two_sources(kind):
    """Where the list of free blocks is damaged it ends, and room is what is left."""
    given, blocks = damaged_list(kind), HANDED_OUT[kind]
    before, fitting = copied(given), sum(block >= 0 for block in blocks)
    with pytest.raises(AESGMemoryError, match=f"room for 4 more blocks, got {fitting}"):
        follow_(*given, SOURCES, SOURCES + 1, **SHARES)
    assert_same(given, before)
    follow_(*given, SOURCES[:fitting], SOURCES[:fitting] + 1, **SHARES)
    assert given[0].first_block[SOURCES].tolist() == blocks
    assert_no_block_is_shared(given[0], 20)


def test_no_room_where_the_number_of_blocks_is_none():
    given = small()
    given[2][COUNTERS.index("block_count")] = -(2**62)
    with pytest.raises(AESGMemoryError, match="room for 1 more blocks, got 0"):
        follow_(*given, SOURCES[:1], SOURCES[:1] + 1, **SHARES)


def on_cuda(given: tuple[Edges, Tensor, Tensor]) -> tuple[Edges, Tensor, Tensor]:
    return Edges(*(column.cuda() for column in given[0])), given[1].cuda(), given[2].cuda()


@needs_cuda
@pytest.mark.parametrize("name", CASES)
def test_cuda_has_the_bits_of_the_cpu(tmp_path, name):
    grown, pairs = case(name)
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, **grown)
        host = flat(learnt_of(storage, more_nodes=1, more_blocks=1))
    device = on_cuda(host)
    follow_(*device, *(part.cuda() for part in pairs), **SHARES)
    follow_(*host, *pairs, **SHARES)
    assert_same((Edges(*(c.cpu() for c in device[0])), device[1].cpu(), device[2].cpu()), host)


@needs_cuda
def test_cuda_follows_a_hub_and_in_a_graph(tmp_path):
    """Thousands of events of one source, twice by a captured graph."""
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, 3000, 2000, hub=500)
        host = flat(learnt_of(storage, more_blocks=2))
    pairs = events(3000, 5000, hub=0.9)
    device, there = on_cuda(host), tuple(part.cuda() for part in pairs)
    follow_(*on_cuda(host), *there, **SHARES)  # what loads lazily is loaded now
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        follow_(*device, *there, **SHARES)
    for _ in range(2):
        graph.replay()
        follow_(*host, *pairs, **SHARES)
    assert_same((Edges(*(c.cpu() for c in device[0])), device[1].cpu(), device[2].cpu()), host)
