"""AESGStorage: the Python face of the C++ store of one memory directory."""

from __future__ import annotations

import gc
import os
import time
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch

from aesg import _core
from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.storage.directory import as_path, require_ours_or_empty, require_plain_directory
from aesg.storage.nodes import (
    BLOCK_EDGES,
    GROUP,
    NODE_COLUMNS,
    Edges,
    Nodes,
    chain_positions,
    edge_records,
    grouped,
)
from aesg.storage.state_file import decode, encode

_SIGNED = {
    "<u8": torch.int64,
    "<u4": torch.int32,
    "<i4": torch.int32,
    "<f4": torch.float32,
    "|u1": torch.uint8,
}


# Closed, and held by somebody still: each keeps its address range (csrc/storage/arena.h), 1.25 TiB of the 128
# there are. Whoever opens and closes many memories leaves them in cycles that the collector may come to late.
_closed: weakref.WeakSet[AESGStorage] = weakref.WeakSet()
_MANY_CLOSED = 16
_collect_at = _MANY_CLOSED


def _let_go_of_the_closed(storage: AESGStorage) -> None:
    """Collects garbage once every `_MANY_CLOSED` closed storages that are still there."""
    global _collect_at
    _closed.add(storage)
    if len(_closed) >= _collect_at:
        gc.collect()
        _collect_at = len(_closed) + _MANY_CLOSED


class EdgeBlocks(NamedTuple):
    """Torch views of the edges as spreading reads them; strided over the store's bytes."""

    first_block: torch.Tensor  # i32 [G, 1024], a column of the nodes
    targets: torch.Tensor  # i32 [Gb, 1024, 7], -1: empty
    strengths: torch.Tensor  # f32 [Gb, 1024, 7]
    next_block: torch.Tensor  # i32 [Gb, 1024], -1: end


