"""Checkpoints of aesg 3.0.0: the memory is imported, weights that fit are taken, and the rest is said."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from aesg.architectures import AESGDecoderLM
from aesg.config import AESGConfig
from aesg.memory.controller import AESGMemory
from aesg.trainer import AESGTrainer

pytest.importorskip("aesg.storage.import_v3")
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "aesg-3.0.0"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text()) if FIXTURES.exists() else {}
V = 20


@pytest.fixture
def trainer(tmp_path):
    from aesg.storage.import_v3 import import_v3

    report = import_v3(FIXTURES / "memory_v3", tmp_path / "imported")
    memory = AESGMemory(tmp_path / "m", AESGConfig(vector_dim=report.vector_dim))
    torch.manual_seed(0)
    made = AESGTrainer(AESGDecoderLM(V, 32, 1, memory))
    made.imported = report
    yield made
    memory.close()


def old_checkpoint(folder, weights, optimizer):
    """What `save` of 3.0.0 leaves."""
    folder.mkdir()
    torch.save(weights, folder / "model_weights.pt")
    torch.save(optimizer, folder / "optimizer_state.pt")
    (folder / "config.json").write_text(json.dumps({"trainer_version": "3.0.0", "aesg_config": {}}))
    state = {"epoch": 4, "global_step": 40, "best_loss": 0.5, "device": "cpu", "batch_size": 32}
    (folder / "training_state.json").write_text(json.dumps(state))
    shutil.copytree(FIXTURES / "memory_v3", folder / "memory")
    return folder


def test_what_does_not_fit_is_named(tmp_path, trainer):
    kept = trainer.model.embedding.weight.detach() + 1
    weights = {"embedding.weight": kept, "cell.weight_ih": torch.zeros(2, 2)}
    place = old_checkpoint(tmp_path / "c", weights, {"state": {}, "param_groups": []})
    with pytest.warns(UserWarning) as told:
        assert trainer.resume(place) == 4
    text = " ".join(str(each.message) for each in told)
    assert "1 of its 2 weights fit" in text and "cell.weight_ih" in text
    assert "no resume_state.pt" in text
    assert torch.equal(trainer.model.embedding.weight, kept)
    assert (trainer.global_step, trainer.best_loss) == (40, 0.5)
    assert trainer.memory.storage.node_count == trainer.imported.concepts > 0
    assert trainer.memory.storage.edge_count == trainer.imported.edges
    assert {each.name for each in (place / "memory").iterdir()} == {
        each.name for each in (FIXTURES / "memory_v3").iterdir()
    }


def test_weights_that_all_fit_bring_their_optimizer(tmp_path, trainer):
    optimizer = torch.optim.Adam(trainer.model.parameters(), lr=0.25)
    place = old_checkpoint(tmp_path / "c", trainer.model.state_dict(), optimizer.state_dict())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.load(place)
    assert not any("weights fit" in str(each.message) for each in told)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.25
