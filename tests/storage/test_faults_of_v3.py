"""Faults of the storage of 3.0.0 that have no test elsewhere; the list is in docs/store_format.md."""

from __future__ import annotations

import numpy as np

from aesg import _core
from aesg.storage import AESGStorage

D = 4


def test_edges_grow_as_needed(tmp_path):
    """One hub with more edges than a row group has blocks, and as many concepts with one edge each."""
    n = 9000
    with AESGStorage(tmp_path / "m", D) as storage:
        _core.bear(storage.core, np.ones((n, D), np.float32), 1, 1.0, 0.5, False, None)
        others = np.arange(1, n)
        hub = np.zeros(n - 1, np.int64)
        half = np.full(n - 1, 0.5, np.float32)
        assert _core.put_edges(storage.core, hub, others, half, half) == n - 1
        assert _core.put_edges(storage.core, others, hub, half, half) == n - 1
        assert storage.core.block_groups > 1
    with AESGStorage(tmp_path / "m") as storage:
        assert storage.edge_count == 2 * (n - 1)
        assert sorted(storage.get_edges(0)["target"].tolist()) == others.tolist()
        assert storage.get_edges(n - 1)["target"].tolist() == [0]
        assert storage.verify() == []


def test_views_outlive_a_restore_of_something_smaller(tmp_path):
    with AESGStorage(tmp_path / "small", D) as small:
        small.add_node(1, np.full(D, 3, np.float32))
    with AESGStorage(tmp_path / "m", D) as storage:
        _core.bear(storage.core, np.ones((5000, D), np.float32), 1, 1.0, 0.5, False, None)
        storage.commit()
        view = storage.column("vector")
        copied = storage.nodes["vector"][:]
        storage.restore(tmp_path / "small")
        storage.core.fold()
        assert storage.node_count == 1
        flat = view.reshape(-1, D)
        assert flat[0].tolist() == [3.0] * D and not flat[1:].any()  # the same bytes, no SIGBUS
        assert (copied == 1).all()
    assert flat[0].tolist() == [3.0] * D
