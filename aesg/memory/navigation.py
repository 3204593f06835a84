"""Navigator: from a query to its context: seeds, priming, spreading, gathering. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aesg.config import AESGConfig
from aesg.exceptions import AESGNavigationError
from aesg.graph.core import SemanticGraph
from aesg.memory.context import RetrievedContext
from aesg.memory.state import BatchActiveContext
from aesg.memory.trace import trace_paths
from aesg.packs.graph import PackGraph
from aesg.packs.manager import Answering
from aesg.packs.ranking import ORIGIN_SHIFT, merge_answers, origins_of, slots_in
from aesg.validation import Validator


class Query(NamedTuple):
    """A checked query in the one shape the ops take."""

    rows: Tensor  # [Q, D] f32 on the CPU, Q = B T, stream-major
    lead: torch.Size  # the shape in front of D as asked: (), (B,) or (B, T)
    streams: slice  # which streams ask
    steps: int  # T, 1 unless [B, T, D]


class Answer(NamedTuple):
    """What one graph answered to Q queries."""

    graph: SemanticGraph | PackGraph
    name: str
    seeds: Tensor  # [Q, S] i64 slots, best first, -1 padded; primed ones not among them
    similarities: Tensor  # [Q, S] f32
    members: Tensor  # [Q, K] i64 slots, strongest first, -1 padded
    energies: Tensor  # [Q, K] f32, differentiable in the query


class Found(NamedTuple):
    """What the memory and its packs found together for Q queries."""

    seeds: Tensor  # [Q, S] i64 slots, the memory's own
    similarities: Tensor  # [Q, S] f32, the memory's own
    members: Tensor  # [Q, K] i64, strongest first, -1 padded; with packs see `aesg.packs.ranking`
    energies: Tensor  # [Q, K] f32, differentiable in the query; a pack's scaled by its share
    explanation: Tensor  # [Q] f32, the best similarity in any graph

    def detached(self) -> Found:
        """The same, holding on to no autograd graph."""
        return Found(*(part.detach() for part in self))

    @property
    def own_members(self) -> Tensor:
        """The members that are the memory's own: slots [Q, K], -1 for all others."""
        return slots_in(self.members, 0)


def joined_steps(calls: Sequence[tuple[Query, Found]]) -> Iterator[tuple[Query, Found]]:
    """Successive calls of the same streams, each of one step, as one call of many steps; others as they
    are."""
    for (streams, steps), group in groupby(calls, key=lambda call: (call[0].streams, call[0].steps)):
        queries, found = zip(*group, strict=True)
        if steps != 1 or len(queries) == 1:
            yield from zip(queries, found, strict=True)
            continue
        rows = torch.stack([query.rows.detach() for query in queries], dim=1)  # [B, T, D]
        yield (
            Query(rows.flatten(0, 1), rows.shape[:2], streams, len(queries)),
            Found(*(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*found, strict=True))),
        )


