"""DeviceStreams: what primes the next calls, on a device that answers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from aesg.graph.use_log import PRIMARY_COUNT
from aesg.memory.state import BatchActiveContext
from aesg.ops import Primed, keep_primary_, note_succession_

NOTHING = -1, 0, 0, -1, 0  # in primary, primary_ids, energies, last_seed and last_id of a stream that begins


class DeviceStreams:
    """The primary concepts of all streams on one device: those of a `BatchActiveContext` as it will be when
    all calls answered there are taken in on the host. No call waits for that.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.primary = torch.empty(0, PRIMARY_COUNT, dtype=torch.int64, device=device)  # [streams, 3]
        self.primary_ids = torch.empty_like(self.primary)
        self.energies = torch.empty(0, PRIMARY_COUNT, dtype=torch.float32, device=device)
        # What `note_succession_` knows of them, brought when learning begins here:
        self.last_seed = torch.empty(0, dtype=torch.int64, device=device)  # [streams]
        self.last_id = torch.empty_like(self.last_seed)
        self._learnt_in = -1  # `DeviceLearning.epoch` of the last two
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
                for part in (*self._primed, *self._last):
                    part.record_stream(torch.cuda.current_stream(self.device))
            grown = [
                torch.cat([part, part.new_full((missing, *part.shape[1:]), nothing)])
                for part, nothing in zip([*self._primed, *self._last], NOTHING, strict=True)
            ]  # all or none
            self.primary, self.primary_ids, self.energies, self.last_seed, self.last_id = grown
        if not self.knows(streams):
            _put(self._primed, (streams.primary, streams.primary_ids, streams.energies), (-1, 0, 0))
            self._of, self._changes, self._learnt_in = streams, streams.changes, -1

    @property
    def _primed(self) -> list[Tensor]:
        return [self.primary, self.primary_ids, self.energies]

    @property
    def _last(self) -> list[Tensor]:
        return [self.last_seed, self.last_id]

    @torch.inference_mode(False)
    @torch.no_grad()
    def know_last(self, streams: BatchActiveContext, epoch: int) -> None:
        """Makes what the streams last meant what it is on the host, unless it was learnt here since `epoch`
        of `DeviceLearning`. REQUIRES: no call of these streams that is awaited was learnt from elsewhere.
        """
        if self._learnt_in != epoch:
            _put(self._last, (streams.last_seed, streams.last_id), (-1, 0))
            self._learnt_in = epoch

    def succeed(
        self, streams: slice, steps: int, seeds: Tensor, similarities: Tensor, born: Tensor, newborn: Tensor,
        ids: Tensor, active: Tensor, threshold: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """What each query followed, and what it meant, slots [Q] each. See `note_succession_`."""
        return note_succession_(
            self.last_seed[streams], self.last_id[streams], seeds, similarities, born, ids, active,
            threshold=threshold, steps=steps, newborn=newborn,
        )  # fmt: skip

    def reset(self, streams: Sequence[int] | None) -> None:
        """Ends all streams, or those given. The host does not wait."""
        places = None
        if streams is not None:
            places = _pinned(torch.tensor(streams, dtype=torch.int64), self.device)
            places = places.to(self.device, non_blocking=True)
        for part, nothing in zip([*self._primed, *self._last], NOTHING, strict=True):
            if places is None:
                part.fill_(nothing)
            else:
                part.index_fill_(0, places, nothing)

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
        kept = [part.clone() for part in self._primed]
        try:
            yield
        finally:
            _put(self._primed, kept, (-1, 0, 0))


def _put(own: Sequence[Tensor], parts: Sequence[Tensor], nothing: Sequence[int]) -> None:
    """Writes over the first streams, from the host without waiting; nobody is behind them."""
    for part, to, empty in zip(parts, own, nothing, strict=True):
        to[: len(part)].copy_(_pinned(part, to.device), non_blocking=True)
        to[len(part) :].fill_(empty)


def _pinned(part: Tensor, device: torch.device) -> Tensor:
    """The part where the device can fetch it by itself."""
    return part.pin_memory() if device.type == "cuda" and part.is_cpu else part
