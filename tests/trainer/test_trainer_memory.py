"""AESGTrainer on the real memory: it grows, is saved, snapshot and restored."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from aesg.architectures import AESGDecoderLM
from aesg.architectures.base import token_config
from aesg.config import AESGConfig
from aesg.exceptions import AESGTrainingError
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
    other.memory.set_mode("INFERENCE")  # restoring by hand is barred, loading a checkpoint is not
    other.load(tmp_path / "c")
    assert other.memory.mode.value == "INFERENCE"
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


@pytest.mark.parametrize("fault", ["targets", "shapes", "nan", "criterion"])
def test_a_batch_that_fails_leaves_nothing_in_the_memory(tmp_path, fault):
    """And the batches before and after it are learnt from as if it had never been."""

    def run(name, with_fault):
        def criterion(out, wanted):
            if with_fault and fault in ("nan", "criterion") and int(wanted.flatten()[0]) == 7:
                if fault == "criterion":
                    raise KeyError("of its own")
                return out.sum() * math.nan
            return F.cross_entropy(out, wanted)

        torch.manual_seed(0)
        memory = AESGMemory(
            tmp_path / name, AESGConfig(vector_dim=16, novelty_birth_threshold=1), clock=lambda: 0.0
        )
        trainer = AESGTrainer(AESGDecoderLM(V, 32, 1, memory), criterion=criterion, batch_size=4)
        good = [tuple(torch.randint(0, 6, (2, 6))) for _ in range(12)]
        bad = [(x + 6, torch.full_like(y, V if fault == "targets" else 7)) for x, y in good[:4]]
        if fault == "shapes":
            bad = [(x, y[:3]) for x, y in bad]
        trainer.fit(DataLoader(good[:8], 4), 1)
        if with_fault:
            with pytest.raises((AESGTrainingError, KeyError)):
                trainer.fit(DataLoader(bad, 4), 1)
        trainer.fit(DataLoader(good[8:], 4), 1)
        storage, stats = memory.storage, memory.stats()
        assert stats["births"] > 0
        found = [storage.column(name).clone() for name in ("id", "vector", "relevance", "use_frequency")]
        found += [part.clone() for part in storage.edge_blocks()]
        counts = {name: stats[name] for name in ("concepts", "edges", "births", "candidates")}
        memory.close()
        return counts, found

    (counts, columns), (expected, wanted) = run("fault", True), run("none", False)
    assert counts == expected
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(columns, wanted, strict=True))


def test_evaluation_changes_nothing_stored(tmp_path):
    trainer = new_trainer(tmp_path / "memory")
    trainer.fit(pairs(), epochs=1)
    before = counts(trainer)
    first, second = trainer.evaluate(pairs(seed=9)), trainer.evaluate(pairs(seed=9))
    assert first == second
    assert counts(trainer) == before
    trainer.memory.close()
