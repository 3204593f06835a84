"""One memory directory: columns mapped from files, changed in memory, committed as one step."""

from __future__ import annotations

from aesg._core_loader import load_core

load_core()  # before anything else of this package, so that a missing build is said once and plainly

from aesg.storage.directory import inspect_directory  # noqa: E402
from aesg.storage.engine import AESGStorage, EdgeBlocks  # noqa: E402
from aesg.storage.import_v3 import ImportReport, import_v3  # noqa: E402
from aesg.storage.logger import EventHistory, EventType, EvolutionLogger  # noqa: E402

__all__ = [
    "AESGStorage",
    "EdgeBlocks",
    "EventHistory",
    "EventType",
    "EvolutionLogger",
    "ImportReport",
    "import_v3",
    "inspect_directory",
]
