"""Learner: what answering changes: streams, statistics, and, where the mode learns, the graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.graph.cognitive_engine import CognitiveEngine
from aesg.graph.core import SemanticGraph
from aesg.graph.device_learning import DeviceLearning, Seen, tell_of_failure
from aesg.graph.use_log import LearningRates, Use
from aesg.memory.calls import Answer, Call, Found, Query, joined_steps
from aesg.memory.device_streams import DeviceStreams
from aesg.memory.navigation import Navigator
from aesg.memory.state import BatchActiveContext
from aesg.memory.taking_over import each_call, outline, parts_of, require_finite, taken_over
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
        self.use_streams(BatchActiveContext())
        self.there: DeviceStreams | None = None  # the same on the device that answers
        self.work = Work(graph.vector_dim)
        self.failures_before = 0  # the device was last asked: `Awaited.failures` of then
        self.captured: tuple[Call, Seen] | None = None  # what went last into a CUDA graph and learns
        self._rehearsing = False
        self._capturing = False
        self._engine = engine
        self._navigator = navigator

    def use_streams(self, streams: BatchActiveContext) -> None:
        """These from now on. Who keeps them changes them behind what was asked before."""
        settle = weakref.WeakMethod(self.graph.state.settle)
        self.streams = streams
        streams.before_use = lambda: (hook := settle()) and hook()

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
        awaited, copied = state.awaited, self.graph.copied
        assert awaited is not None and copied is not None
        if not is_captured(query.rows):
            awaited.make_room()
        self.failures_before = awaited.failures  # before anything else: a collection may settle at any time
        learning = copied.learning
        ahead = learning is not None and learning.in_step
        # With the first call in a mode that learns, whether this one does: the next will not have to wait.
        begins = (
            self._engine.permissions().learns and learning is not None and learning.possible and not ahead
        )
        if awaited and ((awaited.changes_graph and not ahead) or begins or not there.knows(self.streams)):
            state.settle()
        copied.refresh()
        there.follow(self.streams)
        if begins:
            assert learning is not None
            with learning.lost_where_it_fails():
                learning.take_over()
        return there

    def await_calls(self, calls: Sequence[Call]) -> None:
        """`take_in`, and `note` of each, when these have come to the host. The device remembers at once, and
        learns at once what it can.
        """
        copied, there, last = self.graph.copied, self.there, calls[-1]
        assert there is not None
        query, found = last.query, last.found
        learning = self._learning_of(calls)
        ahead = learning is not None and learning.in_step
        here = copied is not None and copied.device == query.rows.device  # not moved meanwhile
        no_trace = self.leaves_no_trace(query)
        with self._both_or_none(learning):
            if copied is not None and here:
                copied.join_streams()  # a `one_call` may end on another than it was asked on
            if ahead and learning is not None and not no_trace:
                rows = sum(len(call.query.rows) for call in calls if call.learns)
                with learning.lost_where_it_fails():
                    learning.begin_call(rows, self.config)
                    there.know_last(self.streams, learning.epoch)  # before this call is among them
                ahead = not learning.lost
            sent = None if no_trace else self._send(calls, learning, ahead)
            # Moved, or changed on the host, meanwhile: which concepts the slots hold the host alone knows.
            if copied is None or not here or not (ahead or copied.is_current):
                there.forget()
                return
            with self._both_or_none(learning, known_to_host=sent is not None):
                there.remember(query.streams, query.steps, found.members, found.energies, copied.id)
                if not ahead or learning is None:
                    return
                if sent is None:
                    self.captured = calls[0], next(self._taught(calls, learning, there))
                    return
                # One after the other: noting may write into the graph, where the next are born.
                for seen in self._taught(sent(), learning, there):
                    self._note_there(seen, learning)

    @contextmanager
    def _both_or_none(self, learning: DeviceLearning | None, known_to_host: bool = False) -> Iterator[None]:
        """What fails inside the device forgets: one of both may know what the other does not. known_to_host:
        that will learn it in any case, so nothing is raised.
        """
        there = self.there
        assert there is not None
        try:
            yield
        except BaseException as error:
            there.forget()
            if learning is not None:
                learning.lose()
            if not known_to_host or not isinstance(error, Exception):
                raise
            tell_of_failure(error)

    def replay(self, graph: Callable[[], None], call: Call, seen: Seen) -> None:
        """Has a CUDA graph answer, remember and learn as `call` once more, which writes over what that found;
        the rest is as in `await_calls`.
        """
        learning = self._learning_of([call])
        assert learning is not None
        with self._both_or_none(learning):
            graph()
            learning.begin_call(len(call.query.rows), self.config)
            sent = self._send([call._replace(failures_before=self.failures_before)], learning, ahead=True)
            with self._both_or_none(learning, known_to_host=True):
                found = sent()[0].found
                kept = Seen(found.members, found.energies, seen.previous.clone(), seen.current.clone())
                self._note_there(kept, learning)

    def _learning_of(self, calls: Sequence[Call]) -> DeviceLearning | None:
        """What learns from these calls on their device."""
        copied = self.graph.copied
        if copied is None or copied.device != calls[-1].query.rows.device:  # moved meanwhile
            return None
        return copied.learning if any(call.learns for call in calls) else None

    def _send(
        self, calls: Sequence[Call], learning: DeviceLearning | None, ahead: bool
    ) -> Callable[[], list[Call]]:
        """Sends to the host what it has to know of these calls; returns what gives them with copies on their
        device, for what learns there. ahead: `learning` does them, too.
        """
        state, copied, there = self.graph.state, self.graph.copied, self.there
        assert state.awaited is not None and there is not None
        outlines, asked = [outline(call) for call in calls], state.clock()

        def lost() -> None:
            there.forget()  # it remembers what the host does not
            if learning is not None:
                learning.lose()

        def take(copies: list[Tensor], behind_failure: bool) -> None:
            if behind_failure:
                lost()
            held = learning is not None and copied is not None and learning.before_taking_in(ahead)
            for parts in each_call(copies):
                require_finite(parts)
            arrived = [
                taken_over(call, parts) for call, parts in zip(outlines, each_call(copies), strict=True)
            ]
            with state.time.as_of(asked):
                if behind_failure:
                    arrived = [self._asked_again(call) for call in arrived]
                self.take_in(arrived)
            if held:
                assert learning is not None
                learning.took_in()
            there.took_in(self.streams)
            for call in arrived:
                self.note(call)

        there_too = state.awaited.send(
            [part for call in calls for part in parts_of(call)],
            take,
            changes_graph=any(call.learns for call in calls),
            lost=lost,
            failures_before=calls[0].failures_before,
        )
        return lambda: [
            taken_over(call, parts) for call, parts in zip(calls, each_call(there_too()), strict=True)
        ]

    @torch.no_grad()
    def _asked_again(self, call: Call) -> Call:
        """The call as the host answers it now. What the device answered is of a graph, and of streams, that
        learnt from a call that the host then could not: its slots may hold other concepts here, or none.
        """
        found, answers = self._navigator.find(call.query, self.streams)
        return call._replace(found=found, answers=answers)

    @torch.inference_mode(False)  # what is kept is used outside of it as well
    @torch.no_grad()
    def _taught(
        self, calls: Sequence[Call], learning: DeviceLearning, there: DeviceStreams
    ) -> Iterator[Seen]:
        """What `learn` does to graph and streams, on the device; gives what is to be noted of each."""
        config, permissions, copied = self.config, self._engine.permissions(), self.graph.copied
        assert copied is not None
        for query, found in joined_steps([(call.query, call.found) for call in calls if call.learns]):
            born, newborn = learning.bear(query.bare, found.explanation, config, permissions)
            previous, current = there.succeed(
                query.streams, query.steps, found.seeds, found.similarities, born, newborn,
                copied.id, copied.is_active, config.novelty_explanation_threshold,
            )  # fmt: skip
            yield Seen(found.members, found.energies.detach(), previous, current)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _note_there(self, seen: Seen, learning: DeviceLearning) -> None:
        """What `learn` notes, on the device."""
        learning.note(seen, LearningRates.of(self.config, self._engine.permissions().learning_rate_scale))

    def reset(self, streams: Iterable[int] | None) -> None:
        """Ends streams, see `BatchActiveContext.reset`: on a device at once, and on the host behind what is
        awaited.
        """
        state, there, copied = self.graph.state, self.there, self.graph.copied
        awaited = state.awaited
        learning = None if copied is None else copied.learning
        if awaited is not None:
            awaited.make_room()
        if (
            not awaited
            or awaited.taking
            or copied is None
            or there is None
            or there.device != copied.device
            or not there.knows(self.streams)
            or (awaited.changes_graph and not (learning is not None and learning.in_step))
        ):
            state.settle()
            self.streams.reset(streams)
            return
        which = self.streams.named(streams)

        def act() -> None:
            self.streams.reset(which)
            there.took_in(self.streams)

        with self._both_or_none(learning):
            copied.join_streams()
            if learning is not None:
                there.know_last(self.streams, learning.epoch)
            there.follow(self.streams)  # a call that failed may have made some
            there.reset(which)
            awaited.defer(act, changes_graph=False)

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

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Inside, what goes into a CUDA graph may learn: see `replay`."""
        self._capturing = True
        try:
            yield
        finally:
            self._capturing = False

    def get_ready_to_learn(self, query: Query) -> tuple[object, ...]:
        """Room for what a captured call learns; returns what changes when the captured work no longer fits.
        After `ready_for`.

        Raises AESGMemoryError where this device does not learn by itself.
        """
        copied, there = self.graph.copied, self.there
        assert copied is not None and there is not None
        learning = copied.learning
        if learning is None or not learning.in_step:
            raise AESGMemoryError(
                "capture: expected a memory that learns on its device, got one that learns on the host: its "
                "vectors are there, or the device has no room"
            )
        learning.make_room(len(query.rows), self.config)
        there.know_last(self.streams, learning.epoch)
        return (*learning.layout(), self._engine.permissions())

    def _require_capturable(self, learns: bool) -> None:
        copied, awaited, there = self.graph.copied, self.graph.state.awaited, self.there
        assert copied is not None and awaited is not None
        if copied.streamed is not None:
            raise AESGMemoryError(
                "retrieve: expected residency='device' for a CUDA graph, got 'host', where the host waits"
            )
        ahead = copied.learning is not None and copied.learning.in_step
        if learns and not (ahead and self._capturing):
            raise AESGMemoryError(
                "retrieve: what is learnt in a CUDA graph must come to the host after every replay: expected "
                "learn=False, mode INFERENCE or AESGMemory.capture(learn=True), got learn=True in another"
            )
        known = there is not None and there.knows(self.streams) and copied.is_current
        if (awaited.changes_graph and not ahead) or not known:
            raise AESGMemoryError(
                "retrieve: the memory or its streams changed since the device was last asked, and a CUDA "
                "graph under capture brings nothing there: expected a retrieve(query, learn=False) right "
                "before the capture; AESGMemory.capture() sees to it"
            )


def is_captured(rows: Tensor) -> bool:
    """Whether work on these goes into a CUDA graph."""
    return rows.is_cuda and torch.cuda.is_current_stream_capturing()
