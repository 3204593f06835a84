"""What a memory may do by itself. `aesg.memory.modes` says which mode grants what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Permissions:
    """One row of the mode matrix (reference, "Memory modes")."""

    create_concepts: bool
    consolidation: bool
    reorganization: bool
    evolutionary_pressure: bool
    learning_rate_scale: float  # scales births, succession_rate and the relevance gain

    @property
    def learns(self) -> bool:
        """Whether use, succession and novelty leave any trace."""
        return self.learning_rate_scale > 0.0
