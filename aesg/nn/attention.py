"""Causal self-attention with rotary positions, of any length, with a key/value cache for generation.

Rotary positions: Su et al., "RoFormer", https://arxiv.org/abs/2104.09864.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROTARY_BASE = 10_000.0  # wavelengths from 2 pi to 2 pi * base, as in the paper


class KeyValueCache:
    """Keys and values one attention layer has already seen: two tensors [B, heads, S, W], W the head width.

    Room is doubled when it runs out, so n appended tokens cost O(n) copies altogether.
    """

    def __init__(self) -> None:
        self.length = 0  # S, tokens kept
        self.recent: Tensor | None = None  # [B, <= LAGS] token ids, for the queries of a model with a memory
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds [B, heads, T, W] behind what is kept; returns all keys and all values, [B, heads, S+T, W]."""
        end = self.length + keys.shape[2]
        self._keys = _with_room(self._keys, keys, self.length, end)
        self._values = _with_room(self._values, values, self.length, end)
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]


def _with_room(kept: Tensor | None, new: Tensor, used: int, needed: int) -> Tensor:
    if kept is not None and kept.shape[2] >= needed:
        return kept
    batch, heads, _, width = new.shape
    grown = new.new_empty(batch, heads, max(needed, 2 * used), width)
    if kept is not None:
        grown[:, :, :used] = kept[:, :, :used]
    return grown


def rotary_tables(start: int, length: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, W/2] of the positions start .. start + length - 1."""
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    positions = torch.arange(start, start + length, device=device, dtype=torch.float32)
    angles = positions[:, None] * ROTARY_BASE**-exponents  # [T, W/2]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the pairs (x_i, x_{i+W/2}) of [..., T, W] by the angle of their position; equation 34."""
    cosines, sines = (table.to(x.dtype) for table in tables)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)


class CausalSelfAttention(nn.Module):
    """Every token attends to itself and to what came before it.

    x [B, T, H] -> [B, T, H]; `num_heads` divides H and leaves heads of an even width.
    Cost: O(T^2 H) over a whole sequence, O(S H) for one token behind a cache of S.
    """

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.output_proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        batch, length, hidden = x.shape
        start = 0 if cache is None else cache.length
        tables = rotary_tables(start, length, hidden // self.num_heads, x.device)
        heads = self.qkv_proj(x).view(batch, length, 3, self.num_heads, -1)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # each [B, heads, T, W]
        queries, keys = rotate(queries, tables), rotate(keys, tables)
        if cache is not None:
            keys, values = cache.append(keys, values)
        if start == 0:
            mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        else:
            seen = torch.ones(length, start + length, dtype=torch.bool, device=x.device).tril(start)
            mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
        return self.output_proj(mixed.transpose(1, 2).reshape(batch, length, hidden))
