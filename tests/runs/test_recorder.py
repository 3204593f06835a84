"""RunRecorder and resume_best: a training run in a store, and on from its best epoch."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from aesg.architectures import AESGDecoderLM
from aesg.exceptions import AESGStorageError, AESGTrainingError
from aesg.runs import RunRecorder, resume_best
from aesg.runs.objects import Manifest
from aesg.runs.page import curves
from aesg.trainer import AESGTrainer, Callback, EarlyStopping
from tests.fake_memory import FakeMemory
from tests.runs.helpers import objects, staged

V = 20


def pairs(count=4, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(0, V, (2, 6), generator=generator)) for _ in range(count)]


def members(store, directory):
    manifest = Manifest.from_bytes(store.objects.read(directory.uri.rpartition("/")[2], "manifest"))
    return [sha for sha, _ in manifest.files.values()]


def contents(artifacts):
    """All objects that these artifacts are made of."""
    found = set()
    for art in artifacts.list():
        found.add(art.uri.rpartition("/")[2])
        found.update(members(artifacts.store, art) if art.is_directory else [])
    return found


class Losses(Callback):
    """Says what the validation loss of each epoch is."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, epoch, logs):
        logs["val_loss"] = self.values[epoch]


def new_trainer(*callbacks, memory=None):
    torch.manual_seed(0)
    memory = FakeMemory(concepts=5, births=True) if memory is None else memory
    return AESGTrainer(AESGDecoderLM(V, 32, 1, memory), callbacks=callbacks, batch_size=4)


def test_it_keeps_the_best_and_the_newest(store):
    with store.run("r", params={"lr": 1e-3}) as run:
        recorder = RunRecorder(run, keep=2)
        new_trainer(Losses([5.0, 1.0, 4.0, 2.0, 3.0]), recorder).fit(pairs(), epochs=5)
    kept = run.artifacts().search("checkpoint")
    assert [(art.labels["epoch"], art.metrics["val_loss"]) for art in kept] == [(5, 3.0), (4, 2.0), (2, 1.0)]
    assert run.artifacts().best("checkpoint", "val_loss", "min").labels == {"epoch": 2}
    assert set(objects(store)) == contents(run.artifacts()) and store.verify() == []  # nothing else is left
    assert staged(store) == []
    epochs = run.memory().recent(["epoch"])
    assert [event.metrics["val_loss"] for event in epochs] == [5, 1, 4, 2, 3]
    assert [event.data["epoch"] for event in epochs] == [1, 2, 3, 4, 5]
    assert [event.kind for event in run.memory().recent()] == ["train_start", *["epoch"] * 5, "train_end"]
    (report,) = run.artifacts().search("report")
    content = json.loads(Path(run.artifacts().as_local_file(report)).read_text())
    assert [epoch["val_loss"] for epoch in content["epochs"]] == [5, 1, 4, 2, 3]
    assert content["best"] == kept[2].artifact_id


def test_a_second_fit_goes_on_in_the_same_run(store):
    with store.run("r") as run:
        recorder = RunRecorder(run, keep=1)
        trainer = new_trainer(Losses([1.0, 2.0, 3.0, 4.0]), recorder)
        trainer.fit(pairs(), epochs=2)
        trainer.fit(pairs(), epochs=2)
    assert [art.labels["epoch"] for art in run.artifacts().search("checkpoint")] == [4, 1]
    assert len(run.artifacts().search("report")) == 2 and store.verify() == []


def test_mode_max_ties_and_nan(store):
    with store.run("r") as run:
        recorder = RunRecorder(run, mode="max", keep=1)
        values = [1.0, 2.0, 2.0, math.nan, 1.0]
        new_trainer(Losses(values), recorder).fit(pairs(), epochs=5)
    kept = run.artifacts().search("checkpoint")
    assert [art.labels["epoch"] for art in kept] == [5, 3]
    assert math.isnan(run.memory().recent(["epoch"])[3].metrics["val_loss"])


def test_resume_best_goes_on_as_if_never_left(store):
    with store.run("r") as run:
        recorder = RunRecorder(run, monitor="loss")
        trainer = new_trainer(recorder)
        trainer.fit(pairs(), epochs=3)
        expected = trainer.evaluate(pairs())
    other = new_trainer()
    art = resume_best(other, store, "loss")
    assert art == run.artifacts().best("checkpoint", "loss", "min")
    assert (other.epoch, other.evaluate(pairs())) == (3, expected)
    trainer.callbacks = []
    losses = []
    for each in (trainer, other):
        resume_best(each, run.artifacts(), "loss")  # the random generators too: the same order of samples
        losses.append(each.fit(pairs(), epochs=1))
    assert losses[0] == losses[1]
    assert staged(store) == []


