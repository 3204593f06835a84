"""Checks of what users hand to a trainer; errors are AESGTrainingError and come before anything changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from aesg.exceptions import AESGTrainingError
from aesg.trainer.callbacks.base import Callback, check_whole, is_real


def check_rate(value: Any) -> float:
    """A learning rate: finite and >= 0."""
    if not is_real(value) or value < 0:
        raise AESGTrainingError(f"learning_rate must be a finite number >= 0, got {value!r}")
    return float(value)


def check_seed(value: Any) -> int:
    """A seed that torch takes: a whole number from 0 to 2**64 - 1."""
    seed = check_whole("seed", value, 0)
    if seed >= 2**64:
        raise AESGTrainingError(f"seed must be < 2**64, got {seed}")
    return seed


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
