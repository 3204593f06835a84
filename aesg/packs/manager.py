"""PackManager: which packs a memory's directory has attached, with what priority."""

from __future__ import annotations

import numbers
import warnings
import weakref
from typing import Any, NamedTuple

from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.graph.state import GraphState
from aesg.packs.files import PathLike, read_pack
from aesg.packs.pack import DEFAULT_PRIORITY, MemoryPack, PackState
from aesg.packs.ranking import shares_of
from aesg.packs.version2 import check_name

MAX_ATTACHED_PACKS = 16
MAX_PRIORITY = 100

# One manager for all memories on one directory. Managers hold no state, so a state ends with its memories.
_managers: weakref.WeakKeyDictionary[GraphState, PackManager] = weakref.WeakKeyDictionary()


class Answering(NamedTuple):
    """An attached pack as retrieval sees it."""

    name: str
    pack: MemoryPack
    share: float  # of the priorities of all attached packs, in (0, 1]


class PackManager:
    """Loads packs and keeps the attached ones, in the order of attaching.

    What was attached from a file is part of the directory's small state, by path and checksum, and is
    attached again when the directory is opened. A file that has changed or gone by then is refused: a warning
    says so, and retrieval raises AESGStorageError until the pack is detached or attached anew.
    """

    def __init__(self, state: GraphState) -> None:
        self._state = weakref.ref(state)
        self._vector_dim = state.storage.vector_dim
        self._attached: dict[str, MemoryPack] = {}
        self._priorities: dict[str, int] = {}
        self._refused: dict[str, str] = {}  # name -> why
        # Whether any pack is attached, or remembered and refused. A plain bool: torch.compile guards on that.
        self.in_use = False
        self.reload()

    @classmethod
    def of(cls, state: GraphState) -> PackManager:
        """The manager of that state, made once."""
        manager = _managers.get(state)
        if manager is None:
            manager = _managers[state] = cls(state)
        return manager

    def load_pack(self, path: PathLike, name: str | None = None) -> MemoryPack:
        """The pack in a file, checked; `name` stands in for its own.

        Raises AESGStorageError: unreadable, corrupt, or of another vector_dim than the memory.
        """
        pack = read_pack(path, name)
        self.require_fitting(pack)
        _ = pack.tensors  # made now, so that attaching has nothing left to do
        return pack

    def attach_pack(
        self, pack: MemoryPack, priority: int = DEFAULT_PRIORITY, *, name: str | None = None
    ) -> None:
        """From now on the pack is searched together with the memory. Attaching it again changes its priority.

        Raises AESGMemoryError for a priority outside 0..100, a 17th pack, and for another pack of the same
        name (`name=` gives it one of its own); AESGStorageError for another vector_dim. O(1) for packs that
        were loaded.
        """
        self.require_fitting(pack)
        whole = isinstance(priority, numbers.Integral) and not isinstance(priority, bool)
        if not whole or not 0 <= priority <= MAX_PRIORITY:
            raise AESGMemoryError(f"Priority: expected an integer in 0..{MAX_PRIORITY}, got {priority!r}")
        key = pack.name if name is None else name
        check_name(key, f"'{pack.name}'")
        there = self._attached.get(key)
        if there is not None and there is not pack and (not pack.checksum or there.checksum != pack.checksum):
            raise AESGMemoryError(f"Another pack named '{key}' is attached; give this one a name: name='...'")
        taken = len(self._attached.keys() | self._refused.keys() | {key})
        if taken > MAX_ATTACHED_PACKS:
            raise AESGMemoryError(f"Maximum {MAX_ATTACHED_PACKS} packs can be attached simultaneously")
        _ = pack.tensors  # whatever is wrong with hand-made records shows before anything changed
        self._settle()
        self._refused.pop(key, None)
        if there is not None:
            there.state = PackState.LOADED
        self._attached[key] = pack
        self._priorities[key] = pack.priority = int(priority)
        pack.state = PackState.ATTACHED
        self._remember()

    def detach_pack(self, pack_name: str) -> None:
        """Ends what `attach_pack` began; the pack itself stays loaded. Raises AESGMemoryError if it is not
        attached.
        """
        known = isinstance(pack_name, str) and (pack_name in self._attached or pack_name in self._refused)
        if not known:
            raise AESGMemoryError(f"Pack '{pack_name}' is not attached")
        self._settle()
        self._refused.pop(pack_name, None)
        self._priorities.pop(pack_name, None)
        pack = self._attached.pop(pack_name, None)
        if pack is not None and not any(other is pack for other in self._attached.values()):
            pack.state = PackState.LOADED
        self._remember()

    def _settle(self) -> None:
        """What was asked before is learnt with the packs that took part then."""
        state = self._state()
        if state is not None:
            state.settle()

    def get_pack_weights(self) -> dict[str, float]:
        """Share of each attached pack: its priority over the sum of all. All priorities 0: all 0."""
        shares = shares_of([self._priorities[name] for name in self._attached])
        return dict(zip(self._attached, shares, strict=True))

    def get_attached_packs(self) -> dict[str, MemoryPack]:
        """The attached packs by name, in the order of attaching."""
        return dict(self._attached)

    def answering(self) -> list[Answering]:
        """The packs that take part in retrieval: the attached ones whose share is not 0.

        Raises AESGStorageError while a remembered pack is refused.
        """
        if not self._attached and not self._refused:
            return []
        for name, reason in self._refused.items():
            raise AESGStorageError(f"Pack '{name}' cannot be attached again: {reason}")
        weights = self.get_pack_weights()
        return [Answering(name, self._attached[name], share) for name, share in weights.items() if share > 0]

    def reload(self) -> None:
        """Attaches what the directory's state remembers, instead of what is attached now."""
        state = self._state()
        records = [] if state is None else list(state.packs)
        for pack in self._attached.values():
            pack.state = PackState.LOADED
        self._attached, self._priorities, self._refused = {}, {}, {}
        for record in records:
            name, path, checksum = record["name"], record["path"], record["checksum"]
            self._priorities[name] = record["priority"]
            try:
                pack = self.load_pack(path, name)
                if pack.checksum != checksum:
                    raise AESGStorageError(
                        f"'{path}' has changed: expected checksum {checksum}, got {pack.checksum}"
                    )
            except AESGStorageError as error:
                self._refused[name] = error.message
                warnings.warn(f"Pack '{name}' is refused: {error.message}", RuntimeWarning, stacklevel=2)
                continue
            pack.priority, pack.state = record["priority"], PackState.ATTACHED
            self._attached[name] = pack
        self.in_use = bool(self._attached or self._refused)

    def _remember(self) -> None:
        """Writes the attached packs that have a file into the small state."""
        self.in_use = bool(self._attached or self._refused)
        state = self._state()
        if state is None:
            return
        refused = [record for record in state.packs if record["name"] in self._refused]
        state.packs[:] = refused + [
            {
                "name": name,
                "path": pack.path,
                "checksum": pack.checksum,
                "priority": self._priorities[name],
            }
            for name, pack in self._attached.items()
            if pack.path is not None
        ]
        if not state.storage.read_only:
            state.touch()

    def require_fitting(self, pack: MemoryPack) -> None:
        """Raises AESGMemoryError for what is no pack, AESGStorageError for one of another vector_dim."""
        if not isinstance(pack, MemoryPack):
            raise AESGMemoryError(
                f"Pack: expected a MemoryPack as load_pack returns, got {type(pack).__name__}"
            )
        if pack.vector_dim != self._vector_dim:
            raise AESGStorageError(
                f"Pack vector_dim mismatch: pack has {pack.vector_dim}, memory expects {self._vector_dim}"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> PackManager:
        return self  # copies of a model share its memory
