"""Training and a store: RunRecorder records a training run, resume_best goes on from its best checkpoint."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aesg.exceptions import AESGStorageError, AESGTrainingError
from aesg.runs import upkeep
from aesg.runs.artifacts import Artifacts
from aesg.runs.records import Artifact
from aesg.runs.run import Node
from aesg.runs.store import Store
from aesg.trainer.callbacks import Callback, Logs, metrics_of, monitored
from aesg.trainer.callbacks.base import check_mode, check_whole

CHECKPOINT, EPOCH, REPORT, PACK = "checkpoint", "epoch", "report", "pack"


class RunRecorder(Callback):
    """Records a training run: an event "epoch" with its metrics after each, a checkpoint every `save_every`
    epochs, a report at the end.

    Of this run's checkpoints the `keep` best by `monitor` (mode "min" or "max") stay, and the newest to go on
    from; None keeps all. A checkpoint is a directory artifact of kind "checkpoint" with the epoch's metrics;
    members that did not change since the last one are stored once. An epoch whose `monitor` is NaN has no
    rank.
    packs: pack files or directories, saved as artifacts of kind "pack" at the end.

    Raises AESGTrainingError for wrong arguments, and when `monitor` is not among the metrics.
    """

    last = True  # so that its checkpoints hold what the other callbacks learnt

    def __init__(
        self,
        run: Node,
        monitor: str = "val_loss",
        mode: str = "min",
        keep: int | None = 3,
        save_every: int = 1,
        packs: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        if not isinstance(run, Node):
            raise AESGTrainingError(f"Expected a run, as `store.run(...)` makes, got {type(run).__name__}")
        check_mode(mode)
        check_whole("save_every", save_every, 1)
        if keep is not None:
            check_whole("keep", keep, 1)
        self.run = run
        self.monitor = monitor
        self.mode = mode
        self.keep = keep
        self.save_every = save_every
        self.packs = [os.fspath(path) for path in packs]
        self._saved: list[Artifact] = []  # the run's checkpoints that are still kept
        self._history: list[dict[str, Any]] = []

    def on_train_start(self, logs: Logs) -> None:
        trainer = logs["trainer"]
        self._saved = self.run.artifacts().search(CHECKPOINT)[::-1]  # a second `fit` goes on in the same run
        self._history = []
        self.run.memory().record(
            "train_start",
            data={
                "model": type(trainer.model).__name__,
                "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
                "optimizer": type(trainer.optimizer).__name__,
                "batch_size": trainer.batch_size,
                "epoch": trainer.epoch,
            },
        )

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        monitored(logs, self.monitor)  # complains before anything is recorded
        trainer = logs["trainer"]
        metrics = metrics_of(logs)
        data: dict[str, Any] = {"epoch": epoch + 1, "step": trainer.global_step}
        if hasattr(trainer.memory, "stats"):
            data["memory"] = trainer.memory.stats()
        self.run.memory().record(EPOCH, data=data, metrics=metrics)
        self._history.append({"epoch": epoch + 1, **metrics})
        if (epoch + 1) % self.save_every == 0:
            self._saved.append(self._checkpoint(trainer, epoch + 1, metrics))
            self._forget()

    def on_train_end(self, logs: Logs) -> None:
        best = self._ranked()
        report = {
            "epochs": [{name: _null(value) for name, value in epoch.items()} for epoch in self._history],
            "monitor": self.monitor,
            "mode": self.mode,
            "best": best[0].artifact_id if best else None,
        }
        artifacts = self.run.artifacts()
        artifacts.save_json(report, kind=REPORT, labels={"report": "training"})
        for path in self.packs:
            save = artifacts.save_dir if os.path.isdir(path) else artifacts.save_file
            save(path, kind=PACK, labels={"pack": os.path.splitext(os.path.basename(path))[0]})
        self.run.memory().record("train_end", data={"epochs": len(self._history), "best": report["best"]})

    def on_exception(self, error: BaseException, logs: Logs) -> None:
        text = f"{type(error).__name__}: {error}".replace("\0", "?").encode(errors="replace").decode()
        self.run.memory().record("train_exception", data={"epochs": len(self._history)}, text=text)

    def _checkpoint(self, trainer: Any, epoch: int, metrics: dict[str, float]) -> Artifact:
        with self.run.store.objects.stage() as stage:
            place = stage.path / CHECKPOINT
            trainer.save(place)
            return self.run.artifacts().save_dir(
                place,
                kind=CHECKPOINT,
                labels={"epoch": epoch},
                metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            )

    def _ranked(self) -> list[Artifact]:
        """Checkpoints that have the metric, the best first, of equals the newest."""
        sign = 1 if self.mode == "min" else -1
        ranked = [saved for saved in reversed(self._saved) if self.monitor in saved.metrics]
        return sorted(ranked, key=lambda saved: sign * saved.metrics[self.monitor])

    def _forget(self) -> None:
        if self.keep is None:
            return
        kept = {saved.artifact_id for saved in [*self._ranked()[: self.keep], self._saved[-1]]}
        store, leaving = self.run.store, [one for one in self._saved if one.artifact_id not in kept]
        self._saved = [one for one in self._saved if one.artifact_id in kept]
        if leaving:
            gone = [one.artifact_id for one in leaving]
            freed = upkeep.contents(store, gone)
            upkeep.drop(store, gone)
            upkeep.free(store, freed)


def resume_best(
    trainer: Any,
    store: Store | Artifacts,
    metric: str = "val_loss",
    mode: str = "min",
    kind: str = CHECKPOINT,
    labels: dict[str, Any] | None = None,
) -> Artifact | None:
    """Puts `trainer` into the state of the best checkpoint (`trainer.resume`) and returns that artifact.

    store: a Store (all its runs), or the artifacts of one run. None, and nothing changed, when there is no
    such checkpoint. Raises AESGStorageError when it does not fit the trainer's model.
    """
    artifacts = store.artifacts() if isinstance(store, Store) else store
    if not isinstance(artifacts, Artifacts):
        raise AESGStorageError(f"store: expected a Store or artifacts of a run, got {type(store).__name__}")
    best = artifacts.best(kind, metric, mode, labels=labels)
    if best is not None:
        with artifacts.store.objects.stage() as stage:  # beside the store: a checkpoint may be large
            trainer.resume(Path(artifacts.as_local_dir(best, into=stage.path)))
    return best


def _null(value: Any) -> Any:
    """NaN and infinities have no place in a report's JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
