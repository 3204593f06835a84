"""pool_novelty_: candidates gather, are born once, leave; the fast way equals the plain loop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_helpers import needs_cuda

from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.ops import pool_novelty_
from aesg.ops.reference import pool_novelty_ref_

RULES = {"threshold": 0.6, "birth_count": 3}


def empty_pool(capacity, dim):
    return (
        torch.zeros(capacity, dim),
        torch.zeros(capacity, dtype=torch.int32),
        torch.zeros(capacity, dtype=torch.int64),
        torch.zeros(2, dtype=torch.int64),
    )


def check(pool, inputs, **rules):
    """Runs both on copies of `pool`, compares everything, and returns (pool after, born, vectors)."""
    ours, theirs = [t.clone() for t in pool], [t.clone() for t in pool]
    born, vectors = pool_novelty_(*ours, inputs, **{**RULES, **rules})
    want_born, want_vectors = pool_novelty_ref_(*theirs, inputs, **{**RULES, **rules})
    assert born.dtype == torch.bool and torch.equal(born, want_born)
    torch.testing.assert_close(vectors, want_vectors, atol=1e-5, rtol=1e-5)
    size = int(ours[3][0])
    assert torch.equal(ours[3], theirs[3])
    torch.testing.assert_close(ours[0][:size], theirs[0][:size], atol=1e-5, rtol=1e-5)
    assert torch.equal(ours[1][:size], theirs[1][:size]) and torch.equal(ours[2][:size], theirs[2][:size])
    return ours, born, vectors


def clustered(n, dim, clusters, seed, noise=0.2):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(clusters, dim, generator=generator)
    picked = torch.randint(0, clusters, (n,), generator=generator)
    return centres[picked] + noise * torch.randn(n, dim, generator=generator)


@pytest.mark.parametrize("n, dim, capacity", [(0, 4, 3), (1, 1, 1), (5, 8, 2), (200, 16, 10), (300, 33, 500)])
def test_equals_the_plain_loop(n, dim, capacity):
    inputs = clustered(n, dim, 20, n)
    pool, born, _ = check(empty_pool(capacity, dim), inputs, birth_count=4)
    pool, _, _ = check(pool, clustered(n, dim, 20, n + 1), birth_count=3, birth_first=True)
    check(pool, inputs, birth_count=2)
    assert n < 100 or int(born.sum()) > 0


def test_many_joins_of_few_candidates():
    """Every candidate changes in every chunk, so that the searched similarities are all stale."""
    check(empty_pool(16, 8), clustered(400, 8, 5, 1), birth_count=1000)


def test_an_outlier_is_never_born_and_never_in_the_way():
    pool = empty_pool(8, 4)
    outlier, common = torch.eye(4)[:1], torch.eye(4)[1:2]
    for _ in range(2):
        pool, born, _ = check(pool, torch.cat([outlier, common]))
        assert not bool(born.any())
        outlier = -outlier
    pool, born, vectors = check(pool, common)
    assert born.tolist() == [True] and torch.equal(vectors, common)
    assert int(pool[3][0]) == 2, "the two outliers stay candidates"


def test_equal_inputs_of_one_call_make_one_birth():
    pool, born, _ = check(empty_pool(8, 3), torch.ones(10, 3))
    assert born.tolist() == [False, False, True] + [False] * 7
    assert int(pool[3][0]) == 0, "the born leaves at the end of the call"


def test_birth_takes_the_running_mean():
    inputs = torch.tensor([[1.0, 0.0], [1.0, 0.3], [1.0, 0.6]])
    _, born, vectors = check(empty_pool(4, 2), inputs)
    assert born.tolist() == [False, False, True]
    torch.testing.assert_close(vectors[2], torch.tensor([1.0, 0.3]))
    assert not bool(vectors[:2].any())


def test_birth_first():
    inputs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    pool, born, vectors = check(empty_pool(4, 2), inputs, birth_first=True)
    assert born.tolist() == [False, True, False, False] and vectors[1].tolist() == [1.0, 0.0]
    assert int(pool[3][0]) == 1


def test_a_birth_count_of_one_bears_every_new_kind_once():
    _, born, _ = check(empty_pool(4, 2), torch.tensor([[1.0, 0], [0, 1.0], [2.0, 0]]), birth_count=1)
    assert born.tolist() == [True, True, False]


def test_a_full_pool_gives_up_the_least_joined_then_oldest():
    eye = torch.eye(5)
    pool, _, _ = check(empty_pool(3, 5), torch.stack([eye[0], eye[1], eye[2], eye[0]]))
    pool, _, _ = check(pool, eye[3:4])
    assert pool[0].tolist() == [eye[0].tolist(), eye[3].tolist(), eye[2].tolist()]
    assert pool[1].tolist() == [2, 1, 1] and pool[2].tolist() == [3, 4, 2]


def test_zero_inputs_are_left_out():
    pool, born, _ = check(empty_pool(3, 4), torch.zeros(6, 4))
    assert int(pool[3][0]) == 0 and int(pool[3][1]) == 0 and not bool(born.any())


def with_zeros(inputs, count, places):
    """The inputs [n, D] at `places`, in order, among `count` rows that are zero elsewhere."""
    rows = torch.zeros(count, inputs.shape[1])
    rows[places] = inputs
    return rows


@pytest.mark.parametrize("count", [150, 400])
def test_zero_inputs_change_nothing_wherever_they_stand(count):
    """A chunk of the CPU op is 64 inputs: some have none but zeros."""
    dim, inputs = 12, clustered(150, 12, 20, 3)
    start, _, _ = check(empty_pool(15, dim), clustered(60, dim, 20, 4), birth_count=9)
    rules = {"birth_count": 4, "birth_first": True}
    want, want_born, want_vectors = check(start, inputs, **rules)
    assert int(want_born.sum()) > 3 and int(want[3][0]) > 5
    generator = torch.Generator().manual_seed(count)
    behind, gap = torch.arange(150), torch.arange(150)
    gap[70:] += count - 150
    for places in (
        behind, behind + count - 150, gap, torch.randperm(count, generator=generator)[:150].sort().values
    ):  # fmt: skip
        pool, born, vectors = check(start, with_zeros(inputs, count, places), **rules)
        assert all(torch.equal(one, other) for one, other in zip(pool, want, strict=True))
        assert torch.equal(born[places], want_born) and torch.equal(vectors[places], want_vectors)
        assert int(born.sum()) == int(want_born.sum())


@pytest.mark.parametrize("birth_first, living, born_at_once", [
    (True, None, True), (True, 0, True), (True, 1, False), (True, -1, False), (True, 2**32, False),
    (False, 0, False), (False, 1, False), (False, None, False),
])  # fmt: skip
def test_only_where_nothing_lives_the_first_is_born_at_once(birth_first, living, born_at_once):
    given = None if living is None else torch.tensor([living])
    inputs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    _, born, _ = check(empty_pool(4, 2), inputs, birth_first=birth_first, living=given)
    assert born.tolist() == [False, born_at_once, False]
    assert given is None or int(given) == living


def test_splitting_a_call_changes_only_when_the_born_leave():
    inputs = clustered(150, 12, 40, 3)
    whole = [t.clone() for t in empty_pool(64, 12)]
    pool_novelty_(*whole, inputs, threshold=0.6, birth_count=1000)
    parts = [t.clone() for t in empty_pool(64, 12)]
    for start in range(0, 150, 7):
        pool_novelty_(*parts, inputs[start : start + 7], threshold=0.6, birth_count=1000)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 1.0, 3.0])), max_size=90),
    capacity=st.integers(1, 7),
    birth_count=st.integers(1, 5),
    birth_first=st.booleans(),
)
def test_any_sequence_of_axes(rows, capacity, birth_count, birth_first):
    """Inputs along axes have exact cosines, so that nothing is left to rounding."""
    inputs = torch.zeros(len(rows), 6)
    for i, (axis, length) in enumerate(rows):
        inputs[i, axis] = length
    pool, _, _ = check(empty_pool(capacity, 6), inputs, birth_count=birth_count, birth_first=birth_first)
    check(pool, inputs.flip(0), birth_count=birth_count)


def test_opcheck_and_compile():
    op = torch.ops.aesg.pool_novelty_.default
    inputs = clustered(20, 6, 4, 5)
    torch.library.opcheck(op, (*empty_pool(8, 6), inputs, 0.6, 3, False))
    torch.library.opcheck(op, (*empty_pool(8, 6), inputs, 0.6, 3, True, torch.tensor([0])))

    def run(candidates, counts, stamps, state, x):
        rules = {**RULES, "birth_first": True, "living": state[:1] * 0}
        born, vectors = pool_novelty_(candidates, counts, stamps, state, x, **rules)
        return born | False, vectors * 1, state + 0

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*empty_pool(8, 6), inputs), run(*empty_pool(8, 6), inputs), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    "error, text, change, rules",
    [
        (AESGNavigationError, "finite", {4: torch.full((2, 4), float("nan"))}, {}),
        (AESGNavigationError, "expected dimension 4", {4: torch.ones(2, 5)}, {}),
        (AESGMemoryError, "counts: expected int32", {1: torch.zeros(3, dtype=torch.int64)}, {}),
        (AESGMemoryError, "expected 3 rows", {2: torch.zeros(2, dtype=torch.int64)}, {}),
        (AESGMemoryError, "size in 0..3, got 4", {3: torch.tensor([4, 0])}, {}),
        (AESGMemoryError, "birth_count: expected an integer >= 1, got 0", {}, {"birth_count": 0}),
        (AESGMemoryError, "threshold", {}, {"threshold": float("nan")}),
        (AESGMemoryError, "living: expected int64, got int32", {}, {"living": torch.zeros(1).int()}),
        (AESGMemoryError, r"living: expected shape \[1\], got \[\]", {}, {"living": torch.tensor(0)}),
        (AESGMemoryError, "living: expected 1 value, got .2.", {}, {"living": torch.zeros(2).long()}),
        (AESGMemoryError, "expected all on cpu", {}, {"living": torch.zeros(1, device="meta").long()}),
    ],
)
def test_bad_input_changes_nothing(error, text, change, rules):
    arguments = [*empty_pool(3, 4), torch.ones(2, 4)]
    for place, value in change.items():
        arguments[place] = value
    before = [t.clone() for t in arguments]
    with pytest.raises(error, match=text):
        pool_novelty_(*arguments, **{**RULES, **rules})
    assert all(torch.equal(a, b) for a, b in zip(before[:4], arguments[:4], strict=True))


@needs_cuda
@pytest.mark.parametrize(
    "n, dim, capacity", [(0, 4, 3), (5, 8, 2), (300, 33, 500), (1000, 64, 4096), (400, 8, 16)]
)
def test_cuda_has_the_bits_of_the_cpu(n, dim, capacity):
    host = empty_pool(capacity, dim)
    device = [part.cuda() for part in host]
    for turn, birth_count in enumerate((4, 3, 2)):
        inputs = clustered(n, dim, 20, n + turn)
        inputs[torch.rand(n, generator=torch.Generator().manual_seed(turn)) < 0.4 * turn] = 0.0
        living = torch.tensor([0])
        rules = {"threshold": 0.6, "birth_count": birth_count, "birth_first": turn == 1}
        want = pool_novelty_(*host, inputs, **rules, living=living)
        got = pool_novelty_(*device, inputs.cuda(), **rules, living=living.cuda())
        for one, other in zip((*device, *got), (*host, *want), strict=True):
            assert torch.equal(one.cpu(), other)


@needs_cuda
def test_cuda_leaves_out_what_is_not_finite():
    pool = [part.cuda() for part in empty_pool(3, 4)]
    inputs = torch.tensor([[float("nan"), 0, 0, 0], [float("inf"), 1, 1, 1], [1.0, 0, 0, 0]]).cuda()
    born, vectors = pool_novelty_(*pool, inputs, threshold=0.6, birth_count=1)
    assert born.tolist() == [False, False, True] and torch.equal(vectors[2], inputs[2])
    assert torch.isfinite(pool[0]).all()
