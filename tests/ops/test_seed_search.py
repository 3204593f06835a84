"""seed_search: right against its oracle, differentiable, compiled; bits depend on the pair alone."""

import pytest
import torch
from hard_rows import HARD_ROWS, hard_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_helpers import assert_same_top_k, grouped, on_threads

from aesg._extension import has_cuda_kernels
from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.ops import seed_search
from aesg.ops.reference import normalize_ref, seed_search_ref


def cosines(queries, vectors):
    return normalize_ref(queries) @ normalize_ref(vectors).T


def check(queries, vectors, k, **options):
    got = seed_search(queries, vectors, k, **options)
    rows = vectors if vectors.dim() == 2 else vectors.flatten(0, 1)
    assert_same_top_k(got, seed_search_ref(queries, vectors, k, **options), cosines(queries, rows))
    scores, indices = got
    assert scores.dtype == torch.float32 and indices.dtype == torch.int64
    there = indices[:, 1:] >= 0
    ties = (scores[:, 1:] == scores[:, :-1]) & there
    assert bool((scores[:, 1:] <= scores[:, :-1])[there].all()), "not best first"
    assert bool((indices[:, 1:] > indices[:, :-1])[ties].all()), "ties not in order of slots"
    return got


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 8, 9, 15, 16, 17, 64, 100, 256, 1000, 1024])
def test_every_dimension(dim):
    torch.manual_seed(dim)
    check(torch.randn(5, dim), torch.randn(301, dim), 10)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 25, 64, 257])
def test_every_batch(batch):
    torch.manual_seed(batch)
    check(torch.randn(batch, 24), torch.randn(203, 24), 4, min_score=-1.0)


@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 65, 1023, 1024, 1025, 5000])
@pytest.mark.parametrize("batch", [0, 1, 7])
@pytest.mark.parametrize("stored_norms", [False, True])
def test_every_number_of_rows(rows, batch, stored_norms):
    torch.manual_seed(rows)
    vectors = torch.randn(rows, 20)
    inv_norm = 1 / vectors.norm(dim=1) if stored_norms else None
    check(torch.randn(batch, 20), vectors, 10, inv_norm=inv_norm)


@pytest.mark.parametrize("k", [1, 2, 10, 64, 1000, 1024, 5000])
def test_every_k(k):
    torch.manual_seed(k)
    _, indices = check(torch.randn(3, 16), torch.randn(2000, 16), k, min_score=-1.0)
    assert (indices[0] >= 0).sum() == min(k, 2000)


@pytest.mark.parametrize("batch", [1, 9])
def test_row_groups_are_read_in_place(batch):
    torch.manual_seed(0)
    vectors, queries = torch.randn(2500, 40), torch.randn(batch, 40)
    inv_norm, active = 1 / vectors.norm(dim=1), (torch.rand(2500) < 0.7).to(torch.uint8)
    flat = check(queries, vectors, 10, inv_norm=inv_norm, active=active, count=2400)
    strided = {"inv_norm": grouped(inv_norm), "active": grouped(active), "count": 2400}
    in_groups = check(queries, grouped(vectors), 10, **strided)
    mixed = seed_search(queries, vectors, 10, inv_norm=inv_norm, active=active.bool(), count=2400)
    for other in (in_groups, mixed):
        assert torch.equal(flat[0], other[0]) and torch.equal(flat[1], other[1])


@pytest.mark.parametrize("batch", [1, 8])
def test_ties_go_to_the_lower_slot(batch):
    base = torch.randint(-2, 3, (7, 12)).float()
    vectors = base.repeat(40, 1)
    inv_norm = torch.where(vectors.norm(dim=1) > 0, 1 / vectors.norm(dim=1), 0.0)
    for norms in (None, inv_norm):
        _, indices = check(base[:1].repeat(batch, 1), vectors, 30, inv_norm=norms)
        assert indices[0].tolist() == list(range(0, 210, 7))


