"""storage.nodes and storage.edges: copies to read, item assignment to write."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aesg.exceptions import AESGMemoryError
from aesg.storage import AESGStorage

D = 8
FIELDS = (
    "id vector created_at modified_at use_frequency relevance age stability region_id is_active head_edge_idx"
)


@pytest.fixture
def storage(tmp_path):
    with AESGStorage(tmp_path / "m", D, clock=lambda: 99) as opened:
        rng = np.random.default_rng(0)
        for i in range(1100):
            opened.add_node(i + 1, rng.standard_normal(D))
        yield opened


def test_records_have_the_documented_fields(storage):
    record = storage.nodes[3]
    assert record.dtype.names == tuple(FIELDS.split())
    assert (record["id"], record["created_at"], record["relevance"], record["is_active"]) == (4, 99, 1.0, 1)
    assert record["head_edge_idx"] == -1
    assert storage.get_node(3) == record
    part = storage.nodes[1020:1030]
    assert part["id"].tolist() == list(range(1021, 1031))
    assert storage.nodes[-1]["id"] == 1100
    assert len(list(storage.nodes)) == len(storage.nodes) == 1100


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(5),
        slice(1000, 1050),
        slice(1024, 1100),
        slice(1090, 3, -7),
        slice(5, 5),
        slice(0, 1024),
    ],
)
def test_slices_agree_with_numpy(storage, key):
    expected = np.arange(1, 1101)
    assert storage.nodes["id"][key].tolist() == expected[key].tolist()
    vectors = storage.column("vector").reshape(-1, D)[:1100].numpy()
    assert (storage.nodes["vector"][key] == vectors[key]).all()


def test_index_arrays_masks_and_tensors(storage):
    ids = storage.nodes["id"]
    assert ids[[1, 1050, -1]].tolist() == [2, 1051, 1100]
    assert ids[torch.tensor([0, 2])].tolist() == [1, 3]
    assert ids[np.arange(1100) == 7].tolist() == [8]
    assert (storage.nodes["is_active"] == 1).sum() == 1100
    assert np.asarray(ids).sum() == sum(range(1101))
    with pytest.raises(IndexError, match=r"0\.\.1099, got 1100"):
        ids[1100]
    with pytest.raises(AESGMemoryError, match="integer rows"):
        ids[[0.5]]


def test_what_is_read_is_a_copy_that_cannot_be_written(storage):
    for read in (storage.nodes["relevance"][:5], storage.nodes["relevance"][[1, 2]], storage.nodes[2:4]):
        with pytest.raises(ValueError):
            read[0] = read[1]
    before = storage.nodes["relevance"][:5]
    storage.nodes["relevance"][0] = 0.5
    assert before[0] == 1.0


def test_assignment_is_committed(storage):
    storage.commit()
    storage.nodes["relevance"][3] = 0.5
    storage.nodes["age"][1000:1050] = 7
    storage.nodes["stability"][[1, 1099]] = [0.25, 0.75]
    storage.nodes["region_id"][np.arange(1100) % 2 == 0] = 3
    storage.commit()
    with AESGStorage(storage.directory, read_only=True) as reader:
        assert reader.nodes["relevance"][3] == 0.5
        assert (reader.nodes["age"][:] == 7).sum() == 50
        assert reader.nodes["stability"][[1, 1099]].tolist() == [0.25, 0.75]
        assert (reader.nodes["region_id"][:] == 3).sum() == 550


def test_assigning_a_vector_keeps_its_norm(storage):
    storage.nodes["vector"][5] = np.full(D, 2.0)
    storage.nodes["vector"][6:8] = np.zeros((2, D))
    inverse = storage.nodes["inv_norm"][5:8]
    assert inverse[0] == np.float32(1 / np.sqrt(4 * D)) and inverse[1:].tolist() == [0, 0]


def test_assigning_is_active_keeps_the_count(storage):
    storage.nodes["is_active"][[3, 4, 4]] = 0
    assert storage.active_count == 1098
    storage.nodes["is_active"][3] = 1
    assert storage.active_count == 1099
    assert storage.verify() == []


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("id", 5, "cannot be assigned"),
        ("head_edge_idx", 5, "cannot be assigned"),
        ("relevance", np.nan, "finite"),
        ("vector", np.full(D, np.inf), "finite"),
        ("vector", np.ones(D + 1), "expected values of shape"),
        ("is_active", 2, "0 or 1"),
        ("relevance", "high", "expected values"),
        ("age", -1, "fit uint32"),
        ("age", 2.5, "fit uint32, got float64"),
        ("age", 2**32, "fit uint32"),
    ],
)
def test_bad_assignments_change_nothing(storage, name, value, part):
    before = storage.core.node_view().copy()
    with pytest.raises(AESGMemoryError, match=part):
        storage.nodes[name][2] = value
    assert (storage.core.node_view() == before).all()


def test_unknown_fields_are_named(storage):
    with pytest.raises(AESGMemoryError, match="expected one of id, vector"):
        storage.nodes["colour"]
    with pytest.raises(AESGMemoryError, match="expected one of source_id"):
        storage.edges["colour"]


def test_edges_by_position_and_by_chain(storage):
    for target in range(2, 18):
        storage.add_edge(0, target, target / 32, 0.5)
    storage.add_edge(4, 1, 0.25)
    assert len(storage.edges) == storage.edge_count == 17
    found = storage.get_edges(0)
    assert sorted(found["target_id"].tolist()) == list(range(2, 18))
    assert sorted(found["target"].tolist()) == list(range(1, 17))
    assert set(found["source_id"].tolist()) == {1} and set(found["confidence"].tolist()) == {0.5}
    place, seen = int(storage.nodes[0]["head_edge_idx"]), []
    while place >= 0:
        record = storage.edges[place]
        seen.append(int(record["target_id"]))
        place = int(record["next_edge_idx"])
    assert seen == found["target_id"].tolist()
    assert storage.edges["weight"].sum() == sum(range(2, 18)) / 32 + 0.25
    assert storage.edges[:]["target_id"].tolist() == storage.edges["target_id"].tolist()
    assert len(storage.get_edges(7)) == 0
    with pytest.raises(AESGMemoryError, match=r"0\.\.1099, got 1100"):
        storage.get_edges(1100)
    with pytest.raises(AESGMemoryError, match="hold an edge"):
        storage.edges[int(storage.edges.positions.max()) + 1]
    with pytest.raises(AESGMemoryError, match="id of a concept"):
        storage.add_edge(0, 5000, 0.5)


def test_groups_are_zero_copy(storage):
    assert storage.nodes.groups("age").data_ptr() == storage.column("age").data_ptr()


def test_update_writes_several_fields_of_several_rows(tmp_path):
    with AESGStorage(tmp_path / "m", 4, clock=lambda: 50.0) as storage:
        for i in range(5):
            storage.add_node(i + 1, np.full(4, i + 1, np.float32))
        storage.commit()
        storage.clock = lambda: 60.0
        storage.update(
            [1, 3], vector=np.array([[3, 4, 0, 0], [0, 0, 0, 0]], np.float32), age=[7, 8], relevance=0.25
        )
        storage.update(torch.tensor([4]), vector=torch.ones(4), use_frequency=2**32 - 1)
    with AESGStorage(tmp_path / "m") as storage:
        nodes = storage.nodes
        assert nodes["vector"][[1, 3, 4]].tolist() == [[3, 4, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
        assert nodes["inv_norm"][[0, 1, 3, 4]].tolist() == [0.5, np.float32(0.2), 0.0, 0.5]
        assert nodes["age"][:].tolist() == [0, 7, 0, 8, 0]
        assert nodes["relevance"][:].tolist() == [1.0, 0.25, 1.0, 0.25, 1.0]
        assert nodes["modified_at"][:].tolist() == [50, 60, 50, 60, 60]
        assert nodes["use_frequency"][4] == 2**32 - 1
        assert storage.verify() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"relevance": float("nan")},
        {"age": -1},
        {"age": 2**32},
        {"age": 0.5},
        {"vector": np.ones(3, np.float32)},
        {"vector": np.full(4, np.inf, np.float32)},
        {"relevance": [1.0, 2.0, 3.0]},
        {"relevance": "high"},
        {"id": 3},
        {"relevance": None},
    ],
)
def test_update_refuses_before_anything_changed(tmp_path, fields):
    with AESGStorage(tmp_path / "m", 4) as storage:
        for i in range(2):
            storage.add_node(i + 1, np.ones(4, np.float32))
        before = storage.nodes[:].copy()
        with pytest.raises(AESGMemoryError):
            storage.update([0, 1], stability=0.75, **fields)
        for slots in ([2], [-1], [0.5]):
            with pytest.raises(AESGMemoryError):
                storage.update(slots, stability=0.75)
        np.testing.assert_array_equal(storage.nodes[:], before)
