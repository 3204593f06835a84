"""What happens to the answers of one call: merged, gathered, kept; checked before anything is written."""

import numpy as np
import pytest
import torch

from aesg import AESGConfig, AESGMemory, _core
from aesg.exceptions import AESGMemoryError
from aesg.packs.ranking import ORIGIN_SHIFT, merge_answers, origins_of, slots_in


def answer(rows, width, few=False):
    """Sorted energies with ties and padding, and slots."""
    energies = torch.rand(rows, width).round(decimals=1 if few else 6)
    energies = energies.sort(dim=1, descending=True).values
    slots = torch.randint(0, 1 << 31, (rows, width))
    count = torch.randint(0, width + 1, (rows, 1))
    there = (torch.arange(width) < count) & (energies > 0)
    return torch.where(there, energies, 0.0), torch.where(there, slots, -1)


def merged_by_sorting(answers, shares):
    energies = torch.cat([found * share for (found, _), share in zip(answers, shares, strict=True)], dim=1)
    members = torch.cat(
        [
            torch.where(slots >= 0, slots + (origin << ORIGIN_SHIFT), -1)
            for origin, (_, slots) in enumerate(answers)
        ],
        dim=1,
    )
    order = energies.sort(dim=1, descending=True, stable=True).indices[:, : answers[0][0].shape[1]]
    energies, members = energies.gather(1, order), members.gather(1, order)
    return energies, torch.where(energies > 0, members, -1)


@pytest.mark.parametrize("graphs", [1, 2, 5, 17])
@pytest.mark.parametrize("rows, width", [(0, 4), (1, 1), (3, 16), (40, 7)])
def test_the_strongest_of_several_answers(graphs, rows, width):
    torch.manual_seed(0)
    answers = [answer(rows, width, few=True) for _ in range(graphs)]
    shares = [1.0] + [0.1 * (1 + origin % 5) for origin in range(1, graphs)]
    energies, members = merge_answers(answers, shares)
    expected = merged_by_sorting(answers, shares)
    assert torch.equal(energies, expected[0]) and torch.equal(members, expected[1])
    assert bool((origins_of(members) < graphs).all())
    assert torch.equal(slots_in(members, 0), torch.where(origins_of(members) == 0, members, -1))


def test_gradients_go_to_the_answers_they_came_from():
    first, second = answer(4, 6), answer(4, 6)
    leaves = [energies.clone().requires_grad_() for energies, _ in (first, second)]
    energies, members = merge_answers([(leaves[0], first[1]), (leaves[1], second[1])], [1.0, 0.25])
    energies.sum().backward()
    with torch.no_grad():
        bare = merge_answers([first, second], [1.0, 0.25])
    assert torch.equal(energies.detach(), bare[0]) and torch.equal(members, bare[1])
    taken = (origins_of(members) == 1).sum(dim=1)
    assert leaves[1].grad.unique().tolist() == [0.0, 0.25]
    assert torch.equal(leaves[1].grad[second[1] >= 0].count_nonzero(), taken.sum())


def test_shapes_are_checked():
    energies, slots = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64)
    for given in ([energies[:1]], [energies[:, :2]], []):
        with pytest.raises(AESGMemoryError, match="expected"):
            _core.merge_answers([energies, *given], [slots, slots], [1.0, 0.5])


def test_vectors_go_to_their_places(tmp_path):
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=8)) as memory:
        slots = memory.graph.add_concepts(rows[:20])
        members = np.array([[slots[3], -1, (1 << ORIGIN_SHIFT) + 40], [(2 << ORIGIN_SHIFT), slots[0], -1]])
        vectors = np.full((2, 3, 8), 7.0, np.float32)
        _core.gather_own(memory.graph.store, members, vectors)
        _core.gather_of(rows, members, 1, vectors)
        assert np.array_equal(vectors[0], [rows[3], np.zeros(8), rows[40]])
        assert np.array_equal(vectors[1], [np.full(8, 7.0), rows[0], np.zeros(8)])
        before = vectors.copy()
        for wrong in (np.array([[slots[0], 20, -1]]), np.array([[1 << 31]])):
            with pytest.raises(AESGMemoryError, match=r"members: expected slots below 20"):
                _core.gather_own(memory.graph.store, wrong, vectors[:1, : wrong.shape[1]].copy())
        with pytest.raises(AESGMemoryError, match="below 50, got 50"):
            _core.gather_of(rows, np.array([[(1 << ORIGIN_SHIFT) + 50]]), 1, vectors[:1, :1].copy())
        with pytest.raises(AESGMemoryError, match=r"vectors: expected shape \[2, 3, 8\]"):
            _core.gather_own(memory.graph.store, members, np.zeros((2, 3, 4), np.float32))
        with pytest.raises(TypeError):  # a copy would be written to instead
            _core.gather_own(memory.graph.store, members, vectors.astype(np.float64))
        assert np.array_equal(vectors, before)


def test_the_last_step_of_every_stream_is_kept(tmp_path):
    slots, ids = np.full((4, 3), 9), np.full((4, 3), 9)
    kept = np.full((4, 3), 9, np.float32)
    members = np.array([[0, 1], [2, -1], [1, 0], [2, 1]])
    energies = np.arange(8, dtype=np.float32).reshape(4, 2)
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=2)) as memory:
        born = memory.graph.add_concepts(np.eye(3, 2, dtype=np.float32))
        names = memory.graph.identities(born)
        _core.keep_primary(memory.graph.store, members, energies, 2, 1, slots, ids, kept)
        assert slots.tolist() == [[9, 9, 9], [2, -1, -1], [2, 1, -1], [9, 9, 9]]
        assert ids[1:3].tolist() == [[names[2], 0, 0], [names[2], names[1], 0]]
        assert kept[1:3].tolist() == [[2, 3, 0], [6, 7, 0]]
        for steps, first in ((0, 0), (3, 0), (1, 1), (2, -1)):
            with pytest.raises(AESGMemoryError, match="members: expected rows of"):
                _core.keep_primary(memory.graph.store, members, energies, steps, first, slots, ids, kept)
        before = slots.copy()
        with pytest.raises(AESGMemoryError, match="expected slots below 3, got 3"):
            _core.keep_primary(memory.graph.store, members + 1, energies, 2, 1, slots, ids, kept)
        assert np.array_equal(slots, before)
        with pytest.raises(TypeError):
            _core.gather_own(None, members, np.zeros((4, 2, 2), np.float32))
    _core.keep_primary(None, members, energies, 2, 0, slots, ids, kept)
    assert slots[:2].tolist() == ids[:2].tolist() == [[2, -1, -1], [2, 1, -1]]
