"""MemoryReader: asks the memory for every position and reads the answer by attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MemoryReader(nn.Module):
    """What the memory has to say about each position, to be added to the hidden state.

    hidden [..., H] -> [..., H]. Each position is its own query; K context members come back for it alone.

    * The query is `query_proj(LayerNorm(hidden))` without a bias: a common offset would make all queries
      alike.
    * Every head looks for a direction of concept space (width D) among the K members. A member's energy w
      enters its score as log w, so it acts as a prior, and gradient reaches `query_proj` through it.
    * One more member, "nothing", has score 0 and value 0: a head can leave the memory alone, and an empty
      context adds exactly 0 with finite gradients.
    * `aggregate()` of the context stands beside the heads; through it `abstraction_projection` gets its
      gradient.

    Keys and values are not projected member by member: the heads' projections are folded into the query and
    the output side, which costs O(heads D H) a position instead of O(K D H).
    """

    def __init__(self, hidden_size: int, vector_dim: int, num_heads: int) -> None:
        super().__init__()
        self.vector_dim = vector_dim
        self.num_heads = num_heads
        self.query_norm = nn.LayerNorm(hidden_size)
        self.query_proj = nn.Linear(hidden_size, vector_dim, bias=False)
        self.attend_proj = nn.Linear(hidden_size, num_heads * vector_dim, bias=False)
        self.output_proj = nn.Linear((num_heads + 1) * vector_dim, hidden_size, bias=False)

    def forward(self, hidden: Tensor, memory: nn.Module) -> Tensor:
        """`memory`: an AESGMemory of this reader's `vector_dim`. It is handed in, not kept, so that a model
        that reads at several places still holds it once."""
        normed = self.query_norm(hidden)
        context = memory.retrieve(self.query_proj(normed).float())
        # Concepts are means of queries of any length; only their direction was searched for.
        members = F.rms_norm(context.vectors, (self.vector_dim,))  # [..., K, D]
        sought = self.attend_proj(normed).float()  # [..., h*D]
        sought = sought.unflatten(-1, (self.num_heads, self.vector_dim))  # [..., h, D]
        scores = sought @ members.mT / math.sqrt(self.vector_dim)  # [..., h, K]
        tiny = torch.finfo(context.weights.dtype).tiny
        scores = scores + context.weights.clamp_min(tiny).log().unsqueeze(-2)
        scores = scores.masked_fill(~context.mask.unsqueeze(-2), -math.inf)
        shares = F.softmax(F.pad(scores, (0, 1)), dim=-1)[..., :-1]  # the last member is "nothing"
        found = (shares @ members).flatten(-2)  # [..., h*D]
        gist = F.rms_norm(context.aggregate(), (self.vector_dim,))  # [..., D]
        return self.output_proj(torch.cat((found, gist), dim=-1).to(normed.dtype))
