"""AskMethods: how AESGMemory answers, and what it learns from being asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.graph.cognitive_engine import CognitiveEngine
from aesg.graph.core import SemanticGraph
from aesg.graph.device_learning import Seen
from aesg.memory import compiled
from aesg.memory.calls import Answer, Call, Found, Pending, Query, Source, joined_answers
from aesg.memory.captured import CapturedRetrieve
from aesg.memory.context import RetrievedContext
from aesg.memory.learning import Learner
from aesg.memory.modes import ModeSwitch
from aesg.memory.navigation import HOST, Navigator, Traces
from aesg.memory.replays import Replays, recomputing, watched
from aesg.ops import Activated
from aesg.packs.manager import PackManager


class AskMethods:
    """A part of AESGMemory, in a file of its own for its length."""

    config: AESGConfig
    graph: SemanticGraph
    cognitive_engine: CognitiveEngine
    pack_manager: PackManager
    navigator: Navigator
    abstraction_projection: nn.Linear
    number: int  # see `aesg.memory.compiled`
    clock: Tensor
    training: bool
    _permissions: ModeSwitch
    _pending: Pending | None
    _replays: Replays
    _learner: Learner

    @property
    def vector_dim(self) -> int:
        raise NotImplementedError

    def _require_open(self, what: str) -> None:
        raise NotImplementedError

    def forward(self, query: Tensor) -> RetrievedContext:
        """Same as `retrieve(query)`."""
        return self.retrieve(query)

    def retrieve(self, query: Tensor, batch_idx: int = 0, *, learn: bool = True) -> RetrievedContext:
        """The context of every query: [D], [B, D], or [B, T, D] for T steps of B streams asked at once.

        Each row is its own query: what one retrieves never depends on another. Row b belongs to stream b
        (`batch_idx` for a single query). In modes that learn, novel queries wait in the pool or are born, use
        and succession are noted; what is born is seen from the next call on.

        Inside a gradient checkpoint the second pass is answered as the first was, and counts and learns
        nothing. Under torch.compile it is one op of the graph; while packs are attached the graph breaks
        here instead. learn=False: nothing is learnt, as in INFERENCE.

        Raises AESGNavigationError for an empty, non-finite or wrongly ranked query and AESGMemoryError for
        another vector_dim, before anything changed; what a device answers is only found out to be non-finite
        when it is learnt from, see `AESGMemory`. O(Q N D) for the search, then by edges touched.
        """
        if not torch.compiler.is_compiling():
            return self._retrieve(query, batch_idx, learn)
        if self.pack_manager.in_use:
            return self._retrieve_outside(query, batch_idx, learn)
        return compiled.retrieve(self, query, batch_idx, learn)

    @torch.compiler.disable
    def _retrieve_outside(self, query: Tensor, batch_idx: int, learn: bool) -> RetrievedContext:
        """`_retrieve` behind a break of the graph."""
        return self._retrieve(query, batch_idx, learn)

    def _retrieve(self, query: Tensor, batch_idx: int, learn: bool) -> RetrievedContext:
        self._require_open("retrieve")
        started = time.perf_counter()
        if self._pending is not None and type(query) is Tensor:
            context = self._retrieve_step(self._pending, query, learn, started)
            if context is not None:
                return context
        checked = self.navigator.check(query, self._learner.streams, batch_idx, self.asked_on)
        found, answers = self._find(checked, started, learn)
        return self.navigator.context(checked, found, answers, query.device)

    @property
    def asked_on(self) -> torch.device:
        """Where queries are answered: on the device with a copy of the graph, unless packs, which have none,
        take part.
        """
        copied = self.graph.copied
        return HOST if copied is None or self.pack_manager.in_use else copied.device

    def _retrieve_step(
        self, pending: Pending, query: Tensor, learn: bool, started: float
    ) -> RetrievedContext | None:
        """One step [B, 1, D] within a `one_call`, where nothing out of the ordinary is asked for: answered as
        by `_find`, with less around it: the forward pass of an AESG_GRU of 32 steps takes 0.89 of the time,
        its training step 0.96. None where it is not as simple.
        """
        grad, shape = torch.is_grad_enabled(), query.shape
        plain = query.dtype == torch.float32 and query.device.type == "cpu" and query.layout == torch.strided
        if not plain or len(shape) != 3 or shape[1] != 1 or shape[2] != self.vector_dim or shape[0] == 0:
            return None
        changes = self._permissions().learns
        if (
            (grad and query.requires_grad)
            or self.pack_manager.in_use
            or self._learner.streams.has_packs
            or recomputing()
            or watched()
            or (changes and self.training and not pending.traced and not grad)  # see `_find`
        ):
            return None
        rows = query.squeeze(1) if not query.requires_grad else query.detach().squeeze(1)
        found = None if pending.asker is None else pending.asker(rows)
        if found is None:
            pending.asker = self.graph.asker(pending.traced)
            found = None if pending.asker is None else pending.asker(rows)
            if found is None:
                return None
        own = Answer(self.navigator.own, found, found.energies).kept(whole=pending.traced)
        explanation = found.similarities.select(1, 0)
        together = Found(found.seeds, found.similarities, found.members, found.energies, explanation)
        # A copy: who asked may write over what was asked with.
        asked = Query(rows.clone(), query.shape[:2], self._learner.streams.streams(0, shape[0]), 1)
        call = Call(asked, together, [own], learn and changes)
        pending.calls.append(call)
        pending.unnoted.append(call)
        pending.seconds += time.perf_counter() - started
        return RetrievedContext(
            found.vectors.unsqueeze(1),
            found.energies.unsqueeze(1),
            found.members.unsqueeze(1),
            explanation.unsqueeze(1),
            self.abstraction_projection,
            Traces([Answer(own.source, found, found.energies)]),
        )

    def _find(
        self, query: Query, started: float, learn: bool, traced: bool = False
    ) -> tuple[Found, list[Answer]]:
        """The answers, and everything that asking changes. traced: gradients will be asked for later."""
        pending, again = self._pending, recomputing()
        changes = self._permissions().learns and not again
        learns = learn and changes
        known = self._replays.find(query) if again else None
        if known is not None:
            found, answers = self.navigator.replay(query, known)
        else:
            once_more = pending is not None and pending.traced
            # A reentrant checkpoint shows by nothing but a model that trains without gradients.
            learner = self._learner
            second_pass = (
                not again
                and (
                    watched()
                    or (
                        changes
                        and self.training
                        and not traced
                        and not once_more
                        and not torch.is_grad_enabled()
                    )
                )
                and not learner.leaves_no_trace(query)
            )
            there = learner.ready_for(query, learns)
            found, answers = self.navigator.find(
                query, learner.streams, there, traced=traced or once_more or second_pass
            )
            if second_pass:
                self._replays.note(query, answers)
        if pending is not None:
            # What may be asked for again is kept whole: copying it costs less than gathering it again.
            kept = [answer.kept(whole=pending.traced) for answer in answers]
            seconds = time.perf_counter() - started
            call = Call(query.kept(), found.detached(), kept, learns, seconds, self._learner.failures_before)
            pending.calls.append(call)
            if query.on_host and not again:
                pending.unnoted.append(call)
                pending.seconds += seconds
        elif not again:
            call = Call(
                query, found, answers, learns, time.perf_counter() - started, self._learner.failures_before
            )
            if query.on_host:
                self._learner.take_in_one(call)
            else:
                self._learner.await_calls([call])
        return found, answers

    # -- CUDA graphs ---------------------------------------------------------------------------------------

    def capture(self, like: Tensor, batch_idx: int = 0, *, learn: bool = False) -> CapturedRetrieve:
        """`retrieve(query, batch_idx, learn=learn)` for queries of the shape of `like`, as one CUDA graph.

        Raises AESGMemoryError for a memory that is not asked on a CUDA device. See `CapturedRetrieve`.
        """
        return CapturedRetrieve(self, like, batch_idx, learn)

    def made_ready(self, query: Tensor, batch_idx: int, learn: bool = False) -> tuple[object, ...]:
        """Brings the device up to date for a query there; returns what changes when captured work on it no
        longer fits.

        Raises AESGMemoryError for a memory that is asked on the host, or by now is, and for one that cannot
        learn on its device where it should.
        """
        self._require_open("retrieve")
        copied = self.graph.copied
        checked = self.navigator.check(query, self._learner.streams, batch_idx, self.asked_on)
        there = self._learner.ready_for(checked, learns=learn)
        if copied is None or there is None:
            raise AESGMemoryError(
                "capture: expected a memory that is asked on a CUDA device, got one asked on the host: it "
                "was moved, or has packs"
            )
        ready = self._learner.get_ready_to_learn(checked) if learn else ()
        return (*copied.layout(self.graph.state.bare_queries), *there.layout, *ready)

    @property
    def learns(self) -> bool:
        """Whether the mode lets anything be learnt."""
        return self._permissions().learns

    @contextmanager
    def capturing(self) -> Iterator[Callable[[], tuple[Call, Seen]]]:
        """Inside, what goes into a CUDA graph may learn. Gives what tells of the last such call."""

        def last() -> tuple[Call, Seen]:
            assert self._learner.captured is not None
            return self._learner.captured

        with self._learner.capturing():
            yield last

    def replay(self, graph: Callable[[], None], call: Call, seen: Seen) -> None:
        """Replays such a call: the host is going to learn what the device learns."""
        self._learner.replay(graph, call, seen)

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """Inside, what a device answers is not counted, remembered or learnt from."""
        with self._learner.rehearsing():
            yield

    @contextmanager
    def one_call(self, traced: bool = True) -> Iterator[None]:
        """Inside, `retrieve` answers from the graph as it is; what it learns is learnt on leaving.

        For models that ask step by step: no sample sees within a forward pass what another gave birth to, and
        the steps are learnt from in bulk. Inside another `one_call` it does nothing of its own. After an
        exception nothing is learnt or counted. traced: `retrieve_again` may be called; without, steps are
        cheaper.
        """
        self.begin_call(traced)
        try:
            yield
        except BaseException:
            if self._pending is not None and self._pending.depth == 0:
                self._pending.calls.clear()
                self._pending.unnoted.clear()
            raise
        finally:
            self.end_call()

    def begin_call(self, traced: bool = True) -> None:
        """Enters `one_call`; every `begin_call` needs its `end_call`."""
        if self._pending is None:
            self._pending = Pending(traced)
        else:
            self._pending.depth += 1
            self._pending.traced |= traced
            self._pending.asker = None

    def end_call(self) -> None:
        """Leaves `one_call`."""
        pending = self._pending
        assert pending is not None
        if pending.depth > 0:
            pending.depth -= 1
            return
        self._pending = None
        calls = pending.calls
        if pending.unnoted:
            rows = np.concatenate([call.query.rows.numpy() for call in pending.unnoted])
            explained = np.concatenate([call.found.explanation.numpy() for call in pending.unnoted])
            self._learner.work.note(torch.from_numpy(rows), torch.from_numpy(explained), pending.seconds)
        if not calls or recomputing():  # of a second pass nothing is learnt
            return
        errors: list[Exception] = []
        for on_host, together in groupby(calls, key=lambda call: call.query.on_host):
            if on_host:
                errors += self.graph.state.settled_through()  # what was asked elsewhere before
                self._learner.take_in(list(together))
            else:
                self._learner.await_calls(list(together))
        if errors:
            raise errors[0]

    def retrieve_again(self, query: Tensor) -> RetrievedContext:
        """The answers to the last T calls of one step each in this `one_call`, as one answer to their queries
        [B, T, D].

        With it a model that had to ask step by step can do everything else for all steps at once, gradients
        included. Nothing is searched, noted or counted. O(B T S D).
        """
        if not torch.compiler.is_compiling():
            return self._retrieve_again(query)
        if self.pack_manager.in_use:
            return self._retrieve_again_outside(query)
        return compiled.retrieve(self, query, 0, again=True)

    @torch.compiler.disable
    def _retrieve_again_outside(self, query: Tensor) -> RetrievedContext:
        return self._retrieve_again(query)

    def _retrieve_again(self, query: Tensor) -> RetrievedContext:
        checked = self.navigator.check(query, self._learner.streams, 0, self.asked_on)
        found, answers = self.navigator.replay(checked, self._last_steps(checked))
        return self.navigator.context(checked, found, answers, query.device)

    def _last_steps(self, query: Query) -> list[tuple[Source, Activated]]:
        """What each graph answered to the last calls of this `one_call`, one for each step of the query."""
        calls = ([] if self._pending is None else self._pending.calls)[-query.steps :]
        fits = len(calls) == query.steps and all(
            call.query.steps == 1
            and call.query.streams == query.streams
            and call.query.rows.shape[0] * query.steps == query.rows.shape[0]
            for call in calls
        )
        if not fits:
            raise AESGMemoryError(
                "retrieve_again: expected the queries of the last calls in one_call, "
                f"got {[*query.lead, self.vector_dim]}"
            )
        if not all(len(answer.found.jacobian) for call in calls for answer in call.answers):
            raise AESGMemoryError("retrieve_again: expected calls in one_call(traced=True), got others")
        return joined_answers([call.answers for call in calls])

    # For `aesg.memory.compiled`: the same on rows [Q, D] that were checked when the model was traced.

    def answer(
        self, rows: Tensor, lead: torch.Size, batch_idx: int, *, learn: bool, traced: bool
    ) -> Activated:
        """`retrieve` to rows of any number of leading dimensions."""
        self._require_open("retrieve")
        started = time.perf_counter()
        query = self.navigator.check(
            rows.reshape(*lead, rows.shape[1]), self._learner.streams, batch_idx, self.asked_on
        )
        found = self._find(query, started, learn, traced)[1][0].found
        if traced:
            return found
        return found._replace(jacobian=found.jacobian[:0], seed_vectors=found.seed_vectors[:0])

    def common_part(self, device: torch.device) -> Tensor:
        """The direction [D] f64 that likeness leaves out, or zeros, on the device that is asked."""
        health, copied = self.graph.state.bare_queries, self.graph.copied
        if health.common is None:
            return torch.zeros(self.vector_dim, dtype=torch.float64, device=device)
        if copied is None or copied.device != device:
            return health.common
        return copied.common_of(health)

    def answer_again(self, rows: Tensor, lead: torch.Size) -> Activated:
        """`retrieve_again` to rows."""
        query = self.navigator.check(
            rows.reshape(*lead, rows.shape[1]), self._learner.streams, 0, self.asked_on
        )
        return self.navigator.replay(query, self._last_steps(query))[1][0].found
