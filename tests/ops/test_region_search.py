"""region_search: right against its oracle, exact where it looks everywhere; cells take in and let go."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_helpers import assert_same_top_k, grouped, on_threads

from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.ops import make_cells, region_add_, region_remove_, region_search, seed_search, with_room
from aesg.ops.reference import normalize_ref, region_search_ref
from aesg.ops.region_search import codes_of, encode_rows

NONE = torch.empty(0, dtype=torch.int64)


def indexed(rows, dim, cells, seed=0, left_out=()):
    """(vectors, inverse norms, active, cells with all rows but those left out)."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, dim, generator=generator)
    inv_norm = 1 / vectors.norm(dim=1)
    made = make_cells(normalize_ref(torch.randn(cells, dim, generator=generator)), rows)
    slots = torch.tensor([s for s in range(rows) if s not in set(left_out)], dtype=torch.int64)
    region_add_(made, vectors, inv_norm, slots)
    return vectors, inv_norm, torch.ones(rows, dtype=torch.uint8), made


def search(queries, vectors, inv_norm, active, cells, k=10, pending=NONE, probes=3, pool=24, min_score=-1.0):
    return region_search(
        queries, vectors, k, cells, pending,
        inv_norm=inv_norm, active=active, probes=probes, pool=pool, min_score=min_score,
    )  # fmt: skip


@pytest.mark.parametrize("dim", [1, 3, 4, 5, 31, 64, 256])
@pytest.mark.parametrize("probes", [0, 1, 3, 1000])
def test_it_finds_what_the_oracle_finds(dim, probes):
    vectors, inv_norm, active, cells = indexed(700, dim, 21, dim, left_out=(3, 650))
    active[::5] = 0
    queries, pending = torch.randn(5, dim), torch.tensor([3, 650])
    got = search(queries, vectors, inv_norm, active, cells, pending=pending, probes=probes)
    want = region_search_ref(
        queries, vectors, 10, cells.centers, cells.heads, cells.panels, pending,
        inv_norm=inv_norm, active=active, probes=probes, pool=24, min_score=-1.0,
    )  # fmt: skip
    assert_same_top_k(got, want, normalize_ref(queries) @ normalize_ref(vectors).T)
    if probes == 0:
        assert bool(((got[1] == -1) | (got[1] == 3) | (got[1] == 650)).all())


@pytest.mark.parametrize("batch", [0, 1, 9])
def test_looking_everywhere_it_is_the_exact_search_bit_for_bit(batch):
    vectors, inv_norm, active, cells = indexed(900, 40, 30)
    active[100:200] = 0
    queries = torch.randn(batch, 40)
    got = search(queries, vectors, inv_norm, active, cells, probes=30, pool=900)
    want = seed_search(queries, vectors, 10, inv_norm=inv_norm, active=active, min_score=-1.0)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    in_groups = search(
        queries, grouped(vectors), grouped(inv_norm), grouped(active), cells, probes=30, pool=900
    )
    assert torch.equal(got[0], in_groups[0]) and torch.equal(got[1], in_groups[1])


def test_every_row_lies_in_the_cell_of_its_nearest_centre_with_its_codes():
    vectors, inv_norm, _, cells = indexed(500, 24, 9)
    codes, steps = encode_rows(vectors)
    at = cells.where
    assert torch.equal(cells.slots.reshape(-1)[at], torch.arange(500, dtype=torch.int32))
    lanes = codes_of(cells.panels).transpose(1, 2).flatten(2).reshape(-1, 24)[at]
    assert torch.equal(lanes, codes)
    assert torch.equal(cells.scales.reshape(-1)[at], steps * inv_norm)
    fresh = make_cells(normalize_ref(torch.randn(9, 24, generator=torch.Generator().manual_seed(5))), 500)
    in_cells = region_add_(fresh, vectors, inv_norm, torch.arange(500))
    members = [set() for _ in range(9)]
    for cell in range(9):
        panel = int(fresh.heads[cell])
        while panel >= 0:
            members[cell] |= {s for s in fresh.slots[panel].tolist() if s >= 0}
            panel = int(fresh.panels[panel, :4].view(torch.int32))
    assert [m == set(torch.nonzero(in_cells == c)[:, 0].tolist()) for c, m in enumerate(members)] == [
        True
    ] * 9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), parts=st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_added_piecewise_and_removed_it_stays_complete(seed, parts):
    generator = torch.Generator().manual_seed(seed)
    rows = sum(parts)
    vectors = torch.randn(rows, 12, generator=generator)
    inv_norm, active = 1 / vectors.norm(dim=1), torch.ones(rows, dtype=torch.uint8)
    cells, there = make_cells(normalize_ref(torch.randn(4, 12, generator=generator)), 0), set()
    for part in parts:
        slots = torch.arange(len(there), len(there) + part) if len(there) + part <= rows else NONE
        cells = with_room(cells, len(slots), rows)
        region_add_(cells, vectors, inv_norm, slots)
        there |= set(slots.tolist())
    gone = torch.nonzero(torch.rand(rows, generator=generator) < 0.3)[:, 0]
    region_remove_(cells, gone)
    _, found = search(vectors[:3], vectors, inv_norm, active, cells, k=rows, probes=4, pool=rows)
    for row in found:
        assert set(row[row >= 0].tolist()) == there - set(gone.tolist())


