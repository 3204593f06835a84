"""Tools that look at memories and show them at work. Names load when they are asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aesg.tools.evolution_tracker import EvolutionTracker
    from aesg.tools.explain import Explainer
    from aesg.tools.export import Exporter

_HOMES = {"EvolutionTracker": "evolution_tracker", "Explainer": "explain", "Exporter": "export"}

__all__ = ["EvolutionTracker", "Explainer", "Exporter"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aesg.tools' has no attribute '{name}'")
    return getattr(importlib.import_module(f"aesg.tools.{_HOMES[name]}"), name)
