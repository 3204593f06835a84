"""TextModel and RecurrentText: what models of tokens share.

Letters: B sequences, T tokens, V vocabulary, H hidden size.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from aesg.architectures.base import (
    DEFAULT_STORAGE_DIR,
    TEXT_SIZES,
    MemoryModel,
    TextSize,
    check_positive,
    check_tokens,
    open_memory,
    token_config,
)
from aesg.config import AESGConfig
from aesg.nn.rnn import MemoryRNN
from aesg.nn.token_codes import TokenCodes

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory

Model = TypeVar("Model", bound="TextModel")


class TextModel(MemoryModel):
    """A model of token ids [B, T] with the three sizes of the reference.

    `codes` makes the token part of the queries of models that ask about every token.
    `storage_dir=None` makes a preset without a memory. AESGConfigError: sizes below 1.
    """

    def __init__(self, vocab_size: int, hidden_size: int, num_layers: int, memory: AESGMemory | None) -> None:
        check_positive(vocab_size=vocab_size, hidden_size=hidden_size, num_layers=num_layers)
        super().__init__(memory)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.codes: TokenCodes | None = None

    def said(self, tokens: Tensor) -> Tensor | None:
        """The token part [B, T, D] of the queries of tokens [B, T]; None where nothing asks by tokens."""
        if self.codes is None or self.memory is None:
            return None
        return self.codes(tokens.long(), self.memory.config.query_context)

    @classmethod
    def small(
        cls: type[Model], vocab_size: int, storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR
    ) -> Model:
        """Hidden 128, 1 layer, concepts of 64 dimensions."""
        return cls._preset("small", vocab_size, storage_dir)

    @classmethod
    def medium(
        cls: type[Model], vocab_size: int, storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR
    ) -> Model:
        """Hidden 256, 2 layers, concepts of 128 dimensions."""
        return cls._preset("medium", vocab_size, storage_dir)

    @classmethod
    def large(
        cls: type[Model], vocab_size: int, storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR
    ) -> Model:
        """Hidden 512, 4 layers, concepts of 256 dimensions."""
        return cls._preset("large", vocab_size, storage_dir)

    @classmethod
    def _preset(
        cls: type[Model], name: str, vocab_size: int, storage_dir: str | os.PathLike[str] | None
    ) -> Model:
        check_positive(vocab_size=vocab_size)  # before a directory is made
        size = TEXT_SIZES[name]
        memory = open_memory(storage_dir, cls._config(size.vector_dim))
        return cls(vocab_size, size.hidden_size, size.num_layers, memory=memory, **cls._of_size(size))

    @classmethod
    def _config(cls, vector_dim: int) -> AESGConfig:
        """Of a preset's memory."""
        return token_config(vector_dim)

    @classmethod
    def _of_size(cls, size: TextSize) -> dict[str, Any]:
        """Further arguments of a preset."""
        return {}


def run_plain(rnn: nn.GRU | nn.LSTM, x: Tensor, states: Any) -> tuple[Tensor, Any]:
    """torch's own recurrent layers on x [B, T, H], in their weights' precision also under autocast."""
    dtype = next(rnn.parameters()).dtype
    if states is not None:
        states = tuple(part.to(dtype) for part in states) if isinstance(states, tuple) else states.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        return rnn(x.to(dtype), states)


class RecurrentStack(nn.Module):
    """Recurrent layers of one width, the last of which reads the memory: [B, T, H] -> [B, T, H].

    The layers below are torch's own. One layer that asks makes one space of queries and one stream of steps a
    sequence, whatever the number of layers, and one retrieval a step.
    """

    def __init__(
        self,
        plain: type[nn.GRU] | type[nn.LSTM],
        reading: type[MemoryRNN],
        hidden_size: int,
        num_layers: int,
        memory: AESGMemory | None,
    ) -> None:
        super().__init__()
        below = num_layers - 1
        self.below = plain(hidden_size, hidden_size, below, batch_first=True) if below else None
        self.top = reading(hidden_size, hidden_size, memory)

    def forward(
        self, x: Tensor, states: Any = None, *, read: bool = True, said: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Outputs [B, T, H] and the states of all layers, to go on from; states None: zeros.

        said [B, T, D]: the token part of the queries, see `MemoryRNN.sequence`.
        """
        lower, upper = (None, None) if states is None else states
        if self.below is not None:
            x, lower = run_plain(self.below, x, lower)
        x, upper = self.top.sequence(x, upper, read=read, said=said)
        return x, (lower, upper)


class RecurrentText(TextModel):
    """Embedding, recurrent layers, output: tokens [B, T] -> logits [B, T, V]; logits[:, t] depend on
    tokens[:, :t+1].
    """

    plain: type[nn.GRU] | type[nn.LSTM]
    reading: type[MemoryRNN]

    def __init__(self, vocab_size: int, hidden_size: int, num_layers: int, memory: AESGMemory | None) -> None:
        super().__init__(vocab_size, hidden_size, num_layers, memory)
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.layers = RecurrentStack(self.plain, self.reading, hidden_size, num_layers, memory)
        self.output_proj = nn.Linear(hidden_size, vocab_size)
        self.codes = None if memory is None else TokenCodes(vocab_size, memory.vector_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Raises AESGMemoryError for anything but integer ids in [0, V) of rank 2."""
        check_tokens(tokens, self.vocab_size)
        embedded = self.embedding(tokens.long())  # [B, T, H]
        said = self.said(tokens) if self.reads_memory else None  # [B, T, D]
        hidden, _ = self.layers(embedded, read=self.reads_memory, said=said)  # [B, T, H]
        return self.output_proj(hidden)  # [B, T, V]
