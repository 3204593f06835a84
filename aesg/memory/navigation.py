"""Navigator: from a query to its context: seeds, priming, spreading, gathering. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from aesg.validation import Validator


class Query(NamedTuple):
    """A checked query in the one shape the ops take."""

    rows: Tensor  # [Q, D] f32 on the CPU, Q = B T, stream-major
    lead: torch.Size  # the shape in front of D as asked: (), (B,) or (B, T)
    streams: slice  # which streams ask
    steps: int  # T, 1 unless [B, T, D]

    def detached(self) -> Query:
        """The same, holding on to no autograd graph."""
        return self._replace(rows=self.rows.detach())


class Found(NamedTuple):
    """What the graph answered to Q queries."""

    seeds: Tensor  # [Q, S] i64 slots, best first, -1 padded; primed ones not among them
    similarities: Tensor  # [Q, S] f32
    members: Tensor  # [Q, K] i64 slots, strongest first, -1 padded
    energies: Tensor  # [Q, K] f32, differentiable in the query

    def detached(self) -> Found:
        """The same, holding on to no autograd graph."""
        return self._replace(similarities=self.similarities.detach(), energies=self.energies.detach())


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


class Navigator:
    """Finds the context of queries in a graph (docs/design.md, "Retrieval")."""

    def __init__(self, graph: SemanticGraph, config: AESGConfig, projection: nn.Module | None = None) -> None:
        self.graph = graph
        self.config = config
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
        found = self.find(query, active_state)
        self.remember(query, found, active_state)
        context = self.context(query, found, query_vector.device)
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

    def find(self, query: Query, streams: BatchActiveContext) -> Found:
        """Seeds, priming and spreading for all rows at once."""
        config = self.config
        similarities, seeds = self.graph.search(query.rows, config.seed_top_k, config.seed_min_similarity)
        strong = similarities >= config.seed_relative_similarity * similarities[:, :1]
        similarities = torch.where(strong, similarities, 0.0)
        seeds = torch.where(strong, seeds, -1)

        starts, energies = seeds, similarities
        if (
            len(query.lead) < 2
        ):  # the steps of one [B, T, D] call run in parallel, so they do not prime each other
            primed, primed_energies = self._primed(streams, query.streams)
            starts = torch.cat([seeds, primed], dim=1)
            energies = torch.cat([similarities, primed_energies], dim=1)
        energies, members = self.graph.spread(
            starts, energies, hops=config.spreading_activation_steps, k=config.context_size
        )
        members, energies = _led_by_seeds(seeds, similarities, members, energies)
        return Found(seeds, similarities, members, energies)

    def remember(self, query: Query, found: Found, streams: BatchActiveContext) -> None:
        """Keeps each stream's primary concepts, to prime its next query."""
        last = slice(query.steps - 1, None, query.steps)
        kept = found.members[last]
        streams.remember(query.streams, kept, found.energies.detach()[last], self.graph.ids(kept))

    def find_again(self, query: Query, seeds: Tensor) -> Found:
        """What `find` answers to queries whose seeds [Q, S] are known, while the graph is as it was."""
        with torch.autocast("cpu", enabled=False):
            units = torch.nn.functional.normalize(query.rows, dim=-1).unsqueeze(-1)  # [Q, D, 1]
            concepts = torch.nn.functional.normalize(self.graph.gather(seeds), dim=-1)  # [Q, S, D]
            similarities = (concepts @ units).squeeze(-1)  # [Q, S], 0 where there is no seed
        config = self.config
        energies, members = self.graph.spread(
            seeds, similarities, hops=config.spreading_activation_steps, k=config.context_size
        )
        members, energies = _led_by_seeds(seeds, similarities, members, energies)
        return Found(seeds, similarities, members, energies)

    def context(self, query: Query, found: Found, device: torch.device) -> RetrievedContext:
        """The answer in the shape of the question, on its device."""
        lead, k = query.lead, found.members.shape[1]
        vectors = self.graph.gather(found.members)
        seeds, energies = found.seeds, found.similarities.detach()

        def trace(row: int, slot: int) -> list[int]:
            return paths(row).get(slot, [slot])

        def paths(row: int) -> dict[int, list[int]]:
            if row not in traced:
                traced[row] = trace_paths(self.graph, seeds[row].tolist(), energies[row].tolist())
            return traced[row]

        traced: dict[int, dict[int, list[int]]] = {}
        return RetrievedContext(
            vectors=vectors.reshape(*lead, k, self.graph.vector_dim).to(device),
            weights=found.energies.reshape(*lead, k).to(device),
            indices=found.members.reshape(*lead, k).to(device),
            explanation=energies[:, 0].reshape(lead).to(device),
            projection=self._projection[0],
            trace=trace,
        )

    def _primed(self, streams: BatchActiveContext, which: slice) -> tuple[Tensor, Tensor]:
        """The streams' last primary concepts [B, 3] that still live, with the share of energy that carries
        over.
        """
        slots = self.graph.still(streams.primary[which], streams.primary_ids[which])
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
    strongest = torch.argsort(values.detach(), dim=1, descending=True, stable=True)
    seeds_first = torch.argsort(leads.gather(1, strongest).byte(), dim=1, descending=True, stable=True)
    kept = strongest.gather(1, seeds_first)[:, :width]  # seeds, then the strongest of the others
    values, order = torch.sort(values.gather(1, kept), dim=1, descending=True, stable=True)
    return slots.gather(1, kept).gather(1, order), values
