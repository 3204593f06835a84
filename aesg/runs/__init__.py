"""Store & recall: runs with their artifacts and events, in one folder, without a server.

`aesg.trainer` is loaded with the two names that need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aesg.runs.memory import EventMemory
from aesg.runs.records import Artifact, Event, RunInfo, Value
from aesg.runs.run import Node, Run
from aesg.runs.store import Store

if TYPE_CHECKING:
    from aesg.runs.recorder import RunRecorder, resume_best

_LATER = {"RunRecorder": "aesg.runs.recorder", "resume_best": "aesg.runs.recorder"}

__all__ = [
    "Artifact",
    "Event",
    "EventMemory",
    "Node",
    "Run",
    "RunInfo",
    "RunRecorder",
    "Store",
    "Value",
    "resume_best",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'aesg.runs' has no attribute '{name}'")
