"""Callbacks: hooks into the life of a training run, called in the order in which they were registered.

`logs` always holds "trainer"; epoch hooks add "epoch" (from 0) and, at the end, "loss", "val_*" and the
figures of the memory (`aesg.trainer.memory_part`); batch hooks add "batch" and, at the end, "loss", "counted"
(the targets or samples in it), "step_seconds" and "topology_seconds". Setting `logs["stop_training"] = True`
in any hook stops the run after that batch or epoch.
"""

from aesg.trainer.callbacks.base import Callback, Logs, metrics_of, monitored
from aesg.trainer.callbacks.checkpointing import Checkpoint
from aesg.trainer.callbacks.loggers import CSVLogger, TensorBoardCallback, WandBCallback
from aesg.trainer.callbacks.stopping import EarlyStopping

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "Logs",
    "TensorBoardCallback",
    "WandBCallback",
    "metrics_of",
    "monitored",
]
