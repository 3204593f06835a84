"""Training: the loop, its callbacks, its checkpoints."""

from aesg.data import ListDataset, StreamLoader, adapt_data
from aesg.trainer.callbacks import Callback, Checkpoint, EarlyStopping
from aesg.trainer.trainer import AESGTrainer

__all__ = [
    "AESGTrainer",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "ListDataset",
    "StreamLoader",
    "adapt_data",
]
