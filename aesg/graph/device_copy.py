"""DeviceCopy: what retrieval reads of a graph, held on a device beside the store and kept up to date.

The store stays the only truth: it is written on the host alone, and says by stamps which groups changed
(csrc/storage/store.h). A copy brings those groups, whole, and nothing else.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.graph.device_groups import Groups
from aesg.graph.query_mean import QueryMean, without
from aesg.graph.streamed_vectors import StreamedVectors
from aesg.ops import seed_search
from aesg.storage.engine import AESGStorage, EdgeBlocks
from aesg.storage.nodes import BLOCK_EDGES, GROUP, NODE_COLUMNS


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
        # On the device, a group a row, in words of 8 bytes:
        dim = storage.vector_dim
        self.streamed = StreamedVectors(self.device, dim, GROUP) if residency == "host" else None
        self._vectors = self.streamed or Groups(self.device, 4 * dim * GROUP)
        self._columns = Groups(self.device, _COLUMN_BYTES)
        self._blocks = Groups(self.device, _core.HOT_BLOCK_BYTES * GROUP)
        self._lengths = Groups(self.device, 4 * GROUP)  # see `inverse_norms`
        self._common: Tensor | None = None  # as of `_lengths`, and on the device
        self._common_there: Tensor | None = None
        self._columns_at = [_core.column_offset(dim, NODE_COLUMNS[name][0]) for name, _ in _LOOKED_UP]

    @property
    def copied_groups(self) -> tuple[int, int, int]:
        """How many groups were ever brought: of vectors, of the other columns, of edge blocks."""
        return self._vectors.copied, self._columns.copied, self._blocks.copied

    @property
    def is_current(self) -> bool:
        """Whether there is nothing for `refresh` to bring."""
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
        if self.device.type == "cuda":
            self._join_streams()
        if self.is_current:
            return
        core = self._storage.core
        rows = core.node_view().reshape(core.node_groups, _core.group_bytes(core.vector_dim))
        blocks = core.edge_view().reshape(core.block_groups, _core.EDGE_GROUP_BYTES)
        vectors, hot = self._vectors, self._blocks
        vectors.bring(core.vector_stamps, core.node_groups, lambda g: [rows[g, : vectors.bytes]])
        self._columns.bring(
            core.group_stamps,
            core.node_groups,
            lambda g: [
                rows[g, at : at + item * GROUP]
                for at, (_, item) in zip(self._columns_at, _LOOKED_UP, strict=True)
            ],
        )
        hot.bring(core.block_stamps, core.block_groups, lambda g: [blocks[g, : hot.bytes]])
        self._changes = core.changes

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
        blocks, line = self._blocks, _core.HOT_BLOCK_BYTES // 4
        return EdgeBlocks(
            self._column("first_block", torch.int32),
            blocks.part(torch.int32, 0, (GROUP, line))[..., :BLOCK_EDGES],
            blocks.part(torch.float32, 0, (GROUP, line))[..., BLOCK_EDGES : 2 * BLOCK_EDGES],
            blocks.part(torch.int32, 0, (GROUP, line))[..., 2 * BLOCK_EDGES],
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
        return vectors if health.common is None else without(vectors, self.common_of(health))

    def inverse_norms(self, health: QueryMean) -> Tensor:
        """By what a product with a stored vector is scaled, [G, 1024] f32: `QueryMean.inverse_norms`, of
        which those of changed groups are found on the host and brought here. After `refresh`.
        """
        if health.common is None:
            return self.inv_norm
        self.common_of(health)
        core, lengths = self._storage.core, health.inverse_norms(self._storage).numpy()
        self._lengths.bring(core.vector_stamps, core.node_groups, lambda g: [lengths[g].view(np.uint8)])
        return self._lengths.part(torch.float32, 0, (GROUP,))

    @torch.inference_mode(False)  # training goes through it, whatever was asked under before
    def common_of(self, health: QueryMean) -> Tensor:
        """The direction [D] f64 that likeness leaves out, here; the lengths known so far go with the former
        one.
        """
        if self._common is not health.common or self._common_there is None:
            assert health.common is not None
            self._lengths = Groups(self.device, 4 * GROUP)
            common = health.common.pin_memory() if self.device.type == "cuda" else health.common
            self._common, self._common_there = health.common, common.to(self.device, non_blocking=True)
        return self._common_there

    def _join_streams(self) -> None:
        """Who asks on another stream than the last waits, on the device, for what was asked there: one of
        them may write what the other reads.
        """
        stream = torch.cuda.current_stream(self.device)
        if stream == self._stream or torch.cuda.is_current_stream_capturing():
            return
        if self._stream is not None:
            stream.wait_stream(self._stream)
        self._stream = stream
        for part in (self._vectors, self._columns, self._blocks, self._lengths):
            part.used_on(stream)
        if self._common_there is not None:
            self._common_there.record_stream(stream)

    def _column(self, name: str, dtype: torch.dtype) -> Tensor:
        return self._columns.part(dtype, _COLUMN_STARTS[name], (GROUP,))


# The columns beside the vectors and the bytes of a value, widest first, so that each is aligned in its group.
_LOOKED_UP = [("id", 8), ("inv_norm", 4), ("region_id", 4), ("first_block", 4), ("is_active", 1)]
_COLUMN_STARTS = {
    name: GROUP * sum(item for _, item in _LOOKED_UP[:place]) for place, (name, _) in enumerate(_LOOKED_UP)
}
_COLUMN_BYTES = GROUP * sum(item for _, item in _LOOKED_UP)