class AESGStorage:
    """One open memory directory: committed state on disk, live columns in memory.

    `vector_dim` None takes what the directory says. Opening makes the directory when it is missing or empty
    (then `vector_dim` is needed). `clock` gives the unix seconds of every time stamp.

    Raises AESGStorageError: another vector_dim (both named), a second writer (its pid named), a directory of
    aesg 3.0.0 or of something else, a newer format, damage, an unwritable place. Nothing was written then.

    Opening costs the same for every size (no O(N) work); reading a field costs what is read.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        vector_dim: int | None = None,
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        directory = as_path(directory)
        if vector_dim is not None and (not isinstance(vector_dim, int) or not 1 <= vector_dim <= 8192):
            raise AESGStorageError(f"vector_dim: expected 1..8192, got {vector_dim!r}")
        require_ours_or_empty(directory)
        self.core: _core.Store = _core.Store.open(directory, vector_dim or 0, read_only=read_only)
        self.clock = clock
        self.before_use: Callable[[], Any] | None = None  # takes in what is on its way here
        self.before_read: Callable[[], Any] | None = None
        self.before_write: Callable[[], Any] | None = None  # raises where assigning is not permitted
        self._settling = False
        self._columns: dict[str, torch.Tensor] = {}
        self._column_groups = -1
        self._edge_blocks: tuple[int, int, EdgeBlocks] | None = None

    # -- what it is ----------------------------------------------------------------------------------------

    @property
    def nodes(self) -> Nodes:
        """The nodes by column or slot. Made anew: kept, it and the storage would hold each other."""
        return Nodes(self)

    @property
    def edges(self) -> Edges:
        """The edges by position."""
        return Edges(self)

    @property
    def directory(self) -> str:
        return self.core.directory

    @property
    def vector_dim(self) -> int:
        return self.core.vector_dim

    @property
    def read_only(self) -> bool:
        return self.core.read_only

    @property
    def closed(self) -> bool:
        return self.core.closed

    @property
    def generation(self) -> int:
        """Commits so far."""
        return self.core.generation

    @property
    def node_count(self) -> int:
        """Slots in use, dead and free ones included."""
        self.settle()
        return self.core.node_count

    @property
    def active_count(self) -> int:
        """Living concepts."""
        self.settle()
        return self.core.active_count

    @property
    def edge_count(self) -> int:
        self.settle()
        return self.core.edge_count

    def settle(self) -> None:
        """Calls `before_read` (not from inside it), so that what is read next holds all that was learnt."""
        if self.before_read is None or self._settling:
            return
        self._settling = True
        try:
            self.before_read()
        finally:
            self._settling = False

    def require_writable(self) -> None:
        """Raises AESGStorageError when closed or read-only."""
        if self.closed:
            raise AESGStorageError(f"'{self.directory}' was closed")
        if self.read_only:
            raise AESGStorageError(f"'{self.directory}' is open for reading only")

    def require_assignable(self) -> None:
        """Raises AESGStorageError when closed or read-only, AESGMemoryError where the mode of the memories on
        this directory forbids changes."""
        self.require_writable()
        if self.before_write is not None:
            self.before_write()
        self._arrive()

    def _arrive(self) -> None:
        """What was asked for before a change comes before it."""
        if self.before_use is not None:
            self.before_use()

    # -- zero-copy, for ops and engine ---------------------------------------------------------------------

    def column(self, name: str) -> torch.Tensor:
        """A column as it lies in the store: [G, 1024], vector [G, 1024, D]; u64 as int64, u32 as int32.

        Kept until the store grows; old views stay valid then and see the same bytes. Who writes it calls
        `mark`.
        """
        if self._column_groups != self.core.node_groups:
            self._columns.clear()
            self._column_groups = self.core.node_groups
        if name not in self._columns:
            if name not in NODE_COLUMNS:
                raise AESGMemoryError(f"column: expected one of {', '.join(NODE_COLUMNS)}, got {name!r}")
            index, dtype = NODE_COLUMNS[name]
            self._columns[name] = _strided(
                self.core.node_view(),
                _SIGNED[dtype],
                (self.core.node_groups, GROUP, *((self.vector_dim,) if name == "vector" else ())),
                _core.group_bytes(self.vector_dim),
                self.vector_dim if name == "vector" else 1,
                _core.column_offset(self.vector_dim, index),
            )
        return self._columns[name]

    def edge_blocks(self) -> EdgeBlocks:
        """The hot part of the edges and each slot's first block, zero-copy; kept until the store grows."""
        groups, edge_groups = self.core.node_groups, self.core.block_groups
        if self._edge_blocks is None or self._edge_blocks[:2] != (groups, edge_groups):
            view, row = self.core.edge_view(), _core.HOT_BLOCK_BYTES // 4

            def part(dtype: torch.dtype, tail: tuple[int, ...], offset: int) -> torch.Tensor:
                shape = (edge_groups, GROUP, *tail)
                return _strided(view, dtype, shape, _core.EDGE_GROUP_BYTES, row, offset)

            blocks = EdgeBlocks(
                self.column("first_block"),
                part(torch.int32, (BLOCK_EDGES,), 0),
                part(torch.float32, (BLOCK_EDGES,), 4 * BLOCK_EDGES),
                part(torch.int32, (), 8 * BLOCK_EDGES),
            )
            self._edge_blocks = (groups, edge_groups, blocks)
        return self._edge_blocks[2]

    def mark(self, name: str, slots: Any = None) -> None:
        """Says that rows of a column were changed outside the store (None: rows 0..node_count-1), so that the
        next commit writes them. Raises AESGMemoryError for rows that are not there."""
        if name not in NODE_COLUMNS:
            raise AESGMemoryError(f"mark: expected one of {', '.join(NODE_COLUMNS)}, got {name!r}")
        index = NODE_COLUMNS[name][0]
        if slots is None:
            self.core.mark_rows(index, 0, self.core.node_count)
            return
        array = slots.cpu().numpy() if isinstance(slots, torch.Tensor) else np.asarray(slots)
        self.core.mark(index, array.reshape(-1).astype(np.int64, copy=False))

    # -- one at a time -------------------------------------------------------------------------------------

    def add_node(self, node_id: int, vector: Any) -> int:
        """Adds a living concept; returns its slot.

        `node_id` 1..2**64-2, not given before; `vector` [D] of finite numbers. Raises AESGMemoryError
        otherwise.
        """
        self.require_assignable()
        node_id = int(node_id)
        if not 1 <= node_id <= 2**64 - 2:
            raise AESGMemoryError(f"node_id: expected 1..2**64-2, got {node_id}")
        array = vector.detach().cpu().numpy() if isinstance(vector, torch.Tensor) else np.asarray(vector)
        if array.shape != (self.vector_dim,) or array.dtype.kind not in "fiu":
            raise AESGMemoryError(
                f"vector: expected {self.vector_dim} numbers, got {array.dtype} of shape {array.shape}"
            )
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise AESGMemoryError("vector: expected finite numbers, got NaN or infinity")
        if node_id < self.core.counters.next_id and self._slot_of(node_id) >= 0:
            raise AESGMemoryError(f"node_id: expected a new one, got {node_id}, which is taken")
        slot = self.core.allocate_slot()
        norm = float(np.sqrt(np.square(array, dtype=np.float64).sum()))
        now = int(self.clock())
        values = {
            "vector": array, "inv_norm": 1.0 / norm if norm >= np.finfo("f4").tiny else 0.0, "id": node_id,
            "created_at": now, "modified_at": now, "relevance": 1.0, "stability": 0.5, "is_active": 1,
        }  # fmt: skip
        for name, value in values.items():
            grouped(self, name)[slot // GROUP, slot % GROUP] = value
        counters = self.core.counters
        counters.active_count += 1
        counters.next_id = max(counters.next_id, node_id + 1)
        return slot

    def add_edge(self, source_idx: int, target_id: int, weight: float, confidence: float = 1.0) -> None:
        """Adds or sets the similarity edge from a slot to the concept with id `target_id`.

        Raises AESGMemoryError: no such living slot or id, weight or confidence outside 0..1.
        """
        self.require_assignable()
        target = self._slot_of(int(target_id))
        if target < 0:
            raise AESGMemoryError(f"target_id: expected the id of a concept, got {target_id}")
        _core.put_edges(self.core, [int(source_idx)], [target], [float(weight)], [float(confidence)])

    def update(self, slots: Any, **fields: Any) -> None:
        """Assigns several fields of several concepts in one call: `slots` [n], each field one value for all
        or one a slot. A vector [D] or [n, D] brings its inverse norm and `modified_at` along.

        Fields: vector, relevance, stability, use_frequency, age, region_id. Raises AESGMemoryError for rows
        that are not there, other fields, shapes, and values that are not finite or do not fit, before
        anything changed. O(n D).
        """
        self.require_assignable()
        if not isinstance(slots, np.ndarray):
            slots = slots.cpu().numpy() if isinstance(slots, torch.Tensor) else np.asarray(slots)
        if slots.dtype.kind not in "iu" and slots.size:
            raise AESGMemoryError(f"slots: expected whole numbers, got dtype {slots.dtype}")
        for name, value in fields.items():
            # Asking torch whether a number is a tensor takes longer than writing it.
            if not isinstance(value, (np.ndarray, float, int)) and isinstance(value, torch.Tensor):
                fields[name] = value.detach().cpu().numpy()
        self.core.update(slots, int(self.clock()), **fields)

    def get_node(self, idx: int) -> Any:
        """The record of a slot, a copy with the documented fields."""
        return self.nodes[idx]

    def get_edges(self, idx: int) -> np.ndarray:
        """A slot's edges, structured: source_id, target_id, weight, confidence, use_count, next_edge_idx, and
        target (slot) and kind (0 similarity, 1 succession, 2 abstraction). O(edges of the slot)."""
        self.settle()
        count = self.core.node_count
        if not 0 <= int(idx) < count:
            raise AESGMemoryError(f"get_edges: expected a slot in 0..{count - 1}, got {idx}")
        return edge_records(self, chain_positions(self, int(idx)))

    def _slot_of(self, node_id: int) -> int:
        """The slot of an id, -1 when there is none. O(N)."""
        if not 1 <= node_id < 2**64:
            return -1
        ids = grouped(self, "id").reshape(-1)[: self.core.node_count]
        found = np.flatnonzero(ids == np.uint64(node_id))
        return int(found[0]) if found.size else -1

    # -- small state ---------------------------------------------------------------------------------------

    def read_state(self) -> dict[str, Any]:
        """The small state as last written: arrays (copies) and JSON values by name, {} when none was."""
        return decode(self.core.state())

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replaces the small state; durable with the next commit. Arrays of numbers, and JSON values."""
        self.core.set_state(encode(state))

    # -- durability ----------------------------------------------------------------------------------------

    def commit(self) -> int:
        """Makes all changes durable in one step; returns the generation. Without changes nothing is written.

        Raises AESGStorageError when a write or sync fails; the last commit stays readable, and after a failed
        sync no commit is taken any more.
        """
        self._arrive()
        return self.core.commit()

    flush = commit

    def compact(self) -> None:
        """Brings the main files up to date and gives the journal's old bytes back.

        What was removed before the last commit is then in no file. Raises AESGStorageError while a reader has
        the directory open.
        """
        self.core.compact()

    def refresh(self) -> bool:
        """Reader: takes over what the writer committed since; True when anything changed."""
        self._arrive()
        return self.core.refresh()

    def snapshot(self, directory: str | os.PathLike[str]) -> None:
        """Makes a complete copy of what is committed that opens on its own.

        Raises AESGStorageError when `directory` is neither missing nor empty; what was begun is removed then.
        """
        directory = as_path(directory)
        if os.path.isdir(directory) and os.listdir(directory):
            raise AESGStorageError(f"'{directory}' already holds something: a snapshot needs a new place")
        self.core.snapshot(directory)

    def restore(self, directory: str | os.PathLike[str]) -> None:
        """Replaces everything here by what is committed in another directory, in one commit.

        Raises AESGStorageError, with nothing changed, when that is no memory of the same vector_dim or while
        a reader has this one open, nor when it holds symbolic links or files that are not a memory's.
        """
        self.require_assignable()
        require_plain_directory(directory)
        with AESGStorage(directory, self.vector_dim, read_only=True) as source:
            if findings := source.verify():  # opening looks at no column
                raise AESGStorageError(f"'{directory}' is damaged: {findings[0]}")
            self.core.copy_from(source.core)
        self.commit()

    def verify(self) -> list[str]:
        """Reads the files anew, O(files); findings about checksums, chains and counts, none when sound."""
        return self.core.verify()

    def close(self, commit: bool = True) -> None:
        """Commits (unless told not to, read-only, or closed before) and gives the directory free."""
        if self.closed:
            return
        try:
            if commit and not self.read_only:
                self.settle()
                self.commit()
        finally:
            self.core.close()
            _let_go_of_the_closed(self)

    def __enter__(self) -> AESGStorage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(commit=kind is None)

    def __repr__(self) -> str:
        how = "closed" if self.closed else "read-only" if self.read_only else "open"
        return (
            f"<AESGStorage '{self.directory}' ({how}): {self.core.node_count} nodes of {self.vector_dim} "
            f"dimensions, {self.core.edge_count} edges, generation {self.generation}>"
        )


@torch.inference_mode(False)  # what is kept is used outside of it as well
def _strided(
    view: np.ndarray,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    group_bytes: int,
    row: int,
    offset_bytes: int,
) -> torch.Tensor:
    """Torch view over the store's bytes; `row` in elements, `offset_bytes` inside a group."""
    if shape[0] == 0:
        return torch.empty(shape, dtype=dtype)
    flat = torch.from_numpy(view).view(dtype)
    item = flat.element_size()
    strides = (group_bytes // item, row, *(1 for _ in shape[2:]))
    return flat.as_strided(shape, strides, offset_bytes // item)
