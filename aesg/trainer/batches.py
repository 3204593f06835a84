"""What the trainer does with one batch: takes it apart, moves it, and computes its loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aesg.data import StreamBatch
from aesg.exceptions import AESGTrainingError


def check_device(device: Any) -> torch.device:
    """`device` as a torch.device that this machine has; AESGTrainingError otherwise."""
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)
        if wanted.type == "meta":
            raise RuntimeError("it holds no data")
    except (RuntimeError, AssertionError, TypeError) as error:
        raise AESGTrainingError(
            f"Expected a usable device such as 'cpu' or 'cuda', got {device!r}: {error}"
        ) from error
    return wanted


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets of a batch; AESGTrainingError when it is no pair."""
    if isinstance(batch, StreamBatch):
        return batch.inputs, batch.targets
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    shape = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    raise AESGTrainingError(f"Expected batches of (inputs, targets), got {type(batch).__name__}{shape}")


def move(value: Any, device: torch.device) -> Any:
    """Tensors, also inside tuples, lists and dicts, on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(move(each, device) for each in value))
    if isinstance(value, (tuple, list)):
        return type(value)(move(each, device) for each in value)
    if isinstance(value, dict):
        return {name: move(each, device) for name, each in value.items()}
    return value


class BatchLoss:
    """Computes losses with a criterion and keeps their mean, each batch weighing what it counted."""

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion
        self.batches = 0
        self._sum = 0.0
        self._weight = 0.0

    def __call__(self, outputs: Any, targets: Any) -> tuple[Tensor, int]:
        """Loss (a scalar) and weight: the targets that count, or the samples when targets are not class ids.

        Outputs [B, ..., V] with integer targets [B, ...] are flattened to [n, V] and [n]; all else goes to
        the criterion as it is. A batch without one target that counts has loss 0.
        """
        weight = len(targets) if isinstance(targets, Tensor) and targets.dim() > 0 else 1
        if isinstance(outputs, Tensor) and isinstance(targets, Tensor) and not targets.is_floating_point():
            ignored = getattr(self.criterion, "ignore_index", None)
            if ignored is not None:
                weight = int((targets != ignored).sum())
                if weight == 0:
                    return outputs.sum() * 0.0, 0
            if outputs.dim() >= 3 and outputs.shape[:-1] == targets.shape:
                outputs, targets = outputs.flatten(0, -2), targets.flatten()
        try:
            loss = self.criterion(outputs, targets)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise AESGTrainingError(
                f"The loss {type(self.criterion).__name__} does not fit outputs {_shape(outputs)} and "
                f"targets {_shape(targets)}: {error}. Give AESGTrainer a criterion that does."
            ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise AESGTrainingError(
                f"Expected a scalar loss, got {_shape(loss)}; use a criterion that reduces"
            )
        return loss.reshape(()), weight

    def add(self, value: float, weight: int) -> None:
        self.batches += 1
        self._sum += value * weight
        self._weight += weight

    def state(self) -> tuple[int, float, float]:
        """Batches, and the sums behind `average`."""
        return self.batches, self._sum, self._weight

    def load_state(self, state: tuple[int, float, float]) -> None:
        self.batches, self._sum, self._weight = state

    def average(self) -> float:
        """The mean so far; 0 when nothing counted."""
        return self._sum / self._weight if self._weight else 0.0


def _shape(value: Any) -> str:
    return f"{list(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
