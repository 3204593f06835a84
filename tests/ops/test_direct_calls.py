"""Calls past torch's dispatcher, which must not show: the op's bits, its errors, and the op for all else.

Those of spread_activation: test_spread_paths.py.
"""

import importlib

import pytest
import torch
from ops_helpers import Graph, as_stored, blocks_of, grouped
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from aesg.ops import Cells, Primed, activate_context, make_cells, region_add_, region_search, seed_search
from aesg.ops.reference import normalize_ref

OPS = ["seed_search", "region_search", "activate_context"]
MODULES = {name: importlib.import_module(f"aesg.ops.{name}") for name in OPS}
B, N, D, S, P = 9, 300, 20, 4, 3

needs_direct = pytest.mark.skipif(
    MODULES["seed_search"]._try_direct is None, reason="this torch has no exchange interface"
)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def of_seed_search(batch=B, rows=N):
    vectors = noise(rows, D)
    return {
        "queries": noise(batch, D), "vectors": vectors, "k": 6, "inv_norm": 1 / vectors.norm(dim=1),
        "active": (noise(rows) > -1).to(torch.uint8), "count": rows, "min_score": 0.1, "exact": False,
    }  # fmt: skip


def of_region_search(batch=B, rows=N):
    sought = of_seed_search(batch, rows)
    cells = make_cells(normalize_ref(noise(40, D)), rows)
    region_add_(cells, sought["vectors"], sought["inv_norm"], torch.arange(2, max(rows, 2)))
    return {
        **{name: sought[name] for name in ("queries", "vectors", "k", "inv_norm", "active")},
        "centers": cells.centers, "heads": cells.heads, "panels": cells.panels,
        "pending": torch.arange(min(rows, 2)), "probes": 5, "pool": 30, "min_score": 0.1,
    }  # fmt: skip


def of_activate_context(batch=B, rows=N, seeds=S, jacobian=False):
    generator = torch.Generator().manual_seed(3)
    ends = torch.randint(0, max(rows, 1), (4 * rows, 2), generator=generator).tolist()
    graph = blocks_of(rows, [(a, b, 0.6) for a, b in ends if a != b], dead=[5] if rows else [])
    slots = torch.randint(-1, rows, (batch, P), generator=generator)
    similarities = torch.rand(batch, seeds, generator=generator).sort(descending=True).values
    return {
        "similarities": similarities, "seeds": torch.randint(-1, rows, (batch, seeds), generator=generator),
        "bar": torch.full((batch,), 0.7), "primed": slots, "primed_ids": slots + 100,
        "primed_energies": torch.rand(batch, P, generator=generator), "vectors": noise(rows, D),
        "ids": torch.arange(100, 100 + rows), **graph._asdict(),
        "regions": torch.arange(rows, dtype=torch.int32) % 4, "relative": 0.5, "priming": 0.4, "hops": 2,
        "decay": 0.8, "facilitation": 1.5, "source_floor": 0.1, "transfer_floor": 0.05, "k": 6,
        "gather": True, "jacobian": jacobian,
    }  # fmt: skip


MAKE = {"seed_search": of_seed_search, "region_search": of_region_search}
MAKE["activate_context"] = of_activate_context


def in_groups(arguments):
    """The same with all columns as a store lays them out."""
    made = dict(arguments)
    for name in ("vectors", "inv_norm", "active", "ids", "regions"):
        if made.get(name) is not None:
            made[name] = grouped(made[name])
    if "first_block" in made:
        made |= as_stored(Graph(*(arguments[name] for name in Graph._fields)))._asdict()
    return made


def ask(op, given):
    """The public function, given the op's arguments."""
    a = dict(given)
    if op == "seed_search":
        return seed_search(a.pop("queries"), a.pop("vectors"), a.pop("k"), **a)
    if op == "region_search":
        cells = Cells(a.pop("centers"), a.pop("heads"), None, a.pop("panels"), None, None)
        return region_search(a.pop("queries"), a.pop("vectors"), a.pop("k"), cells, a.pop("pending"), **a)
    primed = Primed(a.pop("primed"), a.pop("primed_ids"), a.pop("primed_energies"), a.pop("priming"))
    by_place = [a.pop(name) for name in ("similarities", "seeds", "vectors", *Graph._fields)]
    return activate_context(*by_place, primed=None if primed.slots is None else primed, **a)


def outcome(op, arguments):
    """What a call gives, or the error that it raises."""
    try:
        return tuple(ask(op, arguments))
    except Exception as error:
        return type(error), str(error)


