"""What the tests of the ops share: columns in every layout, graphs as blocks, comparison of top-k results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from aesg._extension import has_cuda_kernels

GROUP = 1024


def needs_cuda(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test `cuda`, and skips it where there is no device or no kernels."""
    there = torch.cuda.is_available() and has_cuda_kernels()
    return pytest.mark.cuda(pytest.mark.skipif(not there, reason="no CUDA device or kernels")(test))


def grouped(column: Tensor, gap: int = 24) -> Tensor:
    """The same rows as [G, 1024, ..], strided with `gap` foreign values between groups, padded with 0."""
    tail = column.shape[1:]
    groups = -(-max(column.shape[0], 1) // GROUP)
    row = tail.numel()
    storage = torch.full((groups, GROUP * row + gap), 7, dtype=column.dtype)
    view = storage[:, : GROUP * row].unflatten(1, (GROUP, *tail))
    view.zero_()
    for group in range(groups):
        rows = column[group * GROUP : (group + 1) * GROUP]
        view[group, : rows.shape[0]] = rows
    assert groups == 1 or not view.is_contiguous()
    return view


class Graph(NamedTuple):
    first_block: Tensor
    targets: Tensor
    strengths: Tensor
    next_block: Tensor
    active: Tensor


def blocks_of(n: int, edges: Sequence[tuple[int, int, float]], dead: Sequence[int] = ()) -> Graph:
    """Edges (source, target, strength) as chains of blocks of 7 in flat tensors."""
    chains: list[list[tuple[int, float]]] = [[] for _ in range(n)]
    for source, target, strength in edges:
        chains[source].append((target, strength))
    targets, strengths, following = [], [], []
    first = [-1] * n
    for source, chain in enumerate(chains):
        for start in range(0, len(chain), 7):
            part = chain[start : start + 7]
            block = len(targets)
            targets.append([t for t, _ in part] + [-1] * (7 - len(part)))
            strengths.append([s for _, s in part] + [0.0] * (7 - len(part)))
            following.append(-1)
            if start == 0:
                first[source] = block
            else:
                following[block - 1] = block
    active = torch.ones(n, dtype=torch.uint8)
    active[list(dead)] = 0
    return Graph(
        torch.tensor(first, dtype=torch.int32),
        torch.tensor(targets, dtype=torch.int32).reshape(-1, 7),
        torch.tensor(strengths, dtype=torch.float32).reshape(-1, 7),
        torch.tensor(following, dtype=torch.int32),
        active,
    )


def as_stored(graph: Graph) -> Graph:
    """The same graph laid out as a store has it: row groups, and block fields side by side in 64 bytes."""
    m = graph.targets.shape[0]
    groups = -(-max(m, 1) // GROUP)
    bytes_ = torch.zeros(groups, 160 * GROUP // 4, dtype=torch.int32)
    stride = (bytes_.shape[1], 16, 1)
    targets = bytes_.as_strided((groups, GROUP, 7), stride)
    strengths = bytes_.view(torch.float32).as_strided((groups, GROUP, 7), stride, 7)
    next_block = bytes_.as_strided((groups, GROUP), stride[:2], 14)
    targets.fill_(-1)
    next_block.fill_(-1)
    for block in range(m):
        at = block // GROUP, block % GROUP
        targets[at], strengths[at] = graph.targets[block], graph.strengths[block]
        next_block[at] = graph.next_block[block]
    return Graph(grouped(graph.first_block), targets, strengths, next_block, grouped(graph.active))


def assert_same_top_k(
    got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], value_of: Tensor, tolerance: float = 2e-6
) -> None:
    """Equal up to the order inside groups of nearly equal values.

    Values agree place by place; every index got has the value it claims, by `value_of` [B, N]; no index
    comes twice; padding is 0 and -1.
    """
    values, indices = got
    torch.testing.assert_close(values, want[0], atol=tolerance, rtol=0)
    assert torch.equal(indices < 0, want[1] < 0), "a different number of results"
    assert bool((values[indices < 0] == 0).all()), "padding is not 0"
    there = indices >= 0
    value_of = torch.nn.functional.pad(value_of, (0, 1))  # N may be 0
    claimed = torch.where(there, value_of.gather(1, indices.clamp(min=0)), 0.0)
    torch.testing.assert_close(values, claimed, atol=tolerance, rtol=0)
    for row in indices:
        found = row[row >= 0].tolist()
        assert len(found) == len(set(found)), "an index came twice"


def on_threads(numbers: Sequence[int], run: Callable[[], Any]) -> list[Any]:
    """What `run` returns under each number of torch threads."""
    before = torch.get_num_threads()
    try:
        results = []
        for number in numbers:
            torch.set_num_threads(number)
            results.append(run())
        return results
    finally:
        torch.set_num_threads(before)
