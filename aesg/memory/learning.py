"""Learner: what answering changes: streams, statistics, and, where the mode learns, the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.graph.cognitive_engine import CognitiveEngine
from aesg.graph.core import SemanticGraph
from aesg.graph.use_log import Use
from aesg.memory.calls import Answer, Call, Found, Query, joined_steps
from aesg.memory.device_streams import DeviceStreams
from aesg.memory.navigation import Navigator
from aesg.memory.state import BatchActiveContext
from aesg.memory.taking_over import PARTS, outline, parts_of, taken_over
from aesg.memory.work import Work
from aesg.ops import seed_search


class Learner:
    """Takes in the calls of one memory, in order. What a device answered it takes in when somebody needs to
    know (`aesg.graph.awaited`), from copies on their way meanwhile; nothing waits for the device until then.

    Does not hold the memory: what is awaited must not keep that alive.
    """

    def __init__(
        self, graph: SemanticGraph, config: AESGConfig, engine: CognitiveEngine, navigator: Navigator
    ) -> None:
        self.graph = graph
        self.config = config
        self.streams = BatchActiveContext()
        self.there: DeviceStreams | None = None  # the same on the device that answers
        self.work = Work(graph.vector_dim)
        self._rehearsing = False
        self._engine = engine
        self._navigator = navigator

    # -- calls answered on the host ------------------------------------------------------------------------

    def take_in(self, calls: Sequence[Call]) -> None:
        """What the next answers depend on, of one call or of those of a `one_call`: the last is remembered,
        and what they taught is learnt at once.
        """
        self.remember(calls[-1].query, calls[-1].answers)
        for query, found in joined_steps([(call.query, call.found) for call in calls if call.learns]):
            self.learn(query, found)

    def take_in_one(self, call: Call) -> None:
        """`take_in` and `note` of one call, with less around it."""
        self.remember(call.query, call.answers)
        if call.learns:
            self.learn(call.query, call.found)
        self.note(call)

    def remember(self, query: Query, answers: Sequence[Answer]) -> None:
        """Keeps what the streams are now about."""
        self._navigator.remember(query, answers, self.streams)

    def note(self, call: Call) -> None:
        """Counts a call among the work."""
        self.work.note(call.query.bare, call.found.explanation, call.seconds)

    @torch.no_grad()
    def learn(self, query: Query, found: Found) -> None:
        """Notes use and succession, and offers what nothing explained to the novelty pool."""
        # As arrays: on a few numbers an operation of torch's costs ten of numpy's.
        threshold, state, streams = self.config.novelty_explanation_threshold, self.graph.state, query.streams
        rows, seeds = query.bare, found.seeds.numpy()
        if state.queries.note(rows.numpy()):
            state.touch()
        novel = found.explanation.numpy() < threshold
        own = found.similarities.numpy()[:, 0] >= threshold  # succession is between the memory's own concepts
        meant = np.where(own, seeds[:, 0], -1)  # [Q]
        if novel.any():
            new = torch.from_numpy(rows.numpy()[novel])
            meant[novel] = self._born_of(new, self._engine.bear_novel(new), threshold)
        current = meant.reshape(-1, query.steps)  # [B, T]
        last_seed, last_id = self.streams.last_seed.numpy(), self.streams.last_id.numpy()
        previous = np.empty_like(current)
        previous[:, 0] = self.graph.still(last_seed[streams], last_id[streams])
        previous[:, 1:] = current[:, :-1]
        last_seed[streams] = current[:, -1]
        last_id[streams] = self.graph.identities(current[:, -1])
        members, energies = found.own_members.numpy(), found.energies.detach().numpy()
        self._engine.note_retrieval(Use(members, energies, seeds, previous.reshape(-1), meant))

    def _born_of(self, rows: Tensor, born: np.ndarray, threshold: float) -> np.ndarray:
        """The newborn (slots [m]) that each novel input [n, D] means, i64 [n]; -1 for none as like as
        `threshold`. So what is told once is linked to what it was told with.
        """
        if len(born) == 0:
            return np.full(len(rows), -1)
        # A search, not a product: its sums have an order, so that a device has the same bits.
        vectors = self.graph.without(self.graph.gather(torch.from_numpy(born)))
        _, nearest = seed_search(self.graph.without(rows), vectors, 1, min_score=threshold)
        found = nearest[:, 0].numpy()
        return np.where(found >= 0, born[found], -1)

    # -- calls answered on a device ------------------------------------------------------------------------

    def ready_for(self, query: Query, learns: bool) -> DeviceStreams | None:
        """What primes a query on its device, None on the host. Settles what its answer depends on and only
        the host can learn.

        Raises AESGMemoryError for what no CUDA graph can do, while one is being captured.
        """
        state, there, device = self.graph.state, self.there, query.rows.device
        if query.on_host:
            state.settle()
            return None
        if is_captured(query.rows):
            self._require_capturable(learns)
        if there is None or there.device != device:
            there = self.there = DeviceStreams(device)
        assert state.awaited is not None  # there is a copy on the device
        if state.awaited and (state.awaited.changes_graph or not there.knows(self.streams)):
            state.settle()
        assert self.graph.copied is not None
        self.graph.copied.refresh()  # orders this stream behind the one on which was last asked
        there.follow(self.streams)
        return there

    def await_calls(self, calls: Sequence[Call]) -> None:
        """`take_in`, and `note` of each, when these have come to the host. The device remembers at once."""
        copied, there, last = self.graph.copied, self.there, calls[-1]
        assert there is not None
        query, found = last.query, last.found
        outlines = [outline(call) for call in calls]

        def take(copies: list[Tensor]) -> None:
            each = zip(*[iter(copies)] * PARTS, strict=True)
            try:
                arrived = [taken_over(call, parts) for call, parts in zip(outlines, each, strict=True)]
                self.take_in(arrived)
            except BaseException:
                there.forget()  # it remembers what the host does not
                raise
            there.took_in(self.streams)
            for call in arrived:
                self.note(call)

        awaited = self.graph.state.awaited
        assert awaited is not None
        try:
            if not self.leaves_no_trace(query):
                awaited.send(
                    [part for call in calls for part in parts_of(call)],
                    take,
                    changes_graph=any(call.learns for call in calls),
                )
            if copied is None or copied.device != query.rows.device:  # moved meanwhile
                there.forget()
            else:
                there.remember(query.streams, query.steps, found.members, found.energies, copied.id)
        except BaseException:
            there.forget()  # one of both may know what the other does not
            raise

    def leaves_no_trace(self, query: Query) -> bool:
        """Whether the host hears nothing of this call: it is rehearsed, or goes into a CUDA graph, and what
        is replayed never comes here.
        """
        return not query.on_host and (self._rehearsing or is_captured(query.rows))

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """Inside, calls on a device leave no trace."""
        assert self.there is not None
        self._rehearsing = True
        try:
            with self.there.as_they_are():
                yield
        finally:
            self._rehearsing = False

    def _require_capturable(self, learns: bool) -> None:
        if learns:
            raise AESGMemoryError(
                "retrieve: a captured CUDA graph cannot learn when it is replayed: expected learn=False or "
                "mode INFERENCE, got learn=True in a mode that learns"
            )
        copied, awaited, there = self.graph.copied, self.graph.state.awaited, self.there
        assert copied is not None and awaited is not None
        if copied.streamed is not None:
            raise AESGMemoryError(
                "retrieve: expected residency='device' for a CUDA graph, got 'host', where the host waits"
            )
        known = there is not None and there.knows(self.streams) and copied.is_current
        if awaited.changes_graph or not known:
            raise AESGMemoryError(
                "retrieve: the memory or its streams changed since the device was last asked, and a CUDA "
                "graph under capture brings nothing there: expected a retrieve(query, learn=False) right "
                "before the capture; AESGMemory.capture() sees to it"
            )


def is_captured(rows: Tensor) -> bool:
    """Whether work on these goes into a CUDA graph."""
    return rows.is_cuda and torch.cuda.is_current_stream_capturing()
