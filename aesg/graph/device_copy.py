"""DeviceCopy: what retrieval reads of a graph, held on a device beside the store and kept up to date.

The store stays the only truth: it is written on the host alone, and says by stamps which groups changed
(csrc/storage/store.h). A copy brings those groups, whole, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.graph.query_mean import QueryMean, without
from aesg.storage.engine import AESGStorage, EdgeBlocks
from aesg.storage.nodes import BLOCK_EDGES, GROUP, NODE_COLUMNS

_Parts = Callable[[int], list[np.ndarray]]

STAGED_BYTES = 32 << 20  # at most so much goes to the device in one transfer; one group always may


class DeviceCopy:
    """Vectors, looked-up columns and edge blocks of one storage on one device, in the store's groups.

    `refresh` brings what changed; the properties are then views of the store's first `node_groups` and
    `block_groups`, until the next `refresh`. Transfers and what reads the views must be on one stream.
    With device "cpu" it is a true copy, too.
    """

    def __init__(self, storage: AESGStorage, device: torch.device | str) -> None:
        self.device = torch.empty(0, device=device).device  # with its index
        self._storage = storage
        self._changes = -1  # of the store, as of the last refresh
        # On the device, a group a row, in words of 8 bytes:
        dim = storage.vector_dim
        self._vectors = _Groups(self.device, 4 * dim * GROUP)
        self._columns = _Groups(self.device, _COLUMN_BYTES)
        self._blocks = _Groups(self.device, _core.HOT_BLOCK_BYTES * GROUP)
        self._lengths = _Groups(self.device, 4 * GROUP)  # see `likeness`
        self._common: Tensor | None = None  # as of `_lengths`, and on the device
        self._common_there: Tensor | None = None
        self._columns_at = [_core.column_offset(dim, NODE_COLUMNS[name][0]) for name, _ in _LOOKED_UP]

    @property
    def copied_groups(self) -> tuple[int, int, int]:
        """How many groups were ever brought: of vectors, of the other columns, of edge blocks."""
        return self._vectors.copied, self._columns.copied, self._blocks.copied

    def refresh(self) -> None:
        """Brings what changed in the store since the last call. O(groups) and the bytes of those that
        changed; O(1) when nothing did.
        """
        core = self._storage.core
        if (self._changes, self._vectors.count, self._blocks.count) == (
            core.changes, core.node_groups, core.block_groups
        ):  # fmt: skip
            return
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
        """[G, 1024, D] f32."""
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

    def likeness(self, queries: Tensor, health: QueryMean) -> tuple[Tensor, Tensor]:
        """Queries [B, D] on this device without their common part, and by what a product with a stored vector
        is scaled, [G, 1024] f32: `QueryMean.without` and `inverse_norms`, whose lengths of changed groups are
        found on the host and brought here. After `refresh`.
        """
        common = health.common
        if common is None:
            return queries, self.inv_norm
        if self._common is not common:
            self._lengths = _Groups(self.device, 4 * GROUP)
            self._common, self._common_there = common, common.to(self.device)
        assert self._common_there is not None
        core, lengths = self._storage.core, health.inverse_norms(self._storage).numpy()
        self._lengths.bring(core.vector_stamps, core.node_groups, lambda g: [lengths[g].view(np.uint8)])
        return without(queries, self._common_there), self._lengths.part(torch.float32, 0, (GROUP,))

    def _column(self, name: str, dtype: torch.dtype) -> Tensor:
        return self._columns.part(dtype, _COLUMN_STARTS[name], (GROUP,))


# The columns beside the vectors and the bytes of a value, widest first, so that each is aligned in its group.
_LOOKED_UP = [("id", 8), ("inv_norm", 4), ("region_id", 4), ("first_block", 4), ("is_active", 1)]
_COLUMN_STARTS = {
    name: GROUP * sum(item for _, item in _LOOKED_UP[:place]) for place, (name, _) in enumerate(_LOOKED_UP)
}
_COLUMN_BYTES = GROUP * sum(item for _, item in _LOOKED_UP)


class _Groups:
    """Groups of `bytes` bytes each on a device, and the stamps they had in the store when they came."""

    def __init__(self, device: torch.device, group_bytes: int) -> None:
        self.bytes = group_bytes  # a multiple of 8
        self.count = 0
        self.copied = 0  # groups, ever
        self._words = torch.empty(0, group_bytes // 8, dtype=torch.int64, device=device)  # [capacity, words]
        self._stamps = np.zeros(0, dtype=np.uint64)  # [count]

    @torch.inference_mode(False)  # what is kept is used outside of it as well
    @torch.no_grad()
    def bring(self, stamps: np.ndarray, count: int, parts: _Parts) -> None:
        """Makes these groups those of the store: `count` of them, brought where the stamp [<= count] is not
        what it was (0 where it is missing). `parts` of a group: its bytes in the store, in pieces.
        """
        now = np.zeros(count, dtype=np.uint64)
        now[: len(stamps)] = stamps[:count]
        both = min(count, self.count)
        changed = np.arange(count) >= both
        changed[:both] = now[:both] != self._stamps[:both]
        self._make_room(count)
        self.count = count
        self._send(np.flatnonzero(changed), parts)
        self._stamps = now

    def part(self, dtype: torch.dtype, start: int, shape: tuple[int, ...]) -> Tensor:
        """What lies `start` bytes into every group, as [count, *shape]."""
        item = dtype.itemsize
        flat = self._words[: self.count].view(dtype)
        size = int(np.prod(shape))
        return flat[:, start // item : start // item + size].unflatten(1, shape)

    def _make_room(self, count: int) -> None:
        held = len(self._words)
        if count <= held:
            return
        grown = self._words.new_empty(max(count, held + held // 2), self._words.shape[1])
        grown[: self.count] = self._words[: self.count]
        self._words = grown

    def _send(self, groups: np.ndarray, parts: _Parts) -> None:
        on_cuda = self._words.is_cuda
        at_once = max(1, STAGED_BYTES // self.bytes)
        for start in range(0, len(groups), at_once):
            which = groups[start : start + at_once]
            # Pinned, so that the device fetches it by itself; torch keeps the room until it has.
            staged = torch.empty(
                len(which), self._words.shape[1], dtype=torch.int64, device="cpu", pin_memory=on_cuda
            )
            rows = staged.numpy().view(np.uint8)
            for row, group in enumerate(which.tolist()):
                at = 0
                for piece in parts(group):
                    rows[row, at : at + len(piece)] = piece
                    at += len(piece)
            there = staged.to(self._words.device, non_blocking=True)
            self._words.index_copy_(0, torch.from_numpy(which).to(self._words.device), there)
            self.copied += len(which)
