"""Training: the loop, its callbacks, its checkpoints."""

from aesg.data import ListDataset, StreamLoader, adapt_data
from aesg.trainer.callbacks import (
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    TensorBoardCallback,
    WandBCallback,
)
from aesg.trainer.trainer import AESGTrainer

__all__ = [
    "AESGTrainer",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "ListDataset",
    "StreamLoader",
    "TensorBoardCallback",
    "WandBCallback",
    "adapt_data",
]
