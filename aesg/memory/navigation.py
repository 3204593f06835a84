"""Navigator: from a query to its context: seeds, priming, spreading, gathering. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from aesg.config import AESGConfig
from aesg.exceptions import AESGNavigationError
from aesg.graph.core import SemanticGraph
from aesg.memory.calls import NOTHING, Answer, Found, Query, Source
from aesg.memory.context import RetrievedContext
from aesg.memory.device_streams import DeviceStreams
from aesg.memory.state import BatchActiveContext
from aesg.memory.trace import trace_paths
from aesg.ops import Activated, replay_energies
from aesg.packs.graph import PackGraph
from aesg.packs.manager import Answering
from aesg.packs.ranking import ORIGIN_SHIFT, merge_answers
from aesg.validation import Validator

HOST = torch.device("cpu")
ONLY_OWN = ("memory",)
MOST_STREAMS = 1 << 20  # each costs 76 bytes, and so do all before it


class Navigator:
    """Finds the context of queries in a graph (docs/design.md, "Retrieval")."""

    def __init__(
        self,
        graph: SemanticGraph,
        config: AESGConfig,
        projection: nn.Linear | None = None,
        packs: Callable[[], list[Answering]] = list,
    ) -> None:
        self.graph = graph
        self.config = config
        self.own = Source(graph, "memory", 1.0, "")
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

    def check(
        self, query: Tensor, streams: BatchActiveContext, batch_idx: int, device: torch.device = HOST
    ) -> Query:
        """The query as rows [Q, D] with the streams that ask, on the device that is asked."""
        dim = self.graph.vector_dim
        if not isinstance(query, Tensor) or not query.is_floating_point():
            given = query.dtype if isinstance(query, Tensor) else type(query).__name__
            raise AESGNavigationError(f"Query: expected a floating point tensor, got {given}")
        if query.layout != torch.strided:
            raise AESGNavigationError(f"Query: expected a dense tensor, got one of layout {query.layout}")
        if query.dim() not in (1, 2, 3):
            raise AESGNavigationError(
                f"Query: expected shape [{dim}], [B, {dim}] or [B, T, {dim}], got {list(query.shape)}"
            )
        Validator.validate_vector_dim_match(dim, query.shape[-1])
        if query.numel() == 0:
            raise AESGNavigationError(f"Query: expected at least one vector, got shape {list(query.shape)}")
        if not isinstance(batch_idx, int) or isinstance(batch_idx, bool) or not 0 <= batch_idx < MOST_STREAMS:
            raise AESGNavigationError(
                f"batch_idx: expected an integer in 0..{MOST_STREAMS - 1}, got {batch_idx}"
            )
        lead = query.shape[:-1]
        first, count = (batch_idx, 1) if query.dim() == 1 else (0, lead[0])
        rows = query if len(lead) == 1 else query.reshape(-1, dim)
        return Query(
            rows=rows.to(device, torch.float32),
            lead=lead,
            streams=streams.streams(first, count),
            steps=lead[1] if len(lead) == 2 else 1,
        )

    def find(
        self,
        query: Query,
        streams: BatchActiveContext,
        there: DeviceStreams | None = None,
        *,
        traced: bool = False,
    ) -> tuple[Found, list[Answer]]:
        """Seeds, priming and spreading for all rows at once, on the host, or primed by `there` on its device.

        Returns what was found, and each graph's own answer, the memory's first. Packs add to what the memory
        answers by itself and never change that. traced: keeps what `replay` needs for gradients.
        """
        packs = [
            Source(
                PackGraph(pack, self.config, self.graph.state.queries), name, share, f"{name}:{pack.checksum}"
            )
            for name, pack, share in self._packs()
        ]
        wanted = torch.is_grad_enabled() and query.rows.requires_grad
        own = self._ask(self.own, query, there or streams, traced=traced or wanted, gather=not packs)
        answers = [own]
        if packs or streams.has_packs:
            of_packs = streams.of_packs([pack.key for pack in packs])
            # A pack's chance likenesses must not crowd what the memory knows well: its bar is at least that.
            bar = own.found.similarities[:, 0]
            for pack, theirs in zip(packs, of_packs, strict=True):
                answers.append(self._ask(pack, query, theirs, bar, traced=traced or wanted, gather=False))
        if wanted:
            answers = [self._with_gradient(query, answer.source, answer.found) for answer in answers]
        return _together(answers), answers

    def replay(self, query: Query, known: Sequence[tuple[Source, Activated]]) -> tuple[Found, list[Answer]]:
        """What `find` answered to these queries, or to ones that equal them up to rounding, with gradients.

        known: traced answers of each graph. Nothing is searched; vectors that were not kept are those the
        concepts have now.
        """
        answers = []
        for source, found in known:
            if found.vectors is NOTHING:
                found = found._replace(
                    vectors=source.graph.gather(found.members) if len(known) == 1 else NOTHING,
                    seed_vectors=source.graph.gather(found.seeds),
                )
            answers.append(self._with_gradient(query, source, found))
        return _together(answers), answers

    def remember(self, query: Query, answers: Sequence[Answer], streams: BatchActiveContext) -> None:
        """Keeps each stream's primary concepts in every graph, to prime its next query there.

        In the memory those of its own answer, whatever packs added to it.
        """
        of_packs = streams.of_packs([answer.source.key for answer in answers[1:]])
        for answer, theirs in zip(answers, (streams, *of_packs), strict=True):
            theirs.remember(
                query.streams, query.steps, answer.members, answer.energies, answer.source.graph.store
            )

    def _ask(
        self,
        source: Source,
        query: Query,
        streams: BatchActiveContext | DeviceStreams,
        bar: Tensor | None = None,
        *,
        traced: bool,
        gather: bool,
    ) -> Answer:
        """One graph's answer; `streams` are those of that graph. `bar` [Q]: the best elsewhere."""
        config, graph = self.config, source.graph
        similarities, seeds = graph.seek(query.bare, config.seed_top_k, config.seed_min_similarity)
        primed = None
        if (
            len(query.lead) < 2
        ):  # the steps of one [B, T, D] call run in parallel: they do not prime each other
            primed = streams.primed(query.streams, config.priming)
        found = graph.activate(similarities, seeds, bar=bar, primed=primed, gather=gather, jacobian=traced)
        return Answer(source, found, found.energies)

    def _with_gradient(self, query: Query, source: Source, found: Activated) -> Answer:
        if not (torch.is_grad_enabled() and query.rows.requires_grad):
            return Answer(source, found, found.energies)
        compared = found._replace(seed_vectors=source.graph.without(found.seed_vectors))
        return Answer(source, found, replay_energies(source.graph.without(query.rows), compared))

    def context(
        self, query: Query, found: Found, answers: Sequence[Answer], device: torch.device
    ) -> RetrievedContext:
        """The answer in the shape of the question, on its device."""
        lead, k = query.lead, found.members.shape[1]
        if len(answers) == 1:
            vectors = answers[0].found.vectors
        else:
            vectors = torch.empty(
                *found.members.shape, self.graph.vector_dim, dtype=torch.float32, device=HOST
            )
            for origin, answer in enumerate(answers):
                answer.source.graph.gather_members(found.members, origin, vectors)
        energies, members, explanation = found.energies, found.members, found.explanation
        if len(lead) != 1:
            vectors, energies = vectors.view(*lead, k, vectors.shape[-1]), energies.view(*lead, k)
            members, explanation = members.view(*lead, k), explanation.view(lead)
        if vectors.device != device:
            vectors, energies = vectors.to(device), energies.to(device)
            members, explanation = members.to(device), explanation.to(device)
        names = ONLY_OWN if len(answers) == 1 else tuple(answer.source.name for answer in answers)
        return RetrievedContext(
            vectors, energies, members, explanation, self._projection[0], Traces(answers), names
        )


