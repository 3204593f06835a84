"""The CUDA kernels of follow_ and retire_, thread by thread on the host, against the CPU ops and a store."""

from __future__ import annotations

import ctypes
import shutil

import pytest
import torch
from edge_helpers import assert_learnt, assert_no_block_is_shared, learnt_of
from ops_helpers import grouped
from test_follow import (
    CASES,
    HANDED_OUT,
    SHARES,
    SOURCES,
    Events,
    arguments,
    assert_same,
    case,
    copied,
    damaged_list,
    flat,
    follow_in,
    grow,
    small,
)
from test_gpu_on_host import at, sizes
from test_retire import CASES as DEATHS
from test_retire import crossed, doomed_of, free_blocks
from torch import Tensor

from aesg import _core
from aesg.ops import COUNTERS, Edges, follow_, retire_
from aesg.storage.engine import AESGStorage

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")

Given = tuple[Edges, Tensor, Tensor]


class Place(ctypes.Structure):
    _fields_ = [
        ("base", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("rows", "row_stride", "group_stride")),
    ]


def place_of(column: Tensor, trailing: int = 0) -> Place:
    if column.dim() == 1 + trailing:
        return Place(column.data_ptr(), column.shape[0], column.stride(0), 0)
    return Place(column.data_ptr(), column.shape[0] * 1024, column.stride(1), column.stride(0))


def places(edges: Edges, *nodes: Tensor) -> ctypes.Array[Place]:
    wide = edges.targets.dim() - edges.counts.dim()
    of_edges = [place_of(c, wide if c.shape[-1:] == (7,) else 0) for c in edges]
    made = [*of_edges, *map(place_of, nodes)]
    return (Place * len(made))(*made)


def follow_on_host(gpu: ctypes.CDLL, given: Given, pairs: Events, order: Tensor | None = None) -> None:
    edges, active, counters = given
    order = torch.sort(pairs[0], stable=True).indices if order is None else order
    error = gpu.on_host_follow(
        places(edges, active), at(counters), *map(at, pairs), at(order), *sizes(len(pairs[0])),
        *map(ctypes.c_float, SHARES.values()),
    )  # fmt: skip
    assert error == 0


def retire_on_host(gpu: ctypes.CDLL, given: Given, doomed: Tensor) -> int:
    died = torch.full((1,), -9)
    assert gpu.on_host_retire(places(given[0], given[1], doomed), at(given[2]), at(died)) == 0
    return int(died)


@pytest.mark.parametrize("name", CASES)
def test_follow(gpu, tmp_path, name) -> None:
    grown, pairs = case(name)
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, **grown)
        learnt = learnt_of(storage, more_nodes=1, more_blocks=1)
        want = flat(learnt)
        gpu.on_host_order(len(name))
        follow_on_host(gpu, arguments(learnt), pairs)
        follow_(*want, *pairs, **SHARES)
        assert_same(flat(learnt), want)
        follow_in(storage, pairs)
        assert_learnt(learnt, storage)


@pytest.mark.parametrize("seed", range(3))
def test_follow_in_any_order_of_the_threads(gpu, tmp_path, seed) -> None:
    grown, pairs = case("a hub")
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, **grown, seed=seed)
        got = flat(learnt_of(storage, more_blocks=1))
    want = copied(got)
    gpu.on_host_order(100 + seed)
    for _ in range(2):  # the second time most edges are there
        follow_on_host(gpu, got, pairs)
        follow_(*want, *pairs, **SHARES)
        assert_same(got, want)


@pytest.mark.parametrize("count", [31, 32, 33, 64, 100])
def test_follow_where_a_run_ends_with_a_warp(gpu, count) -> None:
    """One source with so many new successors, then another; few blocks, flat and of odd number."""
    edges, active, counters = small(140)
    more = 30
    edges = Edges(edges.first_block, *(torch.cat([c, c[:1].expand(more, *c.shape[1:])]) for c in edges[1:]))
    edges.next_block[:] = torch.tensor([-1, -1, 0, *[-1] * (1 + more)])
    sources = torch.cat([torch.full((count,), 3), torch.full((40,), 4)])
    targets = torch.cat([5 + torch.arange(count), 5 + torch.arange(40)])
    got, want = (edges, active, counters), copied((edges, active, counters))
    mixed = torch.randperm(count + 40, generator=torch.Generator().manual_seed(count))
    pairs = sources[mixed], targets[mixed]
    follow_on_host(gpu, got, pairs)
    follow_(*want, *pairs, **SHARES)
    assert_same(got, want)


