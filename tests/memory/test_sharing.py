"""Several memories on one directory in one process: one graph, closed with the last; and what a mode forbids
is forbidden through the storage too."""

from __future__ import annotations

import copy
import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from aesg import AESGConfig
from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.memory.controller import AESGMemory
from aesg.storage import AESGStorage

D = 8


def two(directory) -> tuple[AESGMemory, AESGMemory]:
    return tuple(AESGMemory(directory, AESGConfig(vector_dim=D)) for _ in range(2))


def test_closing_one_leaves_the_other_open(tmp_path):
    first, second = two(tmp_path / "m")
    first.graph.add_concepts(torch.eye(D))
    first.close()
    assert first.closed and not second.closed
    with pytest.raises(AESGMemoryError, match="is closed"):
        first.retrieve(torch.ones(D))
    with AESGStorage(tmp_path / "m", read_only=True) as reader:
        assert reader.node_count == D  # closing saved all the same
    with pytest.raises(AESGStorageError, match="writ"):
        AESGStorage(tmp_path / "m")
    assert second.retrieve(torch.ones(D)).indices[0] >= 0
    second.graph.add_concepts(-torch.eye(D))
    second.close()
    with AESGStorage(tmp_path / "m") as storage:  # free again
        assert storage.node_count == 2 * D


def test_a_dropped_memory_holds_nothing_open(tmp_path):
    first, second = two(tmp_path / "m")
    del second
    first.close()
    AESGStorage(tmp_path / "m").close()


def test_a_copy_keeps_the_directory_open(tmp_path):
    first, other = two(tmp_path / "m")
    other.close()
    twin = copy.deepcopy(first)
    first.close()
    first.close()
    assert not twin.closed
    twin.close()
    AESGStorage(tmp_path / "m").close()


ASSIGNMENTS = {
    "nodes": lambda storage: storage.nodes["relevance"].__setitem__(0, 0.25),
    "update": lambda storage: storage.update([0], relevance=0.25),
    "add_node": lambda storage: storage.add_node(99, np.ones(D, np.float32)),
    "add_edge": lambda storage: storage.add_edge(0, 2, 0.5),
}


@pytest.mark.parametrize("how", ASSIGNMENTS)
def test_inference_forbids_assignment_through_the_storage(tmp_path, how):
    memory, other = two(tmp_path / "m")
    memory.graph.add_concepts(torch.eye(D))
    memory.save()
    memory.set_mode("INFERENCE")
    ASSIGNMENTS["nodes"](memory.storage)  # the other memory on this graph may
    other.set_mode("INFERENCE")
    before = memory.storage.nodes[:].copy(), memory.storage.edge_count
    with pytest.raises(AESGMemoryError, match="INFERENCE mode"):
        ASSIGNMENTS[how](memory.storage)
    np.testing.assert_array_equal(before[0], memory.storage.nodes[:])
    assert before[1] == memory.storage.edge_count
    memory.set_mode("TRAIN")
    ASSIGNMENTS[how](memory.storage)
    memory.close()
    other.close()


@pytest.mark.parametrize("directory", [None, 5, "", "a\0b", b"bytes"])
def test_what_is_no_directory_is_refused_by_name(tmp_path, directory):
    for call in (AESGMemory, lambda d: AESGStorage(d, D)):
        with pytest.raises(AESGStorageError, match="directory: expected a path, got"):
            call(directory)
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=D)) as memory:
        generation = memory.storage.generation
        with pytest.raises(AESGStorageError, match="directory: expected a path, got"):
            memory.snapshot(directory)
        assert memory.storage.generation == generation


def test_inference_bars_restoring_and_events_by_name(tmp_path):
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=D)) as memory:
        memory.graph.add_concepts(torch.eye(D))
        memory.save()
        memory.snapshot(tmp_path / "copy")
        memory.graph.add_concepts(torch.eye(D))
        memory.compact()
        memory.set_mode("INFERENCE")
        files = {path.name: path.read_bytes() for path in memory.directory.iterdir()}
        for forbidden in (
            lambda: memory.restore(tmp_path / "copy"),
            lambda: memory.storage.restore(tmp_path / "copy"),
            lambda: memory.logger.log_event("CREATE", 1),
        ):
            with pytest.raises(AESGMemoryError, match="INFERENCE mode"):
                forbidden()
            memory.save()
        assert memory.storage.node_count == 2 * D
        assert files == {path.name: path.read_bytes() for path in memory.directory.iterdir()}


def test_no_snapshot_inside_the_memory(tmp_path):
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=D)) as memory:
        with pytest.raises(AESGStorageError, match="own directory"):
            memory.snapshot(tmp_path / "m" / "inside")
        assert not (tmp_path / "m" / "inside").exists()


def test_a_restore_that_fails_keeps_what_was_noted(tmp_path):
    noted = []
    for name, fails in (("a", False), ("b", True)):
        with AESGMemory(tmp_path / name, AESGConfig(vector_dim=D)) as memory:
            memory.graph.add_concepts(torch.eye(D))
            memory.retrieve(torch.eye(D))
            if fails:
                with pytest.raises(AESGStorageError):
                    memory.restore(tmp_path / "nowhere")
            noted.append(list(memory.storage.nodes["use_frequency"][:]))
    assert noted[0] == noted[1] and sum(noted[0]) > 0


def address_space() -> int:
    """GiB of address space this process has taken."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmSize:")[1].split()[0]) >> 20


def test_a_closed_storage_gives_its_address_space_back(tmp_path):
    """1.25 TiB are reserved for each: a hundred would be all there is."""
    gc.collect()
    before = address_space()
    gc.disable()
    try:
        for number in range(3):
            with AESGStorage(tmp_path / "m", D) as storage:
                storage.add_node(number + 1, np.ones(D, np.float32))
                assert len(storage.nodes["id"][:]) > 0 and len(storage.edges) == 0
            del storage
            assert address_space() - before < 100
        for _ in range(40):  # a memory and its parts hold each other
            AESGMemory(tmp_path / "n", AESGConfig(vector_dim=D)).close()
            assert address_space() - before < 32 * 1300
    finally:
        gc.enable()


def test_a_restore_ends_the_streams_of_the_others(tmp_path):
    """What they were last about is there no more, also where the store is now smaller."""
    first, second = two(tmp_path / "m")
    with AESGMemory(tmp_path / "small", AESGConfig(vector_dim=D)) as small:
        small.graph.add_concepts(torch.eye(D)[:2])
    first.graph.add_concepts(torch.eye(D))
    first.retrieve(torch.eye(D))
    assert first.active_state.last_seed.max() == D - 1
    second.restore(tmp_path / "small")
    found = first.retrieve(torch.eye(D)).indices
    assert found[:2, 0].tolist() == [0, 1] and set(found.flatten().tolist()) <= {-1, 0, 1}
    first.close()
    second.close()
