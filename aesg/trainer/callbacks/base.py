"""Callback, the base of all, and how callbacks read metrics out of `logs`."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from aesg.exceptions import AESGTrainingError

Logs = dict[str, Any]
NOT_METRICS = ("epoch", "batch", "counted", "stop_training")


class Callback:
    """Base of all callbacks; every hook does nothing unless overridden.

    `last`: the trainer calls callbacks in the order of registration, but those that say `last = True` after
    the others, so that what they save holds what the others learnt from the same epoch or batch.
    """

    last = False

    def on_train_start(self, logs: Logs) -> None:
        """Called once, before the first epoch."""

    def on_train_end(self, logs: Logs) -> None:
        """Called once, after the last epoch; not after an exception."""

    def on_epoch_start(self, epoch: int, logs: Logs) -> None:
        """Called at the start of each epoch; not again for one that was resumed in its midst."""

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
        """Called when a run is resumed, with what `state_dict` gave."""


def metrics_of(logs: Logs) -> dict[str, float]:
    """The figures in `logs`: losses, `val_*`, what is known of the memory, and what callbacks put there:
    real numbers, numpy's too, and tensors of one element.
    """
    return {
        name: float(value)
        for name, value in logs.items()
        if name not in NOT_METRICS and not isinstance(value, bool) and _is_figure(value)
    }


def _is_figure(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex() and value.dtype != torch.bool
    return isinstance(value, Real)


def monitored(logs: Logs, name: str) -> float:
    """The metric `name` of `logs`; AESGTrainingError with the names there are when it is missing."""
    there = metrics_of(logs)
    if name not in there:
        raise AESGTrainingError(f"Expected a metric to monitor among {sorted(there)}, got '{name}'")
    return there[name]


def better(value: float, than: float, mode: str, min_delta: float = 0.0) -> bool:
    """Whether `value` improves on `than` by more than `min_delta`; NaN never does."""
    return (than - value if mode == "min" else value - than) > min_delta


def check_whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`; numpy's count, booleans do not."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise AESGTrainingError(f"{name} must be an integer >= {least}, got {value!r}")
    if value < least:
        raise AESGTrainingError(f"{name} must be >= {least}, got {value}")
    return int(value)


def is_real(value: Any) -> bool:
    """Whether it is a real number; numpy's are, booleans, NaN and infinities are not."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))


def check_mode(mode: str) -> None:
    """AESGTrainingError unless `mode` says which way a metric is better."""
    if not isinstance(mode, str) or mode not in ("min", "max"):
        raise AESGTrainingError(f"mode must be 'min' or 'max', got {mode!r}")
