"""AESGLightningCallback: the memory's part in a Lightning trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from aesg.exceptions import AESGStorageError
from aesg.integrations.part import MemoryWork

KEY = "aesg_memory"  # in the checkpoint: where the snapshot lies


class AESGLightningCallback(Callback):
    """Modes, streams, topology, saving and statistics of the AESGMemory in a LightningModule.

    In training the memory is in `mode`, in validation, test and prediction in INFERENCE. Streams begin with
    each batch unless `stateful`. Topology is updated after every batch; the memory is saved after every
    epoch, and its figures logged as `aesg/...`. Each checkpoint has a snapshot of the memory of its own,
    below `directory` (default: `<default_root_dir>/aesg_memory`), which loading the checkpoint restores.

    Raises AESGTrainingError for a module without a memory.
    """

    def __init__(
        self, mode: str = "TRAIN", *, stateful: bool = False, directory: str | Path | None = None
    ) -> None:
        self.mode = mode
        self.stateful = stateful
        self.directory = directory
        self.work: MemoryWork | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.work is None:
            self.work = MemoryWork(pl_module, self.mode, self.stateful)
            # Lightning calls training_step and its kin, not forward, of the module.
            self._former = self.work.part.mode()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.work is not None:
            self.work.detach()
            self.work.part.set_mode(self._former)
            self.work = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._work.start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._work.part.set_mode(self.mode)
        self._begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._work.batch_done()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._work.part.save()
        pl_module.log_dict(self._work.statistics())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._work.part.save()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._work.part.set_mode("INFERENCE")
        self._begin()

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.training or trainer.sanity_checking:
            self._work.part.set_mode(self.mode)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        below = Path(self.directory or Path(trainer.default_root_dir) / KEY)
        place = below / f"step_{trainer.global_step}"
        self._work.snapshot(place)
        checkpoint[KEY] = str(place)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if KEY not in checkpoint:
            raise AESGStorageError(
                f"Expected '{KEY}' in the checkpoint, found none: saved without this callback"
            )
        self._work.part.restore(checkpoint[KEY])

    @property
    def _work(self) -> MemoryWork:
        assert self.work is not None  # Lightning calls setup first
        return self.work

    def _begin(self) -> None:
        if not self.stateful:
            self._work.part.begin()
