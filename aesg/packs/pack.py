"""MemoryPack: one pack as it was read or made, with the columns that search and spreading need."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg.graph.coarse import CoarseIndex
from aesg.packs import version1
from aesg.packs.columns import PackColumns

DEFAULT_PRIORITY = 50


class PackState(Enum):
    """Whether some memory searches the pack."""

    LOADED = "loaded"
    ATTACHED = "attached"


class PackTensors:
    """The columns as torch sees them: views of the same bytes, never written."""

    def __init__(self, columns: PackColumns) -> None:
        def view(array: np.ndarray) -> Tensor:
            tensor = torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)
            # Without elements it may have got any strides, and the ops want those of a column.
            return tensor if array.size else torch.empty(array.shape, dtype=tensor.dtype)

        self.vectors = view(columns.vectors)  # [N, D] f32
        self.inv_norm = view(columns.inv_norm)  # [N] f32
        self.active = view(columns.active)  # [N] u8
        self.regions = view(columns.fields["region_id"].view(np.int32))  # [N] i32
        self.first_block = view(columns.first_block)  # [N] i32
        self.targets = view(columns.targets)  # [M, 7] i32
        self.strengths = view(columns.strengths)  # [M, 7] f32
        self.next_block = view(columns.next_block)  # [M] i32


class PackRows:
    """The concepts of a pack as `CoarseIndex` searches them: they never change."""

    def __init__(self, tensors: PackTensors) -> None:
        self.vectors, self.inv_norm, self.active = tensors.vectors, tensors.inv_norm, tensors.active
        self.count = len(self.active)
        self.living = int(self.active.count_nonzero())

    def at(self, slots: Tensor) -> Tensor:
        return self.vectors[slots]

    def slots(self) -> Tensor:
        return torch.nonzero(self.active)[:, 0]

    def only_used(self, slots: Tensor) -> Tensor:
        return slots

    def take_changes(self) -> tuple[bool, np.ndarray]:
        return False, np.empty(0, dtype=np.int64)


class MemoryPack:
    """A read-only graph that can be attached to memories.

    nodes, edges: the records of 3.0.0 (`node_dtype(D)`, `EDGE_RECORD`); of a version-2 pack they are made
    when asked for. checksum: hex, says whether two packs are the same. findings: what of the file could not
    be used, a line each. metadata: what a version-2 file says about itself. priority and state are those of
    the last attaching.
    """

    def __init__(
        self,
        name: str,
        version: str,
        vector_dim: int,
        nodes: np.ndarray | None,
        edges: np.ndarray | None,
        checksum: str,
        priority: int = DEFAULT_PRIORITY,
        state: PackState = PackState.LOADED,
        *,
        path: str | None = None,
        format_version: int = version1.VERSION,
        metadata: dict[str, Any] | None = None,
        columns: PackColumns | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.vector_dim = vector_dim
        self.checksum = checksum
        self.priority = priority
        self.state = state
        self.path = path
        self.format_version = format_version
        self.metadata = {} if metadata is None else metadata
        self._nodes = nodes
        self._edges = edges
        self._columns = columns
        self._findings: list[str] = []

    @property
    def columns(self) -> PackColumns:
        """Made once. Raises AESGStorageError for records that mean nothing; see `version1.to_columns`."""
        if self._columns is None:
            assert self._nodes is not None and self._edges is not None
            self._columns, self._findings = version1.to_columns(self._nodes, self._edges, f"'{self.name}'")
        return self._columns

    @cached_property
    def tensors(self) -> PackTensors:
        return PackTensors(self.columns)

    @cached_property
    def rows(self) -> PackRows:
        return PackRows(self.tensors)

    @cached_property
    def coarse(self) -> CoarseIndex:
        """Cells for approximate search, made by the first search that wants them and kept with the pack.

        Measured on the pack's own concepts: so they are the same in every process.
        """
        return CoarseIndex(self.rows, ask=False)

    @property
    def nodes(self) -> np.ndarray:
        """Records of the concepts [N]."""
        self._make_records()
        assert self._nodes is not None
        return self._nodes

    @property
    def edges(self) -> np.ndarray:
        """Records of the edges [E]; of a version-2 pack only the strongest of one pair."""
        self._make_records()
        assert self._edges is not None
        return self._edges

    @property
    def findings(self) -> Sequence[str]:
        _ = self.columns
        return tuple(self._findings)

    def __len__(self) -> int:
        """Concepts, without making records."""
        return len(self._columns if self._columns is not None else self.nodes)

    def _make_records(self) -> None:
        if self._nodes is None or self._edges is None:
            self._nodes, self._edges = version1.to_records(self.columns)

    def __repr__(self) -> str:
        return (
            f"<MemoryPack '{self.name}' ({self.state.value}): {len(self)} concepts of {self.vector_dim} "
            f"dimensions, format {self.format_version}>"
        )
