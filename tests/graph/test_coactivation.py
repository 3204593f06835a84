"""PairCounts: what plain counting gives, whatever came before."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from aesg.graph import coactivation
from aesg.graph.coactivation import PairCounts


@pytest.mark.parametrize("most", [1, 30, 400, coactivation.MAX_PAIRS])
def test_same_as_plain_counting(monkeypatch, most):
    """Above the most that are kept the rarest go, of equals those with higher slots."""
    monkeypatch.setattr(coactivation, "MAX_PAIRS", most)
    pairs, counted = PairCounts(), Counter()
    rng = np.random.default_rng(most)
    for _ in range(60):
        rows = rng.integers(-1, rng.integers(2, 90), (rng.integers(0, 40), rng.integers(1, 4)))
        before = pairs.keys, pairs.counts, pairs.keys.copy(), pairs.counts.copy()
        pairs.add(rows)
        assert np.array_equal(before[0], before[2]) and np.array_equal(before[1], before[3])
        for row in rows.tolist():
            counted.update(tuple(sorted(pair)) for pair in combinations(row, 2) if min(pair) >= 0)
        kept = sorted(counted, key=lambda pair: (-counted[pair], pair))[:most]
        counted = Counter({pair: counted[pair] for pair in kept})
        assert pairs.keys.tolist() == sorted((low << 32) + high for low, high in kept)
        assert pairs.counts.tolist() == [counted[pair] for pair in sorted(kept)]
        assert (pairs.keys.dtype, pairs.counts.dtype) == (np.uint64, np.int64)


def test_what_was_loaded_cannot_be_written():
    pairs = PairCounts()
    pairs.add(np.array([[3, 5], [1, 2]]))
    pairs.keys.flags.writeable = pairs.counts.flags.writeable = False
    pairs.add(np.array([[5, 3]]))
    assert pairs.take(2).tolist() == [[3, 5]] and pairs.counts.tolist() == [1]
