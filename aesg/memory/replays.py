"""Replays: what was retrieved inside a gradient checkpoint, for its second pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from aesg.memory.calls import Answer, Query, Source
from aesg.ops import Activated

ROUNDING = 1e-4  # what a second pass may differ by, relative to the largest component
MOST_ROWS = 1 << 16  # queries remembered; a longer first pass is searched for again


def recomputing() -> bool:
    """Whether backward is running: then a gradient checkpoint asks again for what it did not keep."""
    return torch._C._current_graph_task_id() != -1


def watched() -> bool:
    """Whether something else keeps, or forgets, what autograd saves: inside a checkpoint that is not
    reentrant.
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def _size(rows: torch.Tensor) -> float:
    return float(rows.detach().abs().max())


class Replays:
    """Queries with their answers, in order. A second pass asks the same again, up to rounding."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Query, list[Answer]]] = deque()
        self._rows = 0
        self._used: set[int] = set()  # of the calls, by identity

    def note(self, query: Query, answers: Sequence[Answer]) -> None:
        """Keeps one call; the oldest go when there are too many."""
        self._calls.append((query.kept(), [answer.kept() for answer in answers]))
        self._rows += len(query.rows)
        while self._rows > MOST_ROWS and len(self._calls) > 1:
            gone, _ = self._calls.popleft()
            self._rows -= len(gone.rows)

    def find(self, query: Query) -> list[tuple[Source, Activated]] | None:
        """What each graph answered to these very queries; None when it is not known. Of equal calls the
        first that was not asked for yet, then the last.
        """
        found = None
        for call in self._calls:
            kept, answers = call
            if kept.lead != query.lead or kept.streams != query.streams:
                continue
            # A pass without gradients may go through other kernels, which round otherwise.
            if not torch.allclose(kept.rows, query.rows, rtol=ROUNDING, atol=ROUNDING * _size(query.rows)):
                continue
            found = answers
            if id(call) not in self._used:
                self._used.add(id(call))
                break
        return None if found is None else [(answer.source, answer.found) for answer in found]

    def clear(self) -> None:
        """Forgets all: the next pass is another step's."""
        if self._calls:
            self._calls.clear()
            self._used.clear()
            self._rows = 0