def test_inactive_and_uncounted_rows_are_never_found():
    vectors = torch.eye(8)
    active = torch.ones(8, dtype=torch.bool)
    active[3] = False
    queries = torch.eye(8)
    _, indices = check(queries, vectors, 1, active=active, count=6)
    assert indices[:, 0].tolist() == [0, 1, 2, -1, 4, 5, -1, -1]


def test_min_score_is_inclusive():
    queries, vectors = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert seed_search(queries, vectors, 3, min_score=1.0)[1].tolist() == [[0, -1, -1]]
    assert seed_search(queries, vectors, 3, min_score=0.0)[1].tolist() == [[0, 1, -1]]
    assert seed_search(queries, vectors, 3, min_score=-1.0)[1].tolist() == [[0, 1, 2]]


def test_zero_vectors_and_queries_are_similar_to_nothing():
    vectors = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert seed_search(torch.zeros(1, 2), vectors, 2, min_score=0.0)[0].tolist() == [[0.0, 0.0]]
    assert seed_search(torch.zeros(1, 2), vectors, 2)[1].tolist() == [[-1, -1]]
    assert seed_search(torch.ones(1, 2), vectors, 2)[1].tolist() == [[1, -1]]


@pytest.mark.parametrize("asking", [slice(0, 0), slice(0, 5), slice(39, 40), slice(0, 40, 3), slice(0, 40)])
def test_queries_of_zeros_take_nothing_from_the_others(asking):
    torch.manual_seed(11)
    queries, vectors = torch.zeros(40, 12), torch.randn(300, 12)
    queries[asking] = torch.randn(40, 12)[asking]
    for value in (0.0, -0.0):
        given = torch.where(queries == 0, value, queries)
        for min_score in (0.2, 1e-30, 0.0, -1.0):
            scores, indices = check(given, vectors, 7, min_score=min_score)
            alone = seed_search(queries[asking], vectors, 7, min_score=min_score)
            assert torch.equal(scores[asking], alone[0]) and torch.equal(indices[asking], alone[1])


def test_similarity_ignores_length_over_the_whole_range():
    vectors = torch.tensor([[3e-30, 4e-30], [3e30, -4e30], [-3.0, 4.0]])
    scores, indices = seed_search(torch.tensor([[3e20, 4e20], [3e-20, 4e-20]]), vectors, 1)
    assert indices.tolist() == [[0], [0]]
    torch.testing.assert_close(scores, torch.ones(2, 1))
    assert float(scores.max()) <= 1.0


def test_rows_of_nan_are_never_found():
    vectors = torch.ones(4, 3)
    vectors[1] = float("nan")
    assert seed_search(torch.ones(1, 3), vectors, 4)[1].tolist() == [[0, 2, 3, -1]]


@pytest.mark.parametrize("stored_norms", [False, True])
def test_bits_of_a_score_depend_on_its_pair_alone(stored_norms):
    torch.manual_seed(1)
    vectors, queries = torch.randn(3000, 50), torch.randn(64, 50)
    inv_norm = 1 / vectors.norm(dim=1) if stored_norms else None
    whole = seed_search(queries, vectors, 10, inv_norm=inv_norm)
    for batch in (1, 2, 5, 6, 7, 13, 63):
        part = seed_search(queries[:batch], vectors, 10, inv_norm=inv_norm)
        assert torch.equal(part[0], whole[0][:batch]) and torch.equal(part[1], whole[1][:batch])
    other = queries.clone()
    other[0] = torch.randn(50) * 1e3
    changed = seed_search(other, vectors, 10, inv_norm=inv_norm)
    assert torch.equal(changed[0][1:], whole[0][1:]) and torch.equal(changed[1][1:], whole[1][1:])
    # The place of a row does not matter either.
    order = torch.randperm(3000)
    moved = seed_search(queries, vectors[order], 10, inv_norm=None if inv_norm is None else inv_norm[order])
    assert torch.equal(moved[0], whole[0]) and torch.equal(order[moved[1]], whole[1])


