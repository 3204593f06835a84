"""StreamedVectors: a store's vectors in pinned host memory, searched by passing them through a device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from aesg.graph.device_groups import Groups, Parts
from aesg.ops import seed_search

SLAB_BYTES = 256 << 20  # of one transfer; two of them are on the device


class StreamedVectors(Groups):
    """Groups of vectors [1024, D] f32 that stay on the host, in slabs that the device can fetch by itself.

    While it searches one slab it fetches the next, so a search takes as long as the slower of both: as a rule
    that of bringing 4 N D bytes over the bus.
    """

    def __init__(self, device: torch.device, vector_dim: int, rows_per_group: int) -> None:
        super().__init__(device, 4 * vector_dim * rows_per_group)
        self._device = device
        self._shape = rows_per_group, vector_dim
        self._slabs: list[Tensor] = []  # [groups, rows, D] each
        self._read: list[torch.cuda.Event | None] = []  # when each was last fetched
        self._groups = max(1, SLAB_BYTES // self.bytes)  # of a slab
        self._buffers: list[Tensor] = []  # two on the device, like a slab
        self._searched: list[torch.cuda.Event | None] = [None, None]  # when each was
        self._fetching = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def place(self) -> tuple[int, int]:
        return 0, self.count

    def used_on(self, stream: torch.cuda.Stream) -> None:
        for buffer in self._buffers:
            buffer.record_stream(stream)

    def search(
        self, queries: Tensor, k: int, inv_norm: Tensor, active: Tensor, min_score: float
    ) -> tuple[Tensor, Tensor]:
        """`seed_search` of queries [B, D] on the device over all groups, with `inv_norm` and `active`
        [G, 1024] there. Waits for nothing.
        """
        scores = queries.new_zeros(len(queries), k)
        slots = torch.full((len(queries), k), -1, device=queries.device)
        for index in range(-(-self.count // self._groups)):
            first = index * self._groups
            here = slice(first, min(first + self._groups, self.count))
            buffer = self._fetched(index, here.stop - first)
            found = seed_search(
                queries, buffer, k, inv_norm=inv_norm[here], active=active[here], min_score=min_score
            )
            if self._fetching is not None:
                self._searched[index % 2] = torch.cuda.current_stream(self._device).record_event()
            scores, slots = _merged(scores, slots, *found, first * self._shape[0])
        return scores, slots

    @torch.inference_mode(False)  # what is kept is used outside of it as well
    def _fetched(self, index: int, groups: int) -> Tensor:
        """A slab's first groups, on the device, for work on its current stream."""
        while len(self._buffers) < min(2, len(self._slabs)):
            self._buffers.append(torch.empty_like(self._slabs[0], device=self._device))
        buffer = self._buffers[index % 2][:groups]
        if self._fetching is None:
            return buffer.copy_(self._slabs[index][:groups])
        current, searched = torch.cuda.current_stream(self._device), self._searched[index % 2]
        if searched is None:
            self._fetching.wait_stream(current)
        else:
            self._fetching.wait_event(searched)
        with torch.cuda.stream(self._fetching):
            buffer.copy_(self._slabs[index][:groups], non_blocking=True)
            fetched = self._read[index] = self._fetching.record_event()
        current.wait_event(fetched)
        return buffer

    def make_room(self, count: int) -> None:
        while len(self._slabs) * self._groups < count:
            shape = (self._groups, *self._shape)
            pinned = self._fetching is not None
            self._slabs.append(torch.empty(shape, dtype=torch.float32, device="cpu", pin_memory=pinned))
            self._read.append(None)

    def _send(self, groups: np.ndarray, parts: Parts) -> None:
        for group in groups.tolist():
            index, place = divmod(group, self._groups)
            read = self._read[index]
            if read is not None:  # not written over while the device fetches it
                read.synchronize()
            rows = self._slabs[index][place].numpy().view(np.uint8).reshape(-1)
            at = 0
            for piece in parts(group):
                rows[at : at + len(piece)] = piece
                at += len(piece)
        self.copied += len(groups)


def _merged(
    scores: Tensor, slots: Tensor, more_scores: Tensor, more: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    """The k best of two answers [B, k], the second of rows from `first` on: of equals the first."""
    k = scores.shape[1]
    both = torch.cat([slots, torch.where(more >= 0, more + first, -1)], dim=1)
    likeness = torch.cat([scores, more_scores], dim=1)
    order = torch.where(both >= 0, likeness, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]
    return likeness.gather(1, order), both.gather(1, order)
