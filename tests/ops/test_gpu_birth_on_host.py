"""The CUDA kernels of births, run thread by thread on the host, against the CPU ops: bit for bit."""

from __future__ import annotations

import ctypes
import shutil

import pytest
import torch
from bear_helpers import (
    CONFIDENCE,
    DIM,
    Births,
    assert_equal,
    bear_on_columns,
    changed,
    flat,
    make_store,
    nodes_of,
    some_births,
)
from edge_helpers import Learnt, assert_no_block_is_shared, learnt_of
from test_bear import STORES, room
from test_gpu_on_host import at, sizes
from test_gpu_search_on_host import check as check_search
from test_pack_rows import assert_same
from test_pack_rows import case as rows_case
from test_project_out import case as rests_case
from torch import Tensor

from aesg import _core
from aesg.exceptions import AESGMemoryError
from aesg.ops import COUNTERS, pack_rows, project_out, project_out_inv_norm_

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")

PLACE = {name: place for place, name in enumerate(COUNTERS)}


def pack_on_host(gpu, rows: Tensor, chosen: Tensor, most: Tensor | None) -> tuple[Tensor, ...]:
    got = torch.empty_like(rows), torch.empty(len(rows), dtype=torch.int64), torch.tensor([-7])
    gpu.on_host_pack_rows(at(rows), at(chosen), at(most), *sizes(*rows.shape), *map(at, got))
    return got


