"""Loggers: the metrics of each epoch into a CSV file, TensorBoard, or Weights & Biases."""

from __future__ import annotations

import csv
import io
import os
import warnings
from pathlib import Path
from typing import Any

from aesg.exceptions import AESGTrainingError
from aesg.trainer.callbacks.base import Callback, Logs, metrics_of

PER_BATCH = ("loss", "step_seconds", "topology_seconds")


class CSVLogger(Callback):
    """Writes a row of metrics an epoch into a CSV file, replaced as a whole each time, never torn.

    A run that goes on from epoch n keeps the rows before n and writes the later ones anew; a new run begins
    a new file.
    """

    def __init__(self, path: str | os.PathLike[str] = "./training_log.csv") -> None:
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, logs: Logs) -> None:
        self.rows = []
        if self.path.exists() and logs["trainer"].epoch > 0:
            with self.path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if not (row.get("epoch") or "").isdigit():
                        raise AESGTrainingError(f"Expected a log of epochs in '{self.path}', got {row}")
                    if int(row["epoch"]) <= logs["trainer"].epoch:
                        self.rows.append(row)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.rows.append({"epoch": epoch + 1, **metrics_of(logs)})
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(self.path.name + ".new")
        beside.write_text(text.getvalue(), encoding="utf-8", newline="")
        beside.replace(self.path)


class TensorBoardCallback(Callback):
    """Writes each epoch's metrics, and each batch's loss under `batch/`, as TensorBoard scalars.

    Warns and does nothing when the tensorboard package is missing.
    """

    def __init__(self, log_dir: str | os.PathLike[str] = "./runs") -> None:
        self.log_dir = os.fspath(log_dir)
        self.writer: Any = None

    def on_train_start(self, logs: Logs) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _warn_missing("tensorboard", "TensorBoardCallback")
            return
        self.writer = SummaryWriter(self.log_dir)

    def on_batch_end(self, batch: int, logs: Logs) -> None:
        if self.writer is not None:
            for name in PER_BATCH:
                self.writer.add_scalar(f"batch/{name}", logs[name], logs["trainer"].global_step)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.writer is not None:
            for name, value in metrics_of(logs).items():
                self.writer.add_scalar(name, value, epoch + 1)
            self.writer.flush()

    def on_train_end(self, logs: Logs) -> None:
        self._close()

    def on_exception(self, error: BaseException, logs: Logs) -> None:
        self._close()

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class WandBCallback(Callback):
    """Logs each epoch's metrics to Weights & Biases, the memory's own under `memory/`.

    Those are concepts, active, edges, births, prunes, mean_relevance, mean_explanation and the seconds of
    retrieval and topology. Warns and does nothing when the wandb package is missing.
    """

    def __init__(self, project: str = "aesg", run_name: str | None = None) -> None:
        self.project = project
        self.run_name = run_name
        self.run: Any = None

    def on_train_start(self, logs: Logs) -> None:
        try:
            import wandb
        except ImportError:
            _warn_missing("wandb", "WandBCallback")
            return
        trainer = logs["trainer"]
        settings = {
            "model": type(trainer.model).__name__,
            "batch_size": trainer.batch_size,
            "learning_rate": trainer.learning_rate,
        }
        self.run = wandb.init(project=self.project, name=self.run_name, config=settings)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.run is not None:
            memory = logs["trainer"].memory_part.NAMES
            self.run.log(
                {
                    "epoch": epoch + 1,
                    **{f"memory/{n}" if n in memory else n: v for n, v in metrics_of(logs).items()},
                }
            )

    def on_train_end(self, logs: Logs) -> None:
        self._finish(exit_code=0)

    def on_exception(self, error: BaseException, logs: Logs) -> None:
        self._finish(exit_code=1)

    def _finish(self, exit_code: int) -> None:
        if self.run is not None:
            self.run.finish(exit_code=exit_code)
            self.run = None


def _warn_missing(package: str, callback: str) -> None:
    warnings.warn(
        f"{callback} does nothing: the package {package} is not installed (pip install aesg[{package}])",
        stacklevel=3,
    )
