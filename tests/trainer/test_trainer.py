"""AESGTrainer: the loop as documented, modes, losses of any shape, bad input."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from aesg.architectures import AESGDecoderLM
from aesg.data import StreamLoader
from aesg.exceptions import AESGTrainingError
from aesg.trainer import AESGTrainer, Callback, EarlyStopping
from tests.fake_memory import FakeMemory

V = 20


def pairs(count=8, length=6):
    generator = torch.Generator().manual_seed(2)
    return [tuple(torch.randint(0, V, (2, length), generator=generator)) for _ in range(count)]


def language_model(births=False):
    torch.manual_seed(0)
    return AESGDecoderLM(V, 32, 1, FakeMemory(concepts=5, births=births))


def plain_trainer(model, **options):
    with pytest.warns(UserWarning, match="no AESGMemory"):
        return AESGTrainer(model, **options)


class Recorder(Callback):
    def __init__(self):
        self.seen = []

    def on_train_start(self, logs):
        self.seen.append("train_start")

    def on_train_end(self, logs):
        self.seen.append("train_end")

    def on_epoch_start(self, epoch, logs):
        self.seen.append(f"epoch_start {epoch}")

    def on_epoch_end(self, epoch, logs):
        self.seen.append(f"epoch_end {epoch}")
        assert isinstance(logs["loss"], float)

    def on_batch_start(self, batch, logs):
        self.seen.append(f"batch_start {batch}")

    def on_batch_end(self, batch, logs):
        self.seen.append(f"batch_end {batch}")

    def on_exception(self, error, logs):
        self.seen.append(f"exception {type(error).__name__}")


def test_fit_learns_and_returns_a_loss_an_epoch():
    losses = AESGTrainer(language_model(), learning_rate=1e-2).fit(pairs(), epochs=15)
    assert len(losses) == 15
    assert losses[0] == pytest.approx(math.log(V), rel=0.1)
    assert losses[-1] < 0.5 * losses[0]


def test_each_batch_resets_streams_and_updates_the_topology_and_each_epoch_saves():
    model = language_model()
    AESGTrainer(model, batch_size=2).fit(pairs(8), epochs=3)
    assert model.memory.count("reset_state") == 12
    assert model.memory.count("update_topology") == 12
    assert model.memory.count("save") == 3
    order = [name for name, *_ in model.memory.calls]
    assert order[:4] == ["mode", "reset_state", "update_topology", "reset_state"]


def test_autosave():
    model = language_model()
    AESGTrainer(model, batch_size=2).fit(pairs(8), epochs=2, autosave_every=3)
    assert model.memory.count("save") == 2 + 2


def test_stateful_keeps_the_streams():
    model = language_model()
    AESGTrainer(model, batch_size=2).fit(pairs(8), epochs=2, stateful=True)
    assert model.memory.count("reset_state") == 0


def test_a_stream_loader_says_which_streams_begin():
    model = language_model()
    loader = StreamLoader([torch.arange(9) % V, torch.arange(5) % V, torch.arange(5) % V], 2, 4)
    AESGTrainer(model).fit(loader, epochs=1)
    assert [call[1] for call in model.memory.calls if call[0] == "reset_state"] == [[0, 1], [1]]


def test_hooks_come_in_order():
    recorder = Recorder()
    AESGTrainer(language_model(), callbacks=[recorder], batch_size=4).fit(pairs(8), epochs=1)
    batches = ["batch_start 0", "batch_end 0", "batch_start 1", "batch_end 1"]
    assert recorder.seen == ["train_start", "epoch_start 0", *batches, "epoch_end 0", "train_end"]


def test_epochs_are_counted_on():
    recorder = Recorder()
    trainer = AESGTrainer(language_model(), callbacks=[recorder])
    trainer.fit(pairs(), epochs=2)
    trainer.fit(pairs(), epochs=1)
    assert [s for s in recorder.seen if s.startswith("epoch_start")] == [f"epoch_start {e}" for e in range(3)]
    assert (trainer.epoch, trainer.global_step) == (3, 3)


def test_a_batch_hook_can_stop():
    class Stop(Callback):
        def on_batch_end(self, batch, logs):
            logs["stop_training"] = batch == 1

    trainer = AESGTrainer(language_model(), callbacks=[Stop()], batch_size=1)
    assert len(trainer.fit(pairs(8), epochs=5)) == 1
    assert trainer.global_step == 2


# ---------------------------------------------------------------- modes


def test_fit_trains_the_memory_and_evaluate_and_predict_do_not():
    model = language_model(births=True)
    model.memory.set_mode("ONLINE")
    trainer = AESGTrainer(model)
    trainer.fit(pairs(), epochs=1)
    assert model.memory.mode.value == "TRAIN"
    grown = len(model.memory.concepts)
    assert grown > 5
    model.memory.set_mode("ONLINE")
    model.train()
    model.embedding.eval()
    trainer.evaluate(pairs())
    trainer.predict(pairs()[0][0][None])
    assert model.memory.mode.value == "ONLINE"
    assert model.training and model.output_proj.training and not model.embedding.training
    assert len(model.memory.concepts) == grown


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_modes_come_back_after_an_exception(method):
    model = language_model()
    trainer = AESGTrainer(model)
    model.memory.set_mode("ONLINE")
    model.eval()
    bad = [(torch.full((3,), V), torch.zeros(3, dtype=torch.long))]
    with pytest.raises(Exception, match="token ids"):
        trainer.fit(bad, 1) if method == "fit" else getattr(trainer, method)(bad)
    assert model.memory.mode.value == "ONLINE"
    if method != "fit":
        assert not model.training


def test_an_exception_in_a_callback_reaches_the_caller_and_the_others():
    class Fails(Callback):
        def on_batch_end(self, batch, logs):
            raise KeyError("mine")

    recorder = Recorder()
    with pytest.raises(KeyError, match="mine"):
        AESGTrainer(language_model(), callbacks=[recorder, Fails()]).fit(pairs(), epochs=1)
    assert recorder.seen[-1] == "exception KeyError"


# ---------------------------------------------------------------- losses


def test_evaluate_is_the_mean_over_all_targets_that_count():
    model = language_model()
    x = torch.randint(0, V, (5, 6), generator=torch.Generator().manual_seed(1))
    y = x.roll(1, 1).clone()
    y[0, :4] = -100
    measured = AESGTrainer(model).evaluate(TensorDataset(x, y))["loss"]
    by_twos = AESGTrainer(model, batch_size=2).evaluate(TensorDataset(x, y))["loss"]
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    assert measured == pytest.approx(expected, rel=1e-6)
    assert by_twos == pytest.approx(expected, rel=1e-5)


def test_regression_with_mse():
    x = torch.randn(64, 3)
    trainer = plain_trainer(nn.Linear(3, 2), criterion=nn.MSELoss(), learning_rate=0.05)
    losses = trainer.fit(TensorDataset(x, x[:, :2] * 2 + 1), epochs=100)
    assert losses[-1] < 0.01 * losses[0]


def test_classification_of_pictures_and_a_custom_criterion():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    data = [(torch.rand(3, 2, 2), torch.tensor(i % 4)) for i in range(8)]
    trainer = plain_trainer(model, criterion=lambda out, y: nn.functional.cross_entropy(out, y) * 2)
    assert trainer.fit(data, epochs=1)[0] > 0
    assert trainer.predict(data).shape == (8, 4)


def test_channel_first_logits_go_to_the_criterion_as_they_are():
    trainer = plain_trainer(nn.Conv2d(1, 5, 1))
    data = [(torch.rand(1, 3, 4), torch.randint(0, 5, (3, 4))) for _ in range(2)]
    assert trainer.evaluate(data)["loss"] == pytest.approx(math.log(5), rel=0.5)


def test_data_loaders_are_used_as_they_are():
    loader = DataLoader(TensorDataset(torch.randint(0, V, (6, 5)), torch.randint(0, V, (6, 5))), batch_size=3)
    trainer = AESGTrainer(language_model(), batch_size=1)
    trainer.fit(loader, epochs=1)
    assert trainer.global_step == 2


def test_validation_metrics_are_in_the_logs():
    class Look(Callback):
        def on_epoch_end(self, epoch, logs):
            self.seen = {name: logs[name] for name in ("loss", "val_loss")}

    look = Look()
    trainer = AESGTrainer(language_model(), callbacks=[look])
    trainer.fit(pairs(), epochs=1, validation_data=pairs(3))
    assert look.seen["val_loss"] == trainer.evaluate(pairs(3))["loss"]


# ---------------------------------------------------------------- early stopping


def stopped_after(values, **options):
    stopping, logs = EarlyStopping(**options), {}
    stopping.on_train_start(logs)
    for epoch, value in enumerate(values):
        logs["loss"] = value
        stopping.on_epoch_end(epoch, logs)
        if logs.get("stop_training"):
            return epoch
    return None


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([3.0, 2.0, 1.0, 0.5], {"patience": 1}, None),
        ([3.0, 3.0, 3.0], {"patience": 2}, 2),
        ([3.0, 3.5, 2.0, 2.5, 2.5], {"patience": 2}, 4),
        ([1.0, 2.0, 3.0], {"patience": 1, "mode": "max"}, None),
        ([3.0, 2.95, 2.9], {"patience": 2, "min_delta": 0.2}, 2),
        ([float("nan")] * 3, {"patience": 3}, 2),
    ],
)
def test_early_stopping(values, options, expected):
    assert stopped_after(values, **options) == expected


def test_early_stopping_stops_a_fit():
    trainer = AESGTrainer(language_model(), callbacks=[EarlyStopping(patience=2, min_delta=100.0)])
    assert len(trainer.fit(pairs(), epochs=50)) == 3  # the first epoch improves on nothing


def test_a_missing_monitor_lists_what_there_is():
    trainer = AESGTrainer(language_model(), callbacks=[EarlyStopping(monitor="acc")])
    with pytest.raises(AESGTrainingError, match=r"among \['loss', .*\], got 'acc'"):
        trainer.fit(pairs(), epochs=1)


# ---------------------------------------------------------------- bad input


def test_empty_data():
    with pytest.raises(AESGTrainingError) as caught:
        AESGTrainer(language_model()).fit([], epochs=5)
    assert caught.value.message == "Empty dataset provided. Training requires at least one sample."
    assert caught.value.subsystem == "trainer"


def test_a_loss_that_does_not_fit():
    data = [(torch.zeros(4, dtype=torch.long), torch.zeros(3, dtype=torch.long))]
    with pytest.raises(AESGTrainingError, match=r"\[1, 4, 20\].*\[1, 3\].*criterion"):
        AESGTrainer(language_model()).fit(data, epochs=1)


def test_a_loss_that_is_no_scalar():
    trainer = AESGTrainer(language_model(), criterion=nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(AESGTrainingError, match="scalar loss"):
        trainer.fit(pairs(), epochs=1)


def test_nan_loss_stops():
    trainer = AESGTrainer(language_model(), criterion=lambda out, y: out.sum() * float("nan"))
    with pytest.raises(AESGTrainingError, match="finite loss, got nan at batch 0 of epoch 0"):
        trainer.fit(pairs(), epochs=1)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "meta", None])
def test_unknown_device(device):
    with pytest.raises(AESGTrainingError, match="usable device"):
        AESGTrainer(language_model(), device=device)


def test_batches_that_are_no_pairs():
    with pytest.raises(AESGTrainingError, match=r"batches of \(inputs, targets\), got list of 1"):
        AESGTrainer(language_model()).fit(TensorDataset(torch.zeros(3, 2, dtype=torch.long)), epochs=1)