def test_any_number_of_threads_gives_the_same_bits():
    vectors, inv_norm, active, cells = indexed(3000, 32, 40)
    queries = torch.randn(37, 32)
    one, two = on_threads([1, 2], lambda: search(queries, vectors, inv_norm, active, cells))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    placed = on_threads([1, 2], lambda: indexed(3000, 32, 40)[3])
    assert torch.equal(placed[0].where, placed[1].where)


def test_zero_rows_and_queries_have_no_likeness():
    vectors, inv_norm, active, _ = indexed(40, 8, 3)
    vectors[7], inv_norm[7] = 0, 0
    cells = make_cells(normalize_ref(torch.randn(3, 8)), 40)
    region_add_(cells, vectors, inv_norm, torch.arange(40))
    scores, slots = search(torch.zeros(1, 8), vectors, inv_norm, active, cells, probes=3, pool=40)
    assert bool((scores == 0).all()) and slots[0].tolist() == list(range(10))
    assert (
        7
        not in search(torch.randn(1, 8), vectors, inv_norm, active, cells, probes=3, pool=40, min_score=0.1)[
            1
        ]
    )


def test_the_gradient_is_that_of_the_exact_search():
    vectors, inv_norm, active, cells = indexed(200, 16, 5)
    queries = torch.randn(3, 16)
    gradients = []
    for run in (
        lambda q: search(q, vectors, inv_norm, active, cells, probes=5, pool=200),
        lambda q: seed_search(q, vectors, 10, inv_norm=inv_norm, active=active, min_score=-1.0),
    ):
        asked = queries.clone().requires_grad_()
        (run(asked)[0] * torch.arange(10)).sum().backward()
        gradients.append(asked.grad)
    assert torch.equal(*gradients) and bool((gradients[0] != 0).any())


def test_opcheck_and_compile():
    vectors, inv_norm, active, cells = indexed(100, 8, 4)
    queries = torch.randn(2, 8)
    torch.library.opcheck(
        torch.ops.aesg.region_search.default,
        (queries, vectors, 5, inv_norm, active, cells.centers, cells.heads, cells.panels, NONE, 2, 24, -1.0),
    )
    empty = make_cells(normalize_ref(torch.randn(4, 8)), 100)
    torch.library.opcheck(
        torch.ops.aesg.region_add_.default,
        (*empty[1:], empty.centers, vectors, inv_norm, torch.arange(100)),
    )
    compiled = torch.compile(
        lambda q: search(q, vectors, inv_norm, active, cells), backend="aot_eager", fullgraph=True
    )
    assert torch.equal(compiled(queries)[1], search(queries, vectors, inv_norm, active, cells)[1])


def test_what_is_wrong_is_said_before_anything_happens():
    vectors, inv_norm, active, cells = indexed(100, 8, 4)
    fine = {"vectors": vectors, "inv_norm": inv_norm, "active": active, "cells": cells}
    queries = torch.randn(2, 8)
    for wrong, error, text in [
        ({"queries": queries.double()}, AESGNavigationError, "float32"),
        ({"queries": torch.full((2, 8), torch.nan)}, AESGNavigationError, "finite"),
        ({"queries": torch.randn(2, 9)}, AESGNavigationError, "dimension 8"),
        ({"k": 0}, AESGNavigationError, "k"),
        ({"k": 2**40}, AESGNavigationError, "at most"),
        ({"probes": -1}, AESGNavigationError, "probes"),
        ({"pool": 0}, AESGNavigationError, "pool"),
        ({"active": active[:50]}, AESGMemoryError, "100 rows"),
        ({"pending": torch.tensor([100])}, AESGMemoryError, "damaged"),
        ({"cells": cells._replace(panels=cells.panels[:, :-4])}, AESGMemoryError, "panels"),
        ({"cells": cells._replace(heads=cells.heads.long())}, AESGMemoryError, "int32"),
        ({"cells": cells._replace(heads=torch.full_like(cells.heads, 10**6))}, AESGMemoryError, "damaged"),
    ]:
        with pytest.raises(error, match=text):
            search(**{**fine, "queries": queries, **wrong})
    before = [column.clone() for column in cells]
    for slots in ([100], [-1]):
        with pytest.raises(AESGMemoryError, match="slots"):
            region_add_(cells, vectors, inv_norm, torch.tensor(slots))
    with pytest.raises(AESGMemoryError, match="room"):
        region_add_(cells, vectors, inv_norm, torch.arange(100).repeat(50))
    assert all(torch.equal(a, b) for a, b in zip(before, cells, strict=True))


@pytest.mark.parametrize("place", range(4))
def test_columns_on_two_devices_are_refused(place):
    vectors, inv_norm, active, cells = indexed(50, 8, 3)
    columns = [torch.randn(2, 8), vectors, inv_norm, active]
    columns[place] = columns[place].to("meta")
    with pytest.raises(AESGMemoryError, match=r"device|expected all on"):
        search(*columns, cells)
    with pytest.raises(AESGMemoryError, match=r"device|expected all on"):
        seed_search(columns[0], columns[1], 3, inv_norm=columns[2], active=columns[3])
