"""What is attached belongs to the directory: across closing, changed files, copies and snapshots."""

from __future__ import annotations

import copy
import gc
import warnings
from pathlib import Path

import pytest

from aesg import AESGMemory
from aesg.exceptions import AESGStorageError
from aesg.packs import MemoryPack
from tests.packs.filling import DIM, Make, fill, queries


def test_packs_are_remembered(make_memory: Make, packs: list[MemoryPack], tmp_path: Path) -> None:
    memory = make_memory("home", vector_dim=DIM)
    fill(memory, 60, seed=1)
    memory.attach_pack(packs[0], priority=80)
    memory.attach_pack(packs[1], priority=20, name="acids")
    memory.retrieve(queries(seed=4))
    memory.set_mode("INFERENCE")
    memory.save()
    query = queries(seed=5)
    context = memory.retrieve(query)
    before = [context.indices, context.weights]
    memory.close()
    del memory
    gc.collect()
    with AESGMemory(tmp_path / "home") as again:
        again.set_mode("INFERENCE")
        assert {k: p.priority for k, p in again.pack_manager.get_attached_packs().items()} == {
            "medical": 80,
            "acids": 20,
        }
        context = again.retrieve(query)  # the streams go on where they were when it was closed
        assert context.origin_names == ("memory", "medical", "acids")
        again.reset_state()
        again.detach_pack("medical")
        again.detach_pack("acids")
        again.save()
    with AESGMemory(tmp_path / "home") as again:
        assert again.pack_manager.get_attached_packs() == {}
    assert before[0].shape == context.indices.shape


@pytest.mark.parametrize("change", ["other content", "gone"])
def test_a_pack_that_changed_is_refused(
    make_memory: Make, packs: list[MemoryPack], tmp_path: Path, change: str
) -> None:
    memory = make_memory("home", vector_dim=DIM)
    fill(memory, 20, seed=1)
    memory.attach_pack(packs[0])
    memory.close()
    path = tmp_path / "medical.aesgpack"
    kept = path.read_bytes()
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes((tmp_path / "general.aesgpack").read_bytes())
    with pytest.warns(RuntimeWarning, match="Pack 'medical' is refused"):
        memory = AESGMemory(tmp_path / "home")
    with pytest.raises(AESGStorageError, match=r"'medical' cannot be attached again: .*medical\.aesgpack"):
        memory.retrieve(queries())
    memory.save()  # it is still remembered: the file may come back
    memory.close()
    path.write_bytes(kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        memory = AESGMemory(tmp_path / "home")
    memory.retrieve(queries())
    memory.close()
    path.unlink()
    with pytest.warns(RuntimeWarning):
        memory = AESGMemory(tmp_path / "home")
    memory.detach_pack("medical")  # or the user does without it
    assert memory.retrieve(queries()).origin_names == ("memory",)
    memory.close()


def test_memories_on_one_directory_share_their_packs(home: AESGMemory, packs: list[MemoryPack]) -> None:
    other = AESGMemory(home.directory)
    assert other.pack_manager is home.pack_manager
    home.attach_pack(packs[0])
    assert other.retrieve(queries()).origin_names == ("memory", "medical")
    assert copy.deepcopy(home).pack_manager is home.pack_manager


def test_a_dropped_memory_gives_its_directory_free(home: AESGMemory, packs: list[MemoryPack]) -> None:
    """Neither manager nor packs hold the graph."""
    directory = home.directory.parent / "dropped"
    gc.disable()
    try:
        memory = AESGMemory(directory, home.config)
        memory.attach_pack(packs[0])
        memory.retrieve(queries())
        del memory
        from aesg.storage import AESGStorage

        AESGStorage(directory).close()  # a second writer would be refused
    finally:
        gc.enable()
    assert not home.closed  # the fixture's memory, whose packs these are, stays open


def test_restoring_brings_the_packs_of_the_snapshot(
    make_memory: Make, packs: list[MemoryPack], tmp_path: Path
) -> None:
    memory = make_memory("home", vector_dim=DIM)
    fill(memory, 20, seed=1)
    memory.attach_pack(packs[0], priority=30)
    memory.snapshot(tmp_path / "snapshot")
    memory.detach_pack("medical")
    memory.attach_pack(packs[1])
    memory.restore(tmp_path / "snapshot")
    assert {k: p.priority for k, p in memory.pack_manager.get_attached_packs().items()} == {"medical": 30}