def test_follow_leaves_alone_what_no_event_meets(gpu) -> None:
    """A strength that does not follow from weight and confidence tells."""
    given = small()
    follow_(*given, torch.tensor([1, 2]), torch.tensor([2, 1]), **SHARES)
    given[0].strengths[given[0].first_block[1], 0] = 0.875
    given[1][3] = 0
    before = copied(given)
    follow_on_host(gpu, given, (torch.tensor([1, 1, 1]), torch.tensor([1, 3, -1])))
    assert_same(given, before)


@pytest.mark.parametrize("seed", range(3))
def test_follow_passes_over_long_runs_of_no_source(gpu, seed) -> None:
    """Most rows follow nothing, or what died, as when streams begin; sources lie on both sides of these."""
    given = small(40)
    given[1][20:23] = 0
    generator = torch.Generator().manual_seed(seed)
    sources = torch.cat([torch.full((100,), -1), torch.full((70,), 21), torch.full((40,), 2**40)])
    living = torch.tensor([19, 23, 24])[torch.randint(3, (20,), generator=generator)]
    sources = torch.cat([sources, living])
    sources = sources[torch.randperm(len(sources), generator=generator)]
    targets = torch.randint(-1, 6, (len(sources),), generator=generator)  # a block each
    got, want = given, copied(given)
    gpu.on_host_order(seed)
    for _ in range(2):
        follow_on_host(gpu, got, (sources, targets))
        follow_(*want, sources, targets, **SHARES)
        assert_same(got, want)
    assert int(want[2][COUNTERS.index("edge_count")]) > 0


def test_follow_without_room_writes_nothing_outside(gpu) -> None:
    """Blocks go to events in their order until there are no more; the other edges are not made."""
    given = small(40)
    sources = torch.tensor([7, 5, 7] + [5] * 9 + [9] * 3 + [7] * 20)
    targets = torch.tensor([0, 0, 1, *range(10, 19), 1, 2, 3, *range(10, 30)])
    follow_on_host(gpu, given, (sources, targets))
    edges, _, counters = given
    assert edges.first_block[[7, 5, 9]].tolist() == [2, 3, -1] and edges.next_block.tolist() == [
        -1,
        -1,
        -1,
        0,
    ]
    assert edges.targets[0].tolist() == [0, *range(10, 16)] and edges.counts.tolist() == [7, 0, 7, 3]
    assert edges.targets[3].tolist() == [16, 17, 18, -1, -1, -1, -1]
    assert edges.targets[2].tolist() == [0, 1, *range(10, 15)]
    assert counters.tolist() == [40, 40, 0, -1, 4, -1, int(edges.counts.sum())]

    before = copied(given)
    follow_on_host(gpu, given, (torch.tensor([9, 9, 8]), torch.tensor([1, 2, 9])))
    assert_same(given, before)


def test_follow_with_damaged_input_ends(gpu) -> None:
    pairs = torch.tensor([1, 1, 2, 3]), torch.tensor([2, 3, 1, 1])
    orders = [
        torch.tensor(order) for order in ([3, 2, 1, 0], [0, 0, 0, 0], [1, -1, 9, 2], [2**62, -(2**62), 3, 0])
    ]
    for broken in (0, 2, 99, -7, -1):
        for order in orders:
            given = small()
            given[0].first_block[:] = broken
            given[0].next_block[:] = broken
            given[0].counts[:] = torch.tensor([9, 7, -3, 7])
            given[2][COUNTERS.index("free_block")] = broken
            alive = given[1].clone()
            follow_on_host(gpu, given, pairs, order)
            assert torch.equal(given[1], alive)
    given = small()
    given[2][:] = torch.tensor([2**62, 0, 0, 0, -(2**62), 2**40, 0])
    follow_on_host(gpu, given, pairs)


