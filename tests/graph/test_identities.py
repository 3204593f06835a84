"""Which concept a slot holds: `_core.identities` and `_core.still`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aesg import _core
from aesg.exceptions import AESGMemoryError


def test_identities_and_what_still_holds_them(make_memory):
    memory = make_memory()
    slots = memory.graph.add_concepts(torch.randn(6, 16))
    core = memory.storage.core
    asked = np.array([[5, -1, 0], [2, 3, -1]])
    ids = _core.identities(core, asked)
    assert ids.shape == (2, 3) and (ids[asked < 0] == 0).all()
    assert ids[0, 0] == memory.storage.nodes[5]["id"] and len(np.unique(ids)) == 5
    assert np.array_equal(memory.graph.ids(torch.from_numpy(asked)).numpy(), ids)
    assert np.array_equal(_core.still(core, asked, ids), asked)
    memory.forget([int(ids[1, 0])])
    assert _core.still(core, asked, ids).tolist() == [[5, -1, 0], [-1, 3, -1]]
    assert _core.still(core, [5], [int(ids[0, 2])]).tolist() == [-1], "another concept than it was"
    assert len(slots) == 6


def test_slots_that_are_not_there_are_refused(make_memory):
    memory = make_memory()
    memory.graph.add_concepts(torch.randn(3, 16))
    with pytest.raises(AESGMemoryError, match="slots below 3, got 3"):
        _core.identities(memory.storage.core, [3])
    with pytest.raises(AESGMemoryError, match="expected 2 values, got 1"):
        _core.still(memory.storage.core, [0, 1], [1])
