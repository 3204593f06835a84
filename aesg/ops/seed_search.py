"""seed_search: the k most similar concepts of every query, exactly. The living template of an op.

One file tells an op's whole contract: the public function, the fake that gives shapes to the compiler, and
the gradient. The oracle is `aesg.ops.reference.seed_search_ref`, the kernel `csrc/ops/cpu/seed_search.cpp`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowAutograd

from aesg._extension import direct_call, expect_one_device, is_negative_view, is_unwatched, raise_typed
from aesg.exceptions import AESGNavigationError
from aesg.ops.reference import normalize_ref

_op = torch.ops.aesg.seed_search.default
_is_compiling, _is_grad_enabled = torch.compiler.is_compiling, torch.is_grad_enabled
_try_direct = direct_call("try_seed_search")


def seed_search(
    queries: Tensor,  # [B, D] f32
    vectors: Tensor,  # [N, D] contiguous or [G, 1024, D] in row groups, f32
    k: int,
    *,
    inv_norm: Tensor | None = None,  # [N] or [G, 1024] f32
    active: Tensor | None = None,  # [N] or [G, 1024] bool or u8
    count: int | None = None,
    min_score: float = 0.1,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    """The k concepts of highest cosine for every query: (scores [B, k] f32, indices [B, k] i64).

    Best first, of equals the lower slot first; padded with 0 and -1. Only slots below `count` (default: all)
    that are active count, and only similarities >= `min_score`. A zero query or vector has similarity 0 to
    everything. `inv_norm` holds what a vector's product with the query is scaled by, 1 / |vector|, which is
    computed on the way when not given. Row groups are read in place.

    Where it is quicker, approximate products rule out what cannot be among the k; the others are summed again
    in the promised order, so nothing is lost. With `exact` no approximate product is used anywhere, not even
    as such a sieve: the result is the same by proof, this is for who wants to check it.

    The bits of a score depend on its query and vector alone, not on B, the place in the batch, the number of
    threads or other rows. O(B N D); the similarities are never written out.

    Differentiable in `queries` and `vectors` (the gradient of the cosine).

    Raises AESGNavigationError for queries that are not finite or of another dimension and for k < 1;
    AESGMemoryError for columns of wrong dtype, shape, layout or device. k > N, N = 0 and B = 0 are fine.
    """
    try:
        if _is_compiling() or (_is_grad_enabled() and (queries.requires_grad or vectors.requires_grad)):
            return _op(queries, vectors, k, inv_norm, active, count, min_score, exact)
        # Nothing to differentiate: going straight to the kernel saves more than a small search takes.
        if _try_direct is not None and is_unwatched():
            found: tuple[Tensor, Tensor] | None = _try_direct(
                queries, vectors, k, inv_norm, active, count, min_score, exact
            )
            if found is not None and not is_negative_view(queries, vectors, inv_norm):
                return found
        with _AutoDispatchBelowAutograd():
            return _op(queries, vectors, k, inv_norm, active, count, min_score, exact)
    except RuntimeError as error:
        raise_typed(error, AESGNavigationError)
    except AttributeError:
        raise AESGNavigationError(
            f"queries, vectors: expected tensors, got {type(queries).__name__}, {type(vectors).__name__}"
        ) from None


@torch.library.register_fake("aesg::seed_search")
def _fake(
    queries: Tensor,
    vectors: Tensor,
    k: int,
    inv_norm: Tensor | None,
    active: Tensor | None,
    count: int | None,
    min_score: float,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    expect_one_device(queries, vectors, inv_norm, active)
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64)


def _places(indices: Tensor, shape: torch.Size) -> tuple[Tensor, ...]:
    slots = indices.clamp(min=0)
    return (slots,) if len(shape) == 2 else (slots // shape[1], slots % shape[1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    queries, vectors, _, inv_norm, *_ = inputs
    scores, indices = output
    ctx.mark_non_differentiable(indices)
    ctx.shape = vectors.shape
    # The rows found, not the column: the memory may have changed before backward comes.
    empty = vectors.numel() == 0  # a place cannot be looked up in a column without rows
    shape = (*indices.shape, queries.shape[1])
    rows = queries.new_zeros(shape) if empty else vectors[_places(indices, ctx.shape)]
    given = inv_norm is not None and not empty
    inverse = inv_norm[_places(indices, ctx.shape)].unsqueeze(-1) if given else _inverse_norm(rows)
    ctx.save_for_backward(queries, rows, inverse, scores, indices)


def _backward(ctx: Any, grad_scores: Tensor, _grad_indices: Tensor | None) -> tuple[Tensor | None, ...]:
    # With q, v scaled to length 1: d cos / d q = (v - cos q) / |q|, and the same with q and v exchanged.
    queries, rows, inverse, scores, indices = ctx.saved_tensors  # rows: [B, k, D], inverse: [B, k, 1]
    unit_rows, unit_queries = rows * inverse, normalize_ref(queries).unsqueeze(1)
    grad = torch.where(indices >= 0, grad_scores, 0.0).unsqueeze(2)  # [B, k, 1]
    cosine = scores.unsqueeze(2)
    grad_queries = grad_vectors = None
    if ctx.needs_input_grad[0]:
        per_row = grad * (unit_rows - cosine * unit_queries)
        grad_queries = per_row.sum(dim=1) * _inverse_norm(queries)
    if ctx.needs_input_grad[1]:
        per_row = grad * (unit_queries - cosine * unit_rows) * inverse
        grad_vectors = rows.new_zeros(ctx.shape)
        if grad_vectors.numel():
            grad_vectors.index_put_(_places(indices, ctx.shape), per_row, accumulate=True)
    return grad_queries, grad_vectors, None, None, None, None, None, None


def _inverse_norm(vectors: Tensor) -> Tensor:
    norm = vectors.double().norm(dim=-1, keepdim=True)
    good = norm >= torch.finfo(torch.float32).tiny
    return torch.where(good, 1.0 / torch.where(good, norm, 1.0), 0.0).to(vectors.dtype)


torch.library.register_autograd("aesg::seed_search", _backward, setup_context=_setup_context)
