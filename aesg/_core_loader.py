"""Finds the compiled store, `aesg._core`, or says how to build it."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def load_core() -> ModuleType:
    """The module `aesg._core`. Raises ImportError with the command that cures it."""
    if not sys.platform.startswith("linux"):
        raise ImportError(f"aesg's store needs Linux (mmap, flock, fdatasync); this is {sys.platform}")
    try:
        return importlib.import_module("aesg._core")
    except ImportError as error:
        raise ImportError(
            f"aesg._core, the compiled store, cannot be loaded ({error}). Build it with: "
            "pip install -e . --no-build-isolation"
        ) from error
