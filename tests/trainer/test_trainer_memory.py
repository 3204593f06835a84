"""AESGTrainer on the real memory: it grows, is saved, snapshot and restored."""

import torch

from aesg.architectures import AESGDecoderLM
from aesg.architectures.base import token_config
from aesg.memory.controller import AESGMemory
from aesg.trainer import AESGTrainer

V = 20


def pairs(count=8, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(0, V, (2, 12), generator=generator)) for _ in range(count)]


def new_trainer(directory, seed=0):
    torch.manual_seed(seed)
    return AESGTrainer(AESGDecoderLM(V, 32, 1, AESGMemory(directory, token_config(16))), batch_size=4)


def counts(trainer):
    stats = trainer.memory.stats()
    return stats["concepts"], stats["active"], stats["edges"]


def test_load_restores_the_live_memory(tmp_path):
    trainer = new_trainer(tmp_path / "memory")
    trainer.fit(pairs(), epochs=2)
    trainer.save(tmp_path / "c")
    saved, loss = counts(trainer), trainer.evaluate(pairs())
    assert saved[0] > 5
    trainer.fit(pairs(seed=9), epochs=3)
    assert counts(trainer) != saved
    trainer.load(tmp_path / "c")
    assert counts(trainer) == saved
    assert trainer.evaluate(pairs()) == loss
    other = new_trainer(tmp_path / "other", seed=4)
    other.load(tmp_path / "c")
    assert counts(other) == saved
    assert other.evaluate(pairs()) == loss
    trainer.memory.close()
    other.memory.close()


def test_the_memory_of_a_checkpoint_opens_on_its_own(tmp_path):
    trainer = new_trainer(tmp_path / "memory")
    trainer.fit(pairs(), epochs=1)
    trainer.save(tmp_path / "c")
    names = {file.name for file in (tmp_path / "c" / "memory").iterdir()}
    assert {"nodes.aesg", "edges.aesg", "meta.npy", "evolution.aesglog"} <= names
    with AESGMemory(tmp_path / "c" / "memory") as copy:
        assert copy.storage.node_count == trainer.memory.storage.node_count
    trainer.memory.close()


def test_evaluation_changes_nothing_stored(tmp_path):
    trainer = new_trainer(tmp_path / "memory")
    trainer.fit(pairs(), epochs=1)
    before = counts(trainer)
    first, second = trainer.evaluate(pairs(seed=9)), trainer.evaluate(pairs(seed=9))
    assert first == second
    assert counts(trainer) == before
    trainer.memory.close()
