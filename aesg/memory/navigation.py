"""Navigator: from a query to its context: seeds, priming, spreading, gathering. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from aesg.config import AESGConfig
from aesg.exceptions import AESGNavigationError
from aesg.graph.core import SemanticGraph
from aesg.memory.calls import Answer, Found, Query, Source
from aesg.memory.context import RetrievedContext
from aesg.memory.state import BatchActiveContext
from aesg.memory.trace import trace_paths
from aesg.packs.graph import PackGraph
from aesg.packs.manager import Answering
from aesg.packs.ranking import ORIGIN_SHIFT, merge_answers, origins_of, slots_in
from aesg.validation import Validator


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
        self.remember(query, answers, active_state)
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
        if not isinstance(batch_idx, int) or isinstance(batch_idx, bool) or batch_idx < 0:
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
        """Seeds, priming and spreading for all rows at once.

        Returns what was found, and each graph's own answer, the memory's first. Packs add to what the memory
        answers by itself and never change that.
        """
        own = self._ask(Source(self.graph, "memory", 1.0, ""), query, streams)
        answers = [own]
        packs = [
            Source(
                PackGraph(pack, self.config, self.graph.state.queries), name, share, f"{name}:{pack.checksum}"
            )
            for name, pack, share in self._packs()
        ]
        of_packs = streams.of_packs([pack.key for pack in packs])
        # A pack's chance likenesses must not crowd what the memory knows well: its bar is at least that.
        best = own.similarities.detach()[:, :1]
        for pack, theirs in zip(packs, of_packs, strict=True):
            answers.append(self._ask(pack, query, theirs, best))
        return _together(answers), answers

    def remember(self, query: Query, answers: Sequence[Answer], streams: BatchActiveContext) -> None:
        """Keeps each stream's primary concepts in every graph, to prime its next query there.

        In the memory those of its own answer, whatever packs added to it.
        """
        last = slice(query.steps - 1, None, query.steps)
        of_packs = streams.of_packs([answer.source.key for answer in answers[1:]])
        for answer, theirs in zip(answers, [streams, *of_packs], strict=True):
            which = theirs.streams(query.streams.start, query.streams.stop - query.streams.start)
            kept = answer.members[last]
            theirs.remember(which, kept, answer.energies.detach()[last], answer.source.graph.ids(kept))

    def find_again(
        self, query: Query, sources: Sequence[Source], seeds: Sequence[Tensor]
    ) -> tuple[Found, list[Answer]]:
        """What `find` answers to queries whose seeds [Q, S] in each graph are known, while the graphs are as
        they were.
        """
        with torch.autocast("cpu", enabled=False):
            units = self.graph.directions(query.rows).unsqueeze(-1)  # [Q, D, 1]
        answers = [
            self._ask_again(source, known, units) for source, known in zip(sources, seeds, strict=True)
        ]
        return _together(answers), answers

    def _ask(
        self, source: Source, query: Query, streams: BatchActiveContext, bar: Tensor | None = None
    ) -> Answer:
        """One graph's answer; `streams` are those of that graph. `bar` [Q, 1]: the best elsewhere."""
        config, graph = self.config, source.graph
        similarities, seeds = graph.seek(query.rows, config.seed_top_k, config.seed_min_similarity)
        best = similarities[:, :1] if bar is None else torch.maximum(similarities[:, :1], bar)
        strong = similarities >= config.seed_relative_similarity * best
        similarities = torch.where(strong, similarities, 0.0)
        seeds = torch.where(strong, seeds, -1)

        starts, energies = seeds, similarities
        if (
            len(query.lead) < 2
        ):  # the steps of one [B, T, D] call run in parallel, so they do not prime each other
            which = streams.streams(query.streams.start, query.streams.stop - query.streams.start)
            primed, primed_energies = self._primed(graph, streams, which)
            starts = torch.cat([seeds, primed], dim=1)
            energies = torch.cat([similarities, primed_energies], dim=1)
        return self._spread(source, seeds, similarities, starts, energies)

    def _ask_again(self, source: Source, seeds: Tensor, units: Tensor) -> Answer:
        """One graph's answer from its seeds [Q, S] to queries of length 1 [Q, D, 1]."""
        with torch.autocast("cpu", enabled=False):
            concepts = source.graph.directions(source.graph.gather(seeds))  # [Q, S, D]
            similarities = (concepts @ units).squeeze(-1)  # [Q, S], 0 where there is no seed
        return self._spread(source, seeds, similarities, seeds, similarities)

    def _spread(
        self, source: Source, seeds: Tensor, similarities: Tensor, starts: Tensor, energies: Tensor
    ) -> Answer:
        """What spreads in one graph from the seeds and what else is active at the start."""
        config = self.config
        energies, members = source.graph.spread(
            starts, energies, hops=config.spreading_activation_steps, k=config.context_size
        )
        members, energies = _led_by_seeds(seeds, similarities, members, energies)
        return Answer(source, seeds, similarities, members, energies)

    def context(
        self, query: Query, found: Found, answers: Sequence[Answer], device: torch.device
    ) -> RetrievedContext:
        """The answer in the shape of the question, on its device."""
        lead, k = query.lead, found.members.shape[1]
        vectors = self.graph.gather(found.own_members if len(answers) > 1 else found.members)
        for origin, answer in enumerate(answers[1:], 1):
            theirs = origins_of(found.members) == origin
            vectors[theirs] = answer.source.graph.gather(slots_in(found.members, origin)[theirs])

        def trace(row: int, index: int) -> list[int]:
            base = index >> ORIGIN_SHIFT << ORIGIN_SHIFT
            slot = index - base
            return [base + step for step in paths(row, index >> ORIGIN_SHIFT).get(slot, [slot])]

        def paths(row: int, origin: int) -> dict[int, list[int]]:
            if (row, origin) not in traced:
                answer = answers[origin]
                traced[row, origin] = trace_paths(
                    answer.source.graph,
                    answer.seeds[row].tolist(),
                    answer.similarities.detach()[row].tolist(),
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
            origin_names=tuple(answer.source.name for answer in answers),
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


def _together(answers: Sequence[Answer]) -> Found:
    """The answers of the memory and its packs as one."""
    own = answers[0]
    if len(answers) == 1:
        explanation = own.similarities.detach()[:, 0]
        return Found(own.seeds, own.similarities, own.members, own.energies, explanation)
    energies, members = merge_answers(
        [(answer.energies, answer.members) for answer in answers],
        [answer.source.share for answer in answers],
    )
    explanation = torch.stack([answer.similarities.detach()[:, 0] for answer in answers]).amax(dim=0)
    return Found(own.seeds, own.similarities, members, energies, explanation)


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
    strongest = torch.argsort(values.detach(), dim=1, descending=True, stable=True)
    seeds_first = torch.argsort(leads.gather(1, strongest).byte(), dim=1, descending=True, stable=True)
    kept = strongest.gather(1, seeds_first)[:, :width]  # seeds, then the strongest of the others
    values, order = torch.sort(values.gather(1, kept), dim=1, descending=True, stable=True)
    return slots.gather(1, kept).gather(1, order), values