@pytest.mark.parametrize("kind", HANDED_OUT)
def test_no_block_goes_to_two_sources(gpu, kind) -> None:
    """Where the list of free blocks is damaged it ends; edges that find no block are not made."""
    given, blocks = damaged_list(kind), HANDED_OUT[kind]
    want, fitting = copied(given), sum(block >= 0 for block in blocks)
    follow_(*want, SOURCES[:fitting], SOURCES[:fitting] + 1, **SHARES)
    follow_on_host(gpu, given, (SOURCES, SOURCES + 1))
    want[2][COUNTERS.index("free_block")] = -1  # whose end only the device came to
    assert_same(given, want)
    assert given[0].first_block[SOURCES].tolist() == blocks
    assert_no_block_is_shared(given[0], 20)


@pytest.mark.parametrize("name", DEATHS)
def test_retire(gpu, tmp_path, name) -> None:
    n, edges, hub, share = DEATHS[name]
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, n, edges, hub)
        learnt = learnt_of(storage, more_nodes=1, more_blocks=1)
        want = flat(learnt)
        doomed = doomed_of(n, len(want[1]), share)
        gpu.on_host_order(len(name))
        died = retire_on_host(gpu, arguments(learnt), grouped(doomed))
        assert retire_(*want, doomed).tolist() == [died]
        assert_same(flat(learnt), want)
        assert _core.retire(storage.core, torch.nonzero(doomed)[:, 0].numpy(), 0) == died
        assert_learnt(learnt, storage)


def test_retire_of_many_tiles(gpu, tmp_path) -> None:
    """More tiles than threads connect them, most without a death, and no slots at all."""
    rows = 256 * 300 + 17
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, 3000, 4000)
        few = flat(learnt_of(storage))
    spread = torch.randperm(rows, generator=torch.Generator().manual_seed(1))[: len(few[1])].sort().values
    first, active = torch.full((rows,), -1, dtype=torch.int32), torch.zeros(rows, dtype=torch.uint8)
    first[spread], active[spread] = few[0].first_block, few[1]
    doomed = (torch.rand(rows, generator=torch.Generator().manual_seed(2)) < 0.3).to(torch.uint8)
    doomed[: rows // 3] = 0
    sources = few[0].sources
    sources[sources >= 0] = spread.to(torch.int32)[sources[sources >= 0].long()]
    got = few[0]._replace(first_block=first), active, few[2]
    want = copied(got)
    assert retire_(*want, doomed).tolist() == [retire_on_host(gpu, got, doomed)]
    assert_same(got, want)

    nobody = got[0]._replace(first_block=first[:0]), active[:0], got[2]
    assert retire_on_host(gpu, nobody, doomed[:0]) == 0
    assert_same(got, want)


def test_retire_leaves_blocks_without_an_edge(gpu) -> None:
    got = small()
    got[0].first_block[3] = 1
    want, doomed = copied(got), (torch.arange(20) == 3).to(torch.uint8)
    assert retire_(*want, doomed).tolist() == [retire_on_host(gpu, got, doomed)]
    assert_same(got, want)
    assert got[0].first_block[3] == 1


def test_retire_with_damaged_chains_ends(gpu) -> None:
    for broken in (0, 2, 99, -7):
        given = small()
        given[0].first_block[:] = broken
        given[0].next_block[:] = broken
        given[0].counts[:] = torch.tensor([9, 7, -3, 7])
        given[2][COUNTERS.index("free_block")] = 2**40 + broken
        assert retire_on_host(gpu, given, torch.ones(20, dtype=torch.uint8)) == 20


@pytest.mark.parametrize("kind", ["ring", "two of one"])
def test_retire_gives_no_block_back_twice(gpu, kind) -> None:
    got, doomed = crossed(kind)
    want = copied(got)
    assert retire_(*want, doomed).tolist() == [retire_on_host(gpu, got, doomed)]
    assert_same(got, want)
    assert len(free_blocks(got)) >= 2
