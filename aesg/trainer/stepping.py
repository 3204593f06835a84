"""Stepper: from a batch's loss to changed weights: precision, accumulation, clipping, schedule."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from aesg.exceptions import AESGStorageError, AESGTrainingError
from aesg.trainer.callbacks.base import check_whole, is_real

PRECISIONS = {"32": None, "32-true": None, "bf16-mixed": torch.bfloat16}
INTERVALS = ("epoch", "step")


class Stepper:
    """Owns the optimizer's steps.

    precision: "32" or "bf16-mixed" (autocast; weights and optimizer stay float32).
    accumulation: batches whose gradients make one optimizer step. They are weighted by what each counts, so
    that the step equals one on the batches joined, whatever their sizes; an epoch's last step may have fewer.
    clip: greatest norm of all gradients together. scheduler: an LRScheduler or ReduceLROnPlateau, or a
    callable that makes one of the optimizer; stepped each epoch, or each optimizer step (`interval`).

    Raises AESGTrainingError for values that cannot work.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        precision: str = "32",
        accumulation: int = 1,
        clip: float | None = None,
        scheduler: Any = None,
        interval: str = "epoch",
    ) -> None:
        if not isinstance(precision, str) or precision not in PRECISIONS:
            raise AESGTrainingError(f"Expected a precision among {list(PRECISIONS)}, got {precision!r}")
        accumulation = check_whole("gradient_accumulation", accumulation, 1)
        if clip is not None and (not is_real(clip) or clip <= 0):
            raise AESGTrainingError(f"gradient_clip must be a finite number > 0, got {clip!r}")
        if interval not in INTERVALS:
            raise AESGTrainingError(
                f"Expected a scheduler_interval among {list(INTERVALS)}, got {interval!r}"
            )
        scheduler = _scheduler(scheduler, optimizer)
        self.needs_metric = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if self.needs_metric and interval == "step":
            raise AESGTrainingError(
                "ReduceLROnPlateau looks at a metric an epoch: scheduler_interval='epoch'"
            )
        if getattr(scheduler, "optimizer", optimizer) is not optimizer:
            raise AESGTrainingError("Expected a scheduler of the trainer's own optimizer, got another's")
        self.model = model
        self.optimizer = optimizer
        self.precision = precision
        self.accumulation = accumulation
        self.clip = clip
        self.scheduler = scheduler
        self.interval = interval
        self._device = device.type
        self._pending = 0  # batches whose gradients wait for the next step
        self._weight = 0.0  # what they counted

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context for forward passes."""
        dtype = PRECISIONS[self.precision]
        return contextlib.nullcontext() if dtype is None else torch.autocast(self._device, dtype=dtype)

    def backward(self, loss: Tensor, weight: float) -> None:
        """Gradients of a batch, and the step when it is due."""
        if self._pending == 0:
            self.optimizer.zero_grad(set_to_none=True)
        if self.accumulation > 1:
            loss = loss * weight
        loss.backward()
        self._pending += 1
        self._weight += weight
        if self._pending == self.accumulation:
            self._step()

    def end_epoch(self, metric: float) -> None:
        """The schedule's step; `flush` comes before."""
        if self.scheduler is not None and self.interval == "epoch":
            self.scheduler.step(*([metric] if self.needs_metric else []))

    def flush(self) -> None:
        """The step of what is left over."""
        if self._pending:
            self._step()

    def drop(self) -> None:
        """Forgets gradients that wait."""
        self._pending, self._weight = 0, 0.0
        self.optimizer.zero_grad(set_to_none=True)

    def _step(self) -> None:
        if self.accumulation > 1 and self._weight > 0:
            for parameter in self._parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(self._weight)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(list(self._parameters()), self.clip)
        self.optimizer.step()
        self._pending, self._weight = 0, 0.0
        if self.scheduler is not None and self.interval == "step":
            self.scheduler.step()

    # ---------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """The schedule, and gradients that wait."""
        waiting = [parameter.grad for parameter in self._parameters()] if self._pending else []
        return {
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "pending": self._pending,
            "weight": self._weight,
            "gradients": waiting,
        }

    def check_state(self, state: dict[str, Any], file: Any) -> None:
        """AESGStorageError naming `file` unless `state` fits."""
        parameters = list(self._parameters())
        gradients = state.get("gradients", [])
        fits = len(gradients) in (0, len(parameters)) and all(
            g is None or g.shape == p.shape for g, p in zip(gradients, parameters, strict=False)
        )
        if not fits or bool(state.get("pending")) != bool(gradients):
            raise AESGStorageError(f"'{file}' does not fit the optimizer's parameters")
        if (state.get("scheduler") is None) != (self.scheduler is None):
            there = "no scheduler" if state.get("scheduler") is None else "a scheduler"
            raise AESGStorageError(
                f"'{file}' is of a run with {there}; give AESGTrainer the scheduler of that run"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with what `state_dict` gave; `check_state` comes before."""
        self.drop()
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self._pending, self._weight = int(state["pending"]), float(state["weight"])
        for parameter, gradient in zip(self._parameters(), state["gradients"], strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter.device, parameter.dtype)

    def _parameters(self) -> Iterable[nn.Parameter]:
        return (parameter for group in self.optimizer.param_groups for parameter in group["params"])


def _scheduler(given: Any, optimizer: torch.optim.Optimizer) -> Any:
    """A scheduler as it is, or what a callable (a class, too) makes of the optimizer."""
    if given is None or (hasattr(given, "step") and not isinstance(given, type)):
        return given
    wanted = "Expected a learning rate scheduler, or a callable that makes one of the optimizer"
    if not callable(given):
        raise AESGTrainingError(f"{wanted}, got {type(given).__name__}")
    try:
        made = given(optimizer)
    except TypeError as error:
        raise AESGTrainingError(f"{wanted}: {error}") from error
    if not hasattr(made, "step"):
        raise AESGTrainingError(f"{wanted}, got one that makes {type(made).__name__}")
    return made