@pytest.mark.parametrize("dim", [3, 64, 100])
def test_few_queries_tell_rows_apart_that_differ_by_a_rounding(dim):
    """Their rough sums rank such rows otherwise; what is returned must be ranked by the sums in order."""
    torch.manual_seed(3)
    vectors = torch.randn(1, dim) + 2e-7 * torch.randn(4000, dim)
    queries = vectors[:1] + 0.1 * torch.randn(40, dim)
    inv_norm = 1 / vectors.norm(dim=1)
    active = torch.rand(4000) < 0.9
    whole = seed_search(queries, vectors, 7, inv_norm=inv_norm, active=active)
    assert len(set(whole[0][0].tolist())) > 1  # near, but not all equal
    for batch in (1, 2, 3, 4, 7, 12):
        part = seed_search(queries[:batch], vectors, 7, inv_norm=inv_norm, active=active)
        assert torch.equal(part[0], whole[0][:batch]) and torch.equal(part[1], whole[1][:batch])


@pytest.mark.parametrize("dim", [5462, 8192])
def test_few_wide_queries_are_answered_as_many_are(dim):
    """So wide that a chunk holds fewer queries than are answered row by row."""
    torch.manual_seed(5)
    vectors, queries = torch.randn(70, dim), torch.randn(26, dim)
    inv_norm = 1 / vectors.norm(dim=1)
    whole = seed_search(queries, vectors, 5, inv_norm=inv_norm, min_score=-1.0)
    for batch in range(1, 14):
        part = seed_search(queries[:batch], vectors, 5, inv_norm=inv_norm, min_score=-1.0)
        assert torch.equal(part[0], whole[0][:batch]) and torch.equal(part[1], whole[1][:batch])


@pytest.mark.parametrize("batch", [1, 3])
def test_few_queries_pass_over_rows_that_are_not_finite(batch):
    torch.manual_seed(4)
    vectors, queries = torch.randn(200, 32), torch.randn(40, 32)
    vectors[::3, 5] = float("nan")
    vectors[1::3, 7] = float("inf")
    inv_norm = torch.ones(200)
    whole = seed_search(queries, vectors, 20, inv_norm=inv_norm)
    part = seed_search(queries[:batch], vectors, 20, inv_norm=inv_norm)
    assert torch.equal(part[0], whole[0][:batch]) and torch.equal(part[1], whole[1][:batch])


@pytest.mark.parametrize("scale, factor", [(1.0, -100.0), (1e-15, 1e6), (1e-24, 1e3), (1e-24, -1e6)])
def test_rough_sums_that_are_nearly_all_rounding_lose_nothing(scale, factor):
    """Rows at right angles to the query, scaled by far more than 1 / |row|."""
    torch.manual_seed(7)
    query = torch.randn(300, dtype=torch.float64)
    vectors = torch.randn(2000, 300, dtype=torch.float64)
    vectors -= (vectors @ query)[:, None] * query / (query @ query)
    vectors = (scale * vectors).float()
    inv_norm = (factor / vectors.double().norm(dim=1)).float()
    options = {"inv_norm": inv_norm, "min_score": -2.0}
    scores, indices = seed_search(query.float()[None], vectors, 2000, **options)
    for batch in (1, 3, 13):
        found = seed_search(query.float().repeat(batch, 1), vectors, 5, **options)
        assert torch.equal(found[0], scores[:, :5].expand(batch, 5))
        assert torch.equal(found[1], indices[:, :5].expand(batch, 5))


def test_opposed_rows_tie_at_the_lower_slot_though_their_sums_round_below():
    """-1.0000001 is clamped to -1: it equals what a later row had."""
    active = torch.ones(64, dtype=torch.bool)
    active[1:16] = False
    for seed in range(60):
        torch.manual_seed(seed)
        query = torch.randn(1, 17)
        vectors = -query.repeat(64, 1)
        inv_norm = (1.0001 / vectors.double().norm(dim=1)).float()
        found = seed_search(query.repeat(13, 1), vectors, 1, inv_norm=inv_norm, active=active, min_score=-1.0)
        assert found[1].unique().tolist() == [0]


