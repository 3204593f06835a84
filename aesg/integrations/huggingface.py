"""AESGTrainerCallback: the memory's part in a Hugging Face Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from aesg.integrations.part import MemoryWork

FOLDER = "aesg_memory"  # in each checkpoint-<step>


class AESGTrainerCallback(TrainerCallback):
    """Modes, streams, topology, saving and statistics of the AESGMemory in a model that `Trainer` trains.

    While the model trains the memory is in `mode`, in evaluation and prediction in INFERENCE. Streams begin
    with each forward pass unless `stateful`. Topology is updated after every batch, also within accumulated
    ones. What is logged has the memory's figures as `aesg/...`. Each checkpoint holds a snapshot in
    `aesg_memory`, which `train(resume_from_checkpoint=...)` restores when it lies in `output_dir`.

    Raises AESGTrainingError for a model without a memory.
    """

    def __init__(self, mode: str = "TRAIN", *, stateful: bool = False) -> None:
        self.mode = mode
        self.stateful = stateful
        self.work: MemoryWork | None = None

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._attach(model)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        work = self._attach(model)
        snapshot = self._snapshot_of(args, state)
        if state.global_step > 0 and snapshot.is_dir():
            work.part.restore(str(snapshot))
        work.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._attach().batch_done()

    on_substep_end = on_step_end

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._attach().part.save()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._attach().snapshot(self._snapshot_of(args, state))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        figures = self._attach().statistics()
        if logs is not None:
            logs.update(figures)
        if state.log_history:  # holds a copy of `logs` already
            state.log_history[-1].update(figures)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._attach().finish()

    def _attach(self, model: Any = None) -> MemoryWork:
        if self.work is None:
            self.work = MemoryWork(model, self.mode, self.stateful)
        return self.work

    @staticmethod
    def _snapshot_of(args: Any, state: Any) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}" / FOLDER
