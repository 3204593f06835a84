"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aesg.config import AESGConfig


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--one-of-each",
        action="store_true",
        help="of every test with parameters its last case, for slow tools",
    )


@pytest.hookimpl(trylast=True)  # of what is left by -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--one-of-each"):
        items[:] = {item.nodeid.split("[")[0]: item for item in items}.values()


class Clock:
    """A clock that only moves when told to, so that files can be compared byte for byte."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_memory(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Any]]:
    """Makes memories below tmp_path and closes what is left open: make_memory(name="m", **config fields)."""
    from aesg.memory.controller import AESGMemory

    made = []

    def make(name: str = "memory", *, read_only: bool = False, **fields: Any) -> AESGMemory:
        config = AESGConfig(**{"vector_dim": 16, **fields})
        memory = AESGMemory(tmp_path / name, config, clock=clock, read_only=read_only)
        made.append(memory)
        return memory

    yield make
    for memory in made:
        memory.close()
