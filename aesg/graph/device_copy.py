"""DeviceCopy: what retrieval reads of a graph, held on a device beside the store and kept up to date.

The store says by stamps which groups changed (csrc/storage/store.h); a copy brings those, whole, and nothing
else. What a device learns by itself (`aesg.graph.device_learning`) it has before the store, and none of it is
brought.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.graph.device_groups import Groups, Parts
from aesg.graph.query_mean import QueryMean, with_part
from aesg.graph.streamed_vectors import StreamedVectors
from aesg.ops import Edges, Nodes, project_out, project_out_inv_norm_, seed_search
from aesg.storage.engine import AESGStorage, EdgeBlocks
from aesg.storage.nodes import BLOCK_EDGES, GROUP, NODE_COLUMNS

if TYPE_CHECKING:
    from aesg.graph.device_learning import DeviceLearning


class DeviceCopy:
    """Vectors, looked-up columns and edge blocks of one storage on one device, in the store's groups.

    `refresh` brings what changed; the properties are then views of the store's first `node_groups` and
    `block_groups`, until the next `refresh`, which precedes every use: it also orders what is asked on
    different CUDA streams. With device "cpu" it is a true copy, too.

    residency "host": the vectors stay in pinned host memory and pass through the device when they are
    searched; those of members come from the store, for which the host waits.
    """

    def __init__(self, storage: AESGStorage, device: torch.device | str, residency: str = "device") -> None:
        self.device = torch.empty(0, device=device).device  # with its index
        self._storage = storage
        self._changes = -1  # of the store, as of the last refresh
        self._stream: torch.cuda.Stream | None = None  # on which it was last asked
        self.learning: DeviceLearning | None = None  # what it learns by itself
        self._held = 0  # changes of the store that were made here as well
        # On the device, a group a row, in words of 8 bytes:
        dim = storage.vector_dim
        self.streamed = StreamedVectors(self.device, dim, GROUP) if residency == "host" else None
        self._vectors = self.streamed or Groups(self.device, 4 * dim * GROUP)
        self._columns = Groups(self.device, _COLUMN_BYTES)
        self._blocks = Groups(self.device, _core.HOT_BLOCK_BYTES * GROUP)
        self._learnt = Groups(self.device, _LEARNT_BYTES)  # these two only where it learns
        self._cold = Groups(self.device, _core.COLD_BLOCK_BYTES * GROUP)
        self._lengths = Groups(self.device, 4 * GROUP)  # see `inverse_norms`
        self._common: Tensor | None = None  # as of `_lengths`
        self._common_there: Tensor | None = None  # [2, D], it and `QueryMean.part` on the device

    @property
    def copied_groups(self) -> tuple[int, int, int]:
        """How many groups were ever brought: of vectors, of the other columns, of edge blocks."""
        return self._vectors.copied, self._columns.copied, self._blocks.copied

    @property
    def is_current(self) -> bool:
        """Whether there is nothing for `refresh` to bring."""
        if self.learning is not None and self.learning.in_step:
            return True
        core, known = self._storage.core, (self._changes, self._vectors.count, self._blocks.count)
        return known == (core.changes, core.node_groups, core.block_groups)

    def layout(self, health: QueryMean) -> tuple[int, ...]:
        """Changes when what is read of this copy lies elsewhere or is longer. After `refresh`."""
        lengths = self.inverse_norms(health)
        common = 0 if health.common is None else self.common_of(health).data_ptr()
        parts = [part.place for part in (self._vectors, self._columns, self._blocks)]
        return (*itertools.chain(*parts), lengths.data_ptr(), common)

    def refresh(self) -> None:
        """Brings what changed in the store since the last call. O(groups) and the bytes of those that
        changed; O(1) when nothing did.
        """
        self.join_streams()
        if self.is_current:
            return
        core, held = self._storage.core, self._held
        rows, blocks = self._stored()
        vectors, hot = self._vectors, self._blocks
        vectors.bring(core.vector_stamps, core.node_groups, lambda g: [rows[g, : vectors.bytes]], held)
        self._columns.bring(
            core.group_stamps, core.node_groups, _parts(rows, core.vector_dim, _LOOKED_UP), held
        )
        hot.bring(core.block_stamps, core.block_groups, lambda g: [blocks[g, : hot.bytes]], held)
        self._changes = core.changes

    # -- what learning needs and changes -------------------------------------------------------------------

    def refresh_learnt(self) -> None:
        """`refresh`, and what learning needs beside it."""
        self.refresh()
        core, held = self._storage.core, self._held
        rows, blocks = self._stored()
        start = _core.HOT_GROUP_BYTES
        self._learnt.bring(core.learnt_stamps, core.node_groups, _parts(rows, core.vector_dim, _LEARNT), held)
        self._cold.bring(core.cold_stamps, core.block_groups, lambda g: [blocks[g, start:]], held)

    def learnt_layout(self) -> tuple[int, ...]:
        """As `layout`, of what only learning reads."""
        return (*self._learnt.place, *self._cold.place)

    def holds(self, changes: int) -> None:
        """What changed in the store up to here was made here as well."""
        self._held = changes

    def forget(self) -> None:
        """What is here is not what the store will be: all is brought anew."""
        self._changes, self._held = -1, 0
        for part in (self._vectors, self._columns, self._blocks, self._learnt, self._cold, self._lengths):
            part.forget()

    def reserve(self, nodes: int, blocks: int) -> None:
        """Room for so many concepts and edge blocks in all; what is there beyond the store's is free."""
        assert isinstance(self._vectors, Groups)
        groups = -(-nodes // GROUP), -(-blocks // GROUP)
        wanted = [(part, groups[0]) for part in (self._vectors, self._columns, self._learnt)]
        wanted += [(part, groups[1]) for part in (self._blocks, self._cold)]
        if self._common is not None:  # where likeness leaves something out
            wanted.append((self._lengths, groups[0]))
        for part, count in wanted:  # all or none is longer
            part.make_room(count)
        for part, count in wanted:
            part.reserve(count)

    def room(self) -> tuple[int, int]:
        """How many concepts and edge blocks there is room for."""
        return self._columns.count * GROUP, self._blocks.count * GROUP

    def _stored(self) -> tuple[np.ndarray, np.ndarray]:
        """The store's row groups and groups of blocks, as bytes a group."""
        core = self._storage.core
        rows = core.node_view().reshape(core.node_groups, _core.group_bytes(core.vector_dim))
        return rows, core.edge_view().reshape(core.block_groups, _core.EDGE_GROUP_BYTES)

    @property
    def nodes(self) -> Nodes:
        """The columns that a birth fills."""
        return Nodes(
            self.vector, self.id, self.inv_norm, self.use_frequency, self.relevance, self.age, self.region_id,
            self.is_active,
        )  # fmt: skip

    @property
    def use_frequency(self) -> Tensor:
        """[G, 1024] i32, the bits of u32."""
        return self._learnt.part(torch.int32, _LEARNT_STARTS["use_frequency"], (GROUP,))

    @property
    def relevance(self) -> Tensor:
        """[G, 1024] f32."""
        return self._learnt.part(torch.float32, _LEARNT_STARTS["relevance"], (GROUP,))

    @property
    def age(self) -> Tensor:
        """[G, 1024] i32, the bits of u32."""
        return self._learnt.part(torch.int32, _LEARNT_STARTS["age"], (GROUP,))

    @property
    def edges(self) -> Edges:
        """All of the edges."""
        return Edges(
            *self.edge_blocks,
            counts=self._hot(torch.int32, 8 * BLOCK_EDGES + 4),
            weights=self._cold_part(torch.float32, 0, BLOCK_EDGES),
            confidences=self._cold_part(torch.float32, 4 * BLOCK_EDGES, BLOCK_EDGES),
            use_counts=self._cold_part(torch.int32, 8 * BLOCK_EDGES, BLOCK_EDGES),
            tags=self._cold_part(torch.uint8, 12 * BLOCK_EDGES, BLOCK_EDGES),
            sources=self._cold_part(torch.int32, _core.COLD_BLOCK_BYTES - 4),
        )

    # ------------------------------------------------------------------------------------------------------

    @property
    def vector(self) -> Tensor:
        """[G, 1024, D] f32; where they stay on the host, zeros in their place."""
        if self.streamed is not None:
            nothing = torch.zeros(1, GROUP, self._storage.vector_dim, device=self.device)
            return nothing.expand(self._vectors.count, -1, -1)
        return self._vectors.part(torch.float32, 0, (GROUP, self._storage.vector_dim))

    @property
    def id(self) -> Tensor:
        """[G, 1024] i64, the bits of u64."""
        return self._column("id", torch.int64)

    @property
    def inv_norm(self) -> Tensor:
        """[G, 1024] f32."""
        return self._column("inv_norm", torch.float32)

    @property
    def region_id(self) -> Tensor:
        """[G, 1024] i32."""
        return self._column("region_id", torch.int32)

    @property
    def is_active(self) -> Tensor:
        """[G, 1024] u8."""
        return self._column("is_active", torch.uint8)

    @property
    def edge_blocks(self) -> EdgeBlocks:
        """As `AESGStorage.edge_blocks`: a block's fields share a line of 64 bytes here as well."""
        return EdgeBlocks(
            self._column("first_block", torch.int32),
            self._hot(torch.int32, 0, BLOCK_EDGES),
            self._hot(torch.float32, 4 * BLOCK_EDGES, BLOCK_EDGES),
            self._hot(torch.int32, 8 * BLOCK_EDGES),
        )

    def search(self, queries: Tensor, k: int, min_score: float, health: QueryMean) -> tuple[Tensor, Tensor]:
        """Exact cosine top-k of queries [B, D] here, as `SemanticGraph.search`."""
        rest, lengths = self.without(queries, health), self.inverse_norms(health)
        if self.streamed is not None:
            return self.streamed.search(rest, k, lengths, self.is_active, min_score)
        return seed_search(rest, self.vector, k, inv_norm=lengths, active=self.is_active, min_score=min_score)

    def gathered(self, slots: Tensor) -> Tensor:
        """Copies of the vectors [..., D] of slots [...] that stay on the host; zero where there is none."""
        asked, dim = slots.reshape(1, -1).cpu(), self._storage.vector_dim
        rows = torch.empty(*asked.shape, dim, dtype=torch.float32, device="cpu", pin_memory=slots.is_cuda)
        _core.gather_own(self._storage.core, asked.numpy(), rows.numpy())
        return rows.to(slots.device, non_blocking=True).view(*slots.shape, dim)

    def without(self, vectors: Tensor, health: QueryMean) -> Tensor:
        """`QueryMean.without` of vectors [..., D] on this device."""
        return vectors if health.common is None else project_out(vectors, self.common_of(health))

    def restored(self, rests: Tensor, health: QueryMean) -> Tensor:
        """`QueryMean.restored` of vectors [n, D] on this device."""
        if health.common is None:
            return rests
        self.common_of(health)
        assert self._common_there is not None
        return with_part(rests, self._common_there[1])

    def inverse_norms(self, health: QueryMean) -> Tensor:
        """By what a product with a stored vector is scaled, [G, 1024] f32: `QueryMean.inverse_norms`, of
        which those of changed groups are found on the host and brought here. After `refresh`.
        """
        if health.common is None:
            if self._common is not None:
                self._common, self._lengths = None, Groups(self.device, 4 * GROUP)
            return self.inv_norm
        self.common_of(health)
        if self.learning is None or not self.learning.in_step:  # then `note_lengths` keeps them
            core, lengths = self._storage.core, health.inverse_norms(self._storage).numpy()
            stamps = core.vector_stamps
            self._lengths.bring(stamps, core.node_groups, lambda g: [lengths[g].view(np.uint8)], self._held)
        return self._lengths.part(torch.float32, 0, (GROUP,))

    def note_lengths(self, vectors: Tensor, slots: Tensor, health: QueryMean) -> None:
        """`inverse_norms` of what was born here: vectors [n, D] at slots [n], below 0: none."""
        if health.common is not None:
            lengths = self._lengths.part(torch.float32, 0, (GROUP,))
            project_out_inv_norm_(lengths, vectors, slots, self.common_of(health))

    @torch.inference_mode(False)  # training goes through it, whatever was asked under before
    def common_of(self, health: QueryMean) -> Tensor:
        """The direction [D] f64 that likeness leaves out, here; the lengths known so far go with the former
        one.
        """
        if self._common is not health.common or self._common_there is None:
            assert health.common is not None
            self._lengths = Groups(self.device, 4 * GROUP)
            both = torch.stack([health.common, health.part])
            if self.device.type == "cuda":
                both = both.pin_memory()
            self._common, self._common_there = health.common, both.to(self.device, non_blocking=True)
        return self._common_there[0]

    def join_streams(self) -> None:
        """Who asks on another CUDA stream than the last waits, on the device, for what was asked there: one
        of them may write what the other reads.
        """
        if self.device.type != "cuda":
            return
        stream = torch.cuda.current_stream(self.device)
        if stream == self._stream or torch.cuda.is_current_stream_capturing():
            return
        if self._stream is not None:
            stream.wait_stream(self._stream)
        self._stream = stream
        for part in (self._vectors, self._columns, self._blocks, self._learnt, self._cold, self._lengths):
            part.used_on(stream)
        if self.learning is not None:
            self.learning.used_on(stream)
        if self._common_there is not None:
            self._common_there.record_stream(stream)

    def _column(self, name: str, dtype: torch.dtype) -> Tensor:
        return self._columns.part(dtype, _COLUMN_STARTS[name], (GROUP,))

    def _hot(self, dtype: torch.dtype, start: int, *width: int) -> Tensor:
        """What lies `start` bytes into every block's hot part, [M, 1024] or [M, 1024, width]."""
        return self._blocks.part(dtype, start, (GROUP, *width), _core.HOT_BLOCK_BYTES)

    def _cold_part(self, dtype: torch.dtype, start: int, *width: int) -> Tensor:
        return self._cold.part(dtype, start, (GROUP, *width), _core.COLD_BLOCK_BYTES)


# Names and the bytes of a value, widest first, so that each is aligned in its group.
Columns = list[tuple[str, int]]

_LOOKED_UP: Columns = [("id", 8), ("inv_norm", 4), ("region_id", 4), ("first_block", 4), ("is_active", 1)]
_LEARNT: Columns = [("use_frequency", 4), ("relevance", 4), ("age", 4)]


def _starts(columns: Columns) -> dict[str, int]:
    """Where each column starts in its group."""
    return {name: GROUP * sum(item for _, item in columns[:place]) for place, (name, _) in enumerate(columns)}


def _bytes(columns: Columns) -> int:
    return GROUP * sum(item for _, item in columns)


def _parts(rows: np.ndarray, dim: int, columns: Columns) -> Parts:
    """Where these columns lie in the store's row groups."""
    places = [(_core.column_offset(dim, NODE_COLUMNS[name][0]), item) for name, item in columns]
    return lambda g: [rows[g, at : at + item * GROUP] for at, item in places]


_COLUMN_STARTS, _COLUMN_BYTES = _starts(_LOOKED_UP), _bytes(_LOOKED_UP)
_LEARNT_STARTS, _LEARNT_BYTES = _starts(_LEARNT), _bytes(_LEARNT)
