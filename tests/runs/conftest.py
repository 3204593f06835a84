"""Fixtures of the store's tests: stores without syncs, which are slow and which no test here can tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aesg.runs import Run, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store", sync=False) as opened:
        yield opened


@pytest.fixture
def run(store: Store) -> Iterator[Run]:
    with store.run("test") as running:
        yield running
