"""pack_rows: the oracle's answer, and what it refuses."""

import pytest
import torch
from ops_helpers import needs_cuda

from aesg.exceptions import AESGMemoryError
from aesg.ops import pack_rows
from aesg.ops.reference_learning import pack_rows_ref


def case(n: int, dim: int, share: float):
    generator = torch.Generator().manual_seed(n + dim)
    rows = torch.randn(n, dim, generator=generator)
    return rows, torch.rand(n, generator=generator) < share


def assert_same(got, want):
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


SHAPES = [(0, 3), (0, 0), (9, 0), (1, 1), (7, 5), (300, 33), (5000, 4)]


@pytest.mark.parametrize("n, dim", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.1])
def test_same_as_the_oracle(n, dim, share):
    rows, chosen = case(n, dim, share)
    assert_same(pack_rows(rows, chosen), pack_rows_ref(rows, chosen))
    for most in (-5, 0, 1, n // 4, n, n + 9):
        limit = torch.tensor([most])
        assert_same(pack_rows(rows, chosen, most=limit), pack_rows_ref(rows, chosen, most=limit))


def test_by_hand():
    rows = torch.arange(8.0).view(4, 2)
    packed, places, count = pack_rows(rows, torch.tensor([False, True, False, True]))
    assert packed.tolist() == [[2, 3], [6, 7], [0, 0], [0, 0]]
    assert places.tolist() == [-1, 0, -1, 1] and count.tolist() == [2]


def test_views_and_what_is_not_finite():
    rows, chosen = case(50, 6, 0.5)
    rows[:, 1] = torch.tensor([float("nan"), float("inf")]).repeat(25)
    wide, apart = torch.zeros(50, 12), torch.zeros(100, dtype=torch.bool)
    wide[:, ::2], apart[::2] = rows, chosen
    got = pack_rows(wide[:, ::2], apart[::2])
    want = pack_rows_ref(rows.nan_to_num(7.0, 8.0), chosen)
    assert_same([got[0].nan_to_num(7.0, 8.0), *got[1:]], want)
    assert_same(pack_rows(rows, chosen.to(torch.uint8))[1:], want[1:])


def test_opcheck_and_compile():
    rows, chosen = case(20, 4, 0.5)
    for most in (None, torch.tensor([3])):
        torch.library.opcheck(torch.ops.aesg.pack_rows.default, (rows, chosen, most))
    compiled = torch.compile(pack_rows, fullgraph=True, backend="aot_eager")
    assert_same(compiled(rows, chosen), pack_rows(rows, chosen))


@pytest.mark.parametrize(
    "text, rows, chosen, most",
    [
        ("rows: expected shape", torch.zeros(3), torch.zeros(3, dtype=torch.bool), None),
        ("rows: expected float32", torch.zeros(3, 1).double(), torch.zeros(3, dtype=torch.bool), None),
        ("chosen: expected bool", torch.zeros(3, 1), torch.zeros(3), None),
        ("chosen: expected shape", torch.zeros(3, 1), torch.zeros(3, 1, dtype=torch.bool), None),
        ("chosen: expected 3 values", torch.zeros(3, 1), torch.zeros(4, dtype=torch.bool), None),
        ("most: expected int64", torch.zeros(3, 1), torch.zeros(3, dtype=torch.bool), torch.zeros(1)),
        (
            "most: expected shape",
            torch.zeros(3, 1),
            torch.zeros(3, dtype=torch.bool),
            torch.zeros(2, dtype=torch.int64),
        ),
        ("expected all on cpu", torch.zeros(3, 1), torch.zeros(3, dtype=torch.bool, device="meta"), None),
    ],
)
def test_bad_input(text, rows, chosen, most):
    with pytest.raises(AESGMemoryError, match=text):
        pack_rows(rows, chosen, most=most)


@needs_cuda
@pytest.mark.parametrize("n, dim", [*SHAPES, (1 << 20, 2)])
def test_cuda_has_the_bits_of_the_cpu(n, dim):
    rows, chosen = case(n, dim, 0.3)
    for most in (None, torch.tensor([n // 5])):
        got = pack_rows(rows.cuda(), chosen.cuda(), most=None if most is None else most.cuda())
        assert_same([part.cpu() for part in got], pack_rows(rows, chosen, most=most))
