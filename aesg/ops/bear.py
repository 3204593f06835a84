"""bear_: concepts are born and linked, on columns in place.

Oracle: `aesg.ops.reference_learning.bear_ref_`; arithmetic: `csrc/ops/bear_math.h`, `csrc/ops/edges.h`;
kernels: `csrc/ops/gpu/bear.cu`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aesg._extension import expect_one_device, raise_typed
from aesg.ops.edges import Edges

_op = torch.ops.aesg.bear_.default


class Nodes(NamedTuple):
    """Columns of all slots N that a birth writes, flat or in row groups; `Edges` has first_block."""

    vector: Tensor  # [N, D] f32
    id: Tensor  # [N] i64, the bits of u64, 0: free slot
    inv_norm: Tensor  # [N] f32
    use_frequency: Tensor  # [N] i32, the bits of u32
    relevance: Tensor  # [N] f32
    age: Tensor  # [N] i32, the bits of u32
    region_id: Tensor  # [N] i32, the bits of u32
    is_active: Tensor  # [N] u8


def bear_(
    packed: Tensor,  # [n, D] f32
    count: Tensor,  # [1] i64
    neighbors: Tensor,  # [n, L] i64, slots, -1 padded
    cosines: Tensor,  # [n, L] f32
    nodes: Nodes,  # changed
    edges: Edges,  # changed
    counters: Tensor,  # [7] i64, changed: COUNTERS
    *,
    confidence: float,
    relevance: float = 1.0,
) -> Tensor:
    """Bears concepts from the first `count` rows, linked both ways to their neighbours: slots i64 [n].

    As a store does, to the last bit: free slots are taken first, ids in order of the rows; then edges from
    all newborn, then those to them, weight = cosine clamped to 0..1, confidence = `confidence`. A neighbour
    that is no living concept of before the call is none. Slots are -1 where nobody is born. Deterministic.
    O(count (D + L)), whatever n. No gradient.

    REQUIRES: finite rows; the neighbours of a row are distinct; no edge leads to a free slot.

    Raises AESGMemoryError for tensors of wrong dtype, shape, layout or device, numbers out of range, damaged
    lists of free slots or blocks, and where there is no room, before anything is changed. On a CUDA device
    the host does not wait: what has no room is not born or not linked, and a damaged list ends.
    """
    try:
        return _op(packed, count, neighbors, cosines, *nodes, *edges, counters, confidence, relevance)
    except RuntimeError as error:
        raise_typed(error)


@torch.library.register_fake("aesg::bear_")
def _fake(
    packed: Tensor,
    count: Tensor,
    neighbors: Tensor,
    cosines: Tensor,
    vector: Tensor,
    id: Tensor,
    inv_norm: Tensor,
    use_frequency: Tensor,
    relevance: Tensor,
    age: Tensor,
    region_id: Tensor,
    is_active: Tensor,
    first_block: Tensor,
    targets: Tensor,
    strengths: Tensor,
    next_block: Tensor,
    counts: Tensor,
    weights: Tensor,
    confidences: Tensor,
    use_counts: Tensor,
    tags: Tensor,
    sources: Tensor,
    counters: Tensor,
    confidence: float,
    initial_relevance: float,
) -> Tensor:
    nodes = Nodes(vector, id, inv_norm, use_frequency, relevance, age, region_id, is_active)
    edges = Edges(
        first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources
    )
    expect_one_device(packed, count, neighbors, cosines, *nodes, *edges, counters)
    return packed.new_empty(packed.shape[0], dtype=torch.int64)