def same(got, want):
    return len(got) == len(want) and all(
        torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()
        if torch.is_tensor(a)
        else a == b
        for a, b in zip(got, want, strict=True)
    )


def without_direct(op, monkeypatch, arguments):
    with monkeypatch.context() as patch:
        patch.setattr(MODULES[op], "_try_direct", None)
        return outcome(op, arguments)


NOT_PRIMED = {"primed": None, "primed_ids": None, "primed_energies": None}
PLAIN = {
    "seed_search": [
        {}, {"k": 1}, {"k": 2 * N}, {"inv_norm": None}, {"active": None}, {"active": torch.ones(N) > 0},
        {"inv_norm": None, "active": None, "count": None, "min_score": -1}, {"count": 0}, {"count": 7},
        {"min_score": float("inf")}, {"min_score": float("-inf")}, {"queries": torch.zeros(2, D)},
        {"exact": True},
        {"queries": torch.ones(4, 1), "vectors": noise(N, 1)}, {"queries": torch.ones(D, 1).t()},
    ],
    "region_search": [
        {}, {"k": 1}, {"k": 2 * N}, {"pool": 1}, {"pool": 2**62}, {"probes": 0}, {"probes": 2**62},
        {"pending": torch.empty(0, dtype=torch.int64)}, {"active": torch.ones(N) > 0}, {"min_score": -1},
    ],
    "activate_context": [
        {}, {"k": 1}, {"k": 2 * N}, {"bar": None}, {"ids": None}, {"regions": None}, NOT_PRIMED,
        {**NOT_PRIMED, "bar": None, "ids": None, "gather": False}, {"gather": False}, {"jacobian": True},
        {**NOT_PRIMED, "jacobian": True, "gather": False}, {"hops": 0}, {"relative": 0, "decay": 1},
    ],
}  # fmt: skip


@needs_direct
@pytest.mark.parametrize("laid", ["flat", "in groups"])
@pytest.mark.parametrize(("op", "changes"), [(op, one) for op in OPS for one in PLAIN[op]], ids=str)
def test_a_direct_call_has_the_results_of_the_op(op, changes, laid):
    arguments = MAKE[op]() | changes
    if laid == "in groups":
        arguments = in_groups(arguments)
    direct = MODULES[op]._try_direct(*arguments.values())
    assert same(direct, MODULES[op]._op(*arguments.values()))
    for result in direct:  # its own memory, to be written to and let go of
        result.add_(1)
        assert result.numel() == 0 or result.data_ptr() % 64 == 0


