"""What users hand to a memory, checked: AESGMemoryError says what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError
from aesg.validation import Validator


def whole_numbers(name: str, values: Tensor | np.ndarray | Sequence[int]) -> np.ndarray:
    """Slots or ids as i64, in the shape they came. Raises AESGMemoryError for what is no whole number below
    2**63: nothing is rounded.
    """
    array = _array(name, values)
    if array.size and array.dtype.kind not in "iu":
        raise AESGMemoryError(f"{name}: expected whole numbers, got {_kind(array, values)}")
    if array.dtype == np.uint64 and array.size and int(array.max()) >= 2**63:
        raise AESGMemoryError(f"{name}: expected whole numbers below 2**63, got {int(array.max())}")
    return array.astype(np.int64)


def whole_number(name: str, value: Any) -> int:
    """One slot. Raises AESGMemoryError."""
    array = whole_numbers(name, value)
    if array.ndim or isinstance(value, (list, tuple)):
        raise AESGMemoryError(f"{name}: expected one whole number, got {value!r}")
    return int(array)


def new_ids(values: Tensor | np.ndarray | Sequence[int]) -> np.ndarray:
    """Identities as u64 [n]. Raises AESGMemoryError for others than whole numbers 1..2**64-2, one
    dimension.
    """
    array = _array("ids", values)
    if array.size and array.dtype.kind not in "iu":
        raise AESGMemoryError(f"ids: expected whole numbers in 1..2**64-2, got {_kind(array, values)}")
    if array.ndim != 1:
        raise AESGMemoryError(f"ids: expected a list of them, got shape {list(array.shape)}")
    if array.size and int(array.min()) < 1:
        raise AESGMemoryError(f"ids: expected 1..2**64-2, got {int(array.min())}")
    return array.astype(np.uint64)


def real_numbers(name: str, values: Any) -> np.ndarray:
    """Numbers as f32, in the shape they came; what is too large becomes infinite. Raises AESGMemoryError for
    what is no real number.
    """
    array = _array(name, values)
    if array.size and array.dtype.kind not in "iuf":
        raise AESGMemoryError(f"{name}: expected real numbers, got {_kind(array, values)}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def real_number(name: str, value: Any) -> float:
    """One finite number. Raises AESGMemoryError."""
    array = real_numbers(name, value)
    if array.size != 1 or not np.isfinite(array).all():
        raise AESGMemoryError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def concept_vector(value: Tensor, vector_dim: int) -> Tensor:
    """A finite f32 vector [D] on the CPU. Raises AESGMemoryError."""
    if not isinstance(value, Tensor) or value.dim() != 1 or value.is_complex():
        given = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise AESGMemoryError(f"Concept vector: expected a real tensor of shape [{vector_dim}], got {given}")
    Validator.validate_vector_dim_match(vector_dim, value.shape[0])
    vector = value.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(vector).all()):
        raise AESGMemoryError("Concept vector: expected finite values, got NaN or infinity")
    return vector.contiguous()


def _array(name: str, values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()
    try:
        return np.asarray(values)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # ragged, or no numbers at all
        raise AESGMemoryError(f"{name}: expected numbers in a regular shape, got {values!r:.60}") from error


def _kind(array: np.ndarray, values: Any) -> str:
    return f"{values!r:.60}" if array.dtype.kind in "OUS" else str(array.dtype)
