"""Columns of a store as the ops that learn take them: copies, so that op and store can each go their way."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aesg import _core
from aesg.ops import COUNTERS, Edges
from aesg.storage.engine import AESGStorage

GROUP = _core.GROUP_ROWS
HOT, COLD = _core.HOT_BLOCK_BYTES, _core.EDGE_GROUP_BYTES // GROUP - _core.HOT_BLOCK_BYTES
NODES = ("vector", "id", "inv_norm", "use_frequency", "relevance", "age", "region_id", "is_active")


class Learnt(NamedTuple):
    """All that learning on columns changes."""

    nodes: dict[str, Tensor]  # [G, 1024, ..], by name
    edges: Edges
    counters: Tensor  # i64 [7]


def learnt_of(storage: AESGStorage, more_nodes: int = 0, more_blocks: int = 0) -> Learnt:
    """Copies of a store's columns in its layout, with so many further groups of zeros behind."""
    core = storage.core
    nodes = {}
    for name in (*NODES, "first_block"):
        column = storage.column(name)
        room = column.new_zeros(more_nodes, *column.shape[1:])
        nodes[name] = torch.cat([column, room])
    groups = core.block_groups
    whole = torch.zeros(groups + more_blocks, _core.EDGE_GROUP_BYTES, dtype=torch.uint8)
    whole[:groups] = torch.from_numpy(core.edge_view().copy()).view(torch.uint8).view(groups, whole.shape[1])
    hot = whole[:, : HOT * GROUP].unflatten(1, (GROUP, HOT))
    cold = whole[:, HOT * GROUP :].unflatten(1, (GROUP, COLD))

    def part(of: Tensor, dtype: torch.dtype, start: int, width: int) -> Tensor:
        values = of.view(dtype)[..., start : start + max(width, 1)]
        return values if width else values[..., 0]

    edges = Edges(
        nodes["first_block"],
        part(hot, torch.int32, 0, 7), part(hot, torch.float32, 7, 7), part(hot, torch.int32, 14, 0),
        part(hot, torch.int32, 15, 0),
        part(cold, torch.float32, 0, 7), part(cold, torch.float32, 7, 7), part(cold, torch.int32, 14, 7),
        part(cold, torch.uint8, 84, 7), part(cold, torch.int32, 23, 0),
    )  # fmt: skip
    counters = torch.tensor([getattr(core.counters, name) for name in COUNTERS], dtype=torch.int64)
    return Learnt(nodes, edges, counters)


def assert_no_block_is_shared(edges: Edges, node_count: int) -> None:
    """Every chain of flat columns ends, and each of its blocks is its own."""
    following, sources = edges.next_block.tolist(), edges.sources.tolist()
    seen: set[int] = set()
    for slot, block in enumerate(edges.first_block[:node_count].tolist()):
        while block >= 0:
            assert block not in seen and sources[block] == slot, (slot, block)
            seen.add(block)
            block = following[block]


def assert_learnt(got: Learnt, storage: AESGStorage) -> None:
    """`got` holds, bit for bit, what the store does, and zeros behind it."""
    groups, blocks = got.nodes["id"].shape[0], got.edges.targets.shape[0]
    want = learnt_of(storage, groups - storage.core.node_groups, blocks - storage.core.block_groups)
    assert got.counters.tolist() == want.counters.tolist()
    for name, column in got.nodes.items():
        assert torch.equal(column, want.nodes[name]), name
    for name, one, other in zip(Edges._fields, got.edges, want.edges, strict=True):
        assert torch.equal(one.contiguous(), other.contiguous()), name
