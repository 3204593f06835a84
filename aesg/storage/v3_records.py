"""The records of aesg 3.0.0, as its memories and version-1 packs hold them: packed, little-endian.

A concept is `node_dtype(D)` of `aesg.storage.nodes`, 53 + 4 D bytes; an edge `EDGE_RECORD`, 36 bytes.
"""

from __future__ import annotations

import numpy as np

EDGE_RECORD = np.dtype(
    [
        ("source_id", "<u8"),  # ids, not slots
        ("target_id", "<u8"),
        ("weight", "<f4"),
        ("confidence", "<f4"),
        ("use_count", "<u4"),
        ("next_edge_idx", "<i8"),  # position in the same file, -1: end
    ]
)


def first_of_each(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct ids [m] of `ids` [n], and the first row i64 [m] that has each. O(n log n)."""
    distinct, first = np.unique(ids, return_index=True)
    return distinct, first.astype(np.int64)


def rows_of(ids: np.ndarray, distinct: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The row i64 [n] of each id, -1 where there is none; `distinct` and `first` as of `first_of_each`."""
    if len(distinct) == 0:
        return np.full(len(ids), -1, dtype=np.int64)
    order = np.argsort(ids, kind="stable")  # looking up ascending ids stays in the cache: three times quicker
    place = np.empty(len(ids), dtype=np.int64)
    place[order] = np.searchsorted(distinct, ids[order])
    place = np.minimum(place, len(distinct) - 1)
    return np.where(distinct[place] == ids, first[place], -1)


def strongest_of_each(keys: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Ascending rows i64 of the strongest of every group of equal keys [n]; of equals the first."""
    order = np.lexsort((np.arange(len(keys)), -strengths, keys))
    ordered = keys[order]
    leads = np.ones(len(keys), dtype=bool)
    leads[1:] = ordered[1:] != ordered[:-1]
    return np.sort(order[leads])
