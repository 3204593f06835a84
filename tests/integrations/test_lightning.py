"""AESGLightningCallback under the real Lightning."""

import pytest
import torch

from aesg.architectures import AESGDecoderLM
from aesg.architectures.base import token_config
from aesg.exceptions import AESGTrainingError
from aesg.memory.controller import AESGMemory

lightning = pytest.importorskip("lightning.pytorch")
V = 20


class Module(lightning.LightningModule):
    def __init__(self, memory):
        super().__init__()
        self.net = AESGDecoderLM(V, 32, 1, memory)
        self.memory = self.net.memory
        self.modes = set()

    def _loss(self, batch, what):
        self.modes.add((what, "" if self.memory is None else self.memory.mode.value))
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x).flatten(0, 1), y.flatten())

    def training_step(self, batch, _):
        return self._loss(batch, "train")

    def validation_step(self, batch, _):
        self.log("val_loss", self._loss(batch, "val"))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def loader():
    x = torch.randint(0, V, (6, 2, 8), generator=torch.Generator().manual_seed(3))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[:, 0], x[:, 1]), batch_size=2)


def new_trainer(folder, callback, epochs):
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, default_root_dir=folder,
        callbacks=[callback, lightning.callbacks.ModelCheckpoint(dirpath=folder / "ck", save_top_k=-1)],
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_fit_checkpoint_and_resume(tmp_path):
    from aesg.integrations import AESGLightningCallback

    memory = AESGMemory(tmp_path / "m", token_config(16))
    memory.set_mode("ONLINE")
    module = Module(memory)
    trainer = new_trainer(tmp_path, AESGLightningCallback(), 2)
    trainer.fit(module, loader(), loader())
    assert module.modes == {("train", "TRAIN"), ("val", "INFERENCE")}
    assert memory.mode.value == "ONLINE"
    assert memory.stats()["consolidations"] == 6  # one a batch
    assert trainer.callback_metrics["aesg/concepts"] == memory.storage.node_count > 0
    count, generation = memory.storage.node_count, memory.storage.generation
    assert generation > 0  # saved
    trainer.validate(module, loader(), verbose=False)
    assert memory.storage.node_count == count
    saved = sorted((tmp_path / "ck").iterdir())
    assert len(saved) == 2
    other = AESGMemory(tmp_path / "other", token_config(16))
    again = Module(other)
    new_trainer(tmp_path / "b", AESGLightningCallback(), 2).fit(
        again, loader(), loader(), ckpt_path=saved[-1]
    )
    assert other.storage.node_count == count
    assert torch.equal(other.storage.column("vector"), memory.storage.column("vector"))
    memory.close()
    other.close()


def test_a_module_without_a_memory(tmp_path):
    from aesg.integrations import AESGLightningCallback

    with pytest.raises(AESGTrainingError, match="Module without one"):
        new_trainer(tmp_path, AESGLightningCallback(), 1).fit(Module(None), loader())