def test_a_score_of_minus_infinity_does_not_take_the_place_of_an_opposed_row():
    query, vectors = torch.ones(1, 8), -torch.ones(64, 8)
    inv_norm = 1.0001 / vectors.norm(dim=1)
    inv_norm[0] = float("inf")
    active = torch.ones(64, dtype=torch.bool)
    active[1:16] = False
    for batch in (1, 13):
        found = seed_search(
            query.repeat(batch, 1), vectors, 1, inv_norm=inv_norm, active=active, min_score=-1
        )
        assert found[1].unique().tolist() == [16]


@pytest.mark.parametrize("dim", [1, 3, 64, 255])
@pytest.mark.parametrize("kind", HARD_ROWS)
def test_no_sieve_loses_a_row(kind, dim):
    """Where all rows of any likeness are wanted nothing is sifted: the first are what a search must find."""
    torch.manual_seed(6)
    queries, vectors, inv_norm = hard_rows(kind, 3000, dim)
    active = torch.rand(len(vectors)) < 0.9
    options = {"inv_norm": inv_norm, "active": active, "min_score": -1.0}
    scores, indices = seed_search(queries, vectors, len(vectors), **options)
    for k in (1, 10, 70):
        for batch in (1, 2, 3, 12, 13, 31, 40):
            found = seed_search(queries[:batch], vectors, k, **options)
            assert torch.equal(found[0], scores[:batch, :k]), (k, batch)
            assert torch.equal(found[1], indices[:batch, :k]), (k, batch)


@pytest.mark.parametrize("kind", HARD_ROWS)
def test_exact_gives_the_same(kind):
    torch.manual_seed(8)
    queries, vectors, inv_norm = hard_rows(kind, 2000, 64)
    for batch in (1, 5, 40):
        for norms in (None, inv_norm):
            options = {"inv_norm": norms, "min_score": -1.0}
            want = seed_search(queries[:batch], vectors, 10, **options)
            got = seed_search(queries[:batch], vectors, 10, **options, exact=True)
            assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


@pytest.mark.parametrize("batch, rows", [(1, 40_000), (3, 20_000), (700, 200)])
def test_same_bits_for_any_number_of_threads(batch, rows):
    torch.manual_seed(2)
    queries, vectors = torch.randn(batch, 32), torch.randn(rows, 32).round(decimals=1)
    results = on_threads([1, 2, 3, 8], lambda: seed_search(queries, vectors, 20))
    for scores, indices in results[1:]:
        assert torch.equal(scores, results[0][0]) and torch.equal(indices, results[0][1])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 70),
    batch=st.integers(0, 14),
    dim=st.integers(1, 20),
    k=st.integers(1, 80),
    data=st.data(),
)
def test_small_integers_agree_exactly_with_the_oracle(rows, batch, dim, k, data):
    """Vectors of one non-zero entry have exact cosines, so ties are everywhere and indices must be equal."""
    places = data.draw(st.lists(st.integers(0, dim - 1), min_size=rows, max_size=rows))
    signs = data.draw(st.lists(st.sampled_from([-2.0, 0.0, 1.0]), min_size=rows, max_size=rows))
    vectors = torch.zeros(rows, dim)
    for row, (place, sign) in enumerate(zip(places, signs, strict=True)):
        vectors[row, place] = sign
    queries = torch.randint(-2, 3, (batch, dim), generator=torch.Generator().manual_seed(rows)).float()
    active = torch.arange(rows) % 5 != 3
    got = seed_search(queries, vectors, k, active=active, min_score=-0.5)
    want = seed_search_ref(queries, vectors, k, active=active, min_score=-0.5)
    torch.testing.assert_close(got[0], want[0], atol=1e-6, rtol=0)
    assert torch.equal(got[1] < 0, want[1] < 0)


# Gradients


def loss_of(search, queries, vectors, weights):
    scores, _ = search(queries, vectors, weights.shape[1], min_score=-1.0)
    return (scores * weights).sum()


@pytest.mark.parametrize("in_groups", [False, True])
def test_gradients_equal_those_of_the_oracle(in_groups):
    torch.manual_seed(3)
    queries, vectors, weights = torch.randn(6, 10), torch.randn(50, 10), torch.randn(6, 5)
    queries[2] = 0
    vectors = grouped(vectors) if in_groups else vectors
    grads = []
    for search in (seed_search, seed_search_ref):
        q, v = queries.clone().requires_grad_(), vectors.clone().requires_grad_()
        grads.append(torch.autograd.grad(loss_of(search, q, v, weights), (q, v)))
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert float(grads[0][0].abs().sum()) > 0 and float(grads[0][0][2].abs().sum()) == 0


