"""GraphState: one open directory with everything that several memories on it share."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from aesg.config import AESGConfig
from aesg.exceptions import AESGConfigError, AESGMemoryError, AESGStorageError
from aesg.graph.awaited import Awaited
from aesg.graph.clock import Clock
from aesg.graph.coactivation import PairCounts
from aesg.graph.coarse import CoarseIndex, StoreRows
from aesg.graph.device_copy import DeviceCopy
from aesg.graph.device_learning import DeviceLearning
from aesg.graph.novelty import NoveltyPool
from aesg.graph.permissions import Permissions
from aesg.graph.pruning import Pruning
from aesg.graph.query_mean import QueryMean
from aesg.graph.use_log import UseLog
from aesg.storage.directory import as_path
from aesg.storage.engine import AESGStorage
from aesg.storage.logger import EvolutionLogger

_COUNTERS = ("births", "prunes", "merges", "splits", "consolidations", "sweeps")

# Opening a directory again in the same process gives the same state, so that memories accumulate in one
# graph.
_open_states: weakref.WeakValueDictionary[tuple[str, bool], GraphState] = weakref.WeakValueDictionary()


class GraphState:
    """Storage, novelty pool, use log and counters of one directory. Use `GraphState.open`.

    What devices answered is awaited (`aesg.graph.awaited`): whoever reads here what such a call may have
    changed settles it first.

    Lives as long as a memory uses it, and is closed with the last. When that is dropped, or the interpreter
    ends, what was learnt and not yet saved is committed: a clean end loses nothing.
    """

    def __init__(self, storage: AESGStorage, config: AESGConfig, key: tuple[str, bool]) -> None:
        self.awaited: Awaited | None = None  # from the first copy on a device on
        self.bare_storage = storage  # as it is, whatever is awaited
        self.vector_dim = storage.vector_dim
        self.clock: Callable[[], float] = storage.clock
        self.time = Clock(storage.clock)
        self.logger = EvolutionLogger(storage, clock=self.time)
        self.config = config
        # As they are, whatever is awaited:
        self.bare_pool = NoveltyPool(config.novelty_pool_size, storage.vector_dim)
        self.bare_log = UseLog(storage.core)
        self.bare_queries = QueryMean(storage.vector_dim)  # no awaited call changes its direction
        self.bare_counters = dict.fromkeys(_COUNTERS, 0)
        self.centers: Tensor | None = None  # [R, D], of the regions last found
        self.coarse = CoarseIndex(StoreRows(storage))
        self._copies: weakref.WeakValueDictionary[tuple[torch.device, str], DeviceCopy] = (
            weakref.WeakValueDictionary()
        )
        self.region_cursor = 0  # where the next detection goes on assigning concepts to regions
        self.pruning = Pruning()
        self.streams: dict[str, Any] = {}  # streams as the last commit left them
        self.packs: list[dict[str, Any]] = []  # attached packs: name, path, checksum, priority
        # What each memory on this directory permits; who closes is taken out, the last one closes it.
        self._owners: weakref.WeakSet[Callable[[], Permissions]] = weakref.WeakSet()
        self._key = key
        self._changed = False
        self._pid = os.getpid()
        self._load(storage.read_state())
        # A weak hook: a strong one would be a cycle, and a dropped memory would keep its lock until
        # collected.
        digest = weakref.WeakMethod(self.digest)
        storage.before_read = lambda: (hook := digest()) and hook()
        arrive = weakref.WeakMethod(self.settle)
        storage.before_use = lambda: (hook := arrive()) and hook()
        guard = weakref.WeakMethod(self._permit_writing)
        storage.before_write = lambda: (hook := guard()) and hook()

    @classmethod
    @torch.inference_mode(False)  # what is kept is used outside of it as well
    def open(
        cls,
        directory: str | os.PathLike[str] | None,
        config: AESGConfig | None,
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> GraphState:
        """The state of that directory, opened once per process. Without a config: what the directory says."""
        directory = as_path(directory)
        key = (os.path.realpath(directory), read_only)
        state = _open_states.get(key)
        if state is not None and not state.closed:
            if config is not None and config.vector_dim != state.vector_dim:
                raise AESGStorageError(
                    f"Directory '{directory}' holds vector_dim {state.vector_dim}, "
                    f"expected {config.vector_dim}"
                )
            return state
        vector_dim = None if config is None else config.vector_dim
        storage = AESGStorage(directory, vector_dim, read_only=read_only, clock=clock)
        if config is None:
            config = _config_of(storage)
        state = cls(storage, config, key)
        _open_states[key] = state
        return state

    def attach(self, permissions: Callable[[], Permissions]) -> None:
        """Counts a memory on this directory, known by what tells its permissions."""
        self._owners.add(permissions)

    def detach(self, permissions: Callable[[], Permissions]) -> None:
        """A memory is closed: commits, and gives the directory free when no other memory is open on it.

        Raises AESGStorageError when the commit fails; the memory counts as open still.
        """
        if self._owners - {permissions}:
            if not self.bare_storage.read_only:
                self.commit()
        else:
            self.close()
        self._owners.discard(permissions)

    def _permit_writing(self) -> None:
        """What is assigned by name raises while every memory on this directory is in INFERENCE."""
        if self._owners and not any(permissions().learns for permissions in self._owners):
            raise AESGMemoryError(
                f"'{self.directory}' is used in INFERENCE mode, which leaves every stored thing untouched: "
                "expected another mode before assigning, call set_mode first"
            )

    # -- what awaited calls may change ---------------------------------------------------------------------

    @property
    def storage(self) -> AESGStorage:
        if self.awaited is not None:
            self.awaited.settle()
        return self.bare_storage

    @property
    def pool(self) -> NoveltyPool:
        if self.awaited is not None:
            self.awaited.settle()
        return self.bare_pool

    @property
    def log(self) -> UseLog:
        if self.awaited is not None:
            self.awaited.settle()
        return self.bare_log

    @property
    def queries(self) -> QueryMean:
        if self.awaited is not None:
            self.awaited.settle()
        return self.bare_queries

    @property
    def counters(self) -> dict[str, int]:
        if self.awaited is not None:
            self.awaited.settle()
        return self.bare_counters

    def settle(self) -> None:
        """Learns from what devices answered. Raises what learning raises."""
        if self.awaited is not None:
            self.awaited.settle()

    def digest(self) -> None:
        """Settles, and writes into the graph what was noted of use; devices in step do the same."""
        self.settle()
        in_step = [copied for copied in self._copies.values() if copied.learning and copied.learning.in_step]
        self.bare_log.digest()
        for copied in in_step:
            assert copied.learning is not None
            with copied.learning.lost_where_it_fails():
                copied.join_streams()
                copied.learning.digested()

    # ------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self.bare_storage.closed

    @property
    def directory(self) -> Path:
        return Path(self.bare_storage.directory)

    def now(self) -> int:
        """Unix seconds, from the injected clock."""
        return int(self.time())

    def copy_on(self, device: torch.device | str, residency: str) -> DeviceCopy:
        """The copy of the graph on that device: one for all memories on this directory, while one uses it."""
        if self.awaited is None:
            self.awaited = Awaited()
        # Holds nothing yet, and knows the device's index.
        copied = DeviceCopy(self.bare_storage, device, residency)
        known = self._copies.setdefault((copied.device, residency), copied)
        if known is copied and residency == "device":
            copied.learning = DeviceLearning(self, copied)
        return known

    def touch(self) -> None:
        """Says that the small state must be written by the next commit."""
        self._changed = True

    def commit(self) -> int:
        """Makes all that was learnt durable in one step; returns the generation. Writes nothing if nothing
        was.
        """
        self.digest()
        if self._changed or self.storage.generation == 0:
            self.storage.write_state(self._dump())
        generation = self.storage.commit()
        self._changed = False
        self.coarse.drop()  # from here on this process finds what one that opens the directory now would find
        return generation

    def close(self, commit: bool = True) -> None:
        """Commits what is pending (unless told not to) and gives the directory free. Open still after an
        error.
        """
        if self.closed:
            return
        if self._pid != os.getpid():  # a forked child never writes
            commit = False
        self.settle_at_the_end()
        if commit and not self.bare_storage.read_only:
            self.commit()  # where this fails the state stays open: what was learnt can still be saved
        self.bare_log.clear()
        self.bare_storage.close(commit=False)
        if _open_states.get(self._key) is self:
            del _open_states[self._key]

    def settle_at_the_end(self) -> None:
        """Settles where nobody can be told: what cannot be learnt becomes a warning."""
        for error in self.settled_through():
            warnings.warn(
                f"A call that a device answered was not learnt in '{self.directory}': {error}",
                RuntimeWarning,
                stacklevel=3,
            )

    def settled_through(self) -> Iterator[Exception]:
        """Settles, whatever cannot be learnt, and gives the errors of that."""
        # Inside a call that is being taken in (a collection may come there) those behind it are not touched.
        while self.awaited and not self.awaited.taking and self._pid == os.getpid():
            try:
                with _outside_of_tracing():
                    self.awaited.settle()
            except Exception as error:
                yield error

    def reload(self) -> None:
        """Takes the small state from the storage anew, after its contents were replaced."""
        self.log.clear()
        self.log.pairs = PairCounts()
        self.bare_pool = NoveltyPool(self.config.novelty_pool_size, self.vector_dim)
        self.bare_queries = QueryMean(self.vector_dim)
        self.centers = None
        self.region_cursor = 0
        self.bare_counters = dict.fromkeys(_COUNTERS, 0)
        self.pruning = Pruning()
        self.streams = {}
        self.packs = []
        self._changed = False
        self._load(self.storage.read_state())

    def _dump(self) -> dict[str, Any]:
        return {
            "config": self.config.to_json(),
            "counters": dict(self.counters),
            "pruning": {"wait": self.pruning.wait, "aged_unpruned": self.pruning.aged_unpruned},
            "regions.cursor": self.region_cursor,
            "streams": self.streams,
            **({"packs": self.packs} if self.packs else {}),
            "pairs.keys": self.log.pairs.keys,
            "pairs.counts": self.log.pairs.counts,
            **({} if self.centers is None else {"regions.centers": self.centers.numpy()}),
            **self.queries.to_state(),
            **self.pool.to_state(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        if not state:
            if self.storage.core.active_count:  # imported: use was counted by other rules, or not at all
                self.pruning.pause()
            return
        self.counters.update(
            {name: int(value) for name, value in state.get("counters", {}).items() if name in _COUNTERS}
        )
        pruning = state.get("pruning", {})
        self.pruning = Pruning(int(pruning.get("wait", 0)), bool(pruning.get("aged_unpruned", False)))
        self.region_cursor = int(state.get("regions.cursor", 0))
        self.streams = dict(state.get("streams", {}))
        self.packs = list(state.get("packs", []))
        if "pool.candidates" in state:
            self.pool.load_state(state)
        self.queries.load_state(state)
        if "pairs.keys" in state:
            self.log.pairs.keys, self.log.pairs.counts = state["pairs.keys"], state["pairs.counts"]
        if "regions.centers" in state:
            self.centers = torch.from_numpy(state["regions.centers"].copy())

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphState:
        return self  # copies of a model share its memory

    def __del__(self) -> None:
        _end(self)


def _config_of(storage: AESGStorage) -> AESGConfig:
    """The config the directory was last committed with."""
    text = storage.read_state().get("config")
    if text is None:
        return AESGConfig(vector_dim=storage.vector_dim)
    try:
        return AESGConfig.from_json(text)
    except AESGConfigError as error:
        storage.close(commit=False)
        raise AESGStorageError(f"The configuration in '{storage.directory}' is unusable: {error}") from error


def _outside_of_tracing() -> contextlib.AbstractContextManager[object]:
    """A collection may come while torch.compile traces, where real tensors are not allowed."""
    traced = torch._C._len_torch_dispatch_stack() > 0
    return _disable_current_modes() if traced else contextlib.nullcontext()


def _end(state: GraphState) -> None:
    """Closes a state that nobody closed. An error here has no caller, so it becomes a warning."""
    if getattr(state, "_key", None) is None:  # construction had failed
        return
    try:
        with _outside_of_tracing():
            state.close()
    except Exception as error:
        state.close(commit=False)
        warnings.warn(
            f"What was not saved in '{state.directory}' is lost: {error}", RuntimeWarning, stacklevel=2
        )


@atexit.register
def _end_all() -> None:
    for state in list(_open_states.values()):
        _end(state)
