"""AESG_TransformerLayer: self-attention, attention to the memory, feed-forward.

Letters: B sequences, T tokens, H model width, W width of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F

from aesg.exceptions import AESGConfigError
from aesg.nn.attention import rotary_tables, rotate
from aesg.nn.memory_layer import (
    MemoryLayer,
    Untaught,
    apart_from_other_weights,
    check_shape,
    check_sizes,
)
from aesg.nn.memory_reader import MemoryReader
from aesg.nn.pooled_reader import PooledReader

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory

INIT_STD = 0.02  # GPT-2's
FEEDFORWARD_RATIO = 4  # as in "Attention is all you need", https://arxiv.org/abs/1706.03762


class SelfAttention(nn.Module):
    """Attention of every token to every token, or to those up to itself when `causal`. [B, T, H] -> [B, T,
    H].

    Positions are rotary, so T is not limited. O(T^2 H).
    """

    def __init__(self, d_model: int, nhead: int, causal: bool) -> None:
        super().__init__()
        self.nhead = nhead
        self.causal = causal
        self.qkv_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.output_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = self.qkv_proj(x).view(batch, length, 3, self.nhead, width // self.nhead)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # each [B, heads, T, W]
        tables = rotary_tables(0, length, width // self.nhead, x.device)
        mixed = F.scaled_dot_product_attention(
            rotate(queries, tables), rotate(keys, tables), values, is_causal=self.causal
        )
        return self.output_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class AESG_TransformerLayer(MemoryLayer):
    """Transformer layer that attends to a memory: src [B, T, H] -> [B, T, H], normed before each part.

    x += self-attention; x += what the memory says; x += feed-forward.
    The memory is asked once a sequence, with the mean token, and every token attends to the concepts that
    come back. With `causal` a token sees only what came before it, so each token asks for itself.

    Raises AESGConfigError unless `nhead` divides `d_model` into heads of an even width.
    """

    def __init__(self, d_model: int, nhead: int, memory: AESGMemory | None, *, causal: bool = False) -> None:
        check_sizes(d_model=d_model, nhead=nhead)
        if d_model % (2 * nhead):
            raise AESGConfigError(
                f"d_model must be a multiple of 2 * nhead = {2 * nhead}, so that heads have an even width, "
                f"got {d_model}"
            )
        super().__init__(memory)
        self.d_model = d_model
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = SelfAttention(d_model, nhead, causal)
        self.feedforward_norm = nn.LayerNorm(d_model)
        widen, narrow = (
            nn.Linear(d_model, FEEDFORWARD_RATIO * d_model),
            nn.Linear(FEEDFORWARD_RATIO * d_model, d_model),
        )
        self.feedforward = nn.Sequential(widen, nn.GELU(), narrow)
        for part in (self.attention.qkv_proj, self.attention.output_proj, widen, narrow):
            nn.init.normal_(part.weight, std=INIT_STD)
        for part in (widen, narrow):
            nn.init.zeros_(part.bias)
        self.reader: MemoryReader | None = None
        if memory is not None:
            with apart_from_other_weights():
                kind = MemoryReader if causal else PooledReader
                self.reader = kind(d_model, memory.vector_dim, nhead)

    def forward(
        self, src: Tensor, *, read: bool = True, teach: bool = True, said: Tensor | None = None
    ) -> Tensor:
        """read: False leaves the memory out; teach: False lets it learn nothing from this.

        said [B, T, D]: what tokens say of themselves (`MemoryReader.ask`), of a causal layer only.

        Raises AESGMemoryError for other shapes.
        """
        check_shape("src", src, "B", "T", self.d_model)
        x = src + self.attention(self.attention_norm(src))
        if self.reader is not None and read:
            memory: Any = self.memory if teach else Untaught(self.memory)
            x = x + self.reader(x, memory, said)
        return x + self.feedforward(self.feedforward_norm(x))
