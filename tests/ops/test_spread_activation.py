"""spread_activation: the bits of its oracle, for any threads and layout; gradients to seeds and strengths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_helpers import Graph, as_stored, blocks_of, grouped, on_threads

from aesg._extension import has_cuda_kernels
from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.ops import spread_activation
from aesg.ops.reference import spread_activation_ref

RULES = {"hops": 3, "decay": 0.8, "k": 10}


def random_graph(n, degree, seed, dead=0.1):
    generator = torch.Generator().manual_seed(seed)
    edges = []
    for source in range(n):
        for target in torch.randint(0, n, (degree,), generator=generator).tolist():
            edges.append((source, target, float(torch.rand((), generator=generator))))
    deceased = (torch.rand(n, generator=generator) < dead).nonzero().flatten().tolist()
    return blocks_of(n, edges, deceased)


def random_seeds(batch, seeds, n, seed):
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(-1, n, (batch, seeds), generator=generator)
    return indices, torch.rand(batch, seeds, generator=generator)


def check(indices, energies, graph, **rules):
    got = spread_activation(indices, energies, *graph, **rules)
    want = spread_activation_ref(indices, energies, *graph, **rules)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    return got


def seeds(*pairs):
    return torch.tensor([[slot for slot, _ in pairs]]), torch.tensor([[energy for _, energy in pairs]])


def energy_of(result, slot):
    energies, indices = result
    return float(energies[0][indices[0] == slot].sum())


@pytest.mark.parametrize("hops", range(9))
@pytest.mark.parametrize("degree", [1, 7, 8, 20])
def test_same_bits_as_the_oracle(hops, degree):
    graph = random_graph(60, degree, seed=degree)
    regions = (torch.arange(60) % 3).to(torch.int32)
    indices, energies = random_seeds(5, 4, 60, hops)
    options = {"hops": hops, "decay": 0.8, "facilitation": 1.5, "k": 20, "regions": regions}
    check(indices, energies, graph, **options)
    check(indices, energies, graph, **{**options, "source_floor": 0.3, "transfer_floor": 0.2})


@settings(max_examples=120, deadline=None)
@given(
    data=st.data(), n=st.integers(1, 12), hops=st.integers(0, 6), k=st.integers(1, 15), s=st.integers(0, 5)
)
def test_any_small_graph(data, n, hops, k, s):
    slot, share = st.integers(0, n - 1), st.sampled_from([0.0, 0.05, 0.125, 0.3, 0.5, 0.9, 1.0, 1.7])
    edges = data.draw(st.lists(st.tuples(slot, slot, share), max_size=40))
    dead = data.draw(st.lists(slot, max_size=2))
    regions = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), dtype=torch.int32)
    rows = data.draw(st.lists(st.tuples(st.integers(-1, n - 1), share), min_size=2 * s, max_size=2 * s))
    indices = torch.tensor([slot for slot, _ in rows], dtype=torch.int64).reshape(2, s)
    energies = torch.tensor([energy for _, energy in rows]).reshape(2, s)
    graph = blocks_of(n, edges, dead)
    check(indices, energies, graph, hops=hops, decay=0.9, facilitation=1.5, regions=regions, k=k)


def test_one_hop_by_hand():
    graph = blocks_of(4, [(0, 1, 0.5), (0, 2, 0.1), (3, 1, 0.25)])
    result = check(*seeds((0, 0.5), (3, 1.0)), graph, hops=1, decay=0.5, k=4)
    # 1: 0.5*0.5*0.5 + 1*0.25*0.5; 2: 0.5*0.1*0.5 is not above the floor.
    assert result[0].tolist() == [[1.0, 0.5, 0.25, 0.0]] and result[1].tolist() == [[3, 0, 1, -1]]


def test_energy_saturates_at_one_and_never_falls():
    graph = blocks_of(3, [(0, 1, 1.0), (1, 0, 1.0), (2, 0, 1.0), (1, 2, 1.0)])
    for hops in range(6):
        energies, _ = check(*seeds((0, 0.875)), graph, hops=hops, decay=1.0, facilitation=1.0, k=3)
        assert float(energies.max()) <= 1.0 and float(energies[0, 0]) >= 0.875
    # Large strengths saturate as well instead of overflowing.
    huge = blocks_of(2, [(0, 1, 1e38)])
    assert energy_of(check(*seeds((0, 1.0)), huge, hops=2, decay=1.0, k=2), 1) == 1.0


def test_floors_are_where_they_belong():
    graph = blocks_of(3, [(0, 1, 1.0), (2, 1, 0.5)])
    fires = check(*seeds((0, 0.25)), graph, hops=1, decay=1.0, k=3, source_floor=0.25)
    silent = check(*seeds((0, 0.25)), graph, hops=1, decay=1.0, k=3, source_floor=0.2501)
    assert energy_of(fires, 1) == 0.25 and energy_of(silent, 1) == 0.0
    carried = check(*seeds((2, 0.5)), graph, hops=1, decay=1.0, k=3, transfer_floor=0.2499)
    lost = check(*seeds((2, 0.5)), graph, hops=1, decay=1.0, k=3, transfer_floor=0.25)
    assert energy_of(carried, 1) == 0.25 and energy_of(lost, 1) == 0.0


def test_the_first_seed_names_the_region():
    graph = blocks_of(3, [(0, 1, 0.5), (0, 2, 0.5)])
    regions = torch.tensor([7, 7, 8], dtype=torch.int32)
    options = {"hops": 1, "decay": 0.5, "facilitation": 1.5, "k": 3, "regions": regions}
    result = check(*seeds((0, 1.0)), graph, **options)
    assert energy_of(result, 1) == 0.375 and energy_of(result, 2) == 0.25
    without = check(*seeds((-1, 0.0), (0, 1.0)), graph, **options)
    assert energy_of(without, 1) == 0.25
    regions[0] = 0
    assert energy_of(check(*seeds((0, 1.0)), graph, **options), 1) == 0.25


def test_dead_concepts_carry_nothing_and_are_not_returned():
    graph = blocks_of(3, [(0, 1, 1.0), (1, 2, 1.0)], dead=[1])
    _, indices = check(*seeds((0, 1.0), (1, 1.0)), graph, hops=3, decay=1.0, k=3)
    assert indices.tolist() == [[0, -1, -1]]


def test_of_parallel_edges_the_strongest_counts():
    """One similarity and one succession edge between a pair, in one block and in two."""
    fillers = [(0, slot, 0.1) for slot in range(2, 9)]
    for edges in ([(0, 1, 0.5), (0, 1, 0.25)], [(0, 1, 0.25), *fillers, (0, 1, 0.5), (0, 1, 0.4)]):
        assert energy_of(check(*seeds((0, 1.0)), blocks_of(9, edges), hops=1, decay=1.0, k=9), 1) == 0.5


def test_of_equal_seeds_the_strongest_counts():
    graph = blocks_of(2, [(0, 1, 0.5)])
    result = check(*seeds((0, 0.5), (0, 1.0), (0, 0.75)), graph, hops=1, decay=1.0, k=4)
    assert result[0].tolist() == [[1.0, 0.5, 0.0, 0.0]] and result[1].tolist() == [[0, 1, -1, -1]]


def test_ties_go_to_the_lower_slot():
    graph = blocks_of(20, [(19, slot, 0.5) for slot in range(18, -1, -1)])
    _, indices = check(*seeds((19, 1.0)), graph, hops=1, decay=1.0, k=5)
    assert indices.tolist() == [[19, 0, 1, 2, 3]]


def test_empty_inputs():
    empty = blocks_of(0, [])
    none = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0)
    energies, indices = spread_activation(*none, *empty, **RULES)
    assert energies.eq(0).all() and indices.eq(-1).all() and energies.shape == (2, 10)
    no_batch = torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 4)
    assert spread_activation(*no_batch, *random_graph(5, 2, 0), **RULES)[0].shape == (0, 10)
    padded = torch.full((1, 3), -1), torch.ones(1, 3)
    assert spread_activation(*padded, *random_graph(5, 2, 0), **RULES)[1].eq(-1).all()


@pytest.mark.parametrize("hops", [1, 4])
def test_a_stored_graph_is_read_in_place(hops):
    graph = random_graph(1500, 9, seed=3)
    indices, energies = random_seeds(20, 4, 1500, 3)
    options = {**RULES, "hops": hops, "facilitation": 1.5, "k": 40}
    regions = (torch.arange(1500) % 5).to(torch.int32)
    flat = spread_activation(indices, energies, *graph, regions=regions, **options)
    stored = spread_activation(indices, energies, *as_stored(graph), regions=grouped(regions), **options)
    assert torch.equal(flat[0], stored[0]) and torch.equal(flat[1], stored[1])


def test_same_bits_for_any_number_of_threads_and_batch():
    graph = random_graph(3000, 8, seed=4)
    indices, energies = random_seeds(65, 6, 3000, 4)
    run = lambda: spread_activation(indices, energies, *graph, **{**RULES, "hops": 5})  # noqa: E731
    whole, *others = on_threads([1, 2, 5], run)
    for other in others:
        assert torch.equal(whole[0], other[0]) and torch.equal(whole[1], other[1])
    for b in (0, 17, 64):
        one = spread_activation(indices[b : b + 1], energies[b : b + 1], *graph, **{**RULES, "hops": 5})
        assert torch.equal(one[0][0], whole[0][b]) and torch.equal(one[1][0], whole[1][b])


def test_scratch_grows_and_leaves_nothing_behind():
    """A query that reaches thousands of concepts, before and after one that reaches few."""
    graph = random_graph(6000, 8, seed=5, dead=0.0)
    wide = torch.arange(0, 6000, 3).reshape(1, -1), torch.ones(1, 2000)
    narrow = seeds((5, 0.3))
    before = spread_activation(*narrow, *graph, **RULES)
    spread_activation(*wide, *graph, **{**RULES, "k": 50})
    after = spread_activation(*narrow, *graph, **RULES)
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
    check(*wide, graph, **{**RULES, "hops": 1, "k": 50})


# Gradients


def gradients(spread, indices, energies, graph, weights, **rules):
    energies = energies.clone().requires_grad_()
    strengths = graph.strengths.clone().requires_grad_()
    inputs = graph._replace(strengths=strengths)
    values, _ = spread(indices, energies, *inputs, **rules)
    return torch.autograd.grad((values * weights).sum(), (energies, strengths), materialize_grads=True)


@pytest.mark.parametrize("hops", [0, 1, 2, 5])
def test_gradients_equal_those_of_the_oracle(hops):
    graph = random_graph(40, 5, seed=hops)
    indices, energies = random_seeds(6, 4, 40, hops)
    regions = (torch.arange(40) % 2).to(torch.int32)
    weights = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    rules = {"hops": hops, "decay": 0.7, "facilitation": 1.5, "k": 12, "regions": regions}
    got = gradients(spread_activation, indices, energies, graph, weights, **rules)
    want = gradients(spread_activation_ref, indices, energies, graph, weights, **rules)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert float(got[0].abs().sum()) > 0
    assert hops == 0 or float(got[1].abs().sum()) > 0


def test_gradients_in_a_stored_graph():
    graph = random_graph(1100, 9, seed=6)
    indices, energies = random_seeds(9, 4, 1100, 6)
    weights = torch.ones(9, 10)
    flat = gradients(spread_activation, indices, energies, graph, weights, **RULES)
    stored = gradients(spread_activation, indices, energies, as_stored(graph), weights, **RULES)
    assert torch.equal(flat[0], stored[0])
    assert torch.equal(flat[1], stored[1].flatten(0, 1)[: flat[1].shape[0]])


def test_gradients_have_the_same_bits_for_any_number_of_threads():
    graph = random_graph(300, 8, seed=7)
    indices, energies = random_seeds(40, 4, 300, 7)
    run = lambda: gradients(spread_activation, indices, energies, graph, torch.ones(40, 10), **RULES)  # noqa: E731
    first, *others = on_threads([1, 2, 4], run)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_seed_gradient_does_not_see_later_changes_of_the_graph():
    graph = random_graph(50, 6, seed=8)
    indices, energies = random_seeds(4, 4, 50, 8)
    results = []
    for grow in (False, True):
        e = energies.clone().requires_grad_()
        working = Graph(*(column.clone() for column in graph))
        values, _ = spread_activation(indices, e, *working, **RULES)
        if grow:
            working.strengths.zero_()
            working.first_block.fill_(-1)
        results.append(torch.autograd.grad(values.sum(), e)[0])
    assert torch.equal(*results)


def test_the_oracle_passes_gradcheck():
    graph = random_graph(12, 3, seed=9, dead=0.0)
    indices, energies = random_seeds(2, 3, 12, 9)
    strengths = graph.strengths.double().requires_grad_()

    def run(e, s):
        return spread_activation_ref(indices, e, *graph._replace(strengths=s), hops=3, decay=0.7, k=6)[0]

    assert torch.autograd.gradcheck(run, (energies.double().requires_grad_(), strengths))


# torch's own rules


@pytest.mark.parametrize("needs_grad", [False, True])
def test_opcheck(needs_grad):
    graph = random_graph(30, 4, seed=10)
    indices, energies = random_seeds(3, 4, 30, 10)
    energies.requires_grad_(needs_grad)
    graph = graph._replace(strengths=graph.strengths.clone().requires_grad_(needs_grad))
    rules = (None, 3, 0.8, 1.0, 0.1, 0.05, 10)
    torch.library.opcheck(torch.ops.aesg.spread_activation.default, (indices, energies, *graph, *rules, True))
    regions = torch.ones(30, dtype=torch.int32)
    if not needs_grad:
        rules = (regions, *rules[1:])
        torch.library.opcheck(
            torch.ops.aesg.spread_activation.default, (indices, energies, *graph, *rules, False)
        )
        gradient = (torch.ones(3, 10), torch.zeros(3, 10, dtype=torch.int64))
        op = torch.ops.aesg.spread_activation_backward.default
        torch.library.opcheck(op, (*gradient, indices, energies, *graph, *rules[:-1]))


def test_compiles_without_a_break():
    graph = random_graph(30, 4, seed=11)
    indices, energies = random_seeds(3, 4, 30, 11)
    energies.requires_grad_()

    def run(e):
        values, slots = spread_activation(indices, e * 0.9, *graph, **RULES)
        return values * 2, slots

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(energies), run(energies), strict=True):
        assert torch.equal(got, want)
    (got,) = torch.autograd.grad(compiled(energies)[0].sum(), energies)
    (want,) = torch.autograd.grad(run(energies)[0].sum(), energies)
    torch.testing.assert_close(got, want)


# Bad input

GRAPH = blocks_of(3, [(0, 1, 0.5)])
SEEDS = seeds((0, 1.0))


@pytest.mark.parametrize(
    "error, text, arguments, options",
    [
        (AESGNavigationError, r"slots in -1\.\.2, got 3", (*seeds((3, 1.0)), *GRAPH), {}),
        (AESGNavigationError, r"slots in -1\.\.2, got -2", (*seeds((-2, 1.0)), *GRAPH), {}),
        (AESGNavigationError, "finite", (*seeds((0, float("nan"))), *GRAPH), {}),
        (AESGNavigationError, "shape of seed_indices", (SEEDS[0], torch.ones(1, 2), *GRAPH), {}),
        (AESGNavigationError, "int64, got int32", (SEEDS[0].int(), SEEDS[1], *GRAPH), {}),
        (AESGNavigationError, "k: expected an integer >= 1", (*SEEDS, *GRAPH), {"k": 0}),
        (AESGNavigationError, "hops: expected an integer >= 0", (*SEEDS, *GRAPH), {"hops": -1}),
        (AESGNavigationError, "decay", (*SEEDS, *GRAPH), {"decay": float("inf")}),
        (AESGNavigationError, "transfer_floor", (*SEEDS, *GRAPH), {"transfer_floor": -0.1}),
        (
            AESGMemoryError,
            "active: expected 3 rows",
            (*SEEDS, *GRAPH._replace(active=torch.ones(4).bool())),
            {},
        ),
        (AESGMemoryError, "7 values a row", (*SEEDS, *GRAPH._replace(targets=torch.ones(1, 6).int())), {}),
        (
            AESGMemoryError,
            "strengths: expected 1 blocks",
            (*SEEDS, *GRAPH._replace(strengths=torch.ones(2, 7))),
            {},
        ),
        (
            AESGMemoryError,
            "next_block: expected int32",
            (*SEEDS, *GRAPH._replace(next_block=torch.ones(1))),
            {},
        ),
        (AESGMemoryError, "regions: expected 3 rows", (*SEEDS, *GRAPH), {"regions": torch.ones(2).int()}),
    ],
)
def test_bad_input_is_named(error, text, arguments, options):
    with pytest.raises(error, match=text):
        spread_activation(*arguments, **{**RULES, **options})


@pytest.mark.parametrize(
    "damage",
    [
        {"targets": torch.full((1, 7), 3, dtype=torch.int32)},  # outside the slots
        {"next_block": torch.zeros(1, dtype=torch.int32)},  # a ring
        {"next_block": torch.full((1,), 9, dtype=torch.int32)},  # outside the blocks
        {"first_block": torch.full((3,), -7, dtype=torch.int32)},
    ],
)
def test_damaged_chains_are_refused(damage):
    with pytest.raises(AESGMemoryError, match="damaged"):
        spread_activation(*SEEDS, *GRAPH._replace(**damage), **RULES)
    check(*SEEDS, GRAPH, **RULES)  # and the next call is sound again


def test_damage_met_in_backward_is_named():
    strengths = GRAPH.strengths.clone().requires_grad_()
    graph = GRAPH._replace(first_block=GRAPH.first_block.clone(), strengths=strengths)
    values, _ = spread_activation(*SEEDS, *graph, **RULES)
    graph.first_block.data.fill_(-7)
    with pytest.raises(AESGMemoryError, match="damaged"):
        values.sum().backward()


@pytest.mark.cuda
@pytest.mark.skipif(
    not (torch.cuda.is_available() and has_cuda_kernels()), reason="no CUDA device or kernels"
)
@pytest.mark.parametrize("hops", range(9))
def test_cuda_has_the_bits_of_the_cpu(hops):
    graph = random_graph(5000, 8, seed=12)
    indices, energies = random_seeds(70, 6, 5000, 12)
    options = {**RULES, "hops": hops, "facilitation": 1.5, "k": 32}
    regions = (torch.arange(5000) % 9).to(torch.int32)
    want = spread_activation(indices, energies, *graph, regions=regions, **options)
    on_device = [column.cuda() for column in (indices, energies, *graph)]
    got = spread_activation(*on_device, regions=regions.cuda(), **options)
    assert torch.equal(got[0].cpu(), want[0]) and torch.equal(got[1].cpu(), want[1])
