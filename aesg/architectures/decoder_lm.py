"""AESGDecoderLM: a causal language model that asks its memory about every token.

Letters: B sequences, T tokens, V vocabulary, H hidden size, D concept width, S tokens seen so far.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from aesg.architectures.base import (
    DEFAULT_STORAGE_DIR,
    TEXT_SIZES,
    MemoryModel,
    check_positive,
    check_tokens,
    heads_for,
    open_memory,
    same_weights_with_or_without_memory,
    token_config,
)
from aesg.architectures.sampling import check_sampling, sample
from aesg.nn.attention import CausalSelfAttention, KeyValueCache
from aesg.nn.evaluating import evaluating
from aesg.nn.memory_reader import MemoryReader
from aesg.nn.token_codes import LAGS, TokenCodes

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory

MLP_RATIO = 4
INIT_STD = 0.02  # GPT-2's


class DecoderBlock(nn.Module):
    """Pre-norm transformer block: x += attention; x += reading, where a memory is read; x += MLP. [B, T,
    H]"""

    def __init__(self, hidden_size: int, num_heads: int, vector_dim: int | None) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = CausalSelfAttention(hidden_size, num_heads)
        self.reader = None if vector_dim is None else MemoryReader(hidden_size, vector_dim, num_heads)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, MLP_RATIO * hidden_size),
            nn.GELU(),
            nn.Linear(MLP_RATIO * hidden_size, hidden_size),
        )

    def initialise(self, residual_additions: int) -> None:
        """Draws all weights but the reader's; the more additions to the stream, the smaller each."""
        wide, narrow = cast("tuple[nn.Linear, nn.Linear]", (self.mlp[0], self.mlp[2]))
        for part in (self.attention.qkv_proj, wide):
            nn.init.normal_(part.weight, std=INIT_STD)
        for part in (self.attention.output_proj, narrow):
            nn.init.normal_(part.weight, std=INIT_STD / math.sqrt(residual_additions))
        nn.init.zeros_(wide.bias)
        nn.init.zeros_(narrow.bias)

    def forward(
        self,
        x: Tensor,
        memory: AESGMemory | None,
        said: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cache)
        if self.reader is not None and memory is not None:
            x = x + self.reader(x, memory, said)
        return x + self.mlp(self.mlp_norm(x))


