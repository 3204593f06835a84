"""Pruning: whether lack of use counts, consolidation by consolidation."""

from __future__ import annotations

from dataclasses import dataclass

PRUNING_WAIT = 20  # consolidations that survival waits after an import or a time without pruning


@dataclass
class Pruning:
    """After an import, and after concepts were aged in a mode that does not prune, survival waits, so that
    use can show first. Part of the committed state.
    """

    wait: int = 0  # consolidations until survival counts again
    aged_unpruned: bool = False  # concepts were aged in a mode that does not prune

    def pause(self) -> None:
        """Lets nothing die for lack of use during the next consolidations."""
        self.wait, self.aged_unpruned = PRUNING_WAIT, False

    def due(self, permitted: bool) -> bool:
        """One consolidation: whether those die whose survival it denies."""
        if not permitted:
            self.aged_unpruned = True
            return False
        if self.aged_unpruned:
            self.pause()
        if self.wait == 0:
            return True
        self.wait -= 1
        return False
