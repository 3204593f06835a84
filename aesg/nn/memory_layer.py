"""MemoryLayer: what every layer with a memory shares: holding it, readers that start alike, checks of
input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aesg.exceptions import AESGConfigError, AESGMemoryError

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory

READER_WIDTH = 32  # hidden units a head of a reader, as in the presets of the text models


class MemoryLayer(nn.Module):
    """A layer that asks `memory`; with None it is the same layer without its reader.

    The memory is a child module, so its projection is trained and moved with the layer. Where several layers
    and models hold one memory, a state_dict names its weights once, at the place that comes first; loading
    takes them from there.
    """

    memory: AESGMemory | None

    def __init__(self, memory: AESGMemory | None) -> None:
        super().__init__()
        self.memory = memory
        self.register_state_dict_post_hook(_drop_what_is_saved_already)
        self.register_load_state_dict_pre_hook(_keep_what_is_not_given)


def _drop_what_is_saved_already(layer: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    """A hook of state_dict(): removes the memory's tensors that stand in `state` under another name."""
    own = [name for name in state if name.startswith(f"{prefix}memory.")]
    others = {_bytes_of(value) for name, value in state.items() if name not in own}
    for name in own:
        if _bytes_of(state[name]) in others:
            del state[name]


def _keep_what_is_not_given(layer: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A hook of load_state_dict(): the memory keeps the weights that stand under no name of this layer."""
    if layer.memory is not None:
        for name, value in layer.memory.state_dict().items():
            state.setdefault(f"{prefix}memory.{name}", value)


def _bytes_of(value: Any) -> int | None:
    """Identity of the storage behind a tensor; None for anything else."""
    return value.untyped_storage()._cdata if isinstance(value, Tensor) else None


@contextmanager
def apart_from_other_weights() -> Iterator[None]:
    """Inside, torch's random numbers are others than those that follow outside, and use none of them up.

    So a layer has the same weights with a memory and without one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), device="cpu")) ^ 0x5EED)
        yield


class one_call:
    """`with one_call(memory):` is `with memory.one_call():`, or nothing where there is no memory.

    A class, which torch.compile can follow. traced: see `AESGMemory.one_call`.
    """

    def __init__(self, memory: AESGMemory | None, traced: bool = False) -> None:
        self.memory = memory
        self.traced = traced

    def __enter__(self) -> None:
        memory = self.memory
        if memory is None:
            return
        if torch.compiler.is_compiling():
            torch.ops.aesg.memory_begin_call(memory.clock, memory.number, self.traced)
        else:
            self._inner = memory.one_call(self.traced)
            self._inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        memory = self.memory
        if memory is None:
            return
        if torch.compiler.is_compiling():
            torch.ops.aesg.memory_end_call(memory.clock, memory.number)
        else:
            self._inner.__exit__(*error)


class Untaught:
    """A memory to a reader that shall only read it."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def retrieve(self, query: Tensor) -> Any:
        return self.memory.retrieve(query, learn=False)


def reader_heads(hidden_size: int) -> int:
    """Heads of a reader of `hidden_size` units: one for 32 units, at least one."""
    return max(1, hidden_size // READER_WIDTH)


def check_sizes(**sizes: int) -> None:
    """Raises AESGConfigError '<name> must be >= 1, got ...' for the first that is no positive integer."""
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise AESGConfigError(f"{name} must be >= 1, got {value!r}")


def check_shape(name: str, value: Any, *shape: int | str) -> None:
    """Raises AESGMemoryError unless `value` is a floating point tensor of `shape`.

    A number in `shape` is that size, a name any size >= 1.
    """
    if not isinstance(value, Tensor):
        raise AESGMemoryError(f"{name}: expected a tensor {_spelled(shape)}, got {type(value).__name__}")
    fits = value.dim() == len(shape) and all(
        given >= 1 if isinstance(wanted, str) else given == wanted
        for given, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        raise AESGMemoryError(f"{name}: expected shape {_spelled(shape)}, got {list(value.shape)}")
    if not value.is_floating_point():
        raise AESGMemoryError(f"{name}: expected floating point values, got {value.dtype}")


def _spelled(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
