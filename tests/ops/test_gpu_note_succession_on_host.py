"""The CUDA kernel of note_succession_, run thread by thread on the host, against the CPU op: bit for bit."""

from __future__ import annotations

import ctypes
import shutil

import pytest
import torch
from ops_helpers import grouped
from test_gpu_on_host import at, sizes
from test_note_succession import BAR, case, same
from torch import Tensor

from aesg.ops import note_succession_

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


def column(of: Tensor) -> tuple[ctypes.c_void_p, ctypes.c_int64]:
    return ctypes.c_void_p(of.data_ptr()), ctypes.c_int64(of.stride(0) if of.dim() == 2 else 0)


def place_of(newborn: Tensor | None) -> tuple[ctypes.c_void_p, ctypes.c_int64]:
    if newborn is None:
        return ctypes.c_void_p(None), ctypes.c_int64(-1)
    return ctypes.c_void_p(newborn.data_ptr()), ctypes.c_int64(len(newborn))


def check(gpu, given: list[Tensor], steps: int, newborn: Tensor | None = None) -> None:
    last_seed, last_id, seeds, similarities, born_slots, ids, active = given
    want_kept = [last_seed.clone(), last_id.clone()]
    want = note_succession_(*want_kept, *given[2:], threshold=BAR, steps=steps, newborn=newborn)
    got = torch.full_like(born_slots, 77), torch.full_like(born_slots, 77)
    error = gpu.on_host_note_succession(
        at(last_seed), at(last_id), *sizes(len(last_seed), steps), at(seeds), at(similarities),
        *sizes(seeds.shape[1]), at(born_slots), *place_of(newborn), *column(ids), *column(active),
        *sizes(ids.numel()), ctypes.c_float(BAR), *map(at, got),
    )  # fmt: skip
    assert error == 0
    assert same((last_seed, last_id, *got), (*want_kept, *want))


@pytest.mark.parametrize("width", [0, 3])
@pytest.mark.parametrize(
    "streams, steps, n", [(0, 1, 9), (1, 1, 1), (1, 200, 30), (70, 3, 50), (129, 1, 2500)]
)
def test_note_succession(gpu, streams: int, steps: int, n: int, width: int) -> None:
    for order in range(3):
        gpu.on_host_order(order)
        given = case(streams, steps, width, n, seed=order)
        check(gpu, given, steps)
        for born in (0, 5, n):
            check(gpu, given, steps, case(1, born, 1, n, seed=9)[4])


def test_row_groups_and_an_empty_graph(gpu) -> None:
    given = case(streams=40, steps=3, n=2048)
    check(gpu, [*(part.clone() for part in given[:5]), grouped(given[5]), grouped(given[6])], 3)
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.uint8)
    check(gpu, [*given[:5], *nothing], 3)