class Navigator:
    """Finds the context of queries in a graph (docs/design.md, "Retrieval")."""

    def __init__(
        self,
        graph: SemanticGraph,
        config: AESGConfig,
        projection: nn.Module | None = None,
        packs: Callable[[], list[Answering]] = list,
    ) -> None:
        self.graph = graph
        self.config = config
        self._packs = packs  # the attached packs that take part, as of now
        self._projection = [projection]  # in a list: the module belongs to the memory, not to this object

    def retrieve(
        self, query_vector: Tensor, active_state: BatchActiveContext, batch_idx: int = 0
    ) -> tuple[RetrievedContext, Tensor]:
        """Context and explanation score [...] of a query [D], [B, D] or [B, T, D]. Changes nothing but the
        streams.

        Raises AESGNavigationError for an empty query, one of another rank or one that is not finite, and
        AESGMemoryError for another vector_dim.
        """
        query = self.check(query_vector, active_state, batch_idx)
        found, answers = self.find(query, active_state)
        context = self.context(query, found, answers, query_vector.device)
        return context, context.explanation

    def check(self, query: Tensor, streams: BatchActiveContext, batch_idx: int) -> Query:
        """The query as rows [Q, D] with the streams that ask."""
        dim = self.graph.vector_dim
        if not isinstance(query, Tensor) or not query.is_floating_point():
            given = query.dtype if isinstance(query, Tensor) else type(query).__name__
            raise AESGNavigationError(f"Query: expected a floating point tensor, got {given}")
        if query.dim() not in (1, 2, 3):
            raise AESGNavigationError(
                f"Query: expected shape [{dim}], [B, {dim}] or [B, T, {dim}], got {list(query.shape)}"
            )
        Validator.validate_vector_dim_match(dim, query.shape[-1])
        if query.numel() == 0:
            raise AESGNavigationError(f"Query: expected at least one vector, got shape {list(query.shape)}")
        if batch_idx < 0:
            raise AESGNavigationError(f"batch_idx: expected an integer >= 0, got {batch_idx}")
        lead = query.shape[:-1]
        first, count = (batch_idx, 1) if query.dim() == 1 else (0, lead[0])
        return Query(
            rows=query.reshape(-1, dim).to("cpu", torch.float32),
            lead=lead,
            streams=streams.streams(first, count),
            steps=lead[1] if len(lead) == 2 else 1,
        )

    def find(self, query: Query, streams: BatchActiveContext) -> tuple[Found, list[Answer]]:
        """Seeds, priming and spreading for all rows at once; remembers the streams' primary concepts.

        Returns what was found, and each graph's own answer, the memory's first. Packs add to what the memory
        answers by itself and never change that.
        """
        packs = self._packs()
        of_packs = streams.of_packs([f"{name}:{pack.checksum}" for name, pack, _ in packs])
        own = self._ask(self.graph, "memory", query, streams)
        best = own.similarities.detach()[:, :1]
        if not packs:
            return Found(own.seeds, own.similarities, own.members, own.energies, best[:, 0]), [own]
        # A pack's chance likenesses must not crowd what the memory knows well: its bar is at least that.
        answers = [own]
        for (name, pack, _), theirs in zip(packs, of_packs, strict=True):
            answers.append(self._ask(PackGraph(pack, self.config), name, query, theirs, best))
        energies, members = merge_answers(
            [(answer.energies, answer.members) for answer in answers], [1.0, *(share for *_, share in packs)]
        )
        best = torch.stack([answer.similarities.detach()[:, 0] for answer in answers]).amax(dim=0)
        return Found(own.seeds, own.similarities, members, energies, best), answers

    def _ask(
        self,
        graph: SemanticGraph | PackGraph,
        name: str,
        query: Query,
        streams: BatchActiveContext,
        bar: Tensor | None = None,
    ) -> Answer:
        """One graph's answer; `streams` are those of that graph. `bar` [Q, 1]: the best elsewhere."""
        config = self.config
        similarities, seeds = graph.search(query.rows, config.seed_top_k, config.seed_min_similarity)
        best = similarities[:, :1] if bar is None else torch.maximum(similarities[:, :1], bar)
        strong = similarities >= config.seed_relative_similarity * best
        similarities = torch.where(strong, similarities, 0.0)
        seeds = torch.where(strong, seeds, -1)

        which = streams.streams(query.streams.start, query.streams.stop - query.streams.start)
        starts, energies = seeds, similarities
        if (
            len(query.lead) < 2
        ):  # the steps of one [B, T, D] call run in parallel, so they do not prime each other
            primed, primed_energies = self._primed(graph, streams, which)
            starts = torch.cat([seeds, primed], dim=1)
            energies = torch.cat([similarities, primed_energies], dim=1)
        energies, members = graph.spread(
            starts, energies, hops=config.spreading_activation_steps, k=config.context_size
        )
        members, energies = _led_by_seeds(seeds, similarities, members, energies)
        last = slice(query.steps - 1, None, query.steps)
        kept = members[last]
        streams.remember(which, kept, energies.detach()[last], graph.ids(kept))
        return Answer(graph, name, seeds, similarities, members, energies)

    def context(
        self, query: Query, found: Found, answers: Sequence[Answer], device: torch.device
    ) -> RetrievedContext:
        """The answer in the shape of the question, on its device."""
        lead, k = query.lead, found.members.shape[1]
        vectors = self.graph.gather(found.own_members if len(answers) > 1 else found.members)
        for origin, answer in enumerate(answers[1:], 1):
            theirs = origins_of(found.members) == origin
            vectors[theirs] = answer.graph.gather(slots_in(found.members, origin)[theirs])

        def trace(row: int, index: int) -> list[int]:
            base = index >> ORIGIN_SHIFT << ORIGIN_SHIFT
            slot = index - base
            return [base + step for step in paths(row, index >> ORIGIN_SHIFT).get(slot, [slot])]

        def paths(row: int, origin: int) -> dict[int, list[int]]:
            if (row, origin) not in traced:
                answer = answers[origin]
                traced[row, origin] = trace_paths(
                    answer.graph, answer.seeds[row].tolist(), answer.similarities.detach()[row].tolist()
                )
            return traced[row, origin]

        traced: dict[tuple[int, int], dict[int, list[int]]] = {}
        return RetrievedContext(
            vectors=vectors.reshape(*lead, k, self.graph.vector_dim).to(device),
            weights=found.energies.reshape(*lead, k).to(device),
            indices=found.members.reshape(*lead, k).to(device),
            explanation=found.explanation.reshape(lead).to(device),
            projection=self._projection[0],
            trace=trace,
            origin_names=tuple(answer.name for answer in answers),
        )

    def _primed(
        self, graph: SemanticGraph | PackGraph, streams: BatchActiveContext, which: slice
    ) -> tuple[Tensor, Tensor]:
        """The streams' last primary concepts [B, 3] that still live, with the share of energy that carries
        over.
        """
        slots = graph.still(streams.primary[which], streams.primary_ids[which])
        energies = streams.energies[which] * self.config.priming
        return slots, torch.where(slots >= 0, energies, 0.0)


def _led_by_seeds(
    seeds: Tensor, similarities: Tensor, members: Tensor, energies: Tensor
) -> tuple[Tensor, Tensor]:
    """The context [Q, K] with all seeds [Q, S] in it and nothing above the best of them.

    Where many edges meet, energy that spread saturates and would push what the query itself means out of its
    context. So no member has more energy than the best seed, of equals seeds come first, and a seed that was
    pushed out takes the place of the weakest. What was primed alone, without a seed, stays as it is.
    """
    width = members.shape[1]
    best = similarities[:, :1]
    energies = torch.where(best > 0, torch.minimum(energies, best), energies)
    same = seeds[:, :, None] == members[:, None, :]  # [Q, S, K]
    missing = (seeds >= 0) & ~same.any(dim=2)
    slots = torch.cat([torch.where(missing, seeds, -1), members], dim=1)
    values = torch.cat([torch.where(missing, similarities, 0.0), energies], dim=1)
    leads = torch.cat([missing, (same & (seeds >= 0)[:, :, None]).any(dim=1)], dim=1)
    first = torch.argsort(leads.to(torch.uint8), dim=1, descending=True, stable=True)
    slots, values = slots.gather(1, first), values.gather(1, first)
    values, order = torch.sort(values, dim=1, descending=True, stable=True)
    return slots.gather(1, order)[:, :width], values[:, :width]
