"""region_search: the most similar concepts of every query among those in the cells nearest to it.

Oracle: `aesg.ops.reference.region_search_ref`; kernel: `csrc/ops/cpu/region_search.cpp`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd

from aesg._extension import raise_typed
from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.ops.seed_search import _backward as _cosine_backward
from aesg.ops.seed_search import _setup_context

PANEL, QUAD = 32, 4  # rows of a panel, dimensions side by side in it
CODE_ZERO, CODE_LIMIT = 128, 127  # the code of 0, the largest code beside it

_op = torch.ops.aesg.region_search.default
_add_op = torch.ops.aesg.region_add_.default


class Cells(NamedTuple):
    """An index of coarse codes: what lies nearest to each of R centres, in chains of P panels of 32 rows."""

    center_codes: Tensor  # [ceil(R / 32), Q, 32, 4] u8, Q = ceil(D / 4)
    center_scales: Tensor  # [ceil(R / 32), 32] f32, NaN behind the last centre
    heads: Tensor  # [R] i32, first panel of each cell, -1: none
    tails: Tensor  # [R, 2] i32, its last panel (-1: none) and the rows in that
    nexts: Tensor  # [P] i32, next panel of the chain, -1: it ends
    slots: Tensor  # [P, 32] i32, -1: none
    codes: Tensor  # [P, Q, 32, 4] u8
    scales: Tensor  # [P, 32] f32: a row's cosine is about its code sum times this; NaN where there is none
    where: Tensor  # [N] i64, place of each slot, panel * 32 + lane, -1: in no cell
    used: Tensor  # [1] i64, panels in use


def make_cells(centers: Tensor, rows: int) -> Cells:
    """Empty cells around unit `centers` [R, D], with room for `rows` slots in them."""
    count, dim = centers.shape
    quads, panels = -(-dim // QUAD), -(-count // PANEL)
    scales = torch.full((panels * PANEL,), float("nan"))
    codes, scales[:count] = encode_rows(centers)
    center_codes = torch.full((panels * PANEL, quads * QUAD), CODE_ZERO, dtype=torch.uint8)
    center_codes[:count, :dim] = codes
    room = count + -(-rows // PANEL)
    return Cells(
        center_codes.view(panels, PANEL, quads, QUAD).transpose(1, 2).contiguous(),
        scales.view(panels, PANEL),
        torch.full((count,), -1, dtype=torch.int32),
        torch.tensor([[-1, 0]], dtype=torch.int32).repeat(count, 1),
        torch.full((room,), -1, dtype=torch.int32),
        torch.full((room, PANEL), -1, dtype=torch.int32),
        torch.empty(room, quads, PANEL, QUAD, dtype=torch.uint8),
        torch.full((room, PANEL), float("nan")),
        torch.full((rows,), -1, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
    )


def encode_rows(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [n, D] u8 of rows, and their steps [n]: row = (code - 128) * step, about."""
    step = vectors.abs().amax(dim=1) / CODE_LIMIT
    factor = torch.where(step > 0, 1.0 / step, 0.0)
    factor = torch.where(torch.isfinite(factor), factor, 0.0)
    codes = (vectors * factor[:, None]).round().clamp(-CODE_LIMIT, CODE_LIMIT) + CODE_ZERO
    return codes.to(torch.uint8), step


