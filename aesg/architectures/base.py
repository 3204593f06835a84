"""What all models share: preset sizes, how they come by their memory, and the checks of their input."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from aesg.config import AESGConfig
from aesg.exceptions import AESGConfigError, AESGMemoryError

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory

DEFAULT_STORAGE_DIR = "./aesg_memory"
MAX_CONCEPTS = 100_000
HEAD_WIDTH = 32  # 128/4, 256/8 and 512/16 of the presets


class TextSize(NamedTuple):
    """One column of the reference's table of text models."""

    hidden_size: int
    num_layers: int
    vector_dim: int
    nhead: int


TEXT_SIZES = {
    "small": TextSize(128, 1, 64, 4),
    "medium": TextSize(256, 2, 128, 8),
    "large": TextSize(512, 4, 256, 16),
}


def token_config(vector_dim: int) -> AESGConfig:
    """The config of models that ask for every token: fine concepts, joined by what followed them.

    With the general defaults a concept stands for very many contexts, and its neighbours crowd out what
    followed. Here every context unlike the known ones is kept at once, no concept is born alike enough to be
    linked for it, and one hop reads what came next.
    """
    return AESGConfig(
        vector_dim=vector_dim,
        max_concepts=MAX_CONCEPTS,
        novelty_explanation_threshold=0.9,
        novelty_birth_threshold=1,
        link_min_similarity=0.9,
        spreading_activation_steps=1,
        succession_rate=0.15,
        edge_initial_confidence=0.3,
    )


class MemoryModel(nn.Module):
    """An nn.Module with one memory, or none.

    `memory` is a child module, held once whatever reads it. `memory=None` leaves out the reading and nothing
    else: the plain baseline of every comparison.
    """

    memory: AESGMemory | None
    asks_once = True  # a forward pass asks in one call: what it learns can wait until the loss is known

    def __init__(self, memory: AESGMemory | None) -> None:
        super().__init__()
        self.memory = memory
        self.reads_memory = True

    @contextmanager
    def reads_switched_off(self) -> Iterator[None]:
        """Inside, forward neither asks the memory nor adds anything for it."""
        former, self.reads_memory = self.reads_memory, False
        try:
            yield
        finally:
            self.reads_memory = former

    @contextmanager
    def reading_only(self) -> Iterator[None]:
        """Inside, the memory is in mode INFERENCE; the former mode comes back, also after an exception."""
        if self.memory is None:
            yield
            return
        former = self.memory.mode
        self.memory.set_mode("INFERENCE")
        try:
            yield
        finally:
            self.memory.set_mode(former.value)


def open_memory(storage_dir: str | os.PathLike[str] | None, config: AESGConfig) -> AESGMemory | None:
    """The memory of a preset model; None when `storage_dir` is None.

    A directory that holds another `vector_dim` is an error (raised by AESGMemory, which writes nothing), but
    for the default directory, which programs reuse with several sizes: there `./aesg_memory-<dim>` is taken
    instead, with a warning that names it.
    """
    if storage_dir is None:
        return None
    from aesg.memory.controller import AESGMemory

    directory = os.fspath(storage_dir)
    if directory == DEFAULT_STORAGE_DIR:
        from aesg.storage.directory import inspect_directory

        found = inspect_directory(directory)
        held = None if found is None else found.get("vector_dim")
        if held is not None and held != config.vector_dim:
            directory = f"{DEFAULT_STORAGE_DIR}-{config.vector_dim}"
            warnings.warn(
                f"{DEFAULT_STORAGE_DIR} holds vectors of {held} dimensions and this model needs "
                f"{config.vector_dim}; its memory is {directory}",
                stacklevel=4,
            )
    with torch.random.fork_rng(devices=[]):
        return AESGMemory(directory, config)


@contextmanager
def same_weights_with_or_without_memory() -> Iterator[int]:
    """Gives a seed drawn from torch's generator, to be set before weights are drawn; on leaving, the
    generator is where that one draw left it. So the random numbers that a memory's layers use up change
    nothing else."""
    seed = int(torch.randint(2**31, (), device="cpu"))
    with torch.random.fork_rng(devices=[]):
        yield seed


def check_positive(**sizes: int) -> None:
    """Raises AESGConfigError '<name> must be >= 1' for the first size that is no positive integer."""
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise AESGConfigError(
                f"{name} must be >= 1" + ("" if isinstance(value, int) else f", got {value!r}")
            )


def heads_for(hidden_size: int) -> int:
    """Number of attention heads: as near to 32 wide as divides `hidden_size` into even widths."""
    if hidden_size % 2:
        raise AESGConfigError(f"hidden_size must be even, got {hidden_size}")
    heads = max(1, hidden_size // HEAD_WIDTH)
    while hidden_size % (2 * heads):
        heads -= 1
    return heads


def check_tokens(tokens: Tensor, vocab_size: int) -> None:
    """Raises AESGMemoryError unless `tokens` is an integer tensor [B, T], B, T >= 1, of ids in [0,
    vocab_size). Ids on a CUDA device are not looked at, for which the host would wait: torch's embedding
    checks them there.
    """
    if not isinstance(tokens, Tensor):
        raise AESGMemoryError(f"Expected token ids as a tensor [B, T], got {type(tokens).__name__}")
    if tokens.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise AESGMemoryError(f"Expected integer token ids, got dtype {tokens.dtype}")
    if tokens.dim() != 2 or tokens.numel() == 0:
        raise AESGMemoryError(f"Expected token ids [B, T] with B, T >= 1, got shape {list(tokens.shape)}")
    if torch.compiler.is_compiling() or tokens.is_cuda:  # the check below would split the graph, or wait
        return
    lowest, highest = (int(bound) for bound in torch.aminmax(tokens))
    if lowest < 0 or highest >= vocab_size:
        raise AESGMemoryError(f"Expected token ids in [0, {vocab_size}), got ids from {lowest} to {highest}")
