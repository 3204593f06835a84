"""consolidate_: the bits of its oracle, in place, in every layout."""

import pytest
import torch
from ops_helpers import grouped, on_threads

from aesg._extension import has_cuda_kernels
from aesg.exceptions import AESGMemoryError
from aesg.ops import consolidate_
from aesg.ops.reference import consolidate_ref_

RULES = {"relevance_decay": 0.95, "min_age": 5, "relevance_threshold": 0.05, "frequency_threshold": 5}


def columns(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, 10, (n,), generator=generator, dtype=torch.int32),
        torch.rand(n, generator=generator) * 0.1,
        torch.randint(0, 10, (n,), generator=generator, dtype=torch.int32),
        (torch.rand(n, generator=generator) < 0.8).to(torch.uint8),
    )


def check(given, count, **rules):
    ours = [column.clone() for column in given]
    theirs = [column.clone() for column in given]
    doomed = consolidate_(*ours, count=count, **{**RULES, **rules})
    want = consolidate_ref_(*theirs, count=count, **{**RULES, **rules})
    assert doomed.dtype == torch.uint8 and torch.equal(doomed, want)
    for got, expected in zip(ours, theirs, strict=True):
        assert torch.equal(got, expected)
    return doomed


@pytest.mark.parametrize("n", [0, 1, 7, 31, 32, 33, 1000, 50_000])
def test_same_bits_as_the_oracle(n):
    given = columns(n, n)
    doomed = check(given, n)
    assert n < 1000 or 0 < int(doomed.sum()) < n
    check(given, n // 2)
    check(given, 0)


def test_row_groups_are_changed_in_place():
    given = columns(2500)
    flat = [column.clone() for column in given]
    want = consolidate_(*flat, count=2500, **RULES)
    strided = [grouped(column) for column in given]
    got = consolidate_(*strided, count=2500, **RULES)
    assert got.shape == (3, 1024)
    assert torch.equal(got.flatten()[:2500], want) and not bool(got.flatten()[2500:].any())
    for ours, theirs in zip(strided, flat, strict=True):
        assert torch.equal(ours.flatten()[:2500], theirs)
        assert not bool(ours.flatten()[2500:].any()), "rows beyond count were touched"


def test_every_condition_is_needed():
    #                      doomed, young, relevant, used, dead
    age = torch.tensor([5, 4, 5, 5, 5], dtype=torch.int32)
    relevance = torch.tensor([0.01, 0.01, 0.06, 0.01, 0.01])
    uses = torch.tensor([4, 4, 4, 5, 4], dtype=torch.int32)
    active = torch.tensor([1, 1, 1, 1, 0], dtype=torch.bool)
    doomed = consolidate_(age, relevance, uses, active, count=5, **RULES)
    assert doomed.tolist() == [1, 0, 0, 0, 0]
    assert age.tolist() == [6, 5, 6, 6, 5]
    assert relevance[4] == torch.tensor(0.01), "the dead do not fade"
    assert active.tolist() == [True, True, True, True, False], "nothing is deactivated here"


def test_large_unsigned_values():
    """u32 columns come as int32: use counts from 2^31 on are large, not negative."""
    age = torch.tensor([2**31 - 1, -2], dtype=torch.int32)
    uses = torch.tensor([-1, -(2**31)], dtype=torch.int32)
    given = (age, torch.zeros(2), uses, torch.ones(2, dtype=torch.uint8))
    assert check(given, 2).tolist() == [0, 0]
    assert check(
        (age, torch.zeros(2), torch.zeros_like(uses), torch.ones(2, dtype=torch.uint8)), 2
    ).tolist() == [1, 1]


def test_same_bits_for_any_number_of_threads():
    def run():
        given = columns(200_000)
        return (*given, consolidate_(*given, count=200_000, **RULES))

    first, *others = on_threads([1, 2, 7], run)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_opcheck_and_compile():
    op = torch.ops.aesg.consolidate_.default
    torch.library.opcheck(op, (*columns(100), 90, 0.95, 5, 0.05, 5))

    def run(age, relevance, uses, active):
        doomed = consolidate_(age, relevance, uses, active, count=100, **RULES)
        return doomed + 0, age + 0, relevance * 1

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*columns(100)), run(*columns(100)), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    "text, change, rules",
    [
        ("age: expected int32 or uint32, got float32", {0: torch.ones(4)}, {}),
        ("relevance: expected the shape of age", {1: torch.ones(5)}, {}),
        ("active: expected bool or uint8, got int32", {3: torch.ones(4, dtype=torch.int32)}, {}),
        ("count: expected 0..4, got 5", {}, {"count": 5}),
        ("relevance_decay: expected 0..1, got 1.5", {}, {"relevance_decay": 1.5}),
        ("min_age: expected an integer >= 0, got -1", {}, {"min_age": -1}),
        ("relevance_threshold: expected a number", {}, {"relevance_threshold": float("nan")}),
        ("frequency_threshold", {}, {"frequency_threshold": -1}),
    ],
)
def test_bad_input_changes_nothing(text, change, rules):
    given = list(columns(4))
    for place, column in change.items():
        given[place] = column
    before = [column.clone() for column in given]
    with pytest.raises(AESGMemoryError, match=text):
        consolidate_(*given, **{"count": 4, **RULES, **rules})
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(
    not (torch.cuda.is_available() and has_cuda_kernels()), reason="no CUDA device or kernels"
)
@pytest.mark.parametrize("n", [0, 1, 1000, 100_000])
def test_cuda_has_the_bits_of_the_cpu(n):
    host, device = columns(n), [column.cuda() for column in columns(n)]
    want = consolidate_(*host, count=n, **RULES)
    got = consolidate_(*device, count=n, **RULES)
    assert torch.equal(got.cpu(), want)
    for ours, theirs in zip(device, host, strict=True):
        assert torch.equal(ours.cpu(), theirs)


@pytest.mark.parametrize("place", range(4))
def test_columns_on_two_devices_are_refused(place):
    columns = [
        torch.zeros(8, dtype=torch.int32),
        torch.ones(8),
        torch.zeros(8, dtype=torch.int32),
        torch.ones(8),
    ]
    columns[3] = columns[3].bool()
    columns[place] = columns[place].to("meta")
    with pytest.raises(AESGMemoryError, match=r"device|expected all on"):
        consolidate_(
            *columns, count=8, relevance_decay=0.9, min_age=1, relevance_threshold=0.1, frequency_threshold=2
        )