def with_room(cells: Cells, more: int, rows: int) -> Cells:
    """The same cells with room for `more` rows in them and for `rows` slots; grown by half at least."""
    panels, places = cells.nexts.shape[0], cells.where.shape[0]
    # Each cell may begin one panel that it does not fill.
    wanted = int(cells.used) + -(-more // PANEL) + min(more, cells.heads.shape[0])
    if wanted <= panels and rows <= places:
        return cells
    grown = max(wanted, panels + panels // 2) if wanted > panels else panels
    places = max(rows, places + places // 2) if rows > places else places
    return cells._replace(
        nexts=_longer(cells.nexts, grown, -1),
        slots=_longer(cells.slots, grown, -1),
        codes=_longer(cells.codes, grown, CODE_ZERO),
        scales=_longer(cells.scales, grown, float("nan")),
        where=_longer(cells.where, places, -1),
    )


def _longer(column: Tensor, rows: int, value: float) -> Tensor:
    longer = column.new_full((rows, *column.shape[1:]), value)
    longer[: column.shape[0]] = column
    return longer


def region_add_(cells: Cells, vectors: Tensor, inv_norm: Tensor, added: Tensor) -> Tensor:
    """Puts slots `added` [n] i64 into the cells of their nearest centres, in place; returns these, i32 [n].

    `vectors` [N, D] or [G, 1024, D], `inv_norm` likewise. REQUIRES: none of them lies in a cell already, none
    twice. Nearest by codes, of equals the first. Panels begun in one call follow each other cell by cell.
    Deterministic for any number of threads; O(n R D). No gradient.

    Raises AESGMemoryError for slots outside the graph, wrong shapes and too little room (`with_room`), before
    anything changed.
    """
    try:
        return _add_op(
            cells.heads, cells.tails, cells.nexts, cells.slots, cells.codes, cells.scales, cells.where,
            cells.used, cells.center_codes, cells.center_scales, vectors, inv_norm, added,
        )  # fmt: skip
    except RuntimeError as error:
        raise_typed(error, AESGMemoryError)


def region_remove_(cells: Cells, slots: Tensor) -> None:
    """Takes slots [n] i64 out of their cells, in place; those in none are passed over. O(n)."""
    slots = slots[slots < cells.where.shape[0]]
    places = cells.where[slots]
    there = places >= 0
    places = places[there]
    cells.slots.view(-1)[places] = -1
    cells.scales.view(-1)[places] = float("nan")
    cells.where[slots[there]] = -1


def region_search(
    queries: Tensor,  # [B, D] f32
    vectors: Tensor,  # [N, D] contiguous or [G, 1024, D] in row groups, f32
    k: int,
    cells: Cells,
    pending: Tensor,  # [n] i64, slots that lie in no cell
    *,
    inv_norm: Tensor,  # [N] or [G, 1024] f32
    active: Tensor,  # [N] or [G, 1024] bool or u8
    probes: int,
    pool: int,
    min_score: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """The k concepts of highest cosine among those looked at: (scores [B, k] f32, indices [B, k] i64).

    Looked at are the active rows in the `probes` cells whose centres are nearest by their codes, of them the
    `pool` best by codes (ties: the lower slot), and all active `pending` ones. These are compared exactly: a
    score has the very bits that `seed_search` gives the pair. Best first, of equals the lower slot first;
    padded with 0 and -1; only similarities >= `min_score`.

    Deterministic, the same bits for any number of threads. O(B (R + rows in the cells) D / 4 bytes) read.
    Differentiable in `queries`.

    Raises AESGNavigationError for queries that are not finite or of another dimension, k < 1, probes < 0 and
    pool < 1; AESGMemoryError for columns of wrong dtype, shape, layout or device and damaged cells.
    """
    arguments = (
        queries, vectors, k, inv_norm, active, cells.center_codes, cells.center_scales, cells.heads,
        cells.nexts, cells.slots, cells.codes, cells.scales, pending, probes, pool, min_score,
    )  # fmt: skip
    try:
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and queries.requires_grad):
            return _op(*arguments)
        with _AutoDispatchBelowAutograd():
            return _op(*arguments)
    except RuntimeError as error:
        raise_typed(error, AESGNavigationError)


@torch.library.register_fake("aesg::region_search")
def _fake(queries: Tensor, vectors: Tensor, k: int, *args: Any) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64)


@torch.library.register_fake("aesg::region_add_")
def _fake_add(heads: Tensor, *args: Any) -> Tensor:
    return heads.new_empty(args[-1].shape[0])


def _backward(ctx: Any, grad_scores: Tensor, grad_indices: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_queries, grad_vectors, *_ = _cosine_backward(ctx, grad_scores, grad_indices)
    return (grad_queries, grad_vectors, *([None] * 14))


torch.library.register_autograd("aesg::region_search", _backward, setup_context=_setup_context)
