"""Callbacks: hooks into the life of a training run, called in the order in which they were registered.

`logs` always holds "trainer"; epoch hooks add "epoch" (from 0) and, at the end, "loss"; batch hooks add
"batch" and, at the end, "loss" and "counted", the targets or samples in it. Setting
`logs["stop_training"] = True` in any hook stops the run after that batch or epoch.
"""

from __future__ import annotations

import math
import os
from typing import Any

from aesg.exceptions import AESGTrainingError

Logs = dict[str, Any]


class Callback:
    """Base of all callbacks; every hook does nothing unless overridden."""

    def on_train_start(self, logs: Logs) -> None:
        """Called once, before the first epoch."""

    def on_train_end(self, logs: Logs) -> None:
        """Called once, after the last epoch; not after an exception."""

    def on_epoch_start(self, epoch: int, logs: Logs) -> None:
        """Called at the start of each epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Called at the end of each epoch, with its metrics in `logs`."""

    def on_batch_start(self, batch: int, logs: Logs) -> None:
        """Called before each batch."""

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        """Called after each batch's weights and topology were updated, with its loss in `logs`."""

    def on_exception(self, error: BaseException, logs: Logs) -> None:
        """Called when training is left by an exception, which is raised again afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is written: what this callback needs to go on, of plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded, with what `state_dict` gave."""


class EarlyStopping(Callback):
    """Stops when a metric has not improved for `patience` epochs on end.

    mode "min" or "max" says which way is better; an improvement smaller than `min_delta` is none, and NaN
    never is one. Raises AESGTrainingError, with the metrics there are, when `monitor` is not among them.
    """

    def __init__(
        self, patience: int = 5, monitor: str = "loss", mode: str = "min", min_delta: float = 0.0
    ) -> None:
        if patience < 1:
            raise AESGTrainingError(f"patience must be >= 1, got {patience}")
        if mode not in ("min", "max"):
            raise AESGTrainingError(f"mode must be 'min' or 'max', got {mode!r}")
        self.patience = patience
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta
        self.best = math.inf
        self.waited = 0
        self._loaded = False

    def on_train_start(self, logs: Logs) -> None:
        if not self._loaded:  # a resumed run goes on counting, a new one begins anew
            self.best, self.waited = math.inf if self.mode == "min" else -math.inf, 0
        self._loaded = False

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        value = monitored(logs, self.monitor)
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:  # false for NaN
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            logs["stop_training"] = True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
        self._loaded = True


class Checkpoint(Callback):
    """Saves to `<path>/epoch_<n>` after every `save_every` epochs, n being the epochs completed (from 1)."""

    def __init__(self, save_every: int = 1, path: str | os.PathLike[str] = "./checkpoints") -> None:
        if save_every < 1:
            raise AESGTrainingError(f"save_every must be >= 1, got {save_every}")
        self.save_every = save_every
        self.path = os.fspath(path)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        completed = epoch + 1
        if completed % self.save_every == 0:
            logs["trainer"].save(os.path.join(self.path, f"epoch_{completed}"))


def monitored(logs: Logs, name: str) -> float:
    """The metric `name` of `logs`; AESGTrainingError with the names there are when it is missing."""
    if name not in logs:
        there = sorted(key for key, value in logs.items() if isinstance(value, float))
        raise AESGTrainingError(f"Expected a metric to monitor among {there}, got '{name}'")
    return float(logs[name])
