"""MemoryWork: a memory's part in a loop that is somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from aesg.exceptions import AESGTrainingError
from aesg.trainer.memory_part import MemoryPart, find_memory

PREFIX = "aesg/"  # of the names of statistics


class MemoryWork:
    """Modes by what the model does, topology after each batch, snapshots beside checkpoints.

    Every forward pass of the model sets the mode: `mode` while the model trains, INFERENCE while it does not,
    whoever calls it; `finish` puts back what was there before.
    """

    def __init__(self, model: nn.Module, mode: str, stateful: bool) -> None:
        memory = find_memory(model)
        if memory is None:
            raise AESGTrainingError(
                f"Expected a model that holds an AESGMemory, got {type(model).__name__} without one"
            )
        self.part = MemoryPart(memory)
        self.memory = memory
        self._mode = mode
        self._stateful = stateful
        self._former: str | None = None
        self._handle = model.register_forward_pre_hook(self._before_forward)

    def start(self) -> None:
        """Training begins."""
        self._former = self.part.mode()
        self.part.set_mode(self._mode)
        self.part.restart_statistics()

    def batch_done(self) -> None:
        self.part.update_topology()

    def statistics(self) -> dict[str, float]:
        """Figures of the memory (`MemoryPart.statistics`) since the last call, as `aesg/...`."""
        found = {PREFIX + name: float(value) for name, value in self.part.statistics().items()}
        self.part.restart_statistics()
        return found

    def snapshot(self, directory: Path) -> None:
        """A copy of the memory, unless it is there."""
        if not directory.exists():
            directory.parent.mkdir(parents=True, exist_ok=True)
            self.memory.snapshot(str(directory))

    def finish(self) -> None:
        """Training is over: what was learnt is saved, the former mode is back."""
        self.part.save()
        self.part.set_mode(self._former)

    def detach(self) -> None:
        """Leaves the model's forward passes alone from here on."""
        self._handle.remove()

    def _before_forward(self, model: nn.Module, inputs: Any) -> None:
        self.part.set_mode(self._mode if model.training else "INFERENCE")
        if not self._stateful:
            self.part.begin()