@needs_direct
@pytest.mark.parametrize("sizes", [{"batch": 0}, {"rows": 0}, {"batch": 0, "rows": 0}], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_nothing_to_ask_and_nothing_to_find(op, sizes):
    arguments = MAKE[op](**sizes)
    assert same(MODULES[op]._try_direct(*arguments.values()), MODULES[op]._op(*arguments.values()))


@needs_direct
@pytest.mark.parametrize("jacobian", [False, True])
@pytest.mark.parametrize("sizes", [{"seeds": 0}, {"seeds": 1}, {"batch": 0}, {"rows": 0}], ids=str)
def test_contexts_of_few_seeds(sizes, jacobian):
    arguments = of_activate_context(**sizes, jacobian=jacobian)
    module = MODULES["activate_context"]
    assert same(module._try_direct(*arguments.values()), module._op(*arguments.values()))


class Subclass(torch.Tensor):
    pass


def turned(tensor):
    """The same values, kept as their opposites."""
    return torch._neg_view(-tensor)


NAN, DOUBLE = float("nan"), torch.float64
NOT_PLAIN = {
    "seed_search": [
        {"queries": noise(D, B).t()}, {"queries": torch.full((B, D), NAN)}, {"queries": noise(B, D + 1)},
        {"queries": noise(B, 0), "vectors": noise(N, 0)}, {"queries": noise(B, D).to(DOUBLE)},
        {"queries": noise(B, D).as_subclass(Subclass)}, {"queries": torch.nn.Parameter(noise(B, D))},
        {"queries": noise(D)}, {"queries": [[1.0] * D]}, {"queries": torch._efficientzerotensor(B, D)},
        {"queries": noise(B, D).to("meta")}, {"vectors": noise(D, N).t()}, {"vectors": noise(N, D).half()},
        {"vectors": torch.nn.Parameter(noise(N, D))}, {"vectors": noise(N, 2 * D)[:, ::2]},
        {"vectors": noise(3, 100, D)}, {"inv_norm": noise(N + 1)}, {"inv_norm": noise(0)},
        {"inv_norm": noise(N).to(DOUBLE)}, {"inv_norm": "none"}, {"active": torch.ones(N)},
        {"active": torch.ones(2 * N, dtype=torch.uint8)[::2]}, {"active": torch.ones(1, dtype=torch.uint8)},
        {"k": 0}, {"k": -1}, {"k": True}, {"k": 2.0}, {"k": 2**40}, {"k": 2**70}, {"count": N + 1},
        {"count": -1}, {"count": 1.0}, {"min_score": NAN}, {"min_score": "0"}, {"min_score": 10**400},
        {"exact": 1}, {"exact": "no"},
    ],
    "region_search": [
        {"queries": noise(D, B).t()}, {"queries": torch.full((B, D), NAN)}, {"queries": noise(B, D + 1)},
        {"queries": noise(B, D).to(DOUBLE)}, {"queries": noise(B, D).as_subclass(Subclass)},
        {"vectors": noise(D, N).t()}, {"vectors": noise(N)}, {"inv_norm": noise(N - 1)}, {"inv_norm": None},
        {"active": torch.ones(N)}, {"active": None}, {"k": 0}, {"k": 2**40}, {"probes": -1}, {"pool": 0},
        {"min_score": NAN}, {"heads": torch.zeros(40)}, {"heads": torch.zeros(80, dtype=torch.int32)},
        {"heads": torch.zeros(80, dtype=torch.int32)[::2]}, {"pending": torch.tensor([N])},
        {"pending": torch.tensor([0], dtype=torch.int32)}, {"pending": torch.tensor([[0]])},
        {"panels": torch.zeros(3, 320, dtype=torch.uint8)},
        {"centers": torch.zeros(1, 960, dtype=torch.uint8)},
        {"centers": torch.zeros(2, 1920, dtype=torch.uint8)[:, ::2]},
        {"centers": torch.zeros(1921, dtype=torch.uint8)[1:].view(2, 960)},
    ],
    "activate_context": [
        {"similarities": torch.full((B, S), NAN)}, {"similarities": noise(S, B).t()},
        {"similarities": noise(B, S + 1)}, {"similarities": noise(B, S).to(DOUBLE)},
        {"similarities": noise(B, S).as_subclass(Subclass)}, {"seeds": torch.full((B, S), N)},
        {"seeds": torch.full((B, S), -2)}, {"seeds": torch.zeros(B, S, dtype=torch.int32)},
        {"bar": torch.ones(B + 1)}, {"bar": torch.ones(B, 1)}, {"bar": torch.ones(2 * B)[::2]}, {"bar": 0.5},
        {"primed": torch.full((B, P), N)}, {"primed": torch.zeros(B + 1, P, dtype=torch.int64)},
        {"primed_ids": None}, {"primed_ids": torch.zeros(B, P + 1, dtype=torch.int64)},
        {"primed_energies": torch.full((B, P), NAN)}, {"primed_energies": torch.ones(P, B).t()},
        {"priming": -1.0}, {"priming": NAN}, {"vectors": noise(N - 1, D)}, {"vectors": noise(N)},
        {"vectors": noise(N, 0)}, {"vectors": noise(D, N).t()}, {"ids": torch.arange(N - 1)},
        {"ids": torch.arange(N, dtype=torch.int32)}, {**NOT_PRIMED, "ids": 3},
        {"active": torch.ones(N)}, {"active": torch.ones(0, dtype=torch.uint8)},
        {"strengths": torch.ones(2, 7)}, {"next_block": torch.zeros(2, dtype=torch.int32)},
        {"regions": torch.zeros(N - 1, dtype=torch.int32)}, {"regions": torch.zeros(0, dtype=torch.int32)},
        {"relative": NAN}, {"relative": None}, {"hops": -1}, {"hops": 1.0}, {"decay": -0.1}, {"decay": NAN},
        {"transfer_floor": float("inf")}, {"k": 0}, {"k": 2**40}, {"gather": None}, {"jacobian": 1},
    ],
}  # fmt: skip


def brief(value):
    return str(value).replace("\n", "")[:60]


@pytest.mark.parametrize(("op", "changes"), [(op, one) for op in OPS for one in NOT_PLAIN[op]], ids=brief)
def test_what_is_not_plain_is_left_to_the_op(op, changes, monkeypatch):
    arguments = MAKE[op]() | changes
    if MODULES[op]._try_direct is not None:
        assert MODULES[op]._try_direct(*arguments.values()) is None
    got, want = outcome(op, arguments), without_direct(op, monkeypatch, arguments)
    if any(torch.is_tensor(one) and one.device.type == "meta" for one in got):
        assert [one.shape for one in got] == [one.shape for one in want]
    else:
        assert same(got, want)


@needs_direct
@pytest.mark.parametrize("op", OPS)
def test_a_wrong_number_of_arguments_is_left_to_the_op(op):
    arguments = list(MAKE[op]().values())
    assert MODULES[op]._try_direct(*arguments[:-1]) is None
    assert MODULES[op]._try_direct(*arguments, None) is None
    assert MODULES[op]._try_direct() is None


def test_damage_is_left_to_the_op(monkeypatch):
    cells, graph = of_region_search(), of_activate_context()
    cells["heads"].fill_(10_000)
    graph["targets"].fill_(N)
    graph["seeds"].clamp_(min=0)
    for op, arguments in (("region_search", cells), ("activate_context", graph)):
        if MODULES[op]._try_direct is not None:
            assert MODULES[op]._try_direct(*arguments.values()) is None
        got = outcome(op, arguments)
        assert got == without_direct(op, monkeypatch, arguments) and "damaged" in got[1]


FLOATS = {
    "seed_search": ["queries", "vectors", "inv_norm"],
    "region_search": ["queries", "vectors", "inv_norm"],
    "activate_context": ["similarities", "bar", "primed_energies", "vectors", "strengths"],
}


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in OPS for name in FLOATS[op]])
def test_tensors_with_the_negative_bit_mean_what_they_say(op, name):
    arguments = MAKE[op]()
    want = outcome(op, arguments)
    arguments[name] = turned(arguments[name])
    assert arguments[name].is_neg() and same(outcome(op, arguments), want)
    assert any(bool((one > 0).any()) for one in want)


