"""The CUDA kernel of consolidate_, run thread by thread on the host, against the CPU op: bit for bit."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ops_helpers import grouped
from test_consolidate import RULES, columns
from test_gpu_on_host import at, sizes
from test_gpu_use_on_host import Given, given
from torch import Tensor

from aesg.ops import consolidate_

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")

INF, NAN = float("inf"), float("nan")


class Faded(ctypes.Structure):
    _fields_ = [
        ("relevance_decay", ctypes.c_float),
        ("min_age", ctypes.c_uint32),
        ("relevance_threshold", ctypes.c_float),
        ("frequency_threshold", ctypes.c_uint32),
    ]


def consolidate_on_host(
    gpu: ctypes.CDLL, of: Sequence[Tensor], count: int, rules: dict[str, Any] = RULES
) -> Tensor:
    age, relevance, uses, active = of
    doomed = torch.full(age.shape, 77, dtype=torch.uint8)
    gpu.on_host_consolidate(
        (Given * 4)(*map(given, (active, uses, age, relevance))), ctypes.byref(Faded(**rules)),
        *sizes(count), at(doomed),
    )  # fmt: skip
    return doomed


def check(gpu: ctypes.CDLL, of: Sequence[Tensor], count: int, **rules: Any) -> Tensor:
    """Both on copies of their own; the bits of what is not a number count too."""
    ours, theirs = ([column.clone() for column in of] for _ in range(2))
    doomed = consolidate_on_host(gpu, ours, count, RULES | rules)
    assert torch.equal(doomed, consolidate_(*theirs, count=count, **(RULES | rules)))
    for got, want in zip(ours, theirs, strict=True):
        bits = torch.uint8 if got.element_size() == 1 else torch.int32
        assert torch.equal(got.view(bits), want.view(bits))
    return doomed


@pytest.mark.parametrize("n", [0, 1, 31, 255, 256, 257, 767, 768, 769, 3001])
def test_consolidate(gpu, n: int) -> None:
    of = columns(n, n)
    doomed = check(gpu, of, n)
    assert n < 700 or 0 < int(doomed.sum()) < n
    for count in (0, n // 2, max(n - 1, 0)):
        assert not bool(check(gpu, of, count)[count:].any())


def test_in_any_order_of_the_threads(gpu) -> None:
    for seed in range(5):
        gpu.on_host_order(seed)
        check(gpu, columns(900, seed), 850)


def test_row_groups(gpu) -> None:
    flat = list(columns(2500))
    strided = [grouped(column) for column in flat]
    got = consolidate_on_host(gpu, strided, 2500)
    assert torch.equal(got.flatten()[:2500], consolidate_(*flat, count=2500, **RULES))
    assert not bool(got.flatten()[2500:].any())
    for ours, theirs in zip(strided, flat, strict=True):
        assert torch.equal(ours.flatten()[:2500], theirs) and not bool(ours.flatten()[2500:].any())


def test_nobody_lives(gpu) -> None:
    age, relevance, uses, active = columns(300)
    of = [age, relevance, uses, torch.zeros_like(active)]
    before = [column.clone() for column in of]
    assert not bool(consolidate_on_host(gpu, of, 300).any())
    assert all(torch.equal(one, other) for one, other in zip(of, before, strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.95, 1.0])
def test_relevance_of_every_kind(gpu, decay: float) -> None:
    """What may be imported or damaged: too small, too large, negative, and no number of several bits."""
    few = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-38, 0.05, 1.0, -1.0, 3e38, INF, -INF, NAN, -NAN])
    few = torch.cat(
        [few, torch.tensor([0x7F800001, 0x7FC01234, -0x3FEDCC], dtype=torch.int32).view(torch.float)]
    )
    n = 2 * len(few)
    relevance, active = few.repeat(2), torch.ones(n, dtype=torch.uint8)
    active[len(few) :] = 0
    age, uses = torch.full((n,), 9, dtype=torch.int32), torch.zeros(n, dtype=torch.int32)
    for threshold in (0.05, 0.0, INF, -INF):
        doomed = check(
            gpu, [age, relevance, uses, active], n, relevance_decay=decay, relevance_threshold=threshold
        )
        assert not bool(doomed[relevance.isnan()].any()) and not bool(doomed[len(few) :].any())


@pytest.mark.parametrize("min_age", [0, 8, 9, 10, 2**31, 2**32 - 2, 2**32 - 1])
@pytest.mark.parametrize("frequency", [0, 1, 7, 8, 2**31, 2**32 - 1])
def test_limits(gpu, min_age: int, frequency: int) -> None:
    """Ages and uses at their limits, also as large as 32 bits are; the oldest of all become young."""
    age = torch.tensor([0, 7, 8, 9, 10, 2**31 - 1, -(2**31), -2, -1], dtype=torch.int32)
    uses = torch.tensor([0, 1, 6, 7, 8, 2**31 - 1, -(2**31), -2, -1], dtype=torch.int32)
    ages, used = age.repeat_interleave(len(uses)), uses.repeat(len(age))
    of = [ages, torch.zeros(len(ages)), used, torch.ones(len(ages), dtype=torch.uint8)]
    doomed = check(gpu, of, len(ages), min_age=min_age, frequency_threshold=frequency)
    older = (ages.long() % 2**32 + 1) % 2**32
    assert torch.equal(doomed != 0, (older > min_age) & (used.long() % 2**32 < frequency))
