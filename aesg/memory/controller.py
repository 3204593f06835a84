"""AESGMemory: the persistent memory as a PyTorch module."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aesg import _core
from aesg.config import AESGConfig
from aesg.exceptions import AESGConfigError, AESGMemoryError
from aesg.graph.cognitive_engine import CognitiveEngine
from aesg.graph.core import SemanticGraph, whole_numbers
from aesg.graph.forgetting import forget, slots_near, slots_of_ids
from aesg.graph.state import GraphState
from aesg.memory import compiled
from aesg.memory.calls import Answer, Call, Found, Pending, Query, Source, joined_answers, joined_steps
from aesg.memory.context import RetrievedContext
from aesg.memory.modes import MemoryMode, ModeSwitch
from aesg.memory.navigation import Navigator
from aesg.memory.packing import PackMethods
from aesg.memory.replays import Replays, recomputing, watched
from aesg.memory.state import BatchActiveContext
from aesg.memory.work import Work
from aesg.ops import Activated
from aesg.packs.manager import PackManager
from aesg.storage.engine import AESGStorage
from aesg.storage.logger import EvolutionLogger
from aesg.validation import Validator


class AESGMemory(PackMethods, nn.Module):
    """A graph of concept vectors in one directory that answers whole batches of queries and learns from them.

    directory: made if missing; opening it again in the same process shares the open graph.
    config: None takes what the directory says (defaults where there is nothing yet).
    device: where answers go unless the query lies elsewhere; the graph itself is searched on the CPU.
    read_only: opens the last committed state beside a writer; the mode is INFERENCE and stays so.
    clock: gives unix seconds for time stamps, so that runs can be repeated byte for byte.

    Raises AESGConfigError for a bad config or device, and AESGStorageError for a directory that is not ours,
    has another vector_dim, cannot be written, or is being written by another process (its pid is named).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        config: AESGConfig | None = None,
        device: str | torch.device = "cpu",
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        if config is not None:
            Validator.validate_config(config)
        self.device = _checked_device(device)
        self._state = GraphState.open(directory, config, read_only=read_only, clock=clock)
        self.config = config if config is not None else self._state.config
        self.abstraction_projection = nn.Linear(self.vector_dim, self.vector_dim, bias=False)
        nn.init.zeros_(self.abstraction_projection.weight)  # aggregate() starts as the plain mean
        projection = self.abstraction_projection
        self._permissions = ModeSwitch(
            MemoryMode.INFERENCE if read_only else MemoryMode(self.config.memory_mode)
        )
        # None of these holds this module: a memory that is dropped gives its directory free at once, without
        # a collection.
        self.graph = SemanticGraph(self._state, self.config, self._permissions)
        self.cognitive_engine = CognitiveEngine(
            self.graph,
            self.config,
            self._permissions,
            project=lambda mean: mean + projection(mean.to(projection.weight.device)).to(mean.device),
        )
        self.pack_manager = PackManager.of(self._state)
        self.navigator = Navigator(
            self.graph, self.config, self.abstraction_projection, self.pack_manager.answering
        )
        self.active_state = BatchActiveContext()
        if self._state.streams:
            self.active_state.load_state(self._state.streams)
        self._pending: Pending | None = None  # the calls of a `one_call`
        self._replays = Replays()
        self._work = Work(self.vector_dim)
        self.number = compiled.number_of(self)
        # Counted up by the ops of `aesg.memory.compiled`; no part of the weights.
        self.register_buffer("clock", torch.zeros((), dtype=torch.int64), persistent=False)
        self.to(self.device)

    # -- what it is ----------------------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        return self._state.directory

    @property
    def vector_dim(self) -> int:
        return self._state.storage.vector_dim

    @property
    def storage(self) -> AESGStorage:
        return self._state.storage

    @property
    def logger(self) -> EvolutionLogger:
        return self._state.logger

    @property
    def mode(self) -> MemoryMode:
        return self._permissions.mode

    def set_mode(self, mode_name: str | MemoryMode) -> None:
        """TRAIN, FINETUNE, INFERENCE or ONLINE. Raises AESGMemoryError for anything else."""
        name = mode_name.value if isinstance(mode_name, MemoryMode) else mode_name
        Validator.validate_memory_mode(name)
        mode = MemoryMode(name)
        if self.storage.read_only and mode is not MemoryMode.INFERENCE:
            raise AESGMemoryError(f"Mode {name}: the memory in '{self.directory}' is open for reading only")
        if not self.storage.closed:
            self._state.log.digest()  # what was noted belongs to the mode in which it was noted
        self._permissions.mode = mode

    # -- asking --------------------------------------------------------------------------------------------

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
        another vector_dim, before anything changed. O(Q N D) for the search, then by edges touched.
        """
        if torch.compiler.is_compiling() and not self.pack_manager.in_use:
            return compiled.retrieve(self, query, batch_idx, learn)
        return self._retrieve(query, batch_idx, learn)

    @torch.compiler.disable
    def _retrieve(self, query: Tensor, batch_idx: int, learn: bool) -> RetrievedContext:
        self._require_open("retrieve")
        started = time.perf_counter()
        checked = self.navigator.check(query, self.active_state, batch_idx)
        found, answers = self._find(checked, started, learn)
        return self.navigator.context(checked, found, answers, query.device)

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
            second_pass = not again and (
                watched()
                or (
                    changes and self.training and not traced and not once_more and not torch.is_grad_enabled()
                )
            )
            found, answers = self.navigator.find(
                query, self.active_state, traced=traced or once_more or second_pass
            )
            if second_pass:
                self._replays.note(query, answers)
        if pending is not None:
            pending.calls.append(
                Call(query.detached(), found.detached(), [answer.kept() for answer in answers], learns)
            )
        elif not again:
            self.navigator.remember(query, answers, self.active_state)
            if learns:
                self._learn(query, found)
        if not again:
            self._work.note(query.rows, found.explanation, time.perf_counter() - started)
        return found, answers

    @contextmanager
    def one_call(self, traced: bool = True) -> Iterator[None]:
        """Inside, `retrieve` answers from the graph as it is; what it learns is learnt on leaving.

        For models that ask step by step: no sample sees within a forward pass what another gave birth to, and
        the steps are learnt from in bulk. Inside another `one_call` it does nothing of its own. After an
        exception nothing is learnt. traced: `retrieve_again` may be called; without, steps are cheaper.
        """
        self.begin_call(traced)
        try:
            yield
        except BaseException:
            if self._pending is not None and self._pending.depth == 0:
                self._pending.calls.clear()
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

    def end_call(self) -> None:
        """Leaves `one_call`."""
        pending = self._pending
        assert pending is not None
        if pending.depth > 0:
            pending.depth -= 1
            return
        self._pending = None
        calls = pending.calls
        if calls and not recomputing():
            self.navigator.remember(calls[-1].query, calls[-1].answers, self.active_state)
        for query, found in joined_steps([(call.query, call.found) for call in calls if call.learns]):
            self._learn(query, found)

    def retrieve_again(self, query: Tensor) -> RetrievedContext:
        """The answers to the last T calls of one step each in this `one_call`, as one answer to their queries
        [B, T, D].

        With it a model that had to ask step by step can do everything else for all steps at once, gradients
        included. Nothing is searched, noted or counted. O(B T S D).
        """
        if torch.compiler.is_compiling() and not self.pack_manager.in_use:
            return compiled.retrieve(self, query, 0, again=True)
        return self._retrieve_again(query)

    @torch.compiler.disable
    def _retrieve_again(self, query: Tensor) -> RetrievedContext:
        checked = self.navigator.check(query, self.active_state, 0)
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
        query = self.navigator.check(rows.reshape(*lead, rows.shape[1]), self.active_state, batch_idx)
        found = self._find(query, started, learn, traced)[1][0].found
        if traced:
            return found
        return found._replace(jacobian=found.jacobian[:0], seed_vectors=found.seed_vectors[:0])

    def answer_again(self, rows: Tensor, lead: torch.Size) -> Activated:
        """`retrieve_again` to rows."""
        query = self.navigator.check(rows.reshape(*lead, rows.shape[1]), self.active_state, 0)
        return self.navigator.replay(query, self._last_steps(query))[1][0].found

    @torch.no_grad()
    def _learn(self, query: Query, found: Found) -> None:
        """Notes use and succession, and offers what nothing explained to the novelty pool."""
        threshold = self.config.novelty_explanation_threshold
        novel = found.explanation < threshold
        own = found.similarities[:, 0] >= threshold  # succession is learnt between the memory's own concepts
        meant = torch.where(own, found.seeds[:, 0], -1)  # [Q]
        if bool(novel.any()):
            rows = query.rows.detach()[novel]
            meant[novel] = self._born_of(rows, self.cognitive_engine.bear_novel(rows), threshold)
        current = meant.reshape(-1, query.steps)  # [B, T]
        streams = self.active_state
        last = self.graph.still(streams.last_seed[query.streams], streams.last_id[query.streams])
        previous = torch.cat([last[:, None], current[:, :-1]], dim=1)
        streams.last_seed[query.streams] = current[:, -1]
        streams.last_id[query.streams] = self.graph.ids(current[:, -1])
        self.cognitive_engine.note_retrieval(
            found.own_members,
            found.energies.detach(),
            found.seeds,
            previous.reshape(-1),
            current.reshape(-1),
        )

    def _born_of(self, rows: Tensor, born: np.ndarray, threshold: float) -> Tensor:
        """The newborn (slots [m]) that each novel input [n, D] means, i64 [n]; -1 for none as like as
        `threshold`. So what is told once is linked to what it was told with.
        """
        if len(born) == 0:
            return torch.full((len(rows),), -1)
        slots = torch.from_numpy(born)
        likeness, nearest = (
            self.graph.directions(rows) @ self.graph.directions(self.graph.gather(slots)).T
        ).max(dim=1)
        return torch.where(likeness >= threshold, slots[nearest], -1)

    def reset_state(self, streams: Iterable[int] | None = None) -> None:
        """Ends all streams (or those named): nothing primes their next query. The novelty pool is left
        alone.
        """
        self.active_state.reset(streams)

    # -- on request ----------------------------------------------------------------------------------------

    def forget(
        self,
        ids: Sequence[int] | np.ndarray | Tensor | None = None,
        *,
        query: Tensor | None = None,
        radius: float | None = None,
    ) -> int:
        """Removes concepts by `ids`, or all within cosine distance `radius` (1 - cos) of `query` [D].

        Their edges go too, and what was abstracted from them alone. After the next `save()` and `compact()`
        their vectors are in no file of the directory. Returns how many concepts went. Raises AESGMemoryError
        for unknown ids, bad arguments and in INFERENCE, before anything changed. O(N D + E).
        """
        self._require_learning("forget")
        if (ids is None) == (query is None):
            raise AESGMemoryError("forget: expected either ids or query with radius")
        if ids is not None:
            slots, unknown = slots_of_ids(self.graph, np.unique(whole_numbers("ids", ids).reshape(-1)))
            if len(unknown):
                raise AESGMemoryError(f"forget: no living concept has id {int(unknown[0])}")
        else:
            if radius is None or not 0.0 <= radius <= 2.0:
                raise AESGMemoryError(f"forget: expected a radius in [0, 2], got {radius}")
            assert query is not None
            slots = slots_near(self.graph, self.cognitive_engine.checked_vector(query), radius)
        return forget(self.graph, slots)

    def update_concept(self, slot: int, vector: Tensor) -> None:
        """Gives a living concept another vector [D]; its edges stay. Raises AESGMemoryError, also in
        INFERENCE.
        """
        self._require_learning("update_concept")
        checked = self.cognitive_engine.checked_vector(vector)
        (index,) = whole_numbers("slot", [slot]).tolist()
        _core.set_vector(self.storage.core, index, checked.numpy(), self._state.now())
        self._state.touch()

    def compact(self) -> None:
        """Saves and gives back what the files hold beyond it: what was removed is then in no file.

        Raises AESGStorageError while a reader has the directory open, whose snapshot needs the old bytes:
        what was learnt is saved all the same.
        """
        self.save()
        self.storage.core.compact()

    def check(self) -> list[str]:
        """Findings about broken invariants of the graph, one line each; none when it is sound. O(N D + E)."""
        self._state.log.digest()
        return _core.check(self.storage.core)

    # -- learning and keeping ------------------------------------------------------------------------------

    def update_topology(self) -> None:
        """One consolidation, and the sweep when due; call it after each batch. Does nothing in INFERENCE."""
        started = time.perf_counter()
        self._replays.clear()
        self.cognitive_engine.update()
        self._work.topology_seconds += time.perf_counter() - started

    def save(self) -> None:
        """Makes everything learnt so far durable: it survives a crash from here on."""
        self._require_open("save")
        if self.storage.read_only:
            raise AESGMemoryError(f"save: the memory in '{self.directory}' is open for reading only")
        self._state.streams = self.active_state.to_state()
        self._state.commit()

    def close(self) -> None:
        """Saves and gives the directory free. Closing twice does nothing."""
        if self.storage.closed:
            return
        if not self.storage.read_only:
            self._state.streams = self.active_state.to_state()
        self._state.close()

    def __enter__(self) -> AESGMemory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def snapshot(self, directory: str | os.PathLike[str]) -> None:
        """Saves, then writes a complete copy of the memory that opens on its own.

        Raises AESGStorageError where `directory` already holds something.
        """
        self.save()
        self.storage.snapshot(directory)

    def restore(self, directory: str | os.PathLike[str]) -> None:
        """Replaces what this memory holds by the committed contents of another directory, in one commit.

        Raises AESGStorageError when that is no memory of the same vector_dim; nothing has changed then.
        """
        self._require_open("restore")
        self._state.log.clear()
        self.storage.restore(directory)
        self._state.reload()
        self.pack_manager.reload()
        self.active_state = BatchActiveContext()
        if self._state.streams:
            self.active_state.load_state(self._state.streams)

    def __deepcopy__(self, memo: dict[int, Any]) -> AESGMemory:
        """A copy with its own projection, mode and streams on the same open graph."""
        twin = AESGMemory(
            self.directory,
            self.config,
            self.device,
            read_only=self.storage.read_only,
            clock=self._state.clock,
        )
        memo[id(self)] = twin
        twin.load_state_dict(self.state_dict())
        twin.set_mode(self.mode)
        twin.active_state = copy.deepcopy(self.active_state)
        for own, other in zip(twin.parameters(), self.parameters(), strict=True):
            own.requires_grad_(other.requires_grad)
        return twin.train(self.training)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled is where the graph lies, not the graph: saves, and the unpickled memory reads what was
        saved.
        """
        if not (self.storage.closed or self.storage.read_only):
            self.save()
        weights = {name: value.cpu() for name, value in self.state_dict().items()}
        return _open_for_reading, (os.fspath(self.directory), self.config, weights, self.training)

    # -- statistics ----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Counts of the graph and, since this memory was made, of its work.

        births, prunes, merges, splits, consolidations, sweeps: of the directory, since it was made. queries,
        mean_explanation, retrieval_seconds, topology_seconds: of this memory. query_resultant (1: all recent
        queries point one way) and query_effective_rank (in how many directions they differ) tell whether the
        queries can be told apart at all.
        """
        storage, counters = self.storage, self._state.counters
        return {
            "concepts": storage.node_count,
            "active": storage.active_count,
            "edges": storage.edge_count,
            "candidates": len(self._state.pool),
            **counters,
            "queries": self._work.queries,
            "mean_explanation": float(self._work.explained) / max(1, self._work.queries),
            "query_resultant": self._work.spread.resultant(),
            "query_effective_rank": self._work.spread.effective_rank(),
            "retrieval_seconds": self._work.retrieval_seconds,
            "topology_seconds": self._work.topology_seconds,
        }

    def _require_learning(self, what: str) -> None:
        """What a user asks for by name raises in INFERENCE instead of doing nothing in silence."""
        self._require_open(what)
        if self.mode is MemoryMode.INFERENCE:
            raise AESGMemoryError(f"{what}: not possible in INFERENCE mode, call set_mode first")

    def _require_open(self, what: str) -> None:
        if self.storage.closed:
            raise AESGMemoryError(f"{what}: the memory in '{self.directory}' is closed")

    def extra_repr(self) -> str:
        return f"directory='{self.directory}', vector_dim={self.vector_dim}, mode={self.mode.value}"


def _open_for_reading(
    directory: str, config: AESGConfig, weights: dict[str, Tensor], training: bool
) -> AESGMemory:
    """What unpickling an AESGMemory calls."""
    memory = AESGMemory(directory, config, read_only=True)
    memory.load_state_dict(weights)
    return memory.train(training)


def _checked_device(device: str | torch.device) -> torch.device:
    try:
        checked = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise AESGConfigError(f"Unknown device {device!r}: expected 'cpu' or 'cuda[:N]'") from error
    if checked.type not in ("cpu", "cuda"):
        raise AESGConfigError(f"Device {device!r}: expected 'cpu' or 'cuda[:N]'")
    if checked.type == "cuda" and not torch.cuda.is_available():
        raise AESGConfigError(f"Device {device!r} asked for, but torch sees no CUDA device; use 'cpu'")
    return checked
