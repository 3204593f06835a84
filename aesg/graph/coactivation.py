"""PairCounts: how often two concepts were primary together, until that gives birth to an abstract one."""

from __future__ import annotations

import numpy as np

MAX_PAIRS = 1 << 17  # the rarest are forgotten above it


class PairCounts:
    """Sorted arrays of pair keys and counts. A key is two slots, low < high, in one u64."""

    def __init__(self) -> None:
        self.keys = np.empty(0, dtype=np.uint64)  # [n], ascending
        self.counts = np.empty(0, dtype=np.int64)  # [n]

    def add(self, primaries: np.ndarray) -> None:
        """Counts every pair among the slots of each row of `primaries` [rows, width], -1 padded. O(n) beside
        a sort of the new ones.
        """
        width = primaries.shape[1]
        left, right = np.triu_indices(width, k=1)
        a, b = primaries[:, left].reshape(-1), primaries[:, right].reshape(-1)
        there = (a >= 0) & (b >= 0)
        low, high = np.minimum(a, b)[there].astype(np.uint64), np.maximum(a, b)[there].astype(np.uint64)
        keys, counts = np.unique((low << np.uint64(32)) | high, return_counts=True)
        places = np.searchsorted(self.keys, keys)
        known = np.zeros(len(keys), dtype=bool)
        inside = places < len(self.keys)
        known[inside] = self.keys[places[inside]] == keys[inside]
        self.counts = self.counts.copy()  # it may be what a commit was made of
        self.counts[places[known]] += counts[known]
        new = ~known
        self.keys = np.insert(self.keys, places[new], keys[new])
        self.counts = np.insert(self.counts, places[new], counts[new])
        if len(self.keys) > MAX_PAIRS:
            self._keep(self._most_counted(MAX_PAIRS))

    def _most_counted(self, most: int) -> np.ndarray:
        """Positions of so many, ascending; of equals the lower ones."""
        beyond = len(self.counts) - most
        bar = np.sort(self.counts)[beyond]  # of the last one kept; np.partition is slow where many are equal
        kept = self.counts > bar
        kept[np.flatnonzero(self.counts == bar)[: most - int(kept.sum())]] = True
        return np.flatnonzero(kept)

    def take(self, threshold: int) -> np.ndarray:
        """Removes and returns the pairs counted at least `threshold` times, slots i64 [m, 2], in key
        order.
        """
        ripe = self.counts >= threshold
        pairs = _slots(self.keys[ripe])
        self._keep(np.flatnonzero(~ripe))
        return pairs

    def forget(self, dead: np.ndarray) -> None:
        """Drops pairs with a slot for which `dead` [N] bool holds: the slot may soon be another concept's."""
        if len(self.keys):
            self._keep(np.flatnonzero(~dead[_slots(self.keys)].any(axis=1)))

    def _keep(self, positions: np.ndarray) -> None:
        self.keys, self.counts = self.keys[positions], self.counts[positions]


def _slots(keys: np.ndarray) -> np.ndarray:
    return np.stack([keys >> np.uint64(32), keys & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)
