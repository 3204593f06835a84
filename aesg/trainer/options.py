"""Checks of what users hand to a trainer; errors are AESGTrainingError and come before anything changed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn

from aesg.exceptions import AESGTrainingError
from aesg.trainer.callbacks import Callback


def check_whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`; numpy's count, booleans do not."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise AESGTrainingError(f"{name} must be an integer >= {least}, got {value!r}")
    if value < least:
        raise AESGTrainingError(f"{name} must be >= {least}, got {value}")
    return int(value)


def check_rate(value: Any) -> float:
    """A learning rate: finite and >= 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < math.inf:
        raise AESGTrainingError(f"learning_rate must be a finite number >= 0, got {value!r}")
    return float(value)


def check_model(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise AESGTrainingError(f"Expected an nn.Module to train, got {type(model).__name__}")
    return model


def check_optimizer(optimizer: Any) -> torch.optim.Optimizer | None:
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        what = f"the class {optimizer.__name__}" if isinstance(optimizer, type) else type(optimizer).__name__
        raise AESGTrainingError(f"Expected a torch.optim.Optimizer of the model's parameters, got {what}")
    return optimizer


def check_criterion(criterion: Any) -> Any:
    if criterion is not None and (isinstance(criterion, type) or not callable(criterion)):
        what = f"the class {criterion.__name__}" if isinstance(criterion, type) else repr(criterion)
        raise AESGTrainingError(
            f"Expected a criterion to call with (outputs, targets), such as nn.MSELoss(), got {what}"
        )
    return criterion


def check_callbacks(callbacks: Any) -> list[Callback]:
    if callbacks is None:
        return []
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise AESGTrainingError(f"Expected a list of callbacks, got {type(callbacks).__name__}")
    found = list(callbacks)
    for each in found:
        if not isinstance(each, Callback):
            what = f"the class {each.__name__}" if isinstance(each, type) else type(each).__name__
            raise AESGTrainingError(f"Expected callbacks derived from aesg.Callback, got {what}")
    return found
