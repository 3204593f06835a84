"""TokenCodes: what a token and the tokens before it say, as a query that never moves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPANS = (1, 2, 4)  # each doubles the tokens a query tells of
LAGS = sum(SPANS)  # tokens before the last that a query tells of
STREAM = 0x5EED  # of the codes: the same in every model, so that a memory outlives the model that filled it
MOST_DRAWN = 1 << 16  # numbers at a time: drawn at once they would take eight times what they end up as


class TokenCodes(nn.Module):
    """tokens [B, T] -> queries [B, T, D] of length 1: a token's code and, ever more softly, those before it.

    Codes are random directions, one a token, drawn once and for all; in D dimensions they are nearly
    orthogonal. Lag j counts with the share (1 - context) context^j of the squared length, its code turned by
    j places, so that order counts. Two moments that have the last n tokens in common then have a cosine of
    about 1 - context^n; while `context` is below a half, the same token in any context is nearer than another
    token in the same one. The codes are 4 V D bytes of a model and nothing of its checkpoints.

    Nothing here is learnt. Embeddings and hidden states move while a model trains, and what was stored under
    them is not found again; these are found as long as the memory lives. The turning is that of Sahlgren et
    al., "Permutations as a means to encode order in word space", CogSci 2008.
    """

    codes: Tensor  # [V, D] f32, rows of length 1

    def __init__(self, vocab_size: int, vector_dim: int) -> None:
        super().__init__()
        codes = torch.empty(vocab_size, vector_dim, dtype=torch.float32, device="cpu")
        stream = np.random.PCG64(STREAM)  # the same in every numpy
        for rows in codes.split(max(1, MOST_DRAWN // vector_dim)):
            values = stream.random_raw(rows.numel()).astype(np.float64) / 2.0**63 - 1.0
            rows.copy_(F.normalize(torch.from_numpy(values.reshape(rows.shape)), dim=1))
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, tokens: Tensor, context: float) -> Tensor:
        """context: in [0, 1], see above. O(B T D)."""
        said = F.embedding(tokens, self.codes).float()  # [B, T, D], as the memory is
        for span in SPANS if context > 0 else ():
            if span >= tokens.shape[1]:
                break
            earlier = said[:, :-span].roll(span, dims=-1)  # a copy of what was said `span` tokens before
            said[:, span:].add_(earlier, alpha=context ** (span / 2))
        return F.normalize(said, dim=-1)
