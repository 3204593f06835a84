"""Checkpoint's choice of what stays, and the loggers."""

import csv
import math
import sys
from types import ModuleType

import pytest
import torch

from aesg.exceptions import AESGTrainingError
from aesg.trainer import (
    AESGTrainer,
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    TensorBoardCallback,
    WandBCallback,
)
from aesg.trainer.checkpoint import remove_checkpoint
from tests.trainer.test_trainer import language_model, pairs


class Metric(Callback):
    """Puts these values into the logs, one an epoch."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, epoch, logs):
        logs["quality"] = self.values[epoch]


def names(path):
    return sorted(each.name for each in path.iterdir())


def saved_for(tmp_path, values, **options):
    checkpoint = Checkpoint(path=tmp_path, monitor="quality", **options)
    # Registered first, but it sees what the later one says: it is called last.
    AESGTrainer(language_model(), callbacks=[checkpoint, Metric(values)]).fit(pairs(2), len(values))
    return checkpoint, names(tmp_path)


@pytest.mark.parametrize(
    ("values", "options", "expected", "best"),
    [
        ([3.0, 2.0, 2.5, 1.0], {}, ["epoch_1", "epoch_2", "epoch_4"], "epoch_4"),
        ([3.0, 2.0, 2.5, 1.0], {"keep": 1}, ["epoch_4"], "epoch_4"),
        ([1.0, 2.0, 3.0, 2.5], {"keep": 2}, ["epoch_1", "epoch_2"], "epoch_1"),
        ([1.0, 2.0, 3.0, 2.5], {"keep": 2, "mode": "max"}, ["epoch_3", "epoch_4"], "epoch_3"),
        ([math.nan, 2.0, math.nan], {"keep": 2}, ["epoch_2"], "epoch_2"),
    ],
)
def test_the_best_stay(tmp_path, values, options, expected, best):
    checkpoint, found = saved_for(tmp_path, values, **options)
    assert found == expected
    assert checkpoint.best_path == str(tmp_path / best)


def test_the_newest_stay(tmp_path):
    AESGTrainer(language_model(), callbacks=[Checkpoint(path=tmp_path, keep=2)]).fit(pairs(2), 4)
    assert names(tmp_path) == ["epoch_3", "epoch_4"]


def test_the_newest_step_stays(tmp_path):
    checkpoint = Checkpoint(save_every=100, path=tmp_path, save_every_steps=2)
    AESGTrainer(language_model(), callbacks=[checkpoint], batch_size=1).fit(pairs(5), 1)
    assert names(tmp_path) == ["step_4"]


def test_a_resumed_run_goes_on_ranking(tmp_path):
    saved_for(tmp_path, [3.0, 1.0], keep=1)
    checkpoint = Checkpoint(path=tmp_path, monitor="quality", keep=1)
    trainer = AESGTrainer(language_model(), callbacks=[Metric([0.0, 0.0, 2.0]), checkpoint])
    trainer.resume(tmp_path / "epoch_2")
    trainer.fit(pairs(2), 1)
    assert names(tmp_path) == ["epoch_2"]  # 2.0 is worse than 1.0


def test_a_checkpoint_s_missing_monitor(tmp_path):
    trainer = AESGTrainer(language_model(), callbacks=[Checkpoint(path=tmp_path, monitor="nothing")])
    with pytest.raises(AESGTrainingError, match=r"\['loss'.*got 'nothing'"):
        trainer.fit(pairs(2), 1)


@pytest.mark.parametrize(
    "options",
    [{"save_every": 0}, {"keep": 0}, {"mode": "best"}, {"save_every_steps": 0}, {"save_every": None},
     {"save_every": 1.5}, {"keep": "3"}, {"keep": True}, {"mode": ["min"]}],
)  # fmt: skip
def test_bad_options(options):
    with pytest.raises(AESGTrainingError, match="must be"):
        Checkpoint(**options)


@pytest.mark.parametrize(
    "options",
    [{"patience": 0}, {"patience": "5"}, {"patience": None}, {"min_delta": math.nan}, {"min_delta": "1"},
     {"min_delta": -1.0}, {"mode": None}],
)  # fmt: skip
def test_bad_options_of_early_stopping(options):
    with pytest.raises(AESGTrainingError, match=f"{next(iter(options))} must be"):
        EarlyStopping(**options)


def test_remove_spares_what_is_no_checkpoint(tmp_path):
    (tmp_path / "mine").mkdir()
    remove_checkpoint(tmp_path / "mine")
    assert names(tmp_path) == ["mine"]


def test_a_state_that_could_not_be_read_back(tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"model": torch.nn.Linear(1, 1)}

    with pytest.raises(AESGTrainingError, match=r"Odd\.state_dict"):
        AESGTrainer(language_model(), callbacks=[Odd()]).save(tmp_path / "c")
    assert names(tmp_path) == []


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv(tmp_path):
    log = tmp_path / "at" / "log.csv"
    trainer = AESGTrainer(language_model(), callbacks=[CSVLogger(log)])
    losses = trainer.fit(pairs(), 2, validation_data=pairs(2))
    trainer.save(tmp_path / "c")
    trainer.fit(pairs(), 1, validation_data=pairs(2))
    assert [row["epoch"] for row in rows(log)] == ["1", "2", "3"]
    assert [float(row["loss"]) for row in rows(log)[:2]] == losses
    assert {"val_loss", "step_seconds"} <= rows(log)[0].keys()
    again = AESGTrainer(language_model(), callbacks=[CSVLogger(log)])
    again.resume(tmp_path / "c")
    again.fit(pairs(), 2)  # the third epoch is done again
    assert [row["epoch"] for row in rows(log)] == ["1", "2", "3", "4"]
    assert names(tmp_path / "at") == ["log.csv"]


def test_tensorboard(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    losses = AESGTrainer(language_model(), callbacks=[TensorBoardCallback(tmp_path)], batch_size=4).fit(
        pairs(), 2
    )
    events = reader.EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)
    assert [event.step for event in events.Scalars("batch/loss")] == [1, 2, 3, 4]


class FakeWandB(ModuleType):
    """Holds what was logged."""

    def __init__(self):
        super().__init__("wandb")
        self.logged, self.ended = [], None

    def init(self, **settings):
        self.settings = settings
        return self

    def log(self, values):
        self.logged.append(values)

    def finish(self, exit_code):
        self.ended = exit_code


def test_wandb_gets_the_memory_s_real_figures(monkeypatch, make_memory):
    from aesg.architectures import AESGDecoderLM

    wandb = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    memory = make_memory(novelty_birth_threshold=1)
    AESGTrainer(AESGDecoderLM(20, 32, 1, memory), callbacks=[WandBCallback("p", "r")]).fit(pairs(), 2)
    assert (wandb.settings["project"], wandb.settings["name"], wandb.ended) == ("p", "r", 0)
    last = wandb.logged[-1]
    assert last["epoch"] == 2
    assert last["memory/concepts"] == memory.storage.node_count > 0
    figures = ("edges", "births", "prunes", "mean_relevance", "mean_explanation", "retrieval_seconds")
    assert {f"memory/{name}" for name in figures} <= last.keys()


def test_the_real_wandb_keeps_the_figures(monkeypatch, tmp_path, make_memory):
    wandb = pytest.importorskip("wandb")
    if not hasattr(wandb, "init"):
        pytest.skip("a folder called wandb, not the package")
    from aesg.architectures import AESGDecoderLM

    class Look(Callback):
        def on_train_end(self, logs):  # before the run is finished: callbacks are called in order
            self.run, self.summary = logged.run, dict(logged.run.summary)

    for name, value in (("MODE", "offline"), ("DIR", str(tmp_path)), ("SILENT", "true")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    look, logged = Look(), WandBCallback("project", "name")
    memory = make_memory(novelty_birth_threshold=1)
    trainer = AESGTrainer(AESGDecoderLM(20, 32, 1, memory), callbacks=[look, logged])
    losses = trainer.fit(pairs(), 2)
    assert (look.run.project, look.run.name, look.run.config["model"]) == ("project", "name", "AESGDecoderLM")
    assert look.summary["epoch"] == 2 and look.summary["loss"] == pytest.approx(losses[-1])
    assert look.summary["memory/concepts"] == memory.storage.node_count > 0
    assert logged.run is None and list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))


@pytest.mark.parametrize(
    ("module", "callback", "package"),
    [("wandb", WandBCallback, "wandb"), ("torch.utils.tensorboard", TensorBoardCallback, "tensorboard")],
)
def test_a_missing_package_is_a_warning(monkeypatch, module, callback, package):
    monkeypatch.setitem(sys.modules, module, None)
    trainer = AESGTrainer(language_model(), callbacks=[callback()])
    with pytest.warns(UserWarning, match=f"package {package} is not installed"):
        trainer.fit(pairs(2), 1)
