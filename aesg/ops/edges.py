"""Edges: the edges of a graph as the ops that learn take them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# Places in the counters i64 [7] that such ops take and change: csrc/ops/edges.h.
COUNTERS = ("node_count", "active_count", "next_id", "free_slot", "block_count", "free_block", "edge_count")


class Edges(NamedTuple):
    """Columns of all slots N and edge blocks M, flat or in row groups; docs/store_format.md tells what they
    hold.
    """

    first_block: Tensor  # [N] i32
    targets: Tensor  # [M, 7] i32, -1: empty
    strengths: Tensor  # [M, 7] f32, weight * confidence
    next_block: Tensor  # [M] i32, of the chain or of the list of free blocks, -1: end
    counts: Tensor  # [M] i32, edges in the block
    weights: Tensor  # [M, 7] f32
    confidences: Tensor  # [M, 7] f32
    use_counts: Tensor  # [M, 7] i32, the bits of u32
    tags: Tensor  # [M, 7] u8
    sources: Tensor  # [M] i32, -1: free block
