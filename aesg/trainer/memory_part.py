"""MemoryPart: what a training loop does with a memory. The trainer and `aesg.integrations` share it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class MemoryPart:
    """Modes, streams, topology, saving and statistics of one memory, or nothing at all without one."""

    NAMES = (
        "concepts",
        "active",
        "edges",
        "births",
        "prunes",
        "mean_relevance",
        "mean_explanation",
        "retrieval_seconds",
        "topology_seconds",
    )

    def __init__(self, memory: Any | None) -> None:
        self.memory = memory
        self.seconds = 0.0  # of the last topology update
        self._steps = 0
        self._before = self._totals()

    @property
    def writable(self) -> bool:
        return self.memory is not None and not getattr(self.memory.storage, "read_only", False)

    def begin(self, streams: Sequence[int] | None = None) -> None:
        """Ends all streams, or those named."""
        if self.memory is not None:
            self.memory.reset_state(*([] if streams is None else [streams]))

    @contextmanager
    def learning_if_all_goes_well(self, model: nn.Module) -> Iterator[None]:
        """Inside, a model that `asks_once` a forward pass asks; its memory learns on leaving, and nothing
        after an exception. Of other models a later question may need what an earlier one gave birth to.
        """
        one_call = getattr(self.memory, "one_call", None)
        if one_call is None or not getattr(model, "asks_once", False):
            yield
            return
        with one_call():
            yield

    def update_topology(self) -> None:
        """One topology update, timed."""
        started = time.perf_counter()
        if self.memory is not None:
            self.memory.update_topology()
        self.seconds = time.perf_counter() - started
        self._steps += 1

    def restore(self, directory: str) -> None:
        """Replaces what the memory holds by another directory's, whatever the mode: it stays what it was."""
        assert self.memory is not None
        former = self.mode()
        if self.writable and former == "INFERENCE":
            self.set_mode("TRAIN")
        try:
            self.memory.restore(directory)
        finally:
            self.set_mode(former)

    def save(self) -> None:
        """Commits what was learnt, where there is something to write to."""
        if self.writable:
            assert self.memory is not None
            self.memory.save()

    def mode(self) -> str | None:
        """The name of the memory's mode."""
        return None if self.memory is None else getattr(self.memory.mode, "value", self.memory.mode)

    def set_mode(self, name: str | None) -> None:
        if self.memory is not None and name is not None:
            self.memory.set_mode(name)

    @contextmanager
    def training(self, name: str) -> Iterator[None]:
        """In mode `name`, and it stays so; after an exception the former mode is back."""
        former = self.mode()
        self.set_mode(name)
        try:
            yield
        except BaseException:
            self.set_mode(former)
            raise

    @contextmanager
    def inference(self) -> Iterator[None]:
        """In mode INFERENCE, with fresh streams; mode and streams are what they were afterwards."""
        former = self.mode()
        streams = copy.deepcopy(getattr(self.memory, "active_state", None))
        self.set_mode("INFERENCE")
        try:
            self.begin()
            yield
        finally:
            self.set_mode(former)
            if streams is not None:
                self.memory.active_state = streams  # type: ignore[union-attr]
            else:
                self.begin()

    # ---------------------------------------------------------------- statistics

    def restart_statistics(self) -> None:
        """What `statistics` tells of work counts from here."""
        self._steps = 0
        self._before = self._totals()

    def statistics(self) -> dict[str, float | int]:
        """Figures of the graph, and of the work since `restart_statistics`; {} without a memory.

        concepts, active, edges; births, prunes; mean_relevance of the active concepts [0, 1];
        mean_explanation of the queries [-1, 1]; retrieval_seconds and topology_seconds a step. O(N).
        """
        if not hasattr(self.memory, "stats"):
            return {}
        assert self.memory is not None
        now, steps = self.memory.stats(), max(1, self._steps)
        queries, explained, retrieval, topology = (
            a - b for a, b in zip(self._totals(), self._before, strict=True)
        )
        return {
            "concepts": now["concepts"],
            "active": now["active"],
            "edges": now["edges"],
            "births": now["births"],
            "prunes": now["prunes"],
            "mean_relevance": self._mean_relevance(),
            "mean_explanation": explained / queries if queries else math.nan,
            "retrieval_seconds": retrieval / steps,
            "topology_seconds": topology / steps,
        }

    def _mean_relevance(self) -> float:
        storage = self.memory.storage  # type: ignore[union-attr]
        active = storage.column("is_active") != 0  # [G, 1024]
        if active.shape[0] == 0 or not bool(active.any()):
            return 0.0
        return float(storage.column("relevance")[active].to(torch.float64).mean())

    def _totals(self) -> tuple[float, ...]:
        """Queries, summed explanations, seconds of retrieval and of topology since the memory was made."""
        if not hasattr(self.memory, "stats"):
            return (0.0,) * 4
        stats = self.memory.stats()  # type: ignore[union-attr]
        explained = stats["mean_explanation"] * stats["queries"]
        return stats["queries"], explained, stats["retrieval_seconds"], stats["topology_seconds"]


def find_memory(model: nn.Module) -> Any | None:
    """The model's memory: its attribute `memory`, else the first child module that is one, else None."""

    def is_memory(part: Any) -> bool:
        return all(hasattr(part, name) for name in ("retrieve", "update_topology", "reset_state", "set_mode"))

    own = getattr(model, "memory", None)
    if own is not None and is_memory(own):
        return own
    return next((part for part in model.modules() if part is not model and is_memory(part)), None)