@pytest.mark.parametrize(
    "n, dim", [(0, 3), (0, 0), (9, 0), (1, 1), (7, 5), (255, 33), (257, 64), (4096, 2), (9001, 3)]
)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.1])
def test_pack_rows(gpu, n: int, dim: int, share: float) -> None:
    rows, chosen = rows_case(n, dim, share)
    for most in (None, -5, 0, 1, n // 4, n, n + 9):
        limit = None if most is None else torch.tensor([most])
        assert_same(pack_on_host(gpu, rows, chosen, limit), pack_rows(rows, chosen, most=limit))


def test_pack_rows_in_any_order_of_the_threads(gpu) -> None:
    rows, chosen = rows_case(5000, 3, 0.5)
    for seed in range(5):
        gpu.on_host_order(seed)
        assert_same(pack_on_host(gpu, rows, chosen, None), pack_rows(rows, chosen))


def test_pack_rows_that_are_not_finite(gpu) -> None:
    rows, chosen = rows_case(50, 2, 0.5)
    rows[:, 1] = float("nan")
    got, want = pack_on_host(gpu, rows, chosen, None), pack_rows(rows, chosen)
    assert_same([part.nan_to_num(7.0) for part in got], [part.nan_to_num(7.0) for part in want])


@pytest.mark.parametrize("tiles", [[0], [1, 4], [0, 3], [0, 1, 4], [2, 3, 4], [], [0, 1, 2, 3, 4]])
def test_the_search_for_links_passes_over_tiles_of_zeros(gpu, tiles: list[int]) -> None:
    torch.manual_seed(2)
    queries, vectors = torch.zeros(5, 64, 6), torch.randn(40, 6)
    queries[tiles] = torch.randn(len(tiles), 64, 6)
    queries = queries.flatten(0, 1)[:300]
    check_search(gpu, queries, vectors, 3, inv_norm=1 / vectors.norm(dim=1))


@pytest.mark.parametrize("n, dim", [(0, 3), (1, 1), (7, 5), (33, 32), (50, 33), (130, 70)])
def test_project_out(gpu, n: int, dim: int) -> None:
    for seed in range(3):
        gpu.on_host_order(seed)
        vectors, direction = rests_case(n, dim, seed)
        if n > 2:
            vectors[2, dim // 2] = float("inf")
        rests = torch.full_like(vectors, 7.0)
        gpu.on_host_project_out(at(vectors), at(direction), *sizes(n, dim), at(rests))
        want = project_out(vectors, direction)
        assert torch.equal(rests.nan_to_num(8.0), want.nan_to_num(8.0))
        slots = torch.randperm(n + 9)[:n]
        outside = torch.tensor([-1, n + 9, -(2**60)]).repeat(n)
        slots[::5] = outside[: len(slots[::5])]
        lengths = [torch.full((n + 9,), 7.0) for _ in range(2)]
        gpu.on_host_project_out_inv_norm(
            at(vectors), at(slots), at(direction), *sizes(n, dim), at(lengths[0]), *sizes(n + 9)
        )
        project_out_inv_norm_(lengths[1], vectors, slots, direction)
        assert torch.equal(lengths[0].nan_to_num(8.0), lengths[1].nan_to_num(8.0))


def bear_on_host(gpu, learnt: Learnt, births: Births, relevance: float = 1.0) -> Tensor:
    """As `bear_on_columns`, by the kernels."""
    columns = [*nodes_of(learnt), *learnt.edges]
    wide = {0, 9, 10, 13, 14, 15, 16}  # with a last dimension
    strides = []
    for place, column in enumerate(columns):
        groups = column.dim() - (place in wide) == 2
        strides += [column.stride(1), column.stride(0)] if groups else [column.stride(0), 0]
    slots = torch.full((len(births.packed),), 99)
    rows = [c.shape[0] * (1024 if strides[2 * i + 1] else 1) for i, c in enumerate(columns)]
    error = gpu.on_host_bear(
        *map(at, births), *sizes(len(births.packed), DIM, births.neighbors.shape[1]),
        (ctypes.c_void_p * 18)(*[column.data_ptr() for column in columns]),
        (ctypes.c_int64 * 36)(*strides), *sizes(rows[8], rows[9]), at(learnt.counters),
        ctypes.c_float(CONFIDENCE), ctypes.c_float(relevance), at(slots),
    )  # fmt: skip
    assert error == 0
    return slots


def check(gpu, learnt: Learnt, births: Births, relevance: float = 1.0) -> None:
    """Both on copies of their own."""
    ours, theirs = changed(learnt, torch.clone), changed(learnt, torch.clone)
    got = bear_on_host(gpu, ours, births, relevance)
    assert torch.equal(got, bear_on_columns(theirs, births, relevance))
    assert_equal(ours, theirs)


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize(
    "n, links, count", [(0, 4, 0), (1, 1, 1), (9, 4, 5), (70, 3, -1), (70, 5, 99), (700, 4, 699)]
)
def test_bear(gpu, tmp_path, name: str, n: int, links: int, count: int) -> None:
    with make_store(tmp_path, *STORES[name][:2], dead=STORES[name][2]) as storage:
        births = some_births(storage, n, links, count)
        check(gpu, changed(learnt_of(storage, 2, 6), flat), births, 0.75)


def test_bear_in_row_groups(gpu, tmp_path) -> None:
    with make_store(tmp_path, 1500, 5, dead=0.1) as storage:
        births, grouped = some_births(storage, 500, 4), learnt_of(storage, 1, 2)
        ours = changed(grouped, flat)
        assert torch.equal(bear_on_host(gpu, grouped, births), bear_on_columns(ours, births))
        assert_equal(changed(grouped, flat), ours)


@pytest.mark.parametrize("links", [1, 7, 8, 9, 33])
def test_all_want_the_same_neighbours(gpu, tmp_path, links: int) -> None:
    """Many blocks of one source in a chunk, head blocks with 0..7 edges, and further chunks."""
    with make_store(tmp_path, 60, 0) as storage:
        for source in range(1, 10):
            targets = torch.arange(40, 40 + source).numpy()
            ones = torch.full((source,), 0.5).numpy()
            _core.put_edges(storage.core, [source] * source, targets, ones, ones, 0)
        births = some_births(storage, 90, links)
        births = births._replace(neighbors=torch.arange(links).repeat(90, 1))
        check(gpu, changed(learnt_of(storage, 1, 2), flat), births)


def test_a_neighbour_whose_head_block_holds_no_edge(gpu, tmp_path) -> None:
    """All of its places are free; the block behind them leads to it, and to what it leads to."""
    with make_store(tmp_path, 60, 0) as storage:
        ones = torch.full((9,), 0.5).numpy()
        _core.put_edges(storage.core, [1] * 9, torch.arange(40, 49).numpy(), ones, ones, 0)
        births = some_births(storage, 30, 2)
        births = births._replace(neighbors=torch.arange(2).repeat(30, 1))
        learnt = changed(learnt_of(storage, 1, 1), flat)
        head = int(learnt.edges.first_block[1])
        learnt.edges.counts[head], learnt.edges.targets[head] = 0, -1
        check(gpu, learnt, births)


def test_no_links(gpu, tmp_path) -> None:
    with make_store(tmp_path, 40, 3) as storage:
        births = some_births(storage, 5, 1)
        none = births._replace(neighbors=torch.empty(5, 0, dtype=torch.int64), cosines=torch.empty(5, 0))
        check(gpu, changed(learnt_of(storage, 1, 1), flat), none)


def test_neighbours_that_do_not_live(gpu, tmp_path) -> None:
    with make_store(tmp_path, 40, 3) as storage:
        _core.retire(storage.core, [4], 2)
        odd = torch.tensor([[4, 7, 40, 2**40], [-9, 1024 * 5, 41, -(2**40)], [3, 42, 2047, 2048]])
        births = some_births(storage, 3, 4)._replace(neighbors=odd)
        check(gpu, changed(learnt_of(storage, 1, 1), flat), births)


def test_any_order_of_the_threads(gpu, tmp_path) -> None:
    with make_store(tmp_path, 300, 6, dead=0.1) as storage:
        births, learnt = some_births(storage, 290, 4), changed(learnt_of(storage, 1, 2), flat)
        for seed in range(5):
            gpu.on_host_order(seed)
            check(gpu, learnt, births)


def with_frame(learnt: Learnt) -> tuple[Learnt, list[Tensor]]:
    """A copy of flat columns with foreign rows around each, and what lies there."""
    frames = []

    def framed(column: Tensor) -> Tensor:
        if column is learnt.counters:
            return column.clone()
        whole = column.new_full((len(column) + 16, *column.shape[1:]), 77)
        whole[8:-8] = column
        frames.extend((whole[:8], whole[-8:]))
        return whole[8:-8]

    return changed(learnt, framed), frames


def test_what_has_no_room_is_left_out(gpu, tmp_path) -> None:
    with make_store(tmp_path, 300, 6, dead=0.1) as storage:
        births = some_births(storage, 290, 4)
        whole = learnt_of(storage, 1, 2)
        for slots, blocks in ((0, 200), (7, 200), (400, 0), (400, 31), (0, 0)):
            learnt, frames = with_frame(room(whole, slots, blocks))
            before = learnt.counters.clone()
            got = bear_on_host(gpu, learnt, births)
            born = min(290, 30 + slots)
            assert bool((got[:born] >= 0).all()) and bool((got[born:] == -1).all())
            moved = (learnt.counters - before).tolist()
            assert moved[PLACE["node_count"]] == born - 30
            assert moved[PLACE["active_count"]] == moved[PLACE["next_id"]] == born
            assert int(learnt.counters[PLACE["block_count"]]) <= len(learnt.edges.targets)
            assert moved[PLACE["edge_count"]] == int(learnt.edges.counts.sum()) - int(
                room(whole, slots, blocks).edges.counts.sum()
            )
            assert all(bool((frame == 77).all()) for frame in frames)
            if blocks == 200:  # all but those who found no slot
                few = births._replace(count=torch.tensor([born]))
                want = room(whole, slots, blocks)
                bear_on_columns(want, few)
                assert_equal(learnt, want)
            else:
                with pytest.raises(AESGMemoryError, match="room"):
                    bear_on_columns(room(whole, slots, blocks), births)
                assert int((learnt.edges.targets >= 0).sum()) == int(learnt.edges.counts.sum())


def test_damaged_lists_and_chains_end(gpu, tmp_path) -> None:
    """Rings, places outside and what is not free: nothing outside is written, and the call ends."""
    with make_store(tmp_path, 300, 6, dead=0.1) as storage:
        births, whole = some_births(storage, 290, 4), changed(learnt_of(storage, 1, 2), flat)
    slot, block = (int(whole.counters[PLACE[name]]) for name in ("free_slot", "free_block"))
    n, m = len(whole.edges.first_block), len(whole.edges.targets)

    def damage(learnt: Learnt, kind: str) -> None:
        generator = torch.Generator().manual_seed(1)
        if kind == "slot in use":
            learnt.nodes["is_active"][slot] = 1
        elif kind == "ring of slots":
            learnt.edges.first_block[slot] = -slot - 2
        elif kind == "slot outside":
            learnt.edges.first_block[slot] = -n - 9
        elif kind == "head outside":
            learnt.counters[PLACE["free_slot"]] = 2**40
            learnt.counters[PLACE["free_block"]] = 2**40
        elif kind == "ring of blocks":
            learnt.edges.next_block[block] = block
        elif kind == "blocks in use":
            learnt.edges.next_block[block] = int(learnt.edges.first_block.max())
        elif kind == "block outside":
            learnt.edges.next_block[block] = m + 5
        elif kind == "counters below":
            learnt.counters[:] = -(2**40)
        elif kind == "counters above":
            learnt.counters[:] = 2**40
        elif kind == "any first blocks":
            learnt.edges.first_block[:] = torch.randint(-n, 2 * m, (n,), generator=generator)
        elif kind == "any counts":
            learnt.edges.counts[:] = torch.randint(-9, 20, (m,), generator=generator)

    for kind in (
        "slot in use", "ring of slots", "slot outside", "head outside", "ring of blocks", "blocks in use",
        "block outside", "counters below", "counters above", "any first blocks", "any counts",
    ):  # fmt: skip
        learnt, frames = with_frame(whole)
        damage(learnt, kind)
        got = bear_on_host(gpu, learnt, births)
        assert bool(((got >= -1) & (got < n)).all()), kind
        assert all(bool((frame == 77).all()) for frame in frames), kind
        living = got[got >= 0]
        assert len(living) == len(living.unique()), kind
        if kind in ("ring of blocks", "blocks in use", "block outside"):
            assert_no_block_is_shared(learnt.edges, int(learnt.counters[PLACE["node_count"]]))
            assert len(living) == 290 and bool((learnt.edges.first_block[living] >= 0).any())
