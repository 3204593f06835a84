"""count_use_: the oracle's and the store's bits in every layout, and what it refuses."""

import pytest
import torch
from edge_helpers import assert_learnt, learnt_of
from ops_helpers import grouped, needs_cuda

from aesg import _core
from aesg.exceptions import AESGMemoryError
from aesg.ops import count_use_
from aesg.ops.reference_learning import count_use_ref_
from aesg.storage.engine import AESGStorage
from tests.pretended_cuda import Pretended, needs_no_cuda, pretended_cuda

GAIN = 0.1


def case(n=50, count=300, seed=0, hub=0):
    """use_frequency, relevance, active [n]; members, energies [count, 3]. `hub` of the uses are of slot 3."""
    generator = torch.Generator().manual_seed(seed)
    uses = torch.randint(0, 9, (n,), generator=generator, dtype=torch.int32)
    relevance = torch.rand(n, generator=generator) * 1.2  # what was imported may lie above 1
    active = torch.rand(n, generator=generator) < 0.8
    members = torch.randint(-3, n + 4, (count, 3), generator=generator)
    energies = torch.rand(count, 3, generator=generator)
    if hub:
        active[3] = True
        relevance[3] = 0.0
        places = torch.randperm(3 * count, generator=generator)[:hub]
        members.view(-1)[places] = 3
    return [uses, relevance, active, members, energies]


def same(ours, theirs):
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("n, count, hub", [(9, 0, 0), (1, 1, 0), (50, 300, 0), (2500, 700, 400)])
def test_same_as_the_oracle(n, count, hub):
    ours, theirs = case(n, count, hub=hub), case(n, count, hub=hub)
    count_use_(*ours, gain=GAIN)
    count_use_ref_(*theirs, gain=GAIN)
    assert same(ours, theirs)
    assert count < 2 or not same(ours[:2], case(n, count, hub=hub)[:2])


def test_an_empty_graph_has_no_uses():
    given = [
        torch.zeros(0, dtype=torch.int32),
        torch.zeros(0),
        torch.zeros(0, dtype=torch.uint8),
        torch.tensor([0, -1, 5]),
        torch.ones(3),
    ]
    before = [part.clone() for part in given]
    count_use_(*given, gain=GAIN)
    assert same(given, before)
    count_use_ref_(*given, gain=GAIN)
    assert same(given, before)


def test_the_uses_of_one_slot_count_in_their_order():
    """In f32 the order is in the bits: some order of the same uses gives other ones."""
    given = case(4, 5, hub=15)
    count_use_(*given, gain=GAIN)
    want = case(4, 5, hub=15)
    for energy in want[4].flatten():
        want[1][3] = want[1][3] + torch.tensor(GAIN) * energy * (1 - want[1][3])
    assert given[1][3] == want[1][3] and given[0][3] == want[0][3] + 15
    back = case(4, 5, hub=15)
    back[4] = back[4].flatten().flip(0).reshape(5, 3)
    count_use_(*back, gain=GAIN)
    assert given[1][3] != back[1][3]


def test_dead_unknown_and_negative_slots_are_left_out():
    uses, relevance = torch.zeros(3, dtype=torch.int32), torch.zeros(3)
    active = torch.tensor([1, 0, 1], dtype=torch.uint8)
    members = torch.tensor([0, 1, -1, 3, -(2**62), 2**62, 2**32, 2, 0])
    count_use_(uses, relevance, active, members, torch.ones(9), gain=0.5)
    assert uses.tolist() == [2, 0, 1] and relevance.tolist() == [0.75, 0.0, 0.5]


def test_relevance_from_1_on_stays_and_counts_wrap():
    uses = torch.tensor([-1, 2**31 - 1], dtype=torch.int32)
    relevance = torch.tensor([1.5, 1.0])
    given = [uses, relevance, torch.ones(2, dtype=torch.bool), torch.tensor([0, 1]), torch.ones(2)]
    count_use_(*given, gain=1.0)
    assert uses.tolist() == [0, -(2**31)] and relevance.tolist() == [1.5, 1.0]


def test_an_order_that_keeps_those_of_a_slot_in_theirs_gives_the_same_bits():
    ours, theirs = case(20, 200), case(20, 200)
    count_use_(*theirs, gain=GAIN)
    order = torch.sort(ours[3].reshape(-1), stable=True).indices
    torch.ops.aesg.count_use_(*ours, order, GAIN)
    assert same(ours, theirs)
    order[0] = -1  # left out
    torch.ops.aesg.count_use_(*ours, order.flip(0), GAIN)
    count_use_(*theirs[:3], *(part.reshape(-1)[order[1:].flip(0)] for part in theirs[3:]), gain=GAIN)
    assert same(ours, theirs)


