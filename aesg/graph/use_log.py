"""UseLog: what retrieval saw, noted cheaply and digested in bulk."""

from __future__ import annotations

import torch
from torch import Tensor

from aesg import _core

PRIMARY_COUNT = 3  # concepts of a context that count as primary (reference, RetrievedContext)
MAX_PENDING_ROWS = 1 << 16  # queries noted before the log digests itself


class UseLog:
    """Order of notes is order of digestion, so equal calls give equal graphs."""

    def __init__(self) -> None:
        self._members: list[Tensor] = []  # [Q, K] i64 each, -1 padded, strongest first
        self._energies: list[Tensor] = []  # [Q, K] f32 each
        self._followed: list[tuple[Tensor, Tensor]] = []  # (previous, current) i64 [n] each
        self.pending_rows = 0

    def note_use(self, members: Tensor, energies: Tensor) -> None:
        """Notes the context of Q queries: slots [Q, K], energies [Q, K]."""
        self._members.append(members)
        self._energies.append(energies)
        self.pending_rows += members.shape[0]

    def note_succession(self, previous: Tensor, current: Tensor) -> None:
        """Notes that `current[i]` followed `previous[i]`; a negative slot means no event."""
        self._followed.append((previous, current))

    @property
    def full(self) -> bool:
        return self.pending_rows >= MAX_PENDING_ROWS

    def digest(
        self,
        store: _core.Store,
        *,
        relevance_gain: float,
        edge_initial_confidence: float,
        succession_rate: float,
    ) -> None:
        """Writes the notes into the graph and forgets them. O(notes x degree), in C++."""
        if not self.pending_rows and not self._followed:
            return
        members, energies, followed = self._members, self._energies, self._followed
        self.clear()
        for rows, strengths in zip(members, energies, strict=True):
            _core.use(store, rows.reshape(-1).numpy(), strengths.reshape(-1).numpy(), relevance_gain)
            _core.coactivate(store, rows[:, :PRIMARY_COUNT].numpy(), succession_rate * relevance_gain)
        if followed:
            previous = torch.cat([pair[0] for pair in followed])
            current = torch.cat([pair[1] for pair in followed])
            _core.follow(store, previous.numpy(), current.numpy(), edge_initial_confidence, succession_rate)

    def clear(self) -> None:
        self._members, self._energies, self._followed = [], [], []
        self.pending_rows = 0
