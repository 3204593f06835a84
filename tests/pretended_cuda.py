"""A CUDA device that is not there: tensors that claim to be on it, and are on the CPU.

It shows what a machine without a GPU otherwise hides: tensors of two devices in one operation, `numpy()` of a
tensor on a device, and every place where the host would wait for the device. Kernels run on the CPU; it says
nothing of theirs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)

needs_no_cuda = pytest.mark.skipif(
    torch.version.cuda is not None, reason="a torch with CUDA looks for the device that is pretended"
)


class Pretended(Tensor):
    """Claims to be on DEVICE, in Python alone: torch's C++ sees a tensor on the CPU, which needs no device.
    `inner` has the values.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=inner.device, requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Pretended({self.inner})"

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def to(self, *args: Any, **kwargs: Any) -> Any:  # in C++ it would be there already
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(
            *args, **{name: value for name, value in kwargs.items() if name != "copy"}
        )
        device, dtype = device or DEVICE, dtype or self.dtype
        if device == DEVICE and dtype == self.dtype and not kwargs.get("copy"):
            return self
        return torch.ops.aten._to_copy(self, device=device, dtype=dtype, non_blocking=non_blocking)

    def cpu(self, *_: Any) -> Tensor:
        return self.to("cpu")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def record_stream(self, stream: object) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a pretended tensor outlived its device")


# Operations by which a host learns values of a device: it waits for them.
WAITING = ("_local_scalar_dense", "nonzero", "_unique", "unique_", "masked_select", "equal", "is_nonzero")
MIXING = ("copy_", "_to_copy")


class PretendedCuda(TorchDispatchMode):
    """Inside, the device is there. `waits`: the operations for which the host waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.captured: _Graph | None = None  # what is being captured

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.split("::")[1]
        given = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, Tensor)]
        there = [part for part in given if isinstance(part, Pretended)]
        if there and name not in MIXING:
            stray = [part for part in given if not isinstance(part, Pretended) and part.dim() > 0]
            if stray:
                raise RuntimeError(f"{name}: expected all tensors on {DEVICE}, got one on the CPU")
        if there and name.startswith(WAITING):
            self.waits.append(name)
        if kwargs.pop("pin_memory", None):
            kwargs["pin_memory"] = False
        on_device = bool(there) if name != "copy_" else isinstance(args[0], Pretended)
        if (wanted := kwargs.get("device")) is not None:
            on_device = torch.device(wanted).type == "cuda"
            kwargs["device"] = torch.device("cpu")
        crosses = name in MIXING and len(there) != len(given) * on_device
        if crosses and not (kwargs.get("non_blocking") or args[2:] == (True,)):
            self.waits.append(name)
        inner = tree_map(_inner, args), tree_map(_inner, kwargs)
        if self.captured is not None:
            return self._wrapped(
                name, on_device, there, self.captured.record(func, *inner), func, args, kwargs
            )
        return self._wrapped(name, on_device, there, func(*inner[0], **inner[1]), func, args, kwargs)

    def _wrapped(
        self, name: str, on_device: bool, there: list[Pretended], out: Any, func: Any, args: Any, kwargs: Any
    ) -> Any:
        if name == "_to_copy":
            if self.captured is not None and on_device == bool(there):
                return Pretended(out)
            if self.captured is not None:
                raise RuntimeError("to: a CUDA graph brings nothing from or to the device")
            return Pretended(out.clone()) if on_device else out.clone()
        if not on_device:
            return out
        known = {id(part.inner): part for part in there}

        def wrapped(part: Any) -> Any:
            return known.get(id(part), Pretended(part)) if isinstance(part, Tensor) else part

        answer = tree_map(wrapped, out)
        return return_and_correct_aliasing(func, args, kwargs, answer) if there else answer


def _inner(part: Any) -> Any:
    return part.inner if isinstance(part, Pretended) else part


class _Graph:
    """A CUDA graph: what is captured is done once, so that there are results, and undone; `replay` does it on
    the tensors that it was captured with.
    """

    def __init__(self) -> None:
        self._work: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func._schema.is_mutable:
            self._before += [(part, part.clone()) for part in _tensors((args, kwargs))]
        out = func(*args, **kwargs)
        fresh = _fresh(out, args, kwargs)
        if fresh or func._schema.is_mutable:  # else it only looks at what is there
            self._work.append((func, args, kwargs, fresh))
        return out

    def undo(self) -> None:
        for part, before in reversed(self._before):
            part.copy_(before)
        self._before.clear()

    def replay(self) -> None:
        for func, args, kwargs, fresh in self._work:
            again = _fresh(func(*args, **kwargs), args, kwargs)
            for part, new in zip(fresh, again, strict=True):
                part.copy_(new)


def _tensors(parts: Any) -> list[Tensor]:
    return [part for part in tree_flatten(parts)[0] if isinstance(part, Tensor)]


def _fresh(out: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """What an operation made, not looked at."""
    known = {part.untyped_storage().data_ptr() for part in _tensors((args, kwargs))}
    return [part for part in _tensors(out) if part.untyped_storage().data_ptr() not in known]


@contextlib.contextmanager
def _graph(graph: _Graph) -> Iterator[None]:
    assert _mode is not None
    _mode.captured = graph
    waits = len(_mode.waits)
    try:
        yield
    finally:
        _mode.captured = None
    graph.undo()
    assert _mode.waits[waits:] == []


class _Stream:
    def __init__(self, device: object = None) -> None:
        self.device = device

    def record_event(self, event: object = None) -> _Event:
        return _Event()

    def wait_event(self, event: object) -> None:
        pass

    def wait_stream(self, stream: object) -> None:
        pass


class _Event:
    def synchronize(self) -> None:
        if _mode is not None:
            _mode.waits.append("synchronize")


_mode: PretendedCuda | None = None


@contextlib.contextmanager
def pretended_cuda() -> Iterator[PretendedCuda]:
    """The device is there inside, with its streams. Memories must be closed inside as well."""
    global _mode
    stream = _Stream(DEVICE)
    with pytest.MonkeyPatch.context() as patch:
        cuda: dict[str, Any] = {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "is_current_stream_capturing": lambda: _mode is not None and _mode.captured is not None,
            "CUDAGraph": _Graph,
            "graph": _graph,
            "device": lambda device: contextlib.nullcontext(),
            "current_stream": lambda device=None: stream,
            "Stream": _Stream,
            "Event": _Event,
            "stream": lambda stream: contextlib.nullcontext(),
            "current_device": lambda: 0,
            "device_count": lambda: 1,
        }
        for name, value in cuda.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.Tensor, "pin_memory", lambda self, device=None: self.clone())
        patch.setattr("aesg.memory.controller.has_cuda_kernels", lambda: True)
        swapped = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # the parameters stay who they are
        try:
            with PretendedCuda() as _mode:
                yield _mode
        finally:
            _mode = None
            torch.__future__.set_swap_module_params_on_conversion(swapped)
