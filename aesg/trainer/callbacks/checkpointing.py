"""Checkpoint: saves while training goes on, and keeps what is worth keeping."""

from __future__ import annotations

import math
import os
from typing import Any

from aesg.trainer.callbacks.base import Callback, Logs, check_mode, check_whole, monitored
from aesg.trainer.checkpoint import remove_checkpoint


class Checkpoint(Callback):
    """Saves to `<path>/epoch_<n>` after every `save_every` epochs, n being the epochs completed (from 1).

    monitor: saves only where that metric is among the `keep` best so far (keep None: where it is the best so
    far), mode "min" or "max" saying which way is better. NaN is never saved for.
    keep: how many of its checkpoints stay, the newest or, with `monitor`, the best; None removes none.
    save_every_steps: also saves to `<path>/step_<n>` after every so many batches; of these the newest stays.

    `best_path` and `best` tell the best one. Raises AESGTrainingError for wrong arguments, and when `monitor`
    is not among the metrics.
    """

    last = True

    def __init__(
        self,
        save_every: int = 1,
        path: str | os.PathLike[str] = "./checkpoints",
        monitor: str | None = None,
        keep: int | None = None,
        *,
        mode: str = "min",
        save_every_steps: int | None = None,
    ) -> None:
        for name, value in (
            ("save_every", save_every),
            ("keep", keep),
            ("save_every_steps", save_every_steps),
        ):
            if value is not None or name == "save_every":
                check_whole(name, value, 1)
        check_mode(mode)
        self.save_every = save_every
        self.path = os.fspath(path)
        self.monitor = monitor
        self.keep = keep
        self.mode = mode
        self.save_every_steps = save_every_steps
        self.saved: list[tuple[str, float]] = []  # (path, value), in the order of saving
        self._last_step: str | None = None

    @property
    def best(self) -> float:
        """The best monitored value saved so far; infinitely bad before there is one."""
        values = [value for _, value in self.saved if not math.isnan(value)]
        if self.mode == "min":
            return min(values, default=math.inf)
        return max(values, default=-math.inf)

    @property
    def best_path(self) -> str | None:
        """Where the best checkpoint lies; the newest without `monitor`, None before there is one."""
        if not self.saved:
            return None
        return self._ranked()[0][0]

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        completed = epoch + 1
        value = math.nan if self.monitor is None else monitored(logs, self.monitor)
        if completed % self.save_every:
            return
        entry = (os.path.join(self.path, f"epoch_{completed}"), value)
        others = [each for each in self.saved if each[0] != entry[0]]  # saved again after a resume
        if self.monitor is not None and not self._worth_saving(value, others):
            return
        # Before saving, so that the checkpoint knows of itself; what goes, goes once the new one is whole.
        self.saved = [*others, entry]
        dropped = [] if self.keep is None else self._ranked()[self.keep :]
        self.saved = [each for each in self.saved if each not in dropped]
        logs["trainer"].save(entry[0])
        for path, _ in dropped:
            remove_checkpoint(path)

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        trainer = logs["trainer"]
        if self.save_every_steps is None or trainer.global_step % self.save_every_steps:
            return
        former = self._last_step
        self._last_step = os.path.join(self.path, f"step_{trainer.global_step}")
        trainer.save(self._last_step)
        if former is not None and former != self._last_step:
            remove_checkpoint(former)

    def state_dict(self) -> dict[str, Any]:
        return {"saved": self.saved, "last_step": self._last_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.saved = [(str(path), float(value)) for path, value in state.get("saved", [])]
        self._last_step = state.get("last_step")

    def _worth_saving(self, value: float, others: list[tuple[str, float]]) -> bool:
        if math.isnan(value):
            return False
        as_good = [v for _, v in others if (v <= value if self.mode == "min" else v >= value)]
        return len(as_good) < (self.keep or 1)

    def _ranked(self) -> list[tuple[str, float]]:
        """The best, or without a monitor the newest, first; among equals the earlier."""
        if self.monitor is None:
            return self.saved[::-1]
        return sorted(self.saved, key=lambda each: each[1] if self.mode == "min" else -each[1])
