"""Clock: the time of every stamp, also of what happens later than it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Unix seconds from `source`, or those of `as_of`."""

    def __init__(self, source: Callable[[], float]) -> None:
        self._source = source
        self._as_of: float | None = None

    def __call__(self) -> float:
        return self._source() if self._as_of is None else self._as_of

    @contextmanager
    def as_of(self, seconds: float) -> Iterator[None]:
        """Inside, it is that time."""
        former, self._as_of = self._as_of, seconds
        try:
            yield
        finally:
            self._as_of = former
