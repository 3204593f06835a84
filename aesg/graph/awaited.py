"""Awaited: what devices answered and the host has yet to learn from, on its way and in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Called with the copies, and whether something that was awaited before them failed after they were answered.
Take = Callable[[list[Tensor], bool], None]

# On their way before the host takes in the oldest, which has mostly come: queries, and calls.
MOST_ROWS = 1 << 16
MOST_CALLS = 256

_transfer_streams: dict[torch.device, torch.cuda.Stream] = {}


class Awaited:
    """Calls answered on a device, and what else was asked for between them. Each call is sent to the host
    when it was made, beside the device's other work, and taken in when somebody next needs what it changed:
    by then it has mostly come. Who asks a device makes room first: so no earlier call's error comes out of
    one that was already answered.
    """

    def __init__(self) -> None:
        self._queue: deque[_Sent] = deque()
        self._rows = 0  # of all
        self.changing = 0  # how many change the graph
        self.taking = False  # now, somewhere above
        self.failures = 0  # calls that did not come, or could not be taken in
        self._pid = os.getpid()

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def changes_graph(self) -> bool:
        """Whether the next answer depends on what is awaited."""
        return self.changing > 0

    def send(
        self,
        tensors: Sequence[Tensor],
        take: Take,
        *,
        changes_graph: bool,
        lost: Callable[[], None] = lambda: None,
        failures_before: int | None = None,
    ) -> Callable[[], list[Tensor]]:
        """Sends tensors of one device, i64 and f32 [Q, ...] without gradient, to the host. `take` is called
        with the copies by the next `settle`, or `make_room`; `lost`, where they do not come or are not taken.
        failures_before: how many there were when these were answered; None: as now. Does not wait. Returns
        what gives copies on the device.
        """
        transfer = _Transfer(tensors)
        known = self.failures if failures_before is None else failures_before
        self._append(_Sent(transfer, take, lost, len(tensors[0]), changes_graph, known))
        return transfer.there

    def defer(self, act: Callable[[], None], *, changes_graph: bool) -> None:
        """`act` is called behind what is awaited, as if it were a call."""
        self._append(_Sent(None, lambda copies, behind: act(), lambda: None, 0, changes_graph, self.failures))

    def _append(self, sent: _Sent) -> None:
        self._rows += sent.rows
        self.changing += sent.changes_graph
        self._queue.append(sent)  # last: who interrupts this leaves too high a count, see `settle`

    def make_room(self) -> None:
        """Takes in the oldest while so much is on its way that no more may be sent. Raises as `settle`."""
        while self._too_many() and not self.taking:
            self._take_one()

    def _too_many(self) -> bool:
        return len(self._queue) >= MOST_CALLS or (self._rows > MOST_ROWS and len(self._queue) > 1)

    def settle(self) -> None:
        """Waits for everything sent and takes it in, in order. What `take` raises comes out here; the calls
        behind it are left for the next time. Does nothing from inside itself, and nothing in a forked child,
        which has no device.
        """
        while self._queue and not self.taking and self._pid == os.getpid():
            self._take_one()
        if not self._queue:
            self._rows = self.changing = 0

    def _take_one(self) -> None:
        try:
            self.taking = True
            sent = self._queue[0]
            try:
                copies = [] if sent.transfer is None else sent.transfer.arrived()
            except Exception:
                self.failures += 1
                sent.lost()
                self._drop()  # will never come
                raise
            try:
                self._drop()  # not before: who interrupts the waiting loses nothing
                sent.take(copies, sent.failures_before != self.failures)
            except BaseException:
                self.failures += 1
                sent.lost()
                raise
        finally:
            self.taking = False

    def _drop(self) -> None:
        sent = self._queue.popleft()
        self._rows -= sent.rows
        self.changing -= sent.changes_graph


class _Sent(NamedTuple):
    transfer: _Transfer | None  # None: nothing has to come
    take: Take
    lost: Callable[[], None]
    rows: int
    changes_graph: bool
    failures_before: int  # it was answered


class _Transfer:
    """Tensors of one device on their way to the host: one kernel packs them, one transfer brings them, on a
    stream of its own.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._likes = [(tensor.dtype, tensor.shape) for tensor in tensors]
        wide = [place for place, tensor in enumerate(tensors) if tensor.dtype == torch.int64]
        # So that each is aligned:
        self._order = wide + [place for place in range(len(tensors)) if place not in wide]
        self._packed = torch.cat(
            [tensors[place].contiguous().view(torch.int32).reshape(-1) for place in self._order]
        )
        self._done: torch.cuda.Event | None = None
        # Not given back to torch's allocator before it was read:
        self._there = self._packed
        if self._packed.is_cuda:
            there, device = self._packed, self._packed.device
            made = torch.cuda.current_stream(device).record_event()
            if device not in _transfer_streams:
                _transfer_streams[device] = torch.cuda.Stream(device)
            stream = _transfer_streams[device]
            with torch.cuda.stream(stream):
                stream.wait_event(made)
                self._packed = torch.empty(there.shape, dtype=torch.int32, device="cpu", pin_memory=True)
                self._packed.copy_(there, non_blocking=True)
                self._done = stream.record_event()

    def arrived(self) -> list[Tensor]:
        """The copies, when they are there. They share one piece of memory."""
        if self._done is not None:
            self._done.synchronize()
        return self._unpacked(self._packed)

    def there(self) -> list[Tensor]:
        """The copies on the device. They share one piece of memory, too."""
        return self._unpacked(self._there)

    def _unpacked(self, packed: Tensor) -> list[Tensor]:
        copies, start = [packed] * len(self._likes), 0
        for place in self._order:
            dtype, shape = self._likes[place]
            size = shape.numel() * dtype.itemsize // 4
            copies[place] = packed[start : start + size].view(dtype).view(shape)
            start += size
        return copies
