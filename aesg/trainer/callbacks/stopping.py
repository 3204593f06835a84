"""EarlyStopping."""

from __future__ import annotations

import math
from typing import Any

from aesg.exceptions import AESGTrainingError
from aesg.trainer.callbacks.base import Callback, Logs, better, check_mode, check_whole, is_real, monitored


class EarlyStopping(Callback):
    """Stops when a metric has not improved for `patience` epochs on end.

    mode "min" or "max" says which way is better; an improvement of at most `min_delta` is none, and NaN
    never is one. Raises AESGTrainingError, with the metrics there are, when `monitor` is not among them.
    """

    def __init__(
        self, patience: int = 5, monitor: str = "loss", mode: str = "min", min_delta: float = 0.0
    ) -> None:
        check_whole("patience", patience, 1)
        if not is_real(min_delta) or min_delta < 0:
            raise AESGTrainingError(f"min_delta must be >= 0, got {min_delta!r}")
        check_mode(mode)
        self.patience = patience
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta
        self.best = math.inf if mode == "min" else -math.inf
        self.waited = 0
        self._loaded = False

    def on_train_start(self, logs: Logs) -> None:
        if not self._loaded:  # a resumed run goes on counting, a new one begins anew
            self.best, self.waited = math.inf if self.mode == "min" else -math.inf, 0
        self._loaded = False

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        value = monitored(logs, self.monitor)
        if better(value, self.best, self.mode, self.min_delta):
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
