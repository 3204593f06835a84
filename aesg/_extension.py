"""Loads the library of custom ops, `aesg/_ops*.so`, once; a missing or unfitting one is an ImportError."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from aesg.exceptions import AESGError, AESGMemoryError, AESGNavigationError

_TYPED: dict[str, type[AESGError]] = {
    "AESGNavigationError": AESGNavigationError,
    "AESGMemoryError": AESGMemoryError,
}


def _load() -> Path:
    if sys.platform != "linux":
        raise ImportError(f"aesg runs on Linux (x86-64 or ARM); this is {sys.platform}")
    found = sorted(Path(__file__).parent.glob("_ops*.so"))
    if not found:
        raise ImportError(
            "aesg is not built: no _ops library beside aesg/_extension.py. "
            "Build it with: pip install -e . --no-build-isolation"
        )
    try:
        torch.ops.load_library(str(found[0]))
    except OSError as error:
        raise ImportError(
            f"{found[0].name} does not load into torch {torch.__version__} (2.11 or newer is needed). "
            f"Build it again with: pip install -e . --no-build-isolation ({error})"
        ) from error
    return found[0]


LIBRARY = _load()


def has_cuda_kernels() -> bool:
    """Whether the library was built with CUDA kernels (a device may still be missing)."""
    return torch._C._dispatch_has_kernel_for_dispatch_key("aesg::seed_search", "CUDA")


def direct_call(name: str) -> Callable[..., Any] | None:
    """The function of the library that makes a call of an op without torch's dispatcher, as far as it can.

    It takes the op's arguments by place and returns None unless all are plain CPU tensors and fine: then the
    op is to be asked. None where this torch has no exchange interface that the library knows.
    """
    library = importlib.import_module("aesg._ops")
    return getattr(library, name) if library.use_tensor_type(Tensor) else None


_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_is_profiled = torch._C._autograd._profiler_enabled
_is_traced = torch._C._is_tracing


def is_unwatched() -> bool:
    """Whether nobody follows what torch's dispatcher is asked for: no mode, profiler or torch.jit.trace."""
    return not (_function_modes() or _dispatch_modes() or _is_profiled() or _is_traced())


def is_negative_view(*tensors: Tensor | None) -> bool:
    """Whether one has torch's negative bit: its memory holds the opposite of what it means, which
    DLPack, and so a direct call, does not say.
    """
    return any(tensor is not None and tensor.is_neg() for tensor in tensors)


def raise_typed(error: RuntimeError, default: type[AESGError] = AESGMemoryError) -> NoReturn:
    """Raises what an op meant: kernels write the name of the AESGError before the message.

    The dispatcher's own complaints about arguments become `default`; anything else goes on unchanged.
    """
    text = str(error)
    for name, kind in _TYPED.items():
        start = text.find(name + ": ")
        if start >= 0:
            raise kind(text[start + len(name) + 2 :].splitlines()[0]) from None
    if "Overflow when unpacking long" in text or "but instead found type 'int'" in text:
        raise default("arguments: expected integers below 2**63, got a larger one") from None
    if text.startswith("aesg::") or "Could not run 'aesg::" in text:
        raise default(text.splitlines()[0]) from None
    raise error


def expect_one_device(first: Tensor, *others: Tensor | None) -> None:
    """For fakes, which also stand in for kernels on meta tensors: AESGMemoryError unless all are together."""
    for other in others:
        if other is not None and other.device != first.device:
            raise AESGMemoryError(f"tensors: expected all on {first.device}, got one on {other.device}")
