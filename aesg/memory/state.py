"""BatchActiveContext: what each stream (row of the batch) was last about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from aesg import _core
from aesg.exceptions import AESGMemoryError
from aesg.graph.arguments import whole_numbers
from aesg.graph.use_log import PRIMARY_COUNT
from aesg.ops import Primed


class BatchActiveContext:
    """The last primary concepts of every stream with their energies, and its last explained seed.

    Grows as higher stream numbers are asked for. Slots are -1 where there is nothing. Beside each slot stands
    the identity it had: a slot that was freed and given to another concept means nothing to the stream.
    """

    def __init__(self, batch_size: int = 1) -> None:
        self.primary = torch.empty(0, PRIMARY_COUNT, dtype=torch.int64)  # [streams, 3]
        self.energies = torch.empty(0, PRIMARY_COUNT, dtype=torch.float32)  # [streams, 3]
        self.primary_ids = torch.empty(0, PRIMARY_COUNT, dtype=torch.int64)  # [streams, 3], bits of u64
        self.last_seed = torch.empty(0, dtype=torch.int64)  # [streams]
        self.last_id = torch.empty(0, dtype=torch.int64)  # [streams], bits of u64
        # What the same streams were last about in each attached pack, so that the memory's own part is the
        # same with packs and without.
        self._packs: dict[str, BatchActiveContext] = {}
        self.changes = 0  # counts them, so that a copy knows whether it is as new
        # Takes in what was asked of these streams before they are read as a whole, or ended:
        self.before_use: Callable[[], object] | None = None
        self._grow(batch_size)

    def of_packs(self, keys: Sequence[str]) -> list[BatchActiveContext]:
        """The same streams in each of the packs named; those of all others are dropped."""
        self._packs = {key: self._packs.get(key) or BatchActiveContext() for key in keys}
        return [self._packs[key] for key in keys]

    @property
    def has_packs(self) -> bool:
        """Whether anything is kept of packs."""
        return bool(self._packs)

    @property
    def batch_size(self) -> int:
        return self.last_seed.shape[0]

    def streams(self, first: int, count: int) -> slice:
        """The range of streams a call speaks of, made if they are new."""
        self._grow(first + count)
        return slice(first, first + count)

    def remember(
        self, streams: slice, steps: int, members: Tensor, energies: Tensor, store: _core.Store | None
    ) -> None:
        """Keeps the strongest of each stream's last step: slots and energies [B * steps, K], strongest first,
        and what the slots hold in `store` (None: they always hold the same).
        """
        self._grow(streams.stop)
        self.changes += 1
        _core.keep_primary(
            store, members.numpy(), energies.detach().numpy(), steps, streams.start,
            self.primary.numpy(), self.primary_ids.numpy(), self.energies.numpy(),
        )  # fmt: skip

    def primed(self, streams: slice, share: float) -> Primed:
        """What these streams were last about, to start with `share` of its energy."""
        self._grow(streams.stop)
        slots, ids, energies = self.primary, self.primary_ids, self.energies
        if streams.stop - streams.start < self.batch_size:
            slots, ids, energies = slots[streams], ids[streams], energies[streams]
        return Primed(slots, ids, energies, share)

    def named(self, streams: Iterable[int] | None) -> list[int] | None:
        """Those of the streams named that there are; None for all. Raises AESGMemoryError for what names no
        stream.
        """
        if streams is None:
            return None
        try:
            wanted = whole_numbers("Streams", list(streams)).reshape(-1).tolist()
        except TypeError:
            raise AESGMemoryError(f"Streams: expected a list of numbers, got {streams!r:.60}") from None
        if any(stream < 0 for stream in wanted):
            raise AESGMemoryError(f"Streams: expected numbers >= 0, got {wanted}")
        return [stream for stream in wanted if stream < self.batch_size]

    def reset(self, streams: Iterable[int] | None = None) -> None:
        """Ends all streams, or those named."""
        self._settle()
        named = self.named(streams)
        which: Any = slice(None) if named is None else named
        self.changes += 1
        # As arrays: torch lets nobody write in place what was made under its inference_mode.
        self.primary.numpy()[which] = -1
        self.primary_ids.numpy()[which] = 0
        self.energies.numpy()[which] = 0.0
        self.last_seed.numpy()[which] = -1
        self.last_id.numpy()[which] = 0
        for streams_of_pack in self._packs.values():
            streams_of_pack.reset(named)

    def to_state(self) -> dict[str, Any]:
        self._settle()
        packs = {key: streams.to_state() for key, streams in self._packs.items()}
        return {
            **({"packs": packs} if packs else {}),
            "primary": self.primary.tolist(),
            "primary_ids": self.primary_ids.tolist(),
            "energies": self.energies.tolist(),  # f32 -> JSON number -> f32 is exact
            "last_seed": self.last_seed.tolist(),
            "last_id": self.last_id.tolist(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self._settle()
        self.changes += 1
        count = len(state["last_seed"])
        self.primary = torch.tensor(state["primary"], dtype=torch.int64).reshape(count, PRIMARY_COUNT)
        self.primary_ids = torch.tensor(state["primary_ids"], dtype=torch.int64).reshape(count, PRIMARY_COUNT)
        self.energies = torch.tensor(state["energies"], dtype=torch.float32).reshape(count, PRIMARY_COUNT)
        self.last_seed = torch.tensor(state["last_seed"], dtype=torch.int64)
        self.last_id = torch.tensor(state["last_id"], dtype=torch.int64)
        self._packs = {}
        for key, part in state.get("packs", {}).items():
            self._packs[key] = BatchActiveContext()
            self._packs[key].load_state(part)

    def _settle(self) -> None:
        if self.before_use is not None:
            self.before_use()

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or what is pickled, is of no memory yet."""
        return {**self.__dict__, "before_use": None}

    def _grow(self, size: int) -> None:
        missing = size - self.batch_size
        if missing > 0:
            parts = self.primary, self.primary_ids, self.energies, self.last_seed, self.last_id
            grown = [
                torch.cat([part, part.new_full((missing, *part.shape[1:]), nothing)])
                for part, nothing in zip(parts, (-1, 0, 0, -1, 0), strict=True)
            ]  # all or none
            self.primary, self.primary_ids, self.energies, self.last_seed, self.last_id = grown
