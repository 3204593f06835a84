"""ShuffledSampler, whose place can be saved, and where a loader stands within a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from aesg.data.streams import StreamLoader
from aesg.exceptions import AESGStorageError


class ShuffledSampler(Sampler[int]):
    """A new order of 0..len(data)-1 each pass, from torch's global generator; it can go on within a pass.

    `state_dict()` holds the seed of the current order and how many indices were taken; loaded, the next pass
    goes on there. A loader with worker processes runs ahead of what it hands out: say how far with `at`.
    """

    def __init__(self, data: Sized) -> None:
        self.data = data
        self._seed: int | None = None
        self._taken = 0
        self._resumed: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[int]:
        if self._resumed is not None:
            self._seed, self._taken, self._resumed = self._resumed["seed"], self._resumed["taken"], None
        else:
            self._seed, self._taken = int(torch.empty((), dtype=torch.int64).random_()), 0
        order = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(self._seed)).tolist()
        for index in order[self._taken :]:
            self._taken += 1
            yield index

    def state_dict(self, at: int | None = None) -> dict[str, Any]:
        return {"seed": self._seed, "taken": self._taken if at is None else at, "length": len(self.data)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises AESGStorageError when `state` is of data of another length."""
        if state["length"] != len(self.data):
            raise AESGStorageError(
                f"Expected the {state['length']} samples of the interrupted run, got {len(self.data)}"
            )
        self._resumed = {"seed": int(state["seed"]), "taken": int(state["taken"])}


def loader_place(loader: Any, batches: int) -> dict[str, Any] | None:
    """Where `loader` stands after `batches` of a pass: what `go_to_place` needs; None when it cannot tell.

    Loaders may be ahead of the batch that is being worked on, so ours are told how many were done.
    Loaders with a state_dict and samplers with one can. Those of a sampler of somebody else's are only asked
    when no worker process runs ahead of them.
    """
    if isinstance(loader, StreamLoader):
        return {"kind": "loader", "state": {**loader.state_dict(), "step": batches}}
    if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        return {"kind": "loader", "state": loader.state_dict()}
    if not isinstance(loader, DataLoader) or batches == 0:
        return None
    sampler: Any = loader.sampler
    if isinstance(sampler, ShuffledSampler) and loader.batch_size is not None:
        taken = min(batches * loader.batch_size, len(sampler))
        return {"kind": "sampler", "state": sampler.state_dict(at=taken)}
    if loader.num_workers == 0 and hasattr(sampler, "state_dict") and hasattr(sampler, "load_state_dict"):
        return {"kind": "sampler", "state": sampler.state_dict()}
    return None


def go_to_place(loader: Any, place: dict[str, Any]) -> None:
    """Makes the next pass over `loader` begin at `place`; AESGStorageError for another kind of loader."""
    target: Any = loader if place["kind"] == "loader" else getattr(loader, "sampler", None)
    if not hasattr(target, "load_state_dict"):
        raise AESGStorageError(
            f"Expected data that can go on where the interrupted run's {place['kind']} was, "
            f"got {type(loader).__name__}; fit with the same kind of data"
        )
    target.load_state_dict(place["state"])
