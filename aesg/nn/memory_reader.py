"""MemoryReader: asks the memory for every position and reads the answer by attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aesg.exceptions import AESGMemoryError
from aesg.ops import read_members

if TYPE_CHECKING:
    from aesg.memory.context import RetrievedContext
    from aesg.memory.controller import AESGMemory

AVERSION = 8.0  # of the head that starts out most averse to members like the query
# Large: search looks at directions only, and Adam turns large weights slowly, so that what was stored stays
# findable while the model trains.
QUERY_STD = 1.0
OUTPUT_STD = 0.02
LEANING = 0.2  # length of what a hidden state adds to a query made of tokens, which has 1
TINY = torch.finfo(torch.float32).tiny


class MemoryReader(nn.Module):
    """What the memory has to say about each position, to be added to the hidden state.

    hidden [..., H] -> [..., H]. Each position is its own query; K context members come back for it alone.

    * The query is `query_proj(LayerNorm(hidden))`, no bias: a common offset would make all queries alike. In
      models of tokens it only leans what the tokens say: see `ask`.
    * Every head looks for a direction of concept space (width D) among the K members. A member's energy w
      enters its score as log w, so it acts as a prior, and gradient reaches `query_proj` through it.
    * A head's learnt weight of the cosine between member and query tells likenesses from what followed them:
      the seeds say what the query says already, their successors what came next. The heads start out spread
      from indifferent to averse.
    * One more member, "nothing", has score 0 and value 0: a head can leave the memory alone, and an empty
      context adds exactly 0 with finite gradients.
    * `aggregate()` stands beside the heads; through it `abstraction_projection` gets its gradient.

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
        self.likeness_weight = nn.Parameter(-torch.linspace(0.0, AVERSION, num_heads))  # [h]
        self.output_proj = nn.Linear((num_heads + 1) * vector_dim, hidden_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the projections anew; `likeness_weight` and the norm are left as they are."""
        nn.init.normal_(self.query_proj.weight, std=QUERY_STD)
        nn.init.normal_(self.attend_proj.weight, std=OUTPUT_STD)
        nn.init.normal_(self.output_proj.weight, std=OUTPUT_STD)

    def forward(self, hidden: Tensor, memory: AESGMemory, said: Tensor | None = None) -> Tensor:
        """`memory`: an AESGMemory of this reader's `vector_dim`, handed in, so that a model holds it once.

        said [..., D]: see `ask`.
        """
        normed = self.query_norm(hidden)
        query = self.ask(normed, said)
        context = memory.retrieve(query)
        found, gist = self.read(normed, query, context)
        return self.output_proj(torch.cat((found, gist), dim=-1).to(normed.dtype))

    def ask(self, normed: Tensor, said: Tensor | None) -> Tensor:
        """The queries [..., D] f32 of normed hidden states [..., H].

        said [..., D]: what tokens say of themselves (`TokenCodes`), of length 1. Then hidden states only
        lean the query: what is stored while a model trains stays findable. Raises AESGMemoryError for another
        shape.
        """
        query = self.query_proj(normed).float()
        if said is None:
            return query
        if said.shape != query.shape:
            raise AESGMemoryError(f"said: expected shape {list(query.shape)}, got {list(said.shape)}")
        return torch.add(said, query, alpha=LEANING / math.sqrt(self.query_proj.weight.numel()))

    def read(self, normed: Tensor, query: Tensor, context: RetrievedContext) -> tuple[Tensor, Tensor]:
        """What the heads found [..., h*D], and the direction of `aggregate()` [..., D], both f32.

        The memory is f32, whatever the model is.
        """
        lead, width = query.shape[:-1], self.vector_dim
        found, gist = self.look(
            self.attend_proj(normed).float().reshape(-1, self.num_heads * width),
            query.reshape(-1, width),
            context.vectors.reshape(-1, *context.vectors.shape[-2:]),
            context.weights.reshape(-1, context.weights.shape[-1]),
            context.projection,
        )
        return found.reshape(*lead, -1), gist.reshape(*lead, width)

    def look(
        self,
        sought: Tensor,
        query: Tensor,
        vectors: Tensor,
        energies: Tensor,
        projection: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """`read` of plain rows: sought [Q, h*D], query [Q, D], members [Q, K, D] with their energies."""
        sought = sought.unflatten(1, (self.num_heads, self.vector_dim))
        found, mean = read_members(sought, query, self.likeness_weight.float(), vectors, energies)
        return found.flatten(1), F.normalize(mean + projection(mean), dim=-1, eps=TINY)
