"""Programs of the kind the references show for training, metrics, errors and persistence; shortened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

import aesg
from aesg import (
    AESGCNNClassifier,
    AESGColorizationNet,
    AESGConfig,
    AESGConfigError,
    AESGError,
    AESGGRUText,
    AESGMemory,
    AESGMemoryError,
    AESGStorageError,
    AESGTrainer,
    AESGTrainingError,
    AESGTransformer,
    Callback,
    Checkpoint,
    EarlyStopping,
    Evaluator,
)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pairs(vocab=50, count=6, length=6):
    return [(torch.randint(0, vocab, (length,)), torch.randint(0, vocab, (length,))) for _ in range(count)]


def test_every_way_to_hand_in_data():
    trainer = AESGTrainer(
        AESGGRUText.small(vocab_size=50), optimizer=None, criterion=None, callbacks=None, device="cpu",
        batch_size=4, learning_rate=1e-3,
    )  # fmt: skip
    dataset = TensorDataset(torch.randint(0, 50, (6, 6)), torch.randint(0, 50, (6, 6)))
    for data in (DataLoader(dataset, batch_size=3, shuffle=True), dataset, pairs()):
        losses = trainer.fit(data, epochs=1)
        assert len(losses) == 1 and f"{losses[-1]:.4f}"
    assert f"{trainer.evaluate(pairs())['loss']:.4f}"
    assert trainer.predict(torch.randint(0, 50, (2, 6))).shape == (2, 6, 50)


def test_save_load_resume():
    trainer = AESGTrainer(AESGTransformer.small(vocab_size=50))
    trainer.fit(pairs(), epochs=2)
    trainer.save("./checkpoints/epoch_2")
    trainer.load("./checkpoints/epoch_2")
    start_epoch = trainer.resume("./checkpoints/epoch_2")
    assert start_epoch == 2
    seen = []

    class Epochs(Callback):
        def on_epoch_start(self, epoch, logs):
            seen.append(epoch)

    trainer.callbacks.append(Epochs())
    trainer.fit(pairs(), epochs=2)
    assert seen == [2, 3]
    state = json.loads(Path("./checkpoints/epoch_2/training_state.json").read_text())
    assert state["epoch"] == 2 and {"global_step", "best_loss"} <= state.keys()


def test_callbacks_of_all_kinds(capsys):
    class PrintProgress(Callback):
        def on_epoch_end(self, epoch, logs):
            loss = logs.get("loss", "?")
            print(f"Epoch {epoch}: loss = {loss:.4f}")

    stopping = EarlyStopping(patience=1, monitor="loss", min_delta=100.0)
    kept = Checkpoint(save_every=2, path="./checkpoints")
    trainer = AESGTrainer(AESGGRUText.small(vocab_size=50), callbacks=[PrintProgress(), stopping, kept])
    assert len(trainer.fit(pairs(), epochs=100)) == 2
    assert capsys.readouterr().out.startswith("Epoch 0: loss = ")
    trainer.load("./checkpoints/epoch_2")


def test_metrics_of_all_kinds():
    text = Evaluator.compute_text_metrics(
        ["the cat sat on the mat", "hello world"], ["the cat sat on a mat", "hello world"]
    )
    assert 0.5 <= text["bleu"] <= 0.8 and 0.8 <= text["rouge"] <= 1.0 and text["accuracy"] == 0.5
    assert text["perplexity"] >= 1
    pictures = Evaluator.compute_image_metrics(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    assert pictures["psnr"] > 0 and -1 <= pictures["ssim"] <= 1
    assert 0 <= pictures["mse"] <= 1 and 0 <= pictures["mae"] <= 1
    names = {"accuracy", "precision", "recall", "f1"}
    classes = Evaluator.compute_classification_metrics(torch.randn(20, 10), torch.randint(0, 10, (20,)))
    assert classes.keys() == names and all(0 <= value <= 1 for value in classes.values())
    model = AESGCNNClassifier.small(num_classes=5)
    assert Evaluator().evaluate(model, torch.randn(9, 5), torch.randint(0, 5, (9,))).keys() == names


def test_errors_of_all_kinds():
    with pytest.raises(AESGConfigError) as config:
        AESGTransformer.small(vocab_size=0)
    assert (config.value.subsystem, config.value.message) == ("config", "vocab_size must be >= 1")
    memory = AESGMemory("./test", AESGConfig(vector_dim=16, max_concepts=100))
    with pytest.raises(AESGMemoryError) as mode:
        memory.set_mode("INVALID")
    assert mode.value.message == (
        "Invalid memory mode 'INVALID'. Valid modes: ['TRAIN', 'FINETUNE', 'INFERENCE', 'ONLINE']"
    )
    with pytest.raises(AESGTrainingError) as empty:
        AESGTrainer(AESGGRUText.small(vocab_size=100)).fit([], epochs=5)
    assert (empty.value.subsystem, empty.value.message) == (
        "trainer", "Empty dataset provided. Training requires at least one sample.",
    )  # fmt: skip
    if hasattr(memory, "load_pack"):
        with pytest.raises(AESGStorageError, match=r"not_a_real_pack\.aesgpack") as pack:
            memory.load_pack("./not_a_real_pack.aesgpack")
        assert pack.value.subsystem == "storage"
    kinds = (AESGConfigError, AESGMemoryError, aesg.AESGNavigationError, AESGTrainingError, AESGStorageError)
    assert all(issubclass(kind, AESGError) for kind in kinds)


def test_own_optimizer_and_loss():
    model = AESGTransformer.medium(vocab_size=50)
    optimizer = optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01)
    assert AESGTrainer(model, optimizer=optimizer).fit(pairs(), epochs=1)
    data = [(torch.rand(1, 32, 32), torch.rand(3, 32, 32)) for _ in range(2)]
    assert AESGTrainer(AESGColorizationNet.small(), criterion=nn.L1Loss()).fit(data, epochs=1)


def test_a_loop_by_hand():
    model = AESGGRUText.small(vocab_size=50)
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    for _ in range(2):
        model.train()
        model.memory.set_mode("TRAIN")
        model.memory.reset_state()
        x, y = torch.randint(0, 50, (4, 6)), torch.randint(0, 50, (4, 6))
        optimizer.zero_grad()
        output = model(x)
        loss = criterion(output.reshape(-1, 50), y.reshape(-1))
        loss.backward()
        optimizer.step()
        model.memory.update_topology()
    model.memory.save()
    assert model.memory.storage.generation > 0


def test_a_memory_is_found_again():
    memory = AESGMemory(directory="./persistent", config=AESGConfig(vector_dim=64))
    for _ in range(20):
        memory.retrieve(torch.randn(64))
    memory.save()
    again = AESGMemory(directory="./persistent")
    assert again.storage.node_count == memory.storage.node_count
    again.retrieve(torch.randn(64))
    assert {"timestamp", "type", "id1", "id2", "val"} <= memory.logger.get_history()[0].keys()


def test_pruning_down_to_the_most_there_may_be():
    config = AESGConfig(
        vector_dim=32, max_concepts=100, survival_threshold_relevance=0.1, survival_threshold_frequency=2
    )
    memory = AESGMemory(directory="./mem_prune", config=config)
    for _ in range(300):
        memory.cognitive_engine.create_sensory_concept(torch.randn(32))
    assert memory.storage.node_count == 300
    memory.update_topology()
    active = (memory.storage.nodes["is_active"][: memory.storage.node_count] == 1).sum()
    assert active == 100


def test_errors_of_a_memory():
    config = AESGConfig(vector_dim=64)
    memory = AESGMemory(directory="./mem_err", config=config)
    with pytest.raises(AESGMemoryError) as mismatch:
        memory.retrieve(torch.randn(128))
    assert "expected 64, got 128" in str(mismatch.value)
    memory.retrieve(torch.randn(config.vector_dim))
    assert AESGMemory(directory="./brand_new_memory", config=config).storage.node_count == 0
    memory.save()


def test_the_files_of_a_memory_and_of_a_checkpoint(tmp_path):
    trainer = AESGTrainer(AESGGRUText.small(vocab_size=50))
    trainer.fit(pairs(), epochs=1)
    trainer.save("./checkpoints/epoch_1")
    memory = {"nodes.aesg", "edges.aesg", "meta.npy", "evolution.aesglog"}
    place = tmp_path / "checkpoints" / "epoch_1"
    assert memory <= {each.name for each in (tmp_path / "aesg_memory").iterdir()}
    assert memory <= {each.name for each in (place / "memory").iterdir()}
    assert {"model_weights.pt", "optimizer_state.pt", "config.json", "training_state.json"} <= {
        each.name for each in place.iterdir()
    }
