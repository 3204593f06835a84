"""What was asked and what came back, as tensors: of one call, and of successive calls as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError
from aesg.graph.core import SemanticGraph
from aesg.ops import Activated
from aesg.packs.graph import PackGraph
from aesg.packs.ranking import slots_in

NOTHING = torch.empty(0)  # in place of vectors that were not kept


class Query(NamedTuple):
    """A checked query in the one shape the ops take."""

    rows: Tensor  # [Q, D] f32 on the CPU, or where the graph has a copy; Q = B T, stream-major
    lead: torch.Size  # the shape in front of D as asked: (), (B,) or (B, T)
    streams: slice  # which streams ask
    steps: int  # T, 1 unless [B, T, D]

    @property
    def on_host(self) -> bool:
        return self.rows.is_cpu

    @property
    def bare(self) -> Tensor:
        """The rows without gradient."""
        return self.rows.detach() if self.rows.requires_grad else self.rows

    def kept(self) -> Query:
        """A copy that holds on to no autograd graph: who asked may write over what was asked with."""
        return self._replace(rows=self.bare.clone())


class Source(NamedTuple):
    """A graph that answers."""

    graph: SemanticGraph | PackGraph
    name: str
    share: float  # what scales its energies: 1 for the memory
    key: str  # names the streams of a pack, see `BatchActiveContext.of_packs`


class Answer(NamedTuple):
    """What one graph answered to Q queries."""

    source: Source
    found: Activated  # its seeds are the memory's or pack's slots; primed ones are not among them
    energies: Tensor  # [Q, K] f32, differentiable in the query

    @property
    def members(self) -> Tensor:
        """Slots [Q, K] i64, strongest first, -1 padded."""
        return self.found.members

    def kept(self, whole: bool = False) -> Answer:
        """The same without an autograd graph, and, unless `whole`, without vectors, which the graph holds."""
        bare = self.found if whole else self.found._replace(vectors=NOTHING, seed_vectors=NOTHING)
        return Answer(self.source, bare, bare.energies)


class Found(NamedTuple):
    """What the memory and its packs found together for Q queries."""

    seeds: Tensor  # [Q, S] i64 slots, the memory's own
    similarities: Tensor  # [Q, S] f32, the memory's own, without gradient
    members: Tensor  # [Q, K] i64, strongest first, -1 padded; with packs see `aesg.packs.ranking`
    energies: Tensor  # [Q, K] f32, differentiable in the query; a pack's scaled by its share
    explanation: Tensor  # [Q] f32, the best similarity in any graph

    def detached(self) -> Found:
        """The same, holding on to no autograd graph."""
        return self._replace(energies=self.energies.detach()) if self.energies.requires_grad else self

    @property
    def own_members(self) -> Tensor:
        """The members that are the memory's own: slots [Q, K], -1 for all others."""
        return slots_in(self.members, 0)


class Call(NamedTuple):
    """One call of a `one_call`."""

    query: Query
    found: Found
    answers: list[Answer]  # of each graph, the memory first
    learns: bool
    seconds: float = 0.0  # it took
    failures_before: int = 0  # a device answered it: `Awaited.failures` of then


@dataclass
class Pending:
    """A `one_call` under way."""

    traced: bool  # whether `retrieve_again` may come
    depth: int = 0  # of those inside it
    calls: list[Call] = field(default_factory=list)
    unnoted: list[Call] = field(default_factory=list)  # not yet among the memory's work
    seconds: float = 0.0  # they took
    asker: Callable[[Tensor], Activated | None] | None = None  # see `SemanticGraph.asker`


def joined_steps(calls: Sequence[tuple[Query, Found]]) -> Iterator[tuple[Query, Found]]:
    """Successive calls of the same streams, each of one step, as one call of many steps; others as they
    are."""
    for (streams, steps), group in groupby(calls, key=lambda call: (call[0].streams, call[0].steps)):
        queries, found = zip(*group, strict=True)
        if steps != 1 or len(queries) == 1:
            yield from zip(queries, found, strict=True)
            continue
        rows = torch.stack([query.rows for query in queries], dim=1)  # [B, T, D]
        yield (
            Query(rows.flatten(0, 1), rows.shape[:2], streams, len(queries)),
            Found(*(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*found, strict=True))),
        )


def joined_answers(calls: Sequence[Sequence[Answer]]) -> list[tuple[Source, Activated]]:
    """Each graph's answers to successive calls of one step, B streams each, as one to B T queries,
    stream-major.

    Raises AESGMemoryError where not the same graphs answered every time, with the same shares.
    """
    asked = [[(answer.source.key, answer.source.share) for answer in answers] for answers in calls]
    for other in asked[1:]:
        if other != asked[0]:
            raise AESGMemoryError(
                f"Packs: expected the same ones in all of these calls, got {asked[0][1:]} and {other[1:]}"
            )
    return [
        (answers[-1].source, _joined([answer.found for answer in answers]))
        for answers in zip(*calls, strict=True)
    ]


def _joined(found: Sequence[Activated]) -> Activated:
    return Activated(*(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*found, strict=True)))
