"""The memory's part in the loops of others: Lightning and the Hugging Face trainer.

Each loads its package when asked for; AESGTrainingError says so when that is missing.
"""

from __future__ import annotations

import importlib
from typing import Any

from aesg.exceptions import AESGTrainingError

_HOMES = {"AESGLightningCallback": "lightning", "AESGTrainerCallback": "huggingface"}

__all__ = ["AESGLightningCallback", "AESGTrainerCallback"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'aesg.integrations' has no attribute '{name}'")
    try:
        return getattr(importlib.import_module(f"aesg.integrations.{home}"), name)
    except ImportError as error:
        raise AESGTrainingError(f"{name} needs a package that is not installed: {error}") from error