class Traces:
    """How energy came to a member: called with the row of a query and the member's index."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers
        self._known: dict[tuple[int, int], dict[int, list[int]]] = {}  # of a row and an origin

    def __copy__(self) -> Traces:
        """Of the same answers, with nothing looked up yet."""
        return Traces(self._answers)

    def __call__(self, row: int, index: int) -> list[int]:
        base = index >> ORIGIN_SHIFT << ORIGIN_SHIFT
        slot = index - base
        return [base + step for step in self._paths(row, index >> ORIGIN_SHIFT).get(slot, [slot])]

    def _paths(self, row: int, origin: int) -> dict[int, list[int]]:
        if (row, origin) not in self._known:
            answer = self._answers[origin]
            seeds, similarities = answer.found.seeds[row].tolist(), answer.found.similarities[row].tolist()
            self._known[row, origin] = trace_paths(answer.source.graph, seeds, similarities)
        return self._known[row, origin]


def _together(answers: Sequence[Answer]) -> Found:
    """The answers of the memory and its packs as one."""
    own = answers[0].found
    if len(answers) == 1:
        explanation = own.similarities.select(1, 0)
        return Found(own.seeds, own.similarities, own.members, answers[0].energies, explanation)
    energies, members = merge_answers(
        [(answer.energies, answer.members) for answer in answers],
        [answer.source.share for answer in answers],
    )
    explanation = own.similarities.select(1, 0)
    for answer in answers[1:]:
        explanation = torch.maximum(explanation, answer.found.similarities.select(1, 0))
    return Found(own.seeds, own.similarities, members, energies, explanation)
