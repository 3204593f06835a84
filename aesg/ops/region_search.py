"""region_search: the most similar concepts of every query among those in the cells nearest to it.

Oracle: `aesg.ops.reference.region_search_ref`; kernel: `csrc/ops/cpu/region_search.cpp`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd

from aesg._extension import direct_call, expect_one_device, is_negative_view, is_unwatched, raise_typed
from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.ops.seed_search import _backward as _cosine_backward
from aesg.ops.seed_search import _setup_context

PANEL, QUAD = 32, 4  # rows of a panel, dimensions side by side in it
CODE_ZERO, CODE_LIMIT = 128, 127  # the code of 0, the largest code beside it

_op = torch.ops.aesg.region_search.default
_is_compiling, _is_grad_enabled = torch.compiler.is_compiling, torch.is_grad_enabled
_try_direct = direct_call("try_region_search")
_add_op = torch.ops.aesg.region_add_.default


class Cells(NamedTuple):
    """An index of coarse codes: what lies nearest to each of R centres, in chains of P panels of 32 rows.

    Bytes of a panel: 64 (i32 next panel of the chain, -1: it ends), slots i32[32] (-1: none), scales f32[32]
    (a row's cosine is about its sum of codes times this; NaN where there is none), codes u8[Q][32][4], four
    dimensions side by side, Q = ceil(D / 4).
    """

    centers: Tensor  # [ceil(R / 32), bytes] u8, panels of the centres themselves
    heads: Tensor  # [R] i32, first panel of each cell, -1: none
    tails: Tensor  # [R, 2] i32, its last panel (-1: none) and the rows in that
    panels: Tensor  # [P, bytes] u8
    where: Tensor  # [N] i64, place of each slot, panel * 32 + lane, -1: in no cell
    used: Tensor  # [1] i64, panels in use

    @property
    def slots(self) -> Tensor:
        """[P, 32] i32, a view."""
        return slots_of(self.panels)

    @property
    def scales(self) -> Tensor:
        """[P, 32] f32, a view."""
        return scales_of(self.panels)


def slots_of(panels: Tensor) -> Tensor:
    """Slots i32 [.., 32] of panels [.., bytes], a view."""
    return panels[..., 64:192].view(torch.int32)


def scales_of(panels: Tensor) -> Tensor:
    """Scales f32 [.., 32] of panels, a view."""
    return panels[..., 192:320].view(torch.float32)


def codes_of(panels: Tensor) -> Tensor:
    """Codes u8 [.., Q, 32, 4] of panels, a view."""
    return panels[..., 320:].unflatten(-1, (-1, PANEL, QUAD))


def make_panels(count: int, dim: int) -> Tensor:
    """Empty panels [count, bytes] u8."""
    panels = torch.full((count, 320 + -(-dim // QUAD) * PANEL * QUAD), CODE_ZERO, dtype=torch.uint8)
    panels[:, :192] = 255  # -1
    scales_of(panels).fill_(float("nan"))
    return panels


def make_cells(centers: Tensor, rows: int) -> Cells:
    """Empty cells around unit `centers` [R, D], with room for `rows` slots in them."""
    count, dim = centers.shape
    codes, steps = encode_rows(centers)
    panels = make_panels(-(-count // PANEL), dim)
    for lane in range(min(PANEL, count)):
        of = torch.arange(lane, count, PANEL)
        slots_of(panels)[: len(of), lane] = of.to(torch.int32)
        scales_of(panels)[: len(of), lane] = steps[of]
        padded = torch.nn.functional.pad(codes[of], (0, -dim % QUAD), value=CODE_ZERO)
        codes_of(panels)[: len(of), :, lane] = padded.unflatten(1, (-1, QUAD))
    return Cells(
        panels,
        torch.full((count,), -1, dtype=torch.int32),
        torch.tensor([[-1, 0]], dtype=torch.int32).repeat(count, 1),
        make_panels(count + -(-rows // PANEL), dim),
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
    panels, places = cells.panels.shape[0], cells.where.shape[0]
    # Each cell may begin one panel that it does not fill.
    wanted = int(cells.used) + -(-more // PANEL) + min(more, cells.heads.shape[0])
    if wanted > panels:
        cells = cells._replace(panels=_longer(cells.panels, max(wanted, panels + panels // 2)))
    if rows > places:
        where = torch.full((max(rows, places + places // 2),), -1)
        where[:places] = cells.where
        cells = cells._replace(where=where)
    return cells


def _longer(panels: Tensor, count: int) -> Tensor:
    longer = panels.new_empty(count, panels.shape[1])  # panels are written whole when they are taken into use
    longer[: panels.shape[0]] = panels
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
            cells.heads, cells.tails, cells.panels, cells.where, cells.used, cells.centers, vectors, inv_norm,
            added,
        )  # fmt: skip
    except RuntimeError as error:
        raise_typed(error, AESGMemoryError)


def region_remove_(cells: Cells, slots: Tensor) -> None:
    """Takes slots [n] i64 out of their cells, in place; those in none are passed over. O(n)."""
    slots = slots[slots < cells.where.shape[0]]
    places = cells.where[slots]
    there = places >= 0
    if not bool(there.any()):
        return
    places = places[there]
    cells.slots[places // PANEL, places % PANEL] = -1
    cells.scales[places // PANEL, places % PANEL] = float("nan")
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
        queries, vectors, k, inv_norm, active, cells.centers, cells.heads, cells.panels, pending, probes,
        pool, min_score,
    )  # fmt: skip
    try:
        if _is_compiling() or (_is_grad_enabled() and queries.requires_grad):
            return _op(*arguments)
        if _try_direct is not None and is_unwatched():
            found: tuple[Tensor, Tensor] | None = _try_direct(*arguments)
            if found is not None and not is_negative_view(queries, vectors, inv_norm):
                return found
        with _AutoDispatchBelowAutograd():
            return _op(*arguments)
    except RuntimeError as error:
        raise_typed(error, AESGNavigationError)


@torch.library.register_fake("aesg::region_search")
def _fake(queries: Tensor, vectors: Tensor, k: int, *args: Any) -> tuple[Tensor, Tensor]:
    expect_one_device(queries, vectors, *args[:-3])
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64)


@torch.library.register_fake("aesg::region_add_")
def _fake_add(heads: Tensor, *args: Any) -> Tensor:
    return heads.new_empty(args[-1].shape[0])


def _backward(ctx: Any, grad_scores: Tensor, grad_indices: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_queries, grad_vectors, *_ = _cosine_backward(ctx, grad_scores, grad_indices)
    return (grad_queries, grad_vectors, *([None] * 10))


torch.library.register_autograd("aesg::region_search", _backward, setup_context=_setup_context)
