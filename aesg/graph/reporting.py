"""Reporter: what a memory tells through Python's logging, from its config's `log_level` upwards."""

from __future__ import annotations

import logging
from typing import Any

LOGGER = logging.getLogger("aesg.memory")  # all memories': handlers are the program's, as libraries should
LOGGER.setLevel(logging.DEBUG)  # each memory has its own bar, so the logger has none
LOGGER.addHandler(logging.NullHandler())


class Reporter:
    """Hands messages of one memory on. DEBUG: births, deaths, saving. INFO: opening, closing, modes, what
    sweeps and regions changed. WARNING: what keeps a memory from learning.

    Nothing is formatted below the bar, nor without a handler.
    """

    def __init__(self, log_level: str, directory: Any) -> None:
        self._bar = logging.getLevelName(log_level)
        self._directory = directory

    def debug(self, message: str, *values: Any) -> None:
        self._tell(logging.DEBUG, message, values)

    def info(self, message: str, *values: Any) -> None:
        self._tell(logging.INFO, message, values)

    def warning(self, message: str, *values: Any) -> None:
        self._tell(logging.WARNING, message, values)

    def _tell(self, level: int, message: str, values: tuple[Any, ...]) -> None:
        if level >= self._bar:
            LOGGER.log(level, f"%s: {message}", self._directory, *values)
