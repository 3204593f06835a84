"""UseLog: what retrieval saw, noted cheaply and digested in bulk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aesg import _core
from aesg.config import AESGConfig
from aesg.graph.coactivation import PairCounts

PRIMARY_COUNT = 3  # concepts of a context that count as primary (reference, RetrievedContext)
MAX_PENDING_ROWS = 1 << 16  # queries noted before the log digests itself


@dataclass(frozen=True)
class LearningRates:
    """How strongly notes change the graph."""

    relevance_gain: float
    coactivation_rate: float
    succession_rate: float
    succession_yield: float  # share that known successors give up for a new one
    edge_initial_confidence: float

    @classmethod
    def of(cls, config: AESGConfig, scale: float) -> LearningRates:
        """The config's rates under a mode's learning rate scale."""
        return cls(
            relevance_gain=config.relevance_gain * scale,
            coactivation_rate=config.coactivation_rate * scale,
            succession_rate=config.succession_rate * scale,
            succession_yield=config.succession_yield * scale,
            edge_initial_confidence=config.edge_initial_confidence,
        )


class UseLog:
    """Order of notes is order of digestion, so equal calls give equal graphs."""

    def __init__(self, store: _core.Store) -> None:
        self._store = store
        self._rates: LearningRates | None = None
        self.pairs = PairCounts()  # what digestion leaves behind: it is part of the committed state
        self.clear()

    def clear(self) -> None:
        """Forgets what is pending."""
        self._members: list[np.ndarray] = []  # [Q, K] i64 each, -1 padded, strongest first
        self._energies: list[np.ndarray] = []  # [Q, K] f32 each
        self._seeds: list[np.ndarray] = []  # [Q, S] i64 each
        self._followed: list[tuple[np.ndarray, np.ndarray]] = []  # (previous, current) i64 [n] each
        self._pending_rows = 0

    @property
    def pending_rows(self) -> int:
        return self._pending_rows

    def note(
        self,
        members: np.ndarray,
        energies: np.ndarray,
        seeds: np.ndarray,
        previous: np.ndarray,
        current: np.ndarray,
        rates: LearningRates,
    ) -> None:
        """Notes the contexts of Q queries (slots and energies [Q, K]), what was like them (slots [Q, S]) and
        what followed what (slots [Q], -1: none).

        A full log, or one noted at other rates, digests itself first.
        """
        if self._pending_rows >= MAX_PENDING_ROWS or (self._rates != rates and self._pending_rows):
            self.digest()
        self._rates = rates
        self._members.append(members)
        self._energies.append(energies)
        self._seeds.append(seeds)
        self._followed.append((previous, current))
        self._pending_rows += members.shape[0]

    def digest(self) -> None:
        """Writes the notes into the graph and forgets them. O(notes x degree), in C++."""
        if not self._pending_rows or self._rates is None:
            return
        members, energies, followed, rates = self._members, self._energies, self._followed, self._rates
        seeds = self._seeds
        self.clear()
        # The three rules touch different things, so each may take all notes at once.
        used = np.concatenate([slots.reshape(-1) for slots in members])
        strengths = np.concatenate([strength.reshape(-1) for strength in energies])
        _core.use(self._store, used, strengths, rates.relevance_gain)
        primaries = np.concatenate([_first_columns(slots, PRIMARY_COUNT) for slots in members])
        _core.coactivate(self._store, primaries, rates.coactivation_rate)
        # What only spread or priming brought in was not meant: pairs count where the query was like both.
        self.pairs.add(np.concatenate([_first_columns(slots, PRIMARY_COUNT) for slots in seeds]))
        previous = np.concatenate([pair[0] for pair in followed])
        current = np.concatenate([pair[1] for pair in followed])
        _core.follow(
            self._store,
            previous,
            current,
            rates.edge_initial_confidence,
            rates.succession_rate,
            rates.succession_yield,
        )


def _first_columns(slots: np.ndarray, width: int) -> np.ndarray:
    """The first `width` columns of [Q, K], filled up with -1 where K is less."""
    missing = width - slots.shape[1]
    return np.pad(slots, ((0, 0), (0, missing)), constant_values=-1) if missing > 0 else slots[:, :width]