def test_gradient_does_not_see_later_changes_of_the_memory():
    queries, vectors = torch.randn(2, 4, requires_grad=True), torch.randn(9, 4)
    kept = vectors.clone()
    scores, _ = seed_search(queries, vectors, 3, min_score=-1.0)
    vectors.data.zero_()
    (got,) = torch.autograd.grad(scores.sum(), queries)
    (want,) = torch.autograd.grad(seed_search(queries, kept, 3, min_score=-1.0)[0].sum(), queries)
    assert torch.equal(got, want)


def test_the_oracle_passes_gradcheck():
    torch.manual_seed(4)
    queries = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, v: seed_search_ref(q, v, 3)[0], (queries, vectors))


def test_indices_carry_no_gradient():
    scores, indices = seed_search(torch.randn(2, 4, requires_grad=True), torch.randn(9, 4), 3)
    assert scores.requires_grad and not indices.requires_grad
    assert not seed_search(torch.randn(2, 4), torch.randn(9, 4), 3)[0].requires_grad


# torch's own rules


@pytest.mark.parametrize("needs_grad", [False, True])
def test_opcheck(needs_grad):
    queries, vectors = torch.randn(3, 8, requires_grad=needs_grad), torch.randn(20, 8)
    op = torch.ops.aesg.seed_search.default
    torch.library.opcheck(op, (queries, vectors, 4, None, None, None, 0.1))
    norms, active = 1 / vectors.norm(dim=1), torch.ones(20, dtype=torch.uint8)
    torch.library.opcheck(op, (queries, vectors, 40, norms, active, 17, 0.1))
    torch.library.opcheck(op, (queries, vectors, 4, norms, active, 17, 0.1, True))


def test_compiles_without_a_break():
    queries, vectors = torch.randn(3, 8, requires_grad=True), torch.randn(20, 8)

    def run(q):
        scores, indices = seed_search(q * 2, vectors, 4)
        return scores * 3, indices

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(queries), run(queries), strict=True):
        assert torch.equal(got, want)
    (got,) = torch.autograd.grad(compiled(queries)[0].sum(), queries)
    (want,) = torch.autograd.grad(run(queries)[0].sum(), queries)
    torch.testing.assert_close(got, want)


# Bad input

Q, V = torch.ones(2, 4), torch.ones(6, 4)


@pytest.mark.parametrize(
    "error, text, arguments, options",
    [
        (AESGNavigationError, "finite", (torch.tensor([[0.0, float("nan")]]), torch.ones(3, 2), 1), {}),
        (AESGNavigationError, "finite", (torch.tensor([[float("inf"), 0.0]]), torch.ones(3, 2), 1), {}),
        (AESGNavigationError, "expected dimension 4", (torch.ones(2, 5), V, 1), {}),
        (AESGNavigationError, r"shape \[B, D\], got \[4\]", (torch.ones(4), V, 1), {}),
        (AESGNavigationError, "float32, got float64", (Q.double(), V, 1), {}),
        (AESGNavigationError, "D >= 1", (torch.ones(2, 0), torch.ones(3, 0), 1), {}),
        (AESGNavigationError, "k: expected an integer >= 1, got 0", (Q, V, 0), {}),
        (AESGNavigationError, "min_score", (Q, V, 1), {"min_score": float("nan")}),
        (AESGNavigationError, "argument 'exact'", (Q, V, 1), {"exact": "yes"}),
        (AESGNavigationError, "list", ([1.0], V, 1), {}),
        (AESGNavigationError, "argument 'k'", (Q, V, "3"), {}),
        (AESGMemoryError, "vectors: expected float32, got float16", (Q, V.half(), 1), {}),
        (AESGMemoryError, "groups of 1024", (Q, V.reshape(2, 3, 4), 1), {}),
        (AESGMemoryError, "strided view", (Q, torch.ones(6, 8)[:, ::2], 1), {}),
        (AESGMemoryError, "count: expected 0..6, got 7", (Q, V, 1), {"count": 7}),
        (AESGMemoryError, "count: expected 0..6, got -1", (Q, V, 1), {"count": -1}),
        (AESGMemoryError, "inv_norm: expected 6 rows", (Q, V, 1), {"inv_norm": torch.ones(5)}),
        (
            AESGMemoryError,
            "active: expected bool or uint8, got int64",
            (Q, V, 1),
            {"active": torch.ones(6).long()},
        ),
    ],
)
def test_bad_input_is_named(error, text, arguments, options):
    with pytest.raises(error, match=text):
        seed_search(*arguments, **options)