@pytest.mark.parametrize("n", [50, 2500])
def test_columns_in_row_groups_and_members_that_are_views(n):
    flat, strided = case(n), case(n)
    strided[:3] = [grouped(column) for column in flat[:3]]
    wide = torch.full((300, 9), -1)
    wide[:, 1:7:2] = strided[3]
    strided[3] = wide[:, 1:7:2]
    count_use_(*flat, gain=GAIN)
    count_use_(*strided, gain=GAIN)
    for got, want in zip(strided[:2], flat[:2], strict=True):
        assert torch.equal(got.flatten()[:n], want) and not bool(got.flatten()[n:].any())


def test_as_the_store_does(tmp_path):
    """Over two row groups, some concepts dead, with room behind the slots in use."""
    _, _, _, members, energies = case(1500, 4000, hub=900)
    with AESGStorage(str(tmp_path), 3) as storage:
        core = storage.core
        _core.bear(core, torch.randn(1500, 3).numpy(), 0)
        _core.retire(core, [0, 7, 1100], 0)
        learnt = learnt_of(storage, more_nodes=1)
        nodes = learnt.nodes
        columns = nodes["use_frequency"], nodes["relevance"], nodes["is_active"]
        for gain in (0.1, 0.0, 1.0):
            count_use_(*columns, members, energies, gain=gain)
            _core.use(core, members.numpy().reshape(-1), energies.numpy().reshape(-1), gain)
            assert_learnt(learnt, storage)


def test_opcheck_and_compile():
    torch.library.opcheck(torch.ops.aesg.count_use_.default, (*case(), None, GAIN))

    def run(*given):
        count_use_(*given, gain=GAIN)
        return [part + 0 for part in given[:2]]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert same(compiled(*case()), run(*case()))


@pytest.mark.parametrize(
    "text, change, gain",
    [
        ("use_frequency: expected int32 or uint32, got int64", {0: torch.zeros(50).long()}, GAIN),
        ("relevance: expected 50 rows as in use_frequency", {1: torch.zeros(49)}, GAIN),
        ("active: expected 50 rows as in use_frequency", {2: torch.ones(51).bool()}, GAIN),
        ("active: expected bool or uint8", {2: torch.ones(50)}, GAIN),
        ("members: expected int64, got int32", {3: torch.zeros(300, 3).int()}, GAIN),
        ("energies: expected float32, got float64", {4: torch.zeros(300, 3).double()}, GAIN),
        ("energies: expected the shape of members", {4: torch.zeros(900)}, GAIN),
        ("gain: expected 0..1, got 1.5", {}, 1.5),
        ("gain: expected 0..1, got nan", {}, float("nan")),
        ("expected all on cpu", {4: torch.zeros(300, 3, device="meta")}, GAIN),
    ],
)
def test_bad_input_changes_nothing(text, change, gain):
    given = case()
    for place, part in change.items():
        given[place] = part
    before = [part.clone() for part in given]
    with pytest.raises(AESGMemoryError, match=text):
        count_use_(*given, gain=gain)
    assert all(torch.equal(a, b) for a, b in zip(before[:4], given[:4], strict=True))


@pytest.mark.parametrize("order", [torch.zeros(5).long(), torch.zeros(1800).long()[::2]])
def test_an_order_of_other_entries_is_refused(order):
    given = case()
    with pytest.raises(RuntimeError, match="AESGMemoryError: order: expected 900 contiguous places"):
        torch.ops.aesg.count_use_(*given, order, GAIN)
    assert same(given, case())


@needs_no_cuda
def test_on_a_device_the_host_waits_for_nothing():
    """There the op gets the uses sorted by slot."""
    host, device = case(hub=100), case(hub=100)
    count_use_(*host, gain=GAIN)
    with pretended_cuda() as mode:
        count_use_(*map(Pretended, device), gain=GAIN)
    assert same(device, host) and not mode.waits


@needs_cuda
@pytest.mark.parametrize(
    "n, count, hub", [(9, 0, 0), (1, 1, 0), (2500, 700, 400), (100_000, 200_000, 50_000)]
)
def test_cuda_has_the_bits_of_the_cpu(n, count, hub):
    host = case(n, count, hub=hub)
    device = [part.cuda() for part in host]
    count_use_(*host, gain=GAIN)
    count_use_(*device, gain=GAIN)
    assert same([part.cpu() for part in device], host)


@needs_cuda
def test_a_captured_cuda_graph_counts_what_lies_there_then():
    host, device = case(), [part.cuda() for part in case()]
    count_use_(*[part.clone() for part in device], gain=GAIN)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        count_use_(*device, gain=GAIN)
    host[3] = host[3].flip(0)
    device[3].copy_(host[3])
    count_use_(*host, gain=GAIN)
    graph.replay()
    assert same([part.cpu() for part in device], host)
