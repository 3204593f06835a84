"""AESGTransformer: a Transformer encoder whose layers attend to concepts of the memory.

Letters: B sequences, T tokens, V vocabulary, H hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from aesg.architectures.base import MAX_CONCEPTS, TextSize, check_positive, check_tokens
from aesg.architectures.text_model import TextModel
from aesg.config import AESGConfig
from aesg.nn.token_codes import TokenCodes
from aesg.nn.transformer import INIT_STD, AESG_TransformerLayer

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory


class AESGTransformer(TextModel):
    """Encoder: tokens [B, T] -> logits [B, T, V], each of which has seen the whole sequence.

    With `causal=True` logits[:, t] depend on tokens[:, :t+1] alone, and the memory is asked at every token
    instead of once a sequence.

    Every layer reads the memory. Only the last one teaches it, so that there is one space of queries and one
    stream of steps a sequence, whatever the number of layers.

    max_seq_len: a length the caller plans for; longer ones work as well, positions are rotary.
    `memory=None` is the plain Transformer with the same other weights.
    AESGConfigError: sizes below 1, heads that do not divide `hidden_size` into even widths.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        nhead: int,
        memory: AESGMemory | None,
        max_seq_len: int = 512,
        *,
        causal: bool = False,
    ) -> None:
        super().__init__(vocab_size, hidden_size, num_layers, memory)
        check_positive(nhead=nhead, max_seq_len=max_seq_len)
        self.nhead = nhead
        self.max_seq_len = max_seq_len
        self.causal = causal
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        nn.init.normal_(self.embedding.weight, std=INIT_STD)
        self.layers = nn.ModuleList(
            AESG_TransformerLayer(hidden_size, nhead, memory, causal=causal) for _ in range(num_layers)
        )
        if causal and memory is not None:
            self.codes = TokenCodes(vocab_size, memory.vector_dim)
        self.final_norm = nn.LayerNorm(hidden_size)
        self.output_proj = nn.Linear(hidden_size, vocab_size, bias=False)
        nn.init.normal_(self.output_proj.weight, std=INIT_STD)

    def forward(self, tokens: Tensor) -> Tensor:
        """Raises AESGMemoryError for anything but integer ids in [0, V) of rank 2."""
        check_tokens(tokens, self.vocab_size)
        x = self.embedding(tokens.long())  # [B, T, H]
        said = self.said(tokens) if self.reads_memory else None  # [B, T, D]
        for layer in self.layers[:-1]:
            x = layer(x, read=self.reads_memory, teach=False, said=said)
        x = self.layers[-1](x, read=self.reads_memory, said=said)
        return self.output_proj(self.final_norm(x))  # [B, T, V]

    @classmethod
    def _config(cls, vector_dim: int) -> AESGConfig:
        return AESGConfig(vector_dim=vector_dim, max_concepts=MAX_CONCEPTS)  # asked once a sequence

    @classmethod
    def _of_size(cls, size: TextSize) -> dict[str, Any]:
        return {"nhead": size.nhead}
