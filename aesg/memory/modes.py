"""The four memory modes and what each permits (reference, "Memory modes")."""

from __future__ import annotations

from enum import Enum

from aesg.graph.permissions import Permissions


class MemoryMode(Enum):
    """TRAIN: everything. FINETUNE: careful growth. INFERENCE: read only. ONLINE: growth without
    reorganisation.
    """

    TRAIN = "TRAIN"
    FINETUNE = "FINETUNE"
    INFERENCE = "INFERENCE"
    ONLINE = "ONLINE"


MODE_PERMISSIONS: dict[MemoryMode, Permissions] = {
    MemoryMode.TRAIN: Permissions(
        create_concepts=True,
        consolidation=True,
        reorganization=True,
        evolutionary_pressure=True,
        learning_rate_scale=1.0,
    ),
    MemoryMode.FINETUNE: Permissions(
        create_concepts=True,
        consolidation=True,
        reorganization=False,
        evolutionary_pressure=False,
        learning_rate_scale=0.1,
    ),
    MemoryMode.INFERENCE: Permissions(
        create_concepts=False,
        consolidation=False,
        reorganization=False,
        evolutionary_pressure=False,
        learning_rate_scale=0.0,
    ),
    MemoryMode.ONLINE: Permissions(
        create_concepts=True,
        consolidation=True,
        reorganization=False,
        evolutionary_pressure=False,
        learning_rate_scale=1.0,
    ),
}


class ModeSwitch:
    """The current mode of one memory. Called, it says what that mode permits.

    An object of its own, so that the engine can ask without holding the memory.
    """

    def __init__(self, mode: MemoryMode) -> None:
        self.mode = mode

    def __call__(self) -> Permissions:
        return MODE_PERMISSIONS[self.mode]
