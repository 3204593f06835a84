"""The ways of spread_activation, which must not show: short and long chains, copies, lanes, direct calls."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
from ops_helpers import blocks_of
from torch.utils._python_dispatch import TorchDispatchMode

from aesg.ops import spread_activation
from aesg.ops.reference import spread_activation_ref

module = importlib.import_module("aesg.ops.spread_activation")
RULES = {"hops": 3, "decay": 0.8, "k": 10}


def graph_with_hubs(n=50, dead=(3, 17, 18)):
    """Concepts of 0 to 49 edges: chains of up to seven blocks; many edges are parallel."""
    generator = torch.Generator().manual_seed(5)
    edges = []
    for source in range(n):
        for target in torch.randint(0, n, (source,), generator=generator).tolist():
            edges.append((source, target, float(torch.rand((), generator=generator))))
    return blocks_of(n, edges, list(dead))


def repeated_seeds(batch=12, n=50):
    generator = torch.Generator().manual_seed(6)
    slots = torch.randint(-1, n, (batch // 3, 4), generator=generator).repeat(3, 1)
    return slots, torch.rand(slots.shape, generator=generator)


@pytest.mark.parametrize("k", [1, 9, 10, 11, 16, 17, 60])
@pytest.mark.parametrize("hops", [1, 2, 5])
def test_chains_met_again_and_any_k(hops, k):
    graph, rules = graph_with_hubs(), {"hops": hops, "decay": 0.7, "k": k}
    got = spread_activation(*repeated_seeds(), *graph, **rules)
    want = spread_activation_ref(*repeated_seeds(), *graph, **rules)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])


def test_the_best_may_be_dead():
    """Which of those that energy reached are dead is only asked of the best: all but two of them here."""
    graph = graph_with_hubs(dead=range(2, 48))
    got = spread_activation(torch.tensor([[48, 49]]), torch.tensor([[1.0, 0.2]]), *graph, **RULES)
    want = spread_activation_ref(torch.tensor([[48, 49]]), torch.tensor([[1.0, 0.2]]), *graph, **RULES)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    assert (got[1] >= 0).sum() >= 2 and not bool(((got[1] >= 2) & (got[1] < 48)).any())


@pytest.mark.parametrize("hops", [1, 3])
def test_the_table_of_a_large_graph_grows_and_shrinks(hops):
    """Above 2**20 slots what a query touches lies in a hash table: a small graph, and the same far apart."""
    n, apart = 6000, 175
    generator = torch.Generator().manual_seed(7)
    pairs = torch.randint(0, n, (n, 9), generator=generator).tolist()
    weights = torch.rand(n, 9, generator=generator).tolist()
    edges = [
        (s, t, w) for s, (row, ws) in enumerate(zip(pairs, weights, strict=True))
        for t, w in zip(row, ws, strict=True)
    ]  # fmt: skip
    near = blocks_of(n, edges, [4, 9])
    first_block = torch.full((n * apart,), -1, dtype=torch.int32)
    first_block[::apart] = near.first_block
    active = torch.ones(n * apart, dtype=near.active.dtype)
    active[::apart] = near.active
    targets = torch.where(near.targets >= 0, near.targets * apart, near.targets)
    far = near._replace(first_block=first_block, active=active, targets=targets)
    wide = torch.arange(0, n, 3).reshape(1, -1)
    for slots in (
        torch.tensor([[5, 8]]),
        wide,
        torch.tensor([[5, 8]]),
        torch.tensor([[10, 4]]).repeat(40, 1),
    ):
        start = torch.full(slots.shape, 0.9)
        rules = {"hops": hops, "decay": 0.8, "k": 30}
        want = spread_activation(slots, start, *near, **rules)
        got = spread_activation(slots * apart, start, *far, **rules)
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], torch.where(want[1] >= 0, want[1] * apart, want[1]))


@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_the_same_bits_on_any_instruction_set(isa):
    script = (
        "import sys, torch; sys.path.insert(0, sys.argv[1])\n"
        "from test_spread_paths import graph_with_hubs, repeated_seeds, RULES\n"
        "from aesg.ops import spread_activation\n"
        "e, i = spread_activation(*repeated_seeds(), *graph_with_hubs(), **RULES)\n"
        "print(e.view(torch.int32).tolist(), i.tolist())"
    )
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", script, here],
        env={**os.environ, "AESG_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    energies, indices = spread_activation(*repeated_seeds(), *graph_with_hubs(), **RULES)
    assert done.stdout.strip() == f"{energies.view(torch.int32).tolist()} {indices.tolist()}"


def by_place(graph=None, **changes):
    slots, energies = repeated_seeds()
    values = {"slots": slots, "energies": energies, "regions": None, "decay": 0.8, "k": 10, **changes}
    return (
        *(values["slots"], values["energies"]), *(graph or graph_with_hubs()), values["regions"],
        *(3, values["decay"], 1.0, 0.1, 0.05, values["k"]),
    )  # fmt: skip


needs_direct = pytest.mark.skipif(module._try_direct is None, reason="this torch has no exchange interface")


@needs_direct
def test_a_direct_call_has_the_results_of_the_op():
    direct = module._try_direct(*by_place())
    energies, indices, _ = module._op(*by_place(), False)
    assert torch.equal(direct[0], energies) and torch.equal(direct[1], indices)
    assert direct[0].dtype == torch.float32 and direct[1].dtype == torch.int64
    direct[0].add_(1)  # its own memory, to be written to and let go of
    assert direct[0].data_ptr() % 64 == direct[1].data_ptr() % 64 == 0


@needs_direct
@pytest.mark.parametrize(
    "changes",
    [
        {"slots": torch.zeros(12, 4, dtype=torch.int32)},
        {"slots": torch.full((12, 4), 50)},
        {"slots": torch.full((12, 4), -2)},
        {"slots": torch.zeros(4, 12, dtype=torch.int64).t()},
        {"slots": [[0]]},
        {"energies": torch.full((12, 4), float("nan"))},
        {"energies": torch.ones(12, 3)},
        {"energies": torch.ones(12, 4, device="meta")},
        {"energies": torch.ones(12, 4, dtype=torch.float64)},
        {"energies": torch._efficientzerotensor(12, 4)},
        {"energies": torch.complex(torch.zeros(12, 4), torch.ones(12, 4)).conj().imag},
        {"energies": torch.nn.Parameter(torch.ones(12, 4))},
        {"regions": torch.zeros(49, dtype=torch.int32)},
        {"regions": torch.zeros(0, dtype=torch.int32)},
        {"decay": -1.0},
        {"decay": float("inf")},
        {"decay": 10**400},
        {"k": 0},
        {"k": 2**70},
        {"k": 10.0},
    ],
    ids=str,
)
def test_a_direct_call_leaves_what_is_not_plain_to_the_op(changes):
    assert module._try_direct(*by_place(**changes)) is None


@needs_direct
def test_a_direct_call_leaves_damage_to_the_op():
    graph = graph_with_hubs()
    graph.targets[graph.first_block[49], 0] = 50
    seeds = {"slots": torch.full((12, 4), 49), "energies": torch.ones(12, 4)}
    assert module._try_direct(*by_place(graph, **seeds)) is None


def test_modes_and_profilers_see_the_op():
    class Watch(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen += "spread_activation" in str(func)
            return func(*args, **(kwargs or {}))

    with Watch() as watch:
        spread_activation(*repeated_seeds(), *graph_with_hubs(), **RULES)
    assert watch.seen == 1
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        spread_activation(*repeated_seeds(), *graph_with_hubs(), **RULES)
    assert any(event.key == "aesg::spread_activation" for event in profile.key_averages())


@pytest.mark.parametrize("turned", ["energies", "strengths"])
def test_tensors_with_the_negative_bit_mean_what_they_say(turned):
    (slots, energies), graph = repeated_seeds(), list(graph_with_hubs())
    want = spread_activation(slots, energies, *graph, **RULES)
    if turned == "energies":
        energies = torch._neg_view(-energies)
    else:
        graph[2] = torch._neg_view(-graph[2])
    got = spread_activation(slots, energies, *graph, **RULES)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    assert want[0].max() > 0
