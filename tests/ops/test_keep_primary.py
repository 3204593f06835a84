"""keep_primary_: the oracle's answer in every layout, and what it refuses."""

import pytest
import torch
from ops_helpers import grouped, needs_cuda

from aesg.exceptions import AESGMemoryError
from aesg.ops import keep_primary_
from aesg.ops.reference import keep_primary_ref_

P = 3


def case(streams=5, steps=2, k=4, n=2000, seed=0):
    """What is written [B, P], three of them, and members, energies, ids."""
    generator = torch.Generator().manual_seed(seed)
    members = torch.randint(-1, n, (streams * steps, k), generator=generator)
    energies = torch.rand(streams * steps, k, generator=generator)
    ids = torch.randint(-(2**62), 2**62, (n,), generator=generator)
    kept = torch.full((streams, P), 7), torch.full((streams, P), 7), torch.full((streams, P), 7.0)
    return [*kept, members, energies, ids]


@pytest.mark.parametrize("streams, steps, k, n", [(0, 1, 4, 9), (1, 1, 1, 9), (5, 3, 2, 50), (9, 1, 10, 0)])
def test_same_as_the_oracle(streams, steps, k, n):
    ours, theirs = case(streams, steps, k, max(n, 1)), case(streams, steps, k, max(n, 1))
    if n == 0:  # then every member lies outside
        ours[5] = theirs[5] = torch.empty(0, dtype=torch.int64)
    keep_primary_(*ours, steps=steps)
    keep_primary_ref_(*theirs, steps=steps)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert not streams or not (ours[2] == 7.0).any()


def test_ids_in_row_groups_and_members_that_are_views():
    flat, strided = case(), case()
    strided[5] = grouped(flat[5])
    wide = torch.full((10, 9), -1)
    wide[:, ::2][:, :4] = strided[3]
    strided[3] = wide[:, ::2][:, :4]
    keep_primary_(*flat, steps=2)
    keep_primary_(*strided, steps=2)
    assert all(torch.equal(one, other) for one, other in zip(flat[:3], strided[:3], strict=True))


def test_a_part_of_the_streams_is_written():
    whole = case(streams=6, steps=1)
    kept = [part.clone() for part in whole[:3]]
    keep_primary_(*(part[2:4] for part in kept), whole[3][2:4], whole[4][2:4], whole[5])
    keep_primary_(*whole)
    for got, want in zip(kept, whole[:3], strict=True):
        assert torch.equal(got[2:4], want[2:4])
        assert (got[:2] == 7).all() and (got[4:] == 7).all()


def test_opcheck_and_compile():
    torch.library.opcheck(torch.ops.aesg.keep_primary_.default, (*case(), 2))

    def run(*given):
        keep_primary_(*given, steps=2)
        return [part + 0 for part in given[:3]]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*case()), run(*case()), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    "text, change, steps",
    [
        ("slots: expected shape", {0: torch.zeros(5, dtype=torch.int64)}, 2),
        ("slots: expected int64", {0: torch.zeros(5, P)}, 2),
        ("slot_ids: expected the shape of slots", {1: torch.zeros(4, P, dtype=torch.int64)}, 2),
        ("slot_energies: expected a contiguous", {2: torch.zeros(P, 5).T}, 2),
        ("members: expected int64", {3: torch.zeros(10, 4, dtype=torch.int32)}, 2),
        ("members: expected 5 streams of 3 rows, got 10", {}, 3),
        ("steps: expected an integer >= 1, got 0", {}, 0),
        ("energies: expected the shape of members", {4: torch.zeros(10, 5)}, 2),
        ("ids: expected int64, got float32", {5: torch.zeros(9)}, 2),
        ("expected all on cpu", {5: torch.zeros(9, dtype=torch.int64, device="meta")}, 2),
    ],
)
def test_bad_input_changes_nothing(text, change, steps):
    given = case()
    for place, part in change.items():
        given[place] = part
    before = [part.clone() for part in given]
    with pytest.raises(AESGMemoryError, match=text):
        keep_primary_(*given, steps=steps)
    assert all(torch.equal(a, b) for a, b in zip(before[:5], given[:5], strict=True))


@needs_cuda
@pytest.mark.parametrize("streams, steps, k", [(0, 1, 4), (1, 1, 1), (500, 3, 10)])
def test_cuda_has_the_bits_of_the_cpu(streams, steps, k):
    host = case(streams, steps, k)
    device = [part.cuda() for part in host]
    keep_primary_(*host, steps=steps)
    keep_primary_(*device, steps=steps)
    assert all(torch.equal(one.cpu(), other) for one, other in zip(device, host, strict=True))
