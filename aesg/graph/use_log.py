"""UseLog: what retrieval saw, noted cheaply and digested in bulk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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


class Use(NamedTuple):
    """What Q queries saw."""

    members: np.ndarray  # [Q, K] i64, slots of the contexts, strongest first, -1 padded
    energies: np.ndarray  # [Q, K] f32, theirs
    seeds: np.ndarray  # [Q, S] i64, slots of what was like the queries, -1 padded
    previous: np.ndarray  # [Q] i64, what each query's concept followed, -1: nothing
    current: np.ndarray  # [Q] i64, the concept that each query meant, -1: none


class UseLog:
    """Order of notes is order of digestion, so equal calls give equal graphs."""

    def __init__(self, store: _core.Store) -> None:
        self._store = store
        self.rates: LearningRates | None = None  # of what is pending
        self.pairs = PairCounts()  # what digestion leaves behind: it is part of the committed state
        self.version = 0  # changes with what is pending
        self.clear()

    def clear(self) -> None:
        """Forgets what is pending."""
        self.pending: list[Use] = []
        self._pending_rows = 0
        self.version += 1

    @property
    def pending_rows(self) -> int:
        return self._pending_rows

    def note(self, use: Use, rates: LearningRates) -> None:
        """Notes a use. A full log, or one noted at other rates, digests itself first."""
        if self._pending_rows >= MAX_PENDING_ROWS or (self.rates != rates and self._pending_rows):
            self.digest()
        self.rates = rates
        self.pending.append(use)
        self._pending_rows += use.members.shape[0]
        self.version += 1

    def digest(self) -> None:
        """Writes the notes into the graph and forgets them. O(notes x degree), in C++."""
        if not self._pending_rows or self.rates is None:
            return
        pending, rates = self.pending, self.rates
        self.clear()
        # The three rules touch different things, so each may take all notes at once.
        used = np.concatenate([use.members.reshape(-1) for use in pending])
        strengths = np.concatenate([use.energies.reshape(-1) for use in pending])
        _core.use(self._store, used, strengths, rates.relevance_gain)
        primaries = np.concatenate([_first_columns(use.members, PRIMARY_COUNT) for use in pending])
        _core.coactivate(self._store, primaries, rates.coactivation_rate)
        # What only spread or priming brought in was not meant: pairs count where the query was like both.
        self.pairs.add(np.concatenate([_first_columns(use.seeds, PRIMARY_COUNT) for use in pending]))
        previous = np.concatenate([use.previous for use in pending])
        current = np.concatenate([use.current for use in pending])
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
