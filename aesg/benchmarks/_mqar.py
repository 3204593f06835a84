"""Multi-query associative recall beyond the window: told in earlier chunks of a stream, asked in later ones.

After Arora et al., "Zoology", https://arxiv.org/abs/2312.04927, with more between telling and asking than a
model's window holds. Letters: B streams, T tokens a chunk, K keys a stream and group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

GROUPS = 2  # of keys: between telling and asking one group lies the telling of the other
IGNORED = -100  # CrossEntropyLoss skips it
SEPARATOR = 0


class Chunk(NamedTuple):
    """What all streams read at once."""

    tokens: Tensor  # [B, T] i64
    targets: Tensor  # [B, T] i64: the answer where a key is asked, else -100
    begins: bool  # whether the streams begin here

    def to(self, device: torch.device) -> Chunk:
        """The same on a device."""
        return Chunk(self.tokens.to(device), self.targets.to(device), self.begins)


@dataclass(frozen=True)
class Recall:
    """Episodes of one task. Every stream has keys of its own, the values are everybody's.

    hops: 1: "key value" is told; h: "key link", "link link", ..., "link value", each step in a chunk of its
    own, and the key is asked for its value. All assignments are drawn anew in every episode, so that what was
    told last counts, and weights can learn none of them.
    """

    streams: int = 8
    keys: int = 16
    values: int = 32
    hops: int = 1

    @property
    def vocab(self) -> int:
        return 1 + self.values + self.streams * GROUPS * self.keys * self.hops

    @property
    def chance(self) -> float:
        return 1.0 / self.values

    def episodes(self, count: int, generator: torch.Generator) -> Iterator[Chunk]:
        """Chunks of 2 K tokens: telling the groups, then asking them, `count` times."""
        for _ in range(count):
            values = [
                1 + torch.randint(self.values, (self.streams, self.keys), generator=generator)
                for _ in range(GROUPS)
            ]
            chains = []  # of each group: what follows what, [hops + 1][B, K]
            for group in range(GROUPS):
                steps = [self._names(group, 0)]
                for step in range(1, self.hops):
                    steps.append(self._shuffled(self._names(group, step), generator))
                chains.append([*steps, values[group]])
            begins = True
            for step in range(self.hops):
                for chain in chains:
                    yield self._told(chain[step], chain[step + 1], begins, generator)
                    begins = False
            for chain in chains:
                yield self._asked(chain[0], chain[-1], generator)

    def _names(self, group: int, step: int) -> Tensor:
        """The tokens [B, K] of a step's keys or links, each stream's own."""
        number = (torch.arange(self.streams) * GROUPS + group) * self.hops + step
        return 1 + self.values + number[:, None] * self.keys + torch.arange(self.keys)

    def _told(self, left: Tensor, right: Tensor, begins: bool, generator: torch.Generator) -> Chunk:
        order = self._order(generator)
        tokens = torch.stack((left.gather(1, order), right.gather(1, order)), dim=2).flatten(1)
        return Chunk(tokens, torch.full_like(tokens, IGNORED), begins)

    def _asked(self, keys: Tensor, values: Tensor, generator: torch.Generator) -> Chunk:
        order = self._order(generator)
        keys, values = keys.gather(1, order), values.gather(1, order)
        tokens = torch.stack((keys, torch.full_like(keys, SEPARATOR)), dim=2).flatten(1)
        targets = torch.stack((values, torch.full_like(keys, IGNORED)), dim=2).flatten(1)
        return Chunk(tokens, targets, False)

    def _order(self, generator: torch.Generator) -> Tensor:
        return torch.rand(self.streams, self.keys, generator=generator).argsort(dim=1)

    def _shuffled(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        return tokens.gather(1, self._order(generator))
