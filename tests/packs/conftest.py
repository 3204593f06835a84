"""A memory and three packs that know other things."""

from __future__ import annotations

from pathlib import Path

import pytest

from aesg import AESGMemory
from aesg.packs import MemoryPack, read_pack
from tests.packs.filling import DIM, Make, fill


@pytest.fixture
def home(make_memory: Make) -> AESGMemory:
    memory = make_memory("home", vector_dim=DIM)
    fill(memory, 60, seed=1)
    memory.set_mode("INFERENCE")
    return memory


@pytest.fixture
def packs(make_memory: Make, tmp_path: Path) -> list[MemoryPack]:
    """Three packs, the second of version 2."""
    made = []
    for number, name in enumerate(("medical", "chemistry", "general")):
        memory = make_memory(name, vector_dim=DIM)
        fill(memory, 50, seed=10 + number)
        memory.export_pack(tmp_path / f"{name}.aesgpack", format_version=1 + number % 2)
        made.append(read_pack(tmp_path / f"{name}.aesgpack"))
    return made
