"""Groups: the groups of a store's columns as a device holds them, brought where they changed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError

Parts = Callable[[int], list[np.ndarray]]

STAGED_BYTES = 32 << 20  # at most so much goes to the device in one transfer; one group always may


class Groups:
    """Groups of `bytes` bytes each on a device, and the stamps they had in the store when they came."""

    def __init__(self, device: torch.device, group_bytes: int) -> None:
        self.bytes = group_bytes  # a multiple of 8
        self.count = 0
        self.copied = 0  # groups, ever
        self._words = torch.empty(0, group_bytes // 8, dtype=torch.int64, device=device)  # [capacity, words]
        self._stamps = np.zeros(0, dtype=np.uint64)  # of the store's groups, as of the last `bring`
        self._views: dict[tuple[object, ...], Tensor] = {}  # see `part`

    def used_on(self, stream: torch.cuda.Stream) -> None:
        """Keeps torch's allocator from giving the memory away before the stream's work is done."""
        self._words.record_stream(stream)

    @property
    def place(self) -> tuple[int, int]:
        """Where they lie, and how many."""
        return self._words.data_ptr(), self.count

    @torch.inference_mode(False)  # what is kept is used outside of it as well
    @torch.no_grad()
    def bring(self, stamps: np.ndarray, count: int, parts: Parts, held: int = 0) -> None:
        """Makes these groups those of the store: `count` of them, brought where the stamp [<= count] is not
        what it was (0 where it is missing). `parts` of a group: its bytes in the store, in pieces. held: what
        has no higher stamp was made here as well.
        """
        now = np.zeros(count, dtype=np.uint64)
        now[: len(stamps)] = stamps[:count]
        both = min(count, self.count)
        known = min(both, len(self._stamps))
        changed = np.ones(count, dtype=bool)
        changed[:known] = now[:known] != self._stamps[:known]
        if held:
            changed[:both] &= now[:both] > held
        self.make_room(count)
        self._send(np.flatnonzero(changed), parts)
        self._stamps = now
        self._hold(self._words, count)

    def forget(self) -> None:
        """Nothing here is the store's any more: the next `bring` brings all."""
        self._stamps = self._stamps[:0]
        self._hold(self._words, 0)

    @torch.inference_mode(False)
    @torch.no_grad()
    def reserve(self, count: int) -> None:
        """Shows at least so many groups, further ones as zeros, which is what a store grows by."""
        if count > self.count:
            self.make_room(count)
            self._words[self.count : count] = 0
            self._hold(self._words, count)

    def part(self, dtype: torch.dtype, start: int, shape: tuple[int, ...], row: int = 0) -> Tensor:
        """What lies `start` bytes into every group, as [count, *shape]; `row` bytes lie between the rows, 0:
        they are dense. Kept, for a call that learns asks for 33 of them.
        """
        key = dtype, start, shape, row
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = self._view(dtype, start, shape, row)
        return view

    @torch.inference_mode(False)
    @torch.no_grad()
    def _view(self, dtype: torch.dtype, start: int, shape: tuple[int, ...], row: int) -> Tensor:
        item = dtype.itemsize
        between = [self.bytes, row or item * math.prod(shape[1:]), item][: 1 + len(shape)]
        strides = [size // item for size in between]
        return self._words.view(dtype).as_strided((self.count, *shape), strides, start // item)

    def _hold(self, words: Tensor, count: int) -> None:
        """Where the groups lie from now on, and how many are shown."""
        if words is not self._words or count != self.count:
            self._views = {}
        self._words, self.count = words, count

    @torch.inference_mode(False)
    @torch.no_grad()
    def make_room(self, count: int) -> None:
        """Memory for so many groups; shows no more than before."""
        held = len(self._words)
        if count <= held:
            return
        grown = self._allocated(max(count, held + held // 2), count)
        grown[: self.count] = self._words[: self.count]
        self._hold(grown, self.count)

    def _allocated(self, wanted: int, needed: int) -> Tensor:
        """Room for so many groups, for those needed alone where it is scarce."""
        words = self._words.shape[1]
        for count in dict.fromkeys((wanted, needed)):
            try:
                return self._words.new_empty(count, words)
            except torch.OutOfMemoryError:
                continue
        device, asked = self._words.device, needed * self.bytes
        free = torch.cuda.mem_get_info(device)[0] if self._words.is_cuda else 0
        raise AESGMemoryError(
            f"The memory's copy on {device} needs {_gib(asked)} in one piece, {_gib(free)} are free: "
            f"{_gib(max(0, asked - free))} are missing at least. residency='host' leaves the vectors in host "
            "memory"
        )

    def _send(self, groups: np.ndarray, parts: Parts) -> None:
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
            places = torch.empty(len(which), dtype=torch.int64, device="cpu", pin_memory=on_cuda)
            places.numpy()[:] = which
            there, device = self._words, self._words.device
            there.index_copy_(0, places.to(device, non_blocking=True), staged.to(device, non_blocking=True))
            self.copied += len(which)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
