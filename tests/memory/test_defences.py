"""What a user may do by mistake costs nothing: foreign folders, failed saves, wrong numbers."""

from __future__ import annotations

import shutil

import pytest
import torch

from aesg.config import AESGConfig
from aesg.exceptions import AESGConfigError, AESGMemoryError, AESGNavigationError, AESGStorageError
from aesg.memory.controller import AESGMemory
from aesg.tools.demo import _fresh_directory
from aesg.trainer import AESGTrainer


def test_a_folder_of_something_else_is_not_written_in(tmp_path, make_memory):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thing").write_text("x")
    with pytest.raises(AESGStorageError, match="expected a memory or an empty directory, found 'thing'"):
        AESGMemory(tmp_path / "mine", AESGConfig(vector_dim=8))
    with pytest.raises(AESGStorageError, match="already holds something"):
        make_memory().snapshot(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thing"]


def test_the_demo_empties_only_its_own_folder(tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "precious").write_text("x")
    with pytest.raises(AESGStorageError, match="found something else"):
        _fresh_directory(tmp_path)
    assert (tmp_path / "memory" / "precious").read_text() == "x"
    made = _fresh_directory(tmp_path / "demo")
    (made / "memory").mkdir()
    assert [path.name for path in _fresh_directory(made).iterdir()] == ["aesg-demo.txt"]


def test_a_close_that_cannot_save_loses_nothing(make_memory, monkeypatch):
    memory = make_memory()
    memory.graph.add_concepts(torch.randn(5, 16))

    def full(_storage):
        raise AESGStorageError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(memory.storage), "commit", full)
        with pytest.raises(AESGStorageError, match="No space"):
            memory.close()
    assert not memory.storage.closed
    memory.close()
    with AESGMemory(memory.directory) as again:
        assert again.storage.node_count == 5


def test_saving_into_a_directory_that_is_gone_says_so(tmp_path):
    memory = AESGMemory(tmp_path / "m", AESGConfig(vector_dim=8))
    memory.save()
    shutil.rmtree(tmp_path / "m")
    memory.graph.add_concepts(torch.randn(3, 8))
    with pytest.raises(AESGStorageError, match="is gone"):
        memory.save()
    memory._state.close(commit=False)


def test_a_closed_memory_does_not_answer(make_memory):
    memory = make_memory()
    memory.close()
    with pytest.raises(AESGMemoryError, match="closed"):
        memory.retrieve(torch.randn(16))


def test_numbers_that_are_no_slots_are_refused(make_memory):
    memory = make_memory()
    memory.graph.add_concepts(torch.randn(4, 16))
    for wrong in (
        lambda: memory.forget([1.9]),
        lambda: memory.update_concept(1.5, torch.randn(16)),
        lambda: memory.graph.add_edges([0.7], [1.2], [1.0], [1.0]),
    ):
        with pytest.raises(AESGMemoryError, match="whole numbers"):
            wrong()
    with pytest.raises(AESGNavigationError, match="batch_idx"):
        memory.retrieve(torch.randn(16), batch_idx=1.5)
    assert memory.storage.active_count == 4 and memory.storage.edge_count == 0


def test_a_device_without_kernels_is_refused(tmp_path):
    with pytest.raises(AESGConfigError, match="meta"):
        AESGMemory(tmp_path / "m", AESGConfig(vector_dim=8), device="meta")


def test_a_memory_of_reduced_precision_answers(make_memory):
    memory = make_memory()
    memory.graph.add_concepts(torch.randn(20, 16))
    assert memory.bfloat16().retrieve(torch.randn(3, 16)).aggregate().isfinite().all()


def test_one_changed_byte_of_the_weights_is_found(tmp_path):
    trainer = AESGTrainer(torch.nn.Linear(64, 64))
    trainer.save(str(tmp_path / "ck"))
    file = tmp_path / "ck" / "model_weights.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)
    with pytest.raises(AESGStorageError, match=r"model_weights\.pt"):
        trainer.load(str(tmp_path / "ck"))
