"""AESGTrainerCallback under the real Hugging Face Trainer."""

import pytest
import torch
from torch import nn

from aesg.architectures import AESGDecoderLM
from aesg.architectures.base import token_config
from aesg.exceptions import AESGTrainingError
from aesg.memory.controller import AESGMemory

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
V = 20


class Model(nn.Module):
    def __init__(self, memory):
        super().__init__()
        self.net = AESGDecoderLM(V, 32, 1, memory)
        self.modes = set()

    @property
    def memory(self):  # registered once, in `net`
        return self.net.memory

    def forward(self, input_ids, labels):
        if self.memory is not None:
            self.modes.add((self.training, self.memory.mode.value))
        logits = self.net(input_ids)
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def samples():
    x = torch.randint(0, V, (8, 2, 8), generator=torch.Generator().manual_seed(3))
    return [{"input_ids": pair[0], "labels": pair[1]} for pair in x]


def new_trainer(folder, model, steps):
    from aesg.integrations import AESGTrainerCallback

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        save_steps=1, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_total_limit=None,
    )  # fmt: skip
    return transformers.Trainer(
        model, arguments, train_dataset=samples(), eval_dataset=samples(), callbacks=[AESGTrainerCallback()]
    )


@pytest.mark.filterwarnings("ignore")
def test_train_evaluate_and_resume(tmp_path):
    memory = AESGMemory(tmp_path / "m", token_config(16))
    memory.set_mode("ONLINE")
    model = Model(memory)
    trainer = new_trainer(tmp_path / "out", model, 2)
    trainer.train()
    assert model.modes == {(True, "TRAIN")}
    assert memory.mode.value == "ONLINE"
    assert memory.stats()["consolidations"] == 4  # one a batch, two batches a step
    logged = [entry for entry in trainer.state.log_history if "aesg/concepts" in entry]
    assert logged[-1]["aesg/concepts"] == memory.storage.node_count > 0
    count = memory.storage.node_count
    model.modes.clear()
    trainer.evaluate()
    assert model.modes == {(False, "INFERENCE")}
    assert memory.storage.node_count == count
    other = AESGMemory(tmp_path / "other", token_config(16))
    again = new_trainer(tmp_path / "out", Model(other), 2)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert torch.equal(other.storage.column("vector"), memory.storage.column("vector"))
    memory.close()
    other.close()


def test_a_model_without_a_memory(tmp_path):
    with pytest.raises(AESGTrainingError, match="Model without one"):
        new_trainer(tmp_path, Model(None), 1)