def test_whatever_counts_as_a_figure_ranks(store):
    """A whole number, numpy's and a tensor of one element rank as a float does."""
    for kind in (int, np.float32, torch.tensor):
        values = [kind(value) for value in (1, 3, 2)]
        with store.run("r") as run:
            recorder = RunRecorder(run, monitor="val_loss", mode="max", keep=1)
            new_trainer(Losses(values), recorder, EarlyStopping(monitor="val_loss")).fit(pairs(), epochs=3)
        best = run.artifacts().best("checkpoint", "val_loss")
        assert (best.labels, best.metrics["val_loss"]) == ({"epoch": 2}, 3.0)


def test_the_counts_of_a_memory_are_drawn(store, make_memory):
    with store.run("r") as run:
        trainer = new_trainer(RunRecorder(run, monitor="concepts", mode="max"), memory=make_memory())
        trainer.fit(pairs(), epochs=2)
    drawn = curves(run.memory().recent())
    assert {"concepts", "edges", "births", "loss"} <= set(drawn)
    assert drawn["concepts"][-1] == (2.0, float(trainer.memory.storage.node_count))
    assert run.artifacts().best("checkpoint", "concepts") is not None


def test_nothing_to_resume(store):
    trainer = new_trainer()
    assert resume_best(trainer, store) is None and trainer.epoch == 0
    with pytest.raises(AESGStorageError, match="mode"):
        resume_best(trainer, store, mode="least")
    with pytest.raises(AESGStorageError, match="Store"):
        resume_best(trainer, "./runs")


def test_a_checkpoint_of_another_model(store):
    with store.run("r") as run:
        new_trainer(RunRecorder(run, monitor="loss")).fit(pairs(), epochs=1)
    other = AESGTrainer(AESGDecoderLM(V + 1, 32, 1, FakeMemory()))
    with pytest.raises(AESGStorageError, match="does not fit the model"):
        resume_best(other, store, "loss")
    assert other.epoch == 0 and staged(store) == []


def test_with_a_real_memory_unchanged_members_are_stored_once(store, make_memory):
    memory = make_memory(novelty_birth_threshold=1)
    with store.run("r") as run:
        trainer = new_trainer(RunRecorder(run, monitor="loss", keep=None), memory=memory)
        trainer.fit(pairs(), epochs=2)
        assert "active" in run.memory().recent(["epoch"])[-1].data["memory"]
        first, second = run.artifacts().search("checkpoint")
        saved = memory.storage.active_count
        resume_best(trainer, store, "loss")
        assert memory.storage.active_count == saved
        everything = members(store, first) + members(store, second)
        assert set(objects(store)) == contents(run.artifacts())
        assert len(set(everything)) < len(everything)  # config.json at least
        again = run.artifacts().save_dir(run.artifacts().as_local_dir(first), kind="copy")
    assert again.uri == first.uri != second.uri
    assert store.verify() == []


def test_packs_are_kept(store, tmp_path):
    (tmp_path / "medicine.pack").write_bytes(b"pack")
    with store.run("r") as run:
        recorder = RunRecorder(run, monitor="loss", save_every=2, packs=[tmp_path / "medicine.pack"])
        new_trainer(recorder).fit(pairs(), epochs=3)
    assert [art.labels for art in run.artifacts().search("pack")] == [{"pack": "medicine"}]
    assert [art.labels for art in run.artifacts().search("checkpoint")] == [{"epoch": 2}]


def test_what_goes_wrong_is_told(store):
    with pytest.raises(AESGTrainingError, match="val_loss"), store.run("r") as run:
        new_trainer(RunRecorder(run)).fit(pairs(), epochs=1)
    assert run.info().state == "failed" and "val_loss" in run.info().error
    assert [event.kind for event in run.memory().recent()] == ["train_start", "train_exception"]
    for arguments in ({"mode": "least"}, {"keep": 0}, {"save_every": 0}, {"keep": "3"}, {"save_every": None}):
        with pytest.raises(AESGTrainingError, match="must be"):
            RunRecorder(run, **arguments)
    with pytest.raises(AESGTrainingError, match=r"Expected a run.*got Context"):
        RunRecorder(run.context())
