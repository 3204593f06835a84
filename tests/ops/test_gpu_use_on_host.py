"""The CUDA kernels of count_use_ and coactivate_, thread by thread on the host, against the CPU ops."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Sequence

import pytest
import torch
from edge_helpers import assert_learnt, learnt_of
from ops_helpers import grouped
from test_coactivate import RATE, build, copied, flat, ring, rows_of
from test_count_use import GAIN, same
from test_count_use import case as uses_case
from test_gpu_on_host import at, sizes
from torch import Tensor

from aesg import _core
from aesg.ops import Edges, coactivate_, count_use_
from aesg.storage.engine import AESGStorage

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


class Given(ctypes.Structure):
    _fields_ = [
        ("base", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("rows", "row_stride", "group_stride")),
    ]


def given(column: Tensor, values: int = 0) -> Given:
    """A column of `values` each row, 0: no last dimension."""
    rows = column.dim() - bool(values)
    if rows == 1:
        return Given(column.data_ptr(), column.shape[0], column.stride(0), 0)
    return Given(column.data_ptr(), column.shape[0] * 1024, column.stride(1), column.stride(0))


def count_on_host(
    gpu: ctypes.CDLL,
    columns: Sequence[Tensor],
    members: Tensor,
    energies: Tensor,
    order: Tensor | None = None,
) -> None:
    if order is None:
        order = torch.sort(members.reshape(-1), stable=True).indices
    error = gpu.on_host_count_use(
        (Given * 3)(*map(given, columns)), at(members), at(energies), at(order), *sizes(members.numel()),
        ctypes.c_float(GAIN),
    )  # fmt: skip
    assert error == 0


def coactivate_on_host(
    gpu: ctypes.CDLL, edges: Edges, active: Tensor, primaries: Tensor, rate: float = RATE
) -> None:
    rows, width = primaries.shape
    pairs = torch.full((rows * width * max(width - 1, 0),), 77)
    assert gpu.on_host_coactivation_pairs(at(primaries), *sizes(rows, width), at(pairs)) == 0
    assert torch.equal(pairs, torch.ops.aesg.coactivation_pairs(primaries))
    take_pairs(gpu, edges, active, torch.sort(pairs).values, rate)


def take_pairs(gpu: ctypes.CDLL, edges: Edges, active: Tensor, pairs: Tensor, rate: float = RATE) -> None:
    wide = ("targets", "strengths", "weights", "confidences", "use_counts", "tags")
    columns = [given(column, 7 * (name in wide)) for name, column in zip(Edges._fields, edges, strict=True)]
    error = gpu.on_host_coactivate(
        (Given * 11)(*columns, given(active)), at(pairs), *sizes(len(pairs)), ctypes.c_float(rate)
    )
    assert error == 0


@pytest.mark.parametrize(
    "n, count, hub",
    [(9, 0, 0), (1, 1, 0), (2, 11, 0), (50, 300, 0), (50, 300, 900), (3000, 700, 0), (400, 2000, 3000)],
)
def test_count_use(gpu, n: int, count: int, hub: int) -> None:
    ours, theirs = uses_case(n, count, hub=hub), uses_case(n, count, hub=hub)
    count_use_(*theirs, gain=GAIN)
    count_on_host(gpu, ours[:3], *ours[3:])
    assert same(ours, theirs)


@pytest.mark.parametrize("lead", [0, 1, 30, 31, 32, 33, 63])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 255, 256, 257, 287, 288, 289, 513, 600])
def test_runs_of_every_length_from_every_lane_on(gpu, lead: int, length: int) -> None:
    """`lead` uses of slots of their own, a run, another run, and one use more."""
    members = torch.tensor([*range(lead), *[70] * length, *[71] * (length // 2 + 1), 72])
    generator = torch.Generator().manual_seed(lead * 1000 + length)
    energies = torch.rand(len(members), generator=generator)
    ours = [torch.zeros(80, dtype=torch.int32), torch.full((80,), 0.1), torch.ones(80, dtype=torch.bool)]
    theirs = [column.clone() for column in ours]
    count_use_(*theirs, members, energies, gain=GAIN)
    count_on_host(gpu, ours, members, energies)
    assert same(ours, theirs)


@pytest.mark.parametrize("start", [0.0, -0.0, 0.999999, 1.0, 1.5])
@pytest.mark.parametrize("energy", [0.0, 1.0, 0.37])
@pytest.mark.parametrize("most", [0.0, 1.0])
def test_a_hub_that_has_come_to_rest(gpu, start: float, energy: float, most: float) -> None:
    """Then uses of more energy may change it again."""
    energies = torch.full((1500,), energy)
    energies[1400:] = torch.linspace(0, most, 100)
    members = torch.zeros(1500, dtype=torch.int64)
    ours = [torch.zeros(1, dtype=torch.int32), torch.tensor([start]), torch.ones(1, dtype=torch.bool)]
    theirs = [column.clone() for column in ours]
    count_use_(*theirs, members, energies, gain=GAIN)
    count_on_host(gpu, ours, members, energies)
    assert same(ours, theirs) and ours[0].item() == 1500
    assert torch.equal(ours[1].view(torch.int32), theirs[1].view(torch.int32)), "the sign of zero"


@pytest.mark.parametrize("place", [0, 31, 32, 255, 256, 300, 511, 512, 700])
def test_one_use_among_many_without_energy(gpu, place: int) -> None:
    energies, members = torch.zeros(701), torch.zeros(701, dtype=torch.int64)
    energies[place] = 1.0
    ours = [torch.zeros(1, dtype=torch.int32), torch.tensor([0.5]), torch.ones(1, dtype=torch.bool)]
    count_on_host(gpu, ours, members, energies)
    assert ours[0].item() == 701 and ours[1].item() == pytest.approx(0.55)


def test_a_dead_hub_is_left_alone(gpu) -> None:
    ours = uses_case(50, 300, hub=600)
    ours[2][3] = False
    theirs = [part.clone() for part in ours]
    count_use_(*theirs, gain=GAIN)
    count_on_host(gpu, ours[:3], *ours[3:])
    assert same(ours, theirs)


def test_count_use_in_row_groups(gpu) -> None:
    uses, relevance, active, members, energies = uses_case(2500, 2000, hub=700)
    ours = [grouped(uses), grouped(relevance), grouped(active)]
    theirs = [uses, relevance, active]
    count_use_(*theirs, members, energies, gain=GAIN)
    count_on_host(gpu, ours, members, energies)
    for got, want in zip(ours, theirs, strict=True):
        assert torch.equal(got.flatten()[:2500], want) and not bool(got.flatten()[2500:].any())


def test_an_order_that_is_none_stays_inside(gpu) -> None:
    ours = uses_case(50, 300, hub=300)
    order = torch.randint(-9, 909, (900,), generator=torch.Generator().manual_seed(2))
    count_on_host(gpu, ours[:3], *ours[3:], order)
    assert bool(ours[1].isfinite().all()) and bool((ours[0] >= uses_case(50, 300)[0]).all())


@pytest.mark.parametrize("far", [2**45, -(2**45)])
@pytest.mark.parametrize("sound", [0, 20, 100, 300])
def test_an_order_that_leads_far_out(gpu, far: int, sound: int) -> None:
    """After `sound` places of a run, in a tile or behind it."""
    members, energies = torch.zeros(600, dtype=torch.int64), torch.rand(600)
    order = torch.arange(600)
    order[sound:] = far
    ours = [torch.zeros(1, dtype=torch.int32), torch.zeros(1), torch.ones(1, dtype=torch.bool)]
    theirs = [column.clone() for column in ours]
    count_use_(*theirs, members[:sound], energies[:sound], gain=GAIN)
    count_on_host(gpu, ours, members, energies, order)
    assert same(ours, theirs)


def test_what_lies_beside_an_order_does_not_count(gpu) -> None:
    members, energies = torch.zeros(70, dtype=torch.int64), torch.rand(70)
    ours = [torch.zeros(1, dtype=torch.int32), torch.zeros(1), torch.ones(1, dtype=torch.bool)]
    theirs = [column.clone() for column in ours]
    count_use_(*theirs, members[1:-1].clone(), energies[1:-1].clone(), gain=GAIN)
    places = torch.tensor([0, *range(68), 0, 0])
    count_on_host(gpu, ours, members[1:-1], energies[1:-1], places[1:-2])
    assert same(ours, theirs)


def test_any_order_of_the_threads(gpu, tmp_path) -> None:
    uses = uses_case(50, 300, hub=400)
    count_use_(*uses, gain=GAIN)
    with AESGStorage(str(tmp_path), 3) as storage:
        build(storage, 30, 150, hub=25)
        edges, active = flat(learnt_of(storage))
    rows = rows_of(30, 100)
    want = copied(edges)
    coactivate_(want, active, rows, rate=RATE)
    for seed in range(5):
        gpu.on_host_order(seed)
        ours = uses_case(50, 300, hub=400)
        count_on_host(gpu, ours[:3], *ours[3:])
        assert same(ours, uses)
        got = copied(edges)
        coactivate_on_host(gpu, got, active, rows)
        assert same(got, want) and not same(got, edges)


@pytest.mark.parametrize(
    "n, edges, hub, rows, width",
    [
        (1, 0, 0, 3, 3),
        (40, 100, 0, 0, 3),
        (40, 100, 0, 50, 1),
        (40, 100, 0, 50, 6),
        (1500, 3000, 700, 500, 3),
    ],
)
def test_coactivate_as_the_store_does(
    gpu, tmp_path, n: int, edges: int, hub: int, rows: int, width: int
) -> None:
    with AESGStorage(str(tmp_path), 3) as storage:
        build(storage, n, edges, hub)
        learnt = learnt_of(storage, more_nodes=1, more_blocks=1)
        flat_edges, active = flat(learnt)
        for seed, rate in enumerate((RATE, 0.5)):
            primaries = rows_of(n, rows, width, hub=hub > 0, seed=seed)
            coactivate_on_host(gpu, learnt.edges, learnt.nodes["is_active"], primaries, rate)
            coactivate_on_host(gpu, flat_edges, active, primaries, rate)
            _core.coactivate(storage.core, primaries.numpy(), rate)
            assert_learnt(learnt, storage)
            assert same(flat(learnt)[0], flat_edges)


def test_many_equal_pairs(gpu, tmp_path) -> None:
    """Runs of 1 to 300, found by steps that double."""
    with AESGStorage(str(tmp_path), 3) as storage:
        _core.bear(storage.core, torch.randn(300, 3).numpy(), 0)
        _core.put_edges(storage.core, [0] * 299, range(1, 300), [0.7] * 299, [0.1] * 299)
        learnt = learnt_of(storage)
        rows = torch.tensor([(0, target) for target in range(1, 300) for _ in range(target)])
        coactivate_on_host(gpu, learnt.edges, learnt.nodes["is_active"], rows, 0.001)
        _core.coactivate(storage.core, rows.numpy(), 0.001)
        assert_learnt(learnt, storage)
    assert int(learnt.edges.use_counts.max()) == 299


@pytest.mark.parametrize("taken", [1, 2, 5, 9])
def test_pairs_behind_the_last_do_not_count(gpu, tmp_path, taken: int) -> None:
    with AESGStorage(str(tmp_path), 3) as storage:
        _core.bear(storage.core, torch.randn(2, 3).numpy(), 0)
        _core.put_edges(storage.core, [0], [1], [0.7], [0.1])
        learnt = learnt_of(storage)
        take_pairs(gpu, learnt.edges, learnt.nodes["is_active"], torch.ones(20, dtype=torch.int64)[:taken])
        _core.coactivate(storage.core, torch.tensor([[0, 1]] * taken).numpy(), RATE)
        assert_learnt(learnt, storage)


@pytest.mark.parametrize("length", [1, 2, 5, 64])
def test_a_ring_is_not_gone_through_for_every_block_there_is(gpu, length: int) -> None:
    ours, active = ring(5000, length)
    theirs = copied(ours)
    coactivate_(theirs, active, torch.tensor([[0, 1]]), rate=RATE)
    coactivate_on_host(gpu, ours, active, torch.tensor([[0, 1]]))
    assert same(ours, theirs) and int(ours.use_counts.sum()) <= 4 * length


def test_what_is_damaged_stays_inside(gpu, tmp_path) -> None:
    """Chains that run in rings or out of the graph, and pairs that nobody sorted."""
    with AESGStorage(str(tmp_path), 3) as storage:
        build(storage, 30, 150, hub=25)
        edges, active = flat(learnt_of(storage))
    edges = Edges(*(column[:40].clone() for column in edges))
    active, generator = active[:40], torch.Generator().manual_seed(0)
    damaged = edges._replace(
        next_block=torch.randint(-3, 43, (40,), generator=generator, dtype=torch.int32),
        counts=torch.randint(-9, 99, (40,), generator=generator, dtype=torch.int32),
        first_block=torch.randint(-9, 49, (40,), generator=generator, dtype=torch.int32),
        targets=torch.randint(-9, 49, (40, 7), generator=generator, dtype=torch.int32),
    )
    coactivate_on_host(gpu, damaged, active, rows_of(60, 200))
    pairs = torch.randint(-(2**62), 2**62, (500,), generator=generator)
    pairs[::2] = pairs[::2] % 45 << 32 | pairs[1::2] % 45
    before = Edges(*(column.clone() for column in damaged))
    take_pairs(gpu, damaged, active, pairs)
    for name in ("first_block", "targets", "next_block", "counts", "weights", "sources"):
        assert torch.equal(getattr(damaged, name), getattr(before, name)), name
