"""A module's evaluation mode for as long as a block takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, all modules of `model` are in evaluation; afterwards each is as it was, one kept frozen too."""
    former = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(former[0][1])
        for module, training in former:
            module.training = training
