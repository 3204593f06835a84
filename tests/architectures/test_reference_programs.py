"""Programs of the kind the reference shows, one after the other in one folder and one process, shortened.

They share the default directory, as programs do that were typed in one after the other.
"""

from __future__ import annotations

import gc
import warnings

import pytest
import torch
from torch import nn

from aesg import (
    AESGCNNAutoencoder,
    AESGCNNClassifier,
    AESGColorizationNet,
    AESGConfig,
    AESGConfigError,
    AESGDecoderLM,
    AESGGRUText,
    AESGLSTMText,
    AESGMemory,
    AESGSeq2Seq,
    AESGTrainer,
    AESGTransformer,
)


def tokens(vocab: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, vocab, shape)


def pairs(vocab: int, count: int = 6, length: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(tokens(vocab, length), tokens(vocab, length)) for _ in range(count)]


def three_lines() -> None:
    trainer = AESGTrainer(AESGTransformer.small(vocab_size=300))
    losses = trainer.fit(pairs(300), epochs=2)
    assert len(losses) == 2 and trainer.evaluate(pairs(300)).keys() == {"loss"}


def gru() -> None:
    model = AESGGRUText.small(vocab_size=50)
    assert model(tokens(50, 4, 7)).shape == (4, 7, 50)
    AESGTrainer(model, learning_rate=0.001).fit(pairs(50), epochs=1)


def lstm() -> None:
    assert AESGLSTMText.medium(vocab_size=80)(tokens(80, 4, 6)).shape == (4, 6, 80)


def seq2seq() -> None:
    assert AESGSeq2Seq.medium(vocab_size=100)(tokens(100, 4, 5)).shape == (4, 5, 100)


def next_token() -> None:
    logits = AESGDecoderLM.large(vocab_size=90)(tokens(90, 1, 10))
    assert 0 <= torch.softmax(logits[0, -1, :], dim=0).argmax().item() < 90


def transformers(folder: str) -> None:
    for model in (
        AESGTransformer.small(vocab_size=60),
        AESGTransformer.medium(vocab_size=60),
        AESGTransformer.large(vocab_size=60),
        AESGTransformer.medium(vocab_size=60, storage_dir=f"./{folder}"),
    ):
        assert model(tokens(60, 2, 12)).shape == (2, 12, 60)


def colorization() -> None:
    model = AESGColorizationNet.small()
    colours = model(torch.rand(2, 1, 32, 32))
    assert colours.shape == (2, 3, 32, 32) and colours.min() >= 0 and colours.max() <= 1
    data = [(torch.rand(1, 32, 32), torch.rand(3, 32, 32)) for _ in range(4)]
    AESGTrainer(model, criterion=nn.MSELoss()).fit(data, epochs=1)


def classifier() -> None:
    model = AESGCNNClassifier.small(num_classes=10)
    assert model(torch.rand(2, 3, 32, 32)).argmax(dim=1).shape == (2,)
    assert AESGCNNClassifier.large(num_classes=100)(torch.rand(2, 3, 32, 32)).shape == (2, 100)
    AESGTrainer(model).fit([(torch.rand(3, 32, 32), torch.tensor(label)) for label in range(4)], epochs=1)


def autoencoder() -> None:
    model = AESGCNNAutoencoder.small()
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)
    images = [torch.rand(3, 32, 32) for _ in range(4)]
    AESGTrainer(model, criterion=nn.MSELoss()).fit([(image, image) for image in images], epochs=1)


def by_hand() -> None:
    model = AESGGRUText.small(vocab_size=70)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(2):
        model.train()
        model.memory.set_mode("TRAIN")
        model.memory.reset_state()
        x, y = tokens(70, 4, 6), tokens(70, 4, 6)
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(model(x).reshape(-1, 70), y.reshape(-1)).backward()
        optimizer.step()
        model.memory.update_topology()
    model.memory.save()


def loader_with_workers() -> None:
    dataset = torch.utils.data.TensorDataset(tokens(40, 8, 6), tokens(40, 8, 6))
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True, num_workers=1)
    AESGTrainer(AESGGRUText.medium(vocab_size=40)).fit(loader, epochs=1)


def statistics() -> None:
    memory = AESGTransformer.small(vocab_size=50).memory
    assert memory.storage.node_count >= 0 and memory.storage.edge_count >= 0
    assert memory.mode.value == "TRAIN" and memory.vector_dim == 64
    assert all({"type", "timestamp"} <= event.keys() for event in memory.logger.get_history()[:5])


def modes() -> None:
    memory = AESGTransformer.small(vocab_size=50).memory
    for mode in ("INFERENCE", "FINETUNE", "TRAIN"):
        memory.set_mode(mode)
        assert memory.mode.value == mode


def no_vocabulary() -> None:
    with pytest.raises(AESGConfigError) as caught:
        AESGTransformer.small(vocab_size=0)
    assert f"[{caught.value.subsystem}] {caught.value.message}" == "[config] vocab_size must be >= 1"


def memory_beside_a_network() -> None:
    """A memory in anybody's module, asked with a batch, whose answer is used as one mean of all concepts."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(d_model=16, nhead=4, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, num_layers=1)
            self.memory = AESGMemory(directory="./beside", config=AESGConfig(vector_dim=16))
            self.projector = nn.Linear(32, 16)

        def forward(self, source: torch.Tensor) -> torch.Tensor:
            first = self.encoder(source)[:, 0]
            self.memory.reset_state()
            context = self.memory(first)
            if context.concept_vectors is None:
                return first
            mean = context.concept_vectors.mean(dim=0, keepdim=True).expand(len(first), -1)
            return self.projector(torch.cat([first, mean], dim=1))

    model = Encoder()
    for _ in range(2):
        assert model(torch.randn(2, 5, 16)).shape == (2, 16)


PROGRAMS = [
    three_lines, gru, lstm, seq2seq, next_token, lambda: transformers("first"), colorization, classifier,
    autoencoder, by_hand, loader_with_workers, statistics, modes, no_vocabulary, memory_beside_a_network,
]  # fmt: skip


@pytest.mark.parametrize("order", [PROGRAMS, PROGRAMS[::-1]], ids=["forwards", "backwards"])
def test_programs_run_one_after_the_other(order, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*aesg_memory.*")  # the default directory's other size
        for program in order:
            program()
    gc.collect()
    names = {path.name for path in tmp_path.iterdir()}
    sizes = {"aesg_memory", *(name for name in names if name.startswith("aesg_memory-"))}
    assert len(sizes) == 3  # 64, 128 and 256 dimensions
    assert names - sizes == {"first", "beside"}
