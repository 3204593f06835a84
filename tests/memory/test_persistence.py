"""A memory survives its process: saving, reopening, sharing, snapshots."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch

from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.memory.controller import AESGMemory


def grown(make_memory, name="memory", **fields):
    memory = make_memory(name, **{"novelty_birth_threshold": 1, **fields})
    for _ in range(10):
        memory.retrieve(torch.randn(4, 3, 16))
        memory.update_topology()
    return memory


def answers(memory, queries):
    memory.set_mode("INFERENCE")
    memory.reset_state()
    context = memory.retrieve(queries)
    return context.indices, context.weights, context.vectors


def test_reopening_without_a_config_gives_the_same_answers(make_memory, tmp_path):
    memory = grown(make_memory, spreading_activation_steps=2)
    queries = torch.randn(20, 16)
    before = answers(memory, queries)
    stats = memory.stats()
    memory.close()
    with AESGMemory(tmp_path / "memory") as again:
        assert again.config == AESGConfig(
            vector_dim=16, novelty_birth_threshold=1, spreading_activation_steps=2
        )
        for name in ("concepts", "active", "edges", "candidates", "births", "consolidations"):
            assert again.stats()[name] == stats[name], name
        assert stats["edges"] > 0
        for one, other in zip(before, answers(again, queries), strict=True):
            assert torch.equal(one, other)


def test_a_directory_opened_twice_is_one_graph(make_memory):
    first, second = make_memory(), make_memory()
    first.graph.add_concepts(torch.randn(3, 16))
    assert second.storage.node_count == 3
    assert second.storage is first.storage


def test_another_vector_dim_is_refused_and_writes_nothing(make_memory, tmp_path):
    grown(make_memory).close()
    files = {path.name: path.read_bytes() for path in (tmp_path / "memory").iterdir()}
    with pytest.raises(AESGStorageError, match=r"16.*32|32.*16"):
        make_memory(vector_dim=32)
    assert {path.name: path.read_bytes() for path in (tmp_path / "memory").iterdir()} == files


def test_an_open_directory_refuses_another_vector_dim(make_memory):
    make_memory()
    with pytest.raises(AESGStorageError, match=r"16.*32"):
        make_memory(vector_dim=32)


@pytest.mark.parametrize("end", ["", "memory.close()", "del memory", "raise SystemExit(3)", "1 / 0"])
def test_a_clean_end_loses_nothing(tmp_path, end):
    code = f"""
        import torch
        from aesg.config import AESGConfig
        from aesg.memory.controller import AESGMemory
        memory = AESGMemory({str(tmp_path / "m")!r}, AESGConfig(vector_dim=8))
        memory.graph.add_concepts(torch.randn(5, 8))
        {end}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True)
    with AESGMemory(tmp_path / "m") as memory:
        assert memory.storage.node_count == 5


def test_a_dropped_memory_frees_its_directory(make_memory, tmp_path):
    memory = AESGMemory(tmp_path / "dropped", AESGConfig(vector_dim=8))
    memory.retrieve(torch.randn(8))
    del memory
    code = (
        "from aesg.memory.controller import AESGMemory;"
        f"print(AESGMemory({str(tmp_path / 'dropped')!r}).storage.node_count)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "1", result.stderr


def test_a_reader_sees_the_committed_state_and_learns_nothing(make_memory):
    writer = grown(make_memory)
    writer.save()
    count = writer.storage.node_count
    writer.graph.add_concepts(torch.randn(4, 16))
    reader = make_memory(read_only=True)
    assert reader.storage.node_count == count
    assert reader.mode.value == "INFERENCE"
    reader.retrieve(torch.randn(3, 16))
    for forbidden in (
        lambda: reader.set_mode("TRAIN"),
        reader.save,
        lambda: reader.graph.add_concepts(torch.randn(1, 16)),
    ):
        with pytest.raises(AESGMemoryError, match="reading only"):
            forbidden()


def test_snapshot_and_restore(make_memory, tmp_path):
    memory = grown(make_memory)
    queries = torch.randn(20, 16)
    memory.snapshot(tmp_path / "copy")
    mode = memory.mode
    before, stats, events = answers(memory, queries), memory.stats(), memory.logger.get_history().array.copy()
    memory.set_mode(mode)
    for _ in range(5):
        memory.retrieve(torch.randn(40, 16))
        memory.update_topology()
    assert memory.storage.node_count > stats["concepts"]
    memory.restore(tmp_path / "copy")
    for name in ("concepts", "active", "edges", "candidates", "births", "consolidations"):
        assert memory.stats()[name] == stats[name], name
    assert (memory.logger.get_history().array == events).all()
    for one, other in zip(before, answers(memory, queries), strict=True):
        assert torch.equal(one, other)
    with AESGMemory(tmp_path / "copy") as copy:
        for one, other in zip(before, answers(copy, queries), strict=True):
            assert torch.equal(one, other)


def test_restore_refuses_what_is_no_memory_of_this_kind(make_memory, tmp_path):
    memory = grown(make_memory)
    count = memory.storage.node_count
    make_memory("other", vector_dim=8).close()
    for directory in (tmp_path / "nowhere", tmp_path / "other"):
        with pytest.raises(AESGStorageError):
            memory.restore(directory)
    assert memory.storage.node_count == count
    assert not (tmp_path / "nowhere").exists()
