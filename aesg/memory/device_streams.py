"""DeviceStreams: what primes the next calls, on a device that answers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from aesg.graph.use_log import PRIMARY_COUNT
from aesg.memory.state import BatchActiveContext
from aesg.ops import Primed, keep_primary_


class DeviceStreams:
    """The primary concepts of all streams on one device: those of a `BatchActiveContext` as it will be when
    all calls answered there are taken in on the host. No call waits for that.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.primary = torch.empty(0, PRIMARY_COUNT, dtype=torch.int64, device=device)  # [streams, 3]
        self.primary_ids = torch.empty_like(self.primary)
        self.energies = torch.empty(0, PRIMARY_COUNT, dtype=torch.float32, device=device)
        self._of: BatchActiveContext | None = None
        self._changes = -1  # of those streams, as far as this knows of them

    def knows(self, streams: BatchActiveContext) -> bool:
        """Whether these are those streams, and nothing but the device changed them."""
        return self._of is streams and self._changes == streams.changes

    @torch.inference_mode(False)  # what is kept is used outside of it as well
    @torch.no_grad()
    def follow(self, streams: BatchActiveContext) -> None:
        """Makes these the streams given, as they are on the host, unless they are known: then only those are
        new that it has more. Stays where it is while their number does. The CUDA stream that this is called
        on comes after all that used these before.
        """
        missing = streams.batch_size - len(self.primary)
        if missing > 0:
            if self.device.type == "cuda":  # not given away before the copying is done
                for part in (self.primary, self.primary_ids, self.energies):
                    part.record_stream(torch.cuda.current_stream(self.device))
            nobody = self.primary.new_full((missing, PRIMARY_COUNT), -1)
            self.primary = torch.cat([self.primary, nobody])
            self.primary_ids = torch.cat([self.primary_ids, torch.zeros_like(nobody)])
            self.energies = torch.cat([self.energies, self.energies.new_zeros(missing, PRIMARY_COUNT)])
        if not self.knows(streams):
            self._put((streams.primary, streams.primary_ids, streams.energies))
            self._of, self._changes = streams, streams.changes

    def primed(self, streams: slice, share: float) -> Primed:
        """See `BatchActiveContext.primed`."""
        return Primed(self.primary[streams], self.primary_ids[streams], self.energies[streams], share)

    def remember(self, streams: slice, steps: int, members: Tensor, energies: Tensor, ids: Tensor) -> None:
        """See `BatchActiveContext.remember`; `ids` [G, 1024] are those of the graph on this device."""
        keep_primary_(
            self.primary[streams], self.primary_ids[streams], self.energies[streams], members,
            energies.detach(), ids, steps=steps,
        )  # fmt: skip

    def took_in(self, streams: BatchActiveContext) -> None:
        """The host has taken in one more call that these know already."""
        if self._of is streams:
            self._changes += 1

    def forget(self) -> None:
        """What these know is not what the host will: they are brought anew."""
        self._of = None

    @property
    def layout(self) -> tuple[int, ...]:
        """Changes when these lie elsewhere."""
        return self.primary.data_ptr(), len(self.primary)

    @contextmanager
    def as_they_are(self) -> Iterator[None]:
        """What is remembered inside is forgotten behind."""
        kept = [part.clone() for part in (self.primary, self.primary_ids, self.energies)]
        try:
            yield
        finally:
            self._put(kept)

    def _put(self, parts: Sequence[Tensor]) -> None:
        """Writes over the first streams, from the host without waiting; nobody is behind them."""
        own = self.primary, self.primary_ids, self.energies
        for part, to, nothing in zip(parts, own, (-1, 0, 0), strict=True):
            pinned = part.pin_memory() if to.is_cuda and part.is_cpu else part
            to[: len(part)].copy_(pinned, non_blocking=True)
            to[len(part) :].fill_(nothing)
