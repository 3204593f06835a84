"""The evolution log: 32-byte events, byte for byte those of 3.0.0, made durable with the store's commits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, overload

import numpy as np

from aesg.exceptions import AESGMemoryError
from aesg.storage.engine import AESGStorage

EVENT_DTYPE = np.dtype(
    {
        "names": ["timestamp", "type", "id1", "id2", "val"],
        "formats": ["<u8", "u1", "<u8", "<u8", "<f4"],
        "offsets": [0, 8, 12, 20, 28],
        "itemsize": 32,
    }
)


class EventType(IntEnum):
    """What happened; the numbers are those in the file."""

    CREATE = 0
    MERGE = 1
    SPLIT = 2
    PRUNE = 3
    CONSOLIDATE = 4
    RESTRUCTURE = 5


_NAMES = {int(kind): kind.name for kind in EventType}


class EventHistory(Sequence[dict[str, Any]]):
    """Events as dicts {'timestamp', 'type', 'id1', 'id2', 'val'}, made when asked for.

    `.array` is the same as one read-only structured NumPy array (fields as above, 'type' a number).
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> EventHistory: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | EventHistory:
        if isinstance(index, slice):
            return EventHistory(self.array[index])
        timestamp, kind, id1, id2, val = self.array[index].item()
        return {"timestamp": timestamp, "type": _NAMES.get(kind, kind), "id1": id1, "id2": id2, "val": val}

    def __repr__(self) -> str:
        return f"EventHistory({len(self)} events)"


class EvolutionLogger:
    """Writes and reads the events of one memory.

    Made from an open storage, events become durable with its next commit. Made from a directory (the
    signature of 3.0.0), every `log_event` opens it, commits and closes, and `get_history` reads the
    committed state.
    """

    def __init__(
        self,
        storage: AESGStorage | str | os.PathLike[str],
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._storage = storage
        if clock is None:
            clock = storage.clock if isinstance(storage, AESGStorage) else time.time
        self._clock = clock

    def log_event(
        self, event_type: EventType | int | str, id1: int = 0, id2: int = 0, val: float = 0.0
    ) -> None:
        """Appends one event with the clock's time.

        `event_type`: an EventType, its number or its name; ids 0..2**64-1. Raises AESGMemoryError for others,
        in INFERENCE as any assignment, AESGStorageError when the storage is closed or read-only.
        """
        kind = _event_type(event_type)
        for name, value in (("id1", id1), ("id2", id2)):
            if not 0 <= int(value) < 2**64:
                raise AESGMemoryError(f"{name}: expected 0..2**64-1, got {value}")
        if isinstance(self._storage, AESGStorage):
            self._storage.require_assignable()
            self._storage.core.append_event(int(self._clock()), kind, int(id1), int(id2), float(val))
            return
        with AESGStorage(self._storage) as storage:
            storage.core.append_event(int(self._clock()), kind, int(id1), int(id2), float(val))

    def get_history(self) -> EventHistory:
        """All events, the staged ones too, oldest first. Raises AESGStorageError when the log is damaged."""
        if not isinstance(self._storage, AESGStorage):
            with AESGStorage(self._storage, read_only=True) as storage:
                return EvolutionLogger(storage).get_history()
        self._storage.settle()
        core = self._storage.core
        return EventHistory(np.frombuffer(core.events(0, core.event_count), dtype=EVENT_DTYPE))


def _event_type(event_type: EventType | int | str) -> int:
    try:
        return int(EventType[event_type] if isinstance(event_type, str) else EventType(event_type))
    except (KeyError, ValueError):
        names = ", ".join(EventType.__members__)
        raise AESGMemoryError(f"event_type: expected one of {names} or 0..5, got {event_type!r}") from None
