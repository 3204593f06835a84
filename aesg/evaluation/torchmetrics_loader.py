"""torchmetrics, also beside a torchvision that cannot be imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


def load_torchmetrics(part: str) -> ModuleType:
    """`torchmetrics.<part>`.

    torchmetrics imports torchvision wherever a package of that name is installed. One built for another torch
    raises RuntimeError then, and takes torchmetrics with it; none of the metrics used here needs it. So when
    torchvision is broken, torchmetrics is told while it loads that there is none.
    """
    if "torchmetrics" not in sys.modules and _torchvision_is_broken():
        from lightning_utilities.core.imports import RequirementCache

        cache: Any = RequirementCache
        known = cache.__bool__
        cache.__bool__ = lambda self: not str(self.requirement).startswith("torchvision") and known(self)
        try:
            importlib.import_module("torchmetrics")
        finally:
            cache.__bool__ = known
    return importlib.import_module(f"torchmetrics.{part}")


def _torchvision_is_broken() -> bool:
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except Exception:  # RuntimeError for a missing operator, OSError for a missing library
        return True
    return False
