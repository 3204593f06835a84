"""The progress bar: loss, concepts, edges and speed."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

REFRESH_SECONDS = 0.5  # counting concepts and edges is cheap, but need not be done for every batch


class ProgressBar:
    """A tqdm bar over a loader, of which `done` batches lie behind. A context manager.

    `shown` None: only when stderr is a terminal.
    """

    def __init__(
        self, loader: Any, title: str, shown: bool | None, memory: Any | None, done: int = 0
    ) -> None:
        if shown is None:
            shown = sys.stderr.isatty()
        try:
            total = len(loader)
        except TypeError:  # iterable data need not know its length
            total = None
        self.memory = memory
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=title,
            disable=not shown,
            unit="batch",
            leave=True,
            file=sys.stderr,
        )
        self._shown = shown
        self._refreshed = 0.0
        self._started = time.perf_counter()
        self._counted = 0

    def update(self, loss: float, counted: int) -> None:
        """One more batch, of this loss, in which this many targets counted."""
        if not self._shown:
            return
        self._counted += counted
        now = time.perf_counter()
        if now - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = now
            figures = {"loss": f"{loss:.3f}"}
            if self.memory is not None:
                figures["concepts"] = f"{self.memory.storage.node_count:,}"
                figures["edges"] = f"{self.memory.storage.edge_count:,}"
            figures["targets/s"] = f"{self._counted / (now - self._started):,.0f}"
            self._bar.set_postfix(figures, refresh=False)
        self._bar.update()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