def test_the_imaginary_part_of_a_conjugate_is_turned():
    arguments = of_seed_search()
    want = ask("seed_search", arguments)
    whole = torch.complex(torch.zeros(B, D), -arguments["queries"])
    arguments["queries"] = whole.conj().imag
    assert arguments["queries"].is_neg() and same(ask("seed_search", arguments), want)


@pytest.mark.parametrize(
    ("op", "name"), [("seed_search", "queries"), ("seed_search", "vectors"), ("region_search", "queries")]
)
def test_gradients_are_the_ops_business(op, name):
    arguments = MAKE[op]()
    want = ask(op, arguments)
    arguments[name].requires_grad_()
    got = ask(op, arguments)
    assert same(got, want) and got[0].requires_grad
    got[0].sum().backward()
    assert bool((arguments[name].grad != 0).any())
    with torch.no_grad():
        got = ask(op, arguments)
    assert same(got, want) and not got[0].requires_grad


@pytest.mark.parametrize("op", OPS)
def test_results_of_inference_are_inference_tensors(op):
    with torch.inference_mode():
        assert all(one.is_inference() for one in ask(op, MAKE[op]()))
    assert not any(one.is_inference() for one in ask(op, MAKE[op]()))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("op", OPS)
def test_modes_profilers_and_traces_see_the_op(op):
    class Watch(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen += op in str(func)
            return func(*args, **(kwargs or {}))

    class Follow(TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen += op in str(func)
            return func(*args, **(kwargs or {}))

    arguments = MAKE[op]()
    for mode in (Watch(), Follow()):
        with mode:
            ask(op, arguments)
        assert mode.seen == 1
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        ask(op, arguments)
    assert any(event.key == f"aesg::{op}" for event in profile.key_averages())
    first = next(iter(arguments))
    traced = torch.jit.trace(lambda x: ask(op, arguments | {first: x})[1], (arguments[first],))
    assert f"aesg::{op}" in str(traced.graph)


@pytest.mark.filterwarnings("ignore:Dynamo does not know:UserWarning")
@pytest.mark.parametrize("op", OPS)
def test_fakes_and_compilers_see_the_op(op):
    arguments = MAKE[op]()
    want = ask(op, arguments)
    fakes = FakeTensorMode()
    faked = {
        name: fakes.from_tensor(value) if torch.is_tensor(value) else value
        for name, value in arguments.items()
    }
    assert [one.shape for one in ask(op, faked)] == [one.shape for one in want]
    whole = op != "activate_context"  # which compiled code leaves its graph for
    compiled = torch.compile(lambda given: tuple(ask(op, given)), backend="aot_eager", fullgraph=whole)
    assert same(compiled(arguments), want)
