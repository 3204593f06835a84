"""PooledReader: asks the memory once a sample and lets every position read the answer in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aesg.nn.memory_reader import MemoryReader

if TYPE_CHECKING:
    from aesg.memory.context import RetrievedContext


class PooledReader(MemoryReader):
    """What the memory has to say about a whole sample, read by each of its positions.

    hidden [B, L, H] -> [B, L, H], L positions of a text or a picture. The query is the mean position's; the K
    context members that come back are attended to by every position as in MemoryReader, whose weights it
    has: heads, likeness, energy as prior, "nothing", aggregate.

    All positions share K members, so these are projected instead of the positions: O(h K D H) a sample and
    O(h K H) a position for h heads. Nothing grows with L but the result.
    """

    def forward(self, hidden: Tensor, memory: Any, said: Tensor | None = None) -> Tensor:
        """said [B, 1, D]: see `MemoryReader.ask`."""
        return self.with_context(hidden, memory, said)[0]

    def query(self, hidden: Tensor, said: Tensor | None = None) -> Tensor:
        """What `forward` asks for hidden [B, L, H]: f32 [B, 1, D]."""
        return self.ask(self.query_norm(hidden).mean(dim=1, keepdim=True), said)

    def with_context(
        self, hidden: Tensor, memory: Any, said: Tensor | None = None
    ) -> tuple[Tensor, RetrievedContext]:
        """`forward`, and the context it read, of one query a sample."""
        heads, width = self.num_heads, self.vector_dim
        normed = self.query_norm(hidden)  # [B, L, H]
        query = self.ask(normed.mean(dim=1, keepdim=True), said)  # [B, 1, D]
        context = memory.retrieve(query)
        members = F.normalize(context.vectors.squeeze(1), dim=-1)  # [B, K, D]
        likeness = members @ F.normalize(query, dim=-1).mT  # [B, K, 1], cosines
        dtype = self.output_proj.weight.dtype  # the memory is f32, whatever the model is
        tiny = torch.finfo(context.weights.dtype).tiny
        prior = self.likeness_weight[:, None] * likeness.mT + context.weights.clamp_min(tiny).log()
        prior = prior.masked_fill(~context.mask, -torch.inf).flatten(1).to(dtype)  # [B, h K]
        members = members.to(dtype)

        attend = self.attend_proj.weight.unflatten(0, (heads, width))  # [h, D, H]
        keys = torch.einsum("bkd,hdc->bhkc", members, attend).flatten(1, 2)  # [B, h K, H]
        scores = (normed @ keys.mT + prior.unsqueeze(1)).unflatten(-1, (heads, -1))  # [B, L, h, K]
        shares = F.softmax(F.pad(scores, (0, 1)), dim=-1)[..., :-1].flatten(-2)  # [B, L, h K]

        output = self.output_proj.weight.unflatten(
            1, (heads + 1, width)
        )  # [H, h + 1, D], the last the gist's
        values = torch.einsum("bkd,chd->bhkc", members, output[:, :-1]).flatten(1, 2)  # [B, h K, H]
        gist = F.normalize(context.aggregate(), dim=-1).to(dtype)  # [B, 1, D]
        return shares @ values + gist @ output[:, -1].T, context
