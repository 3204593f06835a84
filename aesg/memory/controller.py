"""AESGMemory: the persistent memory as a PyTorch module."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aesg import _core
from aesg._extension import has_cuda_kernels
from aesg.config import AESGConfig
from aesg.exceptions import AESGConfigError, AESGMemoryError, AESGStorageError
from aesg.graph.arguments import real_number, whole_number, whole_numbers
from aesg.graph.cognitive_engine import CognitiveEngine
from aesg.graph.core import SemanticGraph
from aesg.graph.forgetting import forget, slots_near, slots_of_ids
from aesg.graph.state import GraphState
from aesg.memory import compiled
from aesg.memory.asking import AskMethods
from aesg.memory.calls import Pending
from aesg.memory.learning import Learner
from aesg.memory.modes import MemoryMode, ModeSwitch
from aesg.memory.navigation import Navigator
from aesg.memory.packing import PackMethods
from aesg.memory.replays import Replays
from aesg.memory.state import BatchActiveContext
from aesg.packs.manager import PackManager
from aesg.storage.directory import as_path
from aesg.storage.engine import AESGStorage
from aesg.storage.logger import EvolutionLogger
from aesg.validation import Validator


class AESGMemory(AskMethods, PackMethods, nn.Module):
    """A graph of concept vectors in one directory that answers whole batches of queries and learns from them.

    directory: made if missing; opening it again in the same process shares the open graph, which is closed
        with the last memory on it. None: the config's `storage_directory`.
    config: None takes what the directory says (defaults where there is nothing yet).
    device: where its weights are, and on a CUDA device a copy of the graph (4 D + 33 bytes a concept, 160 a
        block of seven edges). It answers every query, exactly, while no packs are attached, and learns from
        it at once. The files are written from the host alone: what a call taught is on its way there while
        the device works on, and is learnt there by whatever next needs it: `save()`, any look at the graph,
        an `update_topology()` that sweeps. Nothing else waits for the device, unless more than 256 calls are
        on their way. A query that is not finite finds nothing there, and who would learn from it raises; what
        was asked behind it is learnt as if it had not been. Answers go to the device of the query. `to()`
        moves all this. It has never run on a GPU.
    residency: "device", or "host" for vectors that the device has no room for: they stay in pinned host
        memory (beside the store's own) and pass through the device at every search; what a call taught is
        then learnt on the host before the next.
    read_only: opens the last committed state beside a writer; the mode is INFERENCE and stays so.
    clock: gives unix seconds for time stamps, so that runs can be repeated byte for byte.

    Raises AESGConfigError for a bad config, device or residency, and AESGStorageError for a directory that
    is not ours, has another vector_dim, cannot be written, or is being written by another process (its pid is
    named).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        config: AESGConfig | None = None,
        device: str | torch.device = "cpu",
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
        residency: str = "device",
    ) -> None:
        super().__init__()
        if residency not in ("device", "host"):
            raise AESGConfigError(f"residency: expected 'device' or 'host', got {residency!r}")
        self.residency = residency
        if config is not None:
            Validator.validate_config(config)
        if directory is None:
            directory = None if config is None else config.storage_directory
        wanted = _checked_device(device)
        self.device = torch.device("cpu")  # until it is moved
        self._state = GraphState.open(as_path(directory), config, read_only=read_only, clock=clock)
        self.config = config if config is not None else self._state.config
        self.abstraction_projection = nn.Linear(self.vector_dim, self.vector_dim, bias=False)
        nn.init.zeros_(self.abstraction_projection.weight)  # aggregate() starts as the plain mean
        projection = self.abstraction_projection
        self._permissions = ModeSwitch(
            MemoryMode.INFERENCE if read_only else MemoryMode(self.config.memory_mode)
        )
        self._state.attach(self._permissions)
        self._closed = False
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
        self._learner = Learner(self.graph, self.config, self.cognitive_engine, self.navigator)
        if self._state.streams:
            self._learner.streams.load_state(self._state.streams)
        self._pending: Pending | None = None  # the calls of a `one_call`
        self._replays = Replays()
        self.number = compiled.number_of(self)
        # Counted up by the ops of `aesg.memory.compiled`; no part of the weights.
        self.register_buffer("clock", torch.zeros((), dtype=torch.int64), persistent=False)
        self.to(wanted)
        self.report = self.cognitive_engine.report
        counts = self.storage.core.active_count, self.storage.core.edge_count
        self.report.info("opened with %d concepts and %d edges, mode %s", *counts, self.mode.value)

    # -- what it is ----------------------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        return self._state.directory

    @property
    def vector_dim(self) -> int:
        return self._state.vector_dim

    @property
    def storage(self) -> AESGStorage:
        return self._state.storage

    @property
    def closed(self) -> bool:
        """Whether this memory was closed; others on the same directory may be open still."""
        return self._closed or self._state.closed

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
        if not self.closed:
            self._state.digest()  # what was noted belongs to the mode in which it was noted
        if mode is not self._permissions.mode:
            self.report.info("mode %s", mode.value)
        self._permissions.mode = mode

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AESGMemory:
        """Moves the memory with its weights: `to()`, `cuda()`, `cpu()`, of it or of a model that has it."""
        super()._apply(fn, recurse)
        device = self.clock.device
        if device != self.device and device.type in ("cpu", "cuda"):
            self.device = device
            answers = device.type == "cuda" and has_cuda_kernels()
            self.graph.use_copy(device if answers else None, self.residency)
        return self

    def __del__(self) -> None:
        # What is awaited holds the state, which commits and closes when nothing else does.
        state = self.__dict__.get("_state")
        if state is not None and not state.closed:
            state.settle_at_the_end()

    @property
    def active_state(self) -> BatchActiveContext:
        """What each stream was last about."""
        self._state.settle()
        return self._learner.streams

    @active_state.setter
    def active_state(self, streams: BatchActiveContext) -> None:
        self._state.settle()
        self._learner.use_streams(streams)

    # -- asking --------------------------------------------------------------------------------------------

    def reset_state(self, streams: Iterable[int] | None = None) -> None:
        """Ends all streams (or those named): nothing primes their next query. The novelty pool is left
        alone.
        """
        self._learner.reset(streams)

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
        if (ids is None) == (query is None) or (ids is not None and radius is not None):
            raise AESGMemoryError("forget: expected either ids or query with radius")
        if ids is not None:
            slots, unknown = slots_of_ids(self.graph, np.unique(whole_numbers("ids", ids).reshape(-1)))
            if len(unknown):
                raise AESGMemoryError(f"forget: no living concept has id {int(unknown[0])}")
        else:
            assert query is not None
            vector = self.cognitive_engine.checked_vector(query)
            distance = -1.0 if radius is None else real_number("forget: radius", radius)
            if not 0.0 <= distance <= 2.0:
                raise AESGMemoryError(f"forget: expected a radius in [0, 2], got {radius}")
            slots = slots_near(self.graph, vector, distance)
        return forget(self.graph, slots)

    def update_concept(self, slot: int, vector: Tensor) -> None:
        """Gives a living concept another vector [D]; its edges stay. Raises AESGMemoryError, also in
        INFERENCE.
        """
        self._require_learning("update_concept")
        checked = self.cognitive_engine.checked_vector(vector)
        index = whole_number("slot", slot)
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
        self._state.digest()
        return _core.check(self.storage.core)

    # -- learning and keeping ------------------------------------------------------------------------------

    def update_topology(self) -> None:
        """One consolidation, and the sweep when due; call it after each batch. Does nothing in INFERENCE."""
        started = time.perf_counter()
        self._replays.clear()
        self.cognitive_engine.update()
        self._learner.work.topology_seconds += time.perf_counter() - started

    def save(self) -> None:
        """Makes everything learnt so far durable: it survives a crash from here on."""
        self._require_open("save")
        if self.storage.read_only:
            raise AESGMemoryError(f"save: the memory in '{self.directory}' is open for reading only")
        self._state.streams = self.active_state.to_state()
        self.report.debug("saved as generation %d", self._state.commit())

    def close(self) -> None:
        """Saves and gives the directory free, when no other memory of this process is open on it.

        Closing twice does nothing. Raises AESGStorageError when saving fails; the memory is open still then.
        """
        if self.closed:
            return
        self._state.settle_at_the_end()
        if not self.storage.read_only:
            self._state.streams = self.active_state.to_state()
        self._state.detach(self._permissions)
        self._closed = True
        self.report.info("closed")

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
        path = as_path(directory)
        if os.path.realpath(path).startswith(os.path.realpath(self.directory) + os.sep):
            raise AESGStorageError(f"'{path}' lies in the memory's own directory, which holds only its files")
        self.save()
        self.storage.snapshot(path)

    def restore(self, directory: str | os.PathLike[str]) -> None:
        """Replaces what this memory holds by the committed contents of another directory, in one commit.

        Raises AESGStorageError when that is no memory of the same vector_dim or this one is open for reading
        only, and AESGMemoryError in INFERENCE; nothing has changed then.
        """
        self._require_open("restore")
        self.storage.require_writable()
        self._require_learning("restore")
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
            residency=self.residency,
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
        if not (self.closed or self.storage.read_only):
            self.save()
        weights = {name: value.cpu() for name, value in self.state_dict().items()}
        return _open_for_reading, (os.fspath(self.directory), self.config, weights, self.training)

    # -- statistics ----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Counts of the graph and, since this memory was made, of its work.

        births, prunes, merges, splits, consolidations, sweeps: of the directory, since it was made. queries,
        mean_explanation, retrieval_seconds, topology_seconds: of this memory. query_resultant (1: all recent
        queries point one way) and query_effective_rank (in how many directions they differ) tell whether the
        queries can be told apart at all; common_part_removed, whether likeness leaves out what they share.
        search ('exact' or 'approximate'), search_recall (of the ten nearest, as last measured on a sample of
        queries), search_probes (cells looked into): of the graph.
        """
        storage, counters, work = self.storage, self._state.counters, self._learner.work
        return {
            "concepts": storage.node_count,
            "active": storage.active_count,
            "edges": storage.edge_count,
            "candidates": len(self._state.pool),
            **counters,
            **self._state.coarse.stats(),
            "queries": work.queries,
            "mean_explanation": work.explained / max(1, work.queries),
            "query_resultant": work.spread.resultant(),
            "query_effective_rank": work.spread.effective_rank(),
            "common_part_removed": self._state.queries.common is not None,
            "retrieval_seconds": work.retrieval_seconds,
            "topology_seconds": work.topology_seconds,
        }

    def _require_learning(self, what: str) -> None:
        """What a user asks for by name raises in INFERENCE instead of doing nothing in silence."""
        self._require_open(what)
        if self.mode is MemoryMode.INFERENCE:
            raise AESGMemoryError(f"{what}: not possible in INFERENCE mode, call set_mode first")

    def _require_open(self, what: str) -> None:
        if self.closed:
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