class AESGDecoderLM(MemoryModel):
    """Decoder-only language model: tokens [B, T] -> logits [B, T, V]; logits[:, t] depend on tokens[:, :t+1].

    The last block reads the memory between its attention and its MLP, once for every token: one space of
    queries and one stream of steps a sequence, whatever the number of layers. Positions are rotary, T is not
    limited.

    `memory=None` is the plain baseline. AESGConfigError: sizes below 1, an odd `hidden_size`.
    """

    def __init__(self, vocab_size: int, hidden_size: int, num_layers: int, memory: AESGMemory | None) -> None:
        check_positive(vocab_size=vocab_size, hidden_size=hidden_size, num_layers=num_layers)
        num_heads = heads_for(hidden_size)
        super().__init__(memory)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.codes = None if memory is None else TokenCodes(vocab_size, memory.vector_dim)
        read_dims = [None] * (num_layers - 1) + [None if memory is None else memory.vector_dim]
        with same_weights_with_or_without_memory() as seed:
            self.embedding = nn.Embedding(vocab_size, hidden_size)
            self.blocks = nn.ModuleList(DecoderBlock(hidden_size, num_heads, dim) for dim in read_dims)
            self.final_norm = nn.LayerNorm(hidden_size)
            self.output_proj = nn.Linear(hidden_size, vocab_size, bias=False)
            torch.manual_seed(seed)
            self._initialise()

    def _initialise(self) -> None:
        """GPT-2's initialisation; the readers draw last, the memory is left alone."""
        blocks = cast("list[DecoderBlock]", list(self.blocks))
        nn.init.normal_(self.embedding.weight, std=INIT_STD)
        nn.init.normal_(self.output_proj.weight, std=INIT_STD)
        for block in blocks:
            block.initialise(residual_additions=2 * self.num_layers)
        for block in blocks:
            if block.reader is not None:
                block.reader.reset_parameters()

    def forward(self, tokens: Tensor, caches: list[KeyValueCache] | None = None) -> Tensor:
        """Logits [B, T, V] of the tokens [B, T]; with `caches`, one a block, T continues what they hold.

        Raises AESGMemoryError for anything but integer ids in [0, V) of rank 2.
        """
        check_tokens(tokens, self.vocab_size)
        memory = self.memory if self.reads_memory else None
        x = self.embedding(tokens.long())  # [B, T, H]
        said = None if memory is None else self._said(tokens, caches)  # [B, T, D]
        for index, block in enumerate(self.blocks):
            x = block(x, memory, said, None if caches is None else caches[index])
        return self.output_proj(self.final_norm(x))

    def _said(self, tokens: Tensor, caches: list[KeyValueCache] | None) -> Tensor:
        """The token part [B, T, D] of the queries of tokens [B, T], with those before them in the cache."""
        assert self.memory is not None and self.codes is not None
        seen = tokens.long()
        if caches is not None:
            if caches[0].recent is not None:
                seen = torch.cat((caches[0].recent, seen), dim=1)
            caches[0].recent = seen[:, -LAGS:]
        return self.codes(seen, self.memory.config.query_context)[:, -tokens.shape[1] :]

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        eos: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The prompt [T] or [B, T] followed by up to `max_new_tokens` sampled tokens, of the same rank.

        `temperature` 0 is greedy. `top_k` keeps the k likeliest tokens, `top_p` then the fewest that hold a
        share p of probability. A sequence that drew `eos` is filled up with it; when all did, the result
        ends there.

        The memory is only read (mode INFERENCE, restored afterwards). Its streams are ended before every
        step, so a token's reading depends on the text alone and not on how it was cut into calls.
        Raises AESGConfigError for sampling options out of range. O(S H) a token and layer: keys and values
        are kept.
        """
        check_sampling(self.vocab_size, max_new_tokens, temperature, top_k, top_p, eos, generator)
        tokens = prompt[None] if isinstance(prompt, Tensor) and prompt.dim() == 1 else prompt
        check_tokens(tokens, self.vocab_size)
        tokens = tokens.long()
        caches = [KeyValueCache() for _ in self.blocks]
        ended = torch.zeros(tokens.shape[0], dtype=torch.bool, device=tokens.device)  # [B]
        fresh = tokens
        with evaluating(self), self.reading_only():
            for _ in range(max_new_tokens):
                if self.memory is not None:
                    self.memory.reset_state()
                logits = self.forward(fresh, caches)[:, -1]  # [B, V]
                drawn = sample(logits.float(), temperature, top_k, top_p, generator)  # [B]
                if eos is not None:
                    drawn = drawn.masked_fill(ended, eos)
                    ended |= drawn == eos
                fresh = drawn[:, None]
                tokens = torch.cat((tokens, fresh), dim=1)
                if eos is not None and bool(ended.all()):
                    break
        return tokens[0] if prompt.dim() == 1 else tokens

    @classmethod
    def small(
        cls, vocab_size: int, storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR
    ) -> AESGDecoderLM:
        """Hidden 128, 1 layer, 4 heads, concepts of 64 dimensions. `storage_dir=None`: without a memory."""
        return cls._preset("small", vocab_size, storage_dir)

    @classmethod
    def medium(
        cls, vocab_size: int, storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR
    ) -> AESGDecoderLM:
        """Hidden 256, 2 layers, 8 heads, concepts of 128 dimensions. `storage_dir=None`: without a memory."""
        return cls._preset("medium", vocab_size, storage_dir)

    @classmethod
    def large(
        cls, vocab_size: int, storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR
    ) -> AESGDecoderLM:
        """Hidden 512, 4 layers, 16 heads, concepts of 256 dimensions. `storage_dir=None`: without a
        memory."""
        return cls._preset("large", vocab_size, storage_dir)

    @classmethod
    def _preset(cls, name: str, vocab_size: int, storage_dir: str | os.PathLike[str] | None) -> AESGDecoderLM:
        check_positive(vocab_size=vocab_size)  # before a directory is made
        size = TEXT_SIZES[name]
        memory = open_memory(storage_dir, token_config(size.vector_dim))
        return cls(vocab_size, size.hidden_size, size.num_layers, memory)