# CUDA


@pytest.mark.cuda
@pytest.mark.skipif(
    not (torch.cuda.is_available() and has_cuda_kernels()), reason="no CUDA device or kernels"
)
@pytest.mark.parametrize(
    "batch, rows, dim, k", [(1, 1, 1, 1), (1, 5000, 64, 10), (33, 3001, 100, 10), (256, 9000, 16, 64)]
)
def test_cuda_equals_cpu(batch, rows, dim, k):
    torch.manual_seed(5)
    queries, vectors = torch.randn(batch, dim), torch.randn(rows, dim)
    active = (torch.rand(rows) < 0.9).to(torch.uint8)
    want = seed_search(queries, vectors, k, active=active)
    got = seed_search(queries.cuda(), vectors.cuda(), k, active=active.cuda())
    assert_same_top_k((got[0].cpu(), got[1].cpu()), want, cosines(queries, vectors))


@pytest.mark.cuda
@pytest.mark.skipif(
    not (torch.cuda.is_available() and has_cuda_kernels()), reason="no CUDA device or kernels"
)
@pytest.mark.parametrize("dim", [3, 64, 100, 256])
@pytest.mark.parametrize("kind", HARD_ROWS)
def test_cuda_loses_no_row_of_the_cpus(kind, dim):
    torch.manual_seed(6)
    queries, vectors, inv_norm = hard_rows(kind, 20_000, dim)
    active = (torch.rand(len(vectors)) < 0.9).to(torch.uint8)
    on_device = {"inv_norm": inv_norm.cuda(), "active": active.cuda(), "min_score": -1.0}
    for k in (1, 10, 70):
        for batch in (1, 2, 3, 8, 9, 40):
            asked, rows = queries[:batch], vectors.cuda()
            want = seed_search(asked, vectors, k, inv_norm=inv_norm, active=active, min_score=-1.0)
            for exact in (False, True):
                got = seed_search(asked.cuda(), rows, k, **on_device, exact=exact)
                assert torch.equal(got[0].cpu(), want[0]), (k, batch, exact)
                assert torch.equal(got[1].cpu(), want[1]), (k, batch, exact)


@pytest.mark.cuda
@pytest.mark.skipif(
    not (torch.cuda.is_available() and has_cuda_kernels()), reason="no CUDA device or kernels"
)
@pytest.mark.parametrize("batch", [9, 256, 5000])
def test_cuda_finds_the_same_with_and_without_a_sieve(batch):
    torch.manual_seed(9)
    vectors = torch.randn(60_000, 64)
    vectors[30_000:33_000] = vectors[0]
    queries = torch.randn(batch, 64)
    queries[1] = vectors[0]  # three thousand rows alike
    rows = vectors.cuda()
    inv_norm = 1 / rows.norm(dim=1)
    want = seed_search(queries.cuda(), rows, 10, inv_norm=inv_norm, exact=True)
    got = seed_search(queries.cuda(), rows, 10, inv_norm=inv_norm)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


@pytest.mark.parametrize("k", [2**40, 2**63, 2**70])
def test_more_results_than_can_be_held_are_refused(k):
    with pytest.raises(AESGNavigationError, match=r"at most|below 2\*\*63"):
        seed_search(torch.randn(2, 8), torch.randn(9, 8), k)
