"""A run that was interrupted and resumed ends as the one that was not, bit for bit, graph and all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aesg.exceptions import AESGStorageError, AESGTrainingError
from aesg.trainer import Callback
from tests.trainer.resume_program import EPOCHS, data, differences, ending, new_trainer

ROOT = Path(__file__).resolve().parents[2]


def program(folder: Path, kill_after: int, checkpoint: str | Path, kind: str) -> int:
    command = [sys.executable, "-m", "tests.trainer.resume_program", folder, kill_after, checkpoint, kind]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, timeout=300
    ).returncode


def test_killed_and_resumed_in_another_process(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert program(tmp_path / "whole", 0, "", "list") == 0
    assert program(tmp_path / "killed", 6, "", "list") == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.pt").exists()
    # The sixth batch was saved before the process died; the second epoch is half done.
    assert program(tmp_path / "killed", 0, tmp_path / "killed" / "checkpoints" / "step_6", "list") == 0
    whole, resumed = (
        torch.load(tmp_path / name / "result.pt", weights_only=True) for name in ("whole", "killed")
    )
    assert len(whole["columns"]["id"][whole["columns"]["is_active"] > 0]) > 5
    assert resumed["epoch_losses"] == whole["epoch_losses"][1:]
    whole["epoch_losses"] = resumed["epoch_losses"]
    assert differences(resumed, whole) == []


class Interrupt(Callback):
    """Leaves training after so many batches, as Ctrl-C does, and saves first."""

    last = True

    def __init__(self, after: int, path: Path) -> None:
        self.after, self.path = after, path

    def on_batch_end(self, batch, logs):
        if logs["trainer"].global_step == self.after:
            logs["trainer"].save(self.path)
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def wholes(tmp_path_factory) -> dict:
    """For each kind of data, how the run ends that nothing interrupts."""
    found = {}

    def whole(kind: str) -> dict:
        if kind not in found:
            trainer = new_trainer(tmp_path_factory.mktemp(kind), every=None)
            found[kind] = ending(trainer, trainer.fit(data(kind), EPOCHS, validation_data=data("list")[:2]))
            trainer.memory.close()
        return found[kind]

    return whole


@pytest.mark.parametrize(
    ("kind", "after"),
    [("list", 1), ("list", 4), ("list", 7), ("streams", 2), ("streams", 7), ("loader", 6), ("workers", 6)],
)
def test_interrupted_after_any_step(tmp_path: Path, wholes, kind: str, after: int) -> None:
    first = new_trainer(tmp_path, every=None)
    first.callbacks.append(Interrupt(after, tmp_path / "c"))
    with pytest.raises(KeyboardInterrupt):
        first.fit(data(kind), EPOCHS, validation_data=data("list")[:2])
    first.memory.close()
    second = new_trainer(tmp_path / "other", every=None, seed=99)
    begun = second.resume(tmp_path / "c")
    torch.rand(5)  # what a program does between resume and fit does not matter
    expected = dict(wholes(kind))
    expected["epoch_losses"] = expected["epoch_losses"][begun:]
    losses = second.fit(data(kind), EPOCHS - begun, validation_data=data("list")[:2])
    assert differences(ending(second, losses), expected) == []
    second.memory.close()


def test_interrupted_between_epochs(tmp_path: Path, wholes) -> None:
    for kind in ("list", "streams"):
        first = new_trainer(tmp_path / kind / "a", every=None)
        first.fit(data(kind), 2, validation_data=data("list")[:2])
        first.save(tmp_path / kind / "c")
        first.memory.close()
        second = new_trainer(tmp_path / kind / "b", every=None, seed=99)
        assert second.resume(tmp_path / kind / "c") == 2
        losses = second.fit(data(kind), 1, validation_data=data("list")[:2])
        expected = {**wholes(kind), "epoch_losses": wholes(kind)["epoch_losses"][2:]}
        assert differences(ending(second, losses), expected) == []
        second.memory.close()


def test_other_data_than_before_is_refused(tmp_path: Path) -> None:
    first = new_trainer(tmp_path / "a", every=None)
    first.callbacks.append(Interrupt(3, tmp_path / "c"))
    with pytest.raises(KeyboardInterrupt):
        first.fit(data("list"), 1)
    first.memory.close()
    second = new_trainer(tmp_path / "b", every=None)
    for wrong, error, message in (
        (data("list")[:5], AESGStorageError, "8 samples of the interrupted run, got 5"),
        (torch.utils.data.DataLoader(data("list"), batch_size=2), AESGStorageError, "same kind of data"),
    ):
        second.resume(tmp_path / "c")
        with pytest.raises(error, match=message):
            second.fit(wrong, 1)
    second.memory.close()


def test_fewer_batches_than_were_done_are_refused(tmp_path: Path) -> None:
    first = new_trainer(tmp_path / "a", every=None)
    first.callbacks.append(Interrupt(3, tmp_path / "c"))
    with pytest.raises(KeyboardInterrupt):
        first.fit(data("loader"), 1)
    first.memory.close()
    second = new_trainer(tmp_path / "b", every=None)
    second.resume(tmp_path / "c")
    with pytest.raises(AESGTrainingError, match="3 batches were done"):
        second.fit(torch.utils.data.DataLoader(data("list")[:2], batch_size=2), 1)
    second.memory.close()


def test_a_scheduler_is_asked_for(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path / "a", every=None)
    trainer.save(tmp_path / "c")
    trainer.stepper.scheduler = None
    with pytest.raises(AESGStorageError, match=r"resume_state\.pt.*a scheduler"):
        trainer.resume(tmp_path / "c")
    trainer.memory.close()
