"""aesg: a persistent, self-organising external memory for PyTorch.

Names load when they are asked for, so `import aesg` alone brings in neither torch nor the extension.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "aesg.architectures.cnn_autoencoder": ("AESGCNNAutoencoder",),
    "aesg.architectures.cnn_classifier": ("AESGCNNClassifier",),
    "aesg.architectures.colorization": ("AESGColorizationNet",),
    "aesg.architectures.decoder_lm": ("AESGDecoderLM",),
    "aesg.architectures.gru_text": ("AESGGRUText",),
    "aesg.architectures.lstm_text": ("AESGLSTMText",),
    "aesg.architectures.seq2seq": ("AESGSeq2Seq",),
    "aesg.architectures.transformer": ("AESGTransformer",),
    "aesg.benchmarks.colorization": ("BaselineCNN", "BenchmarkResult", "ColorizationBenchmark"),
    "aesg.config": ("AESGConfig",),
    "aesg.data": ("ListDataset", "ShuffledSampler", "StreamBatch", "StreamLoader", "adapt_data"),
    "aesg.evaluation": ("Evaluator",),
    "aesg.exceptions": (
        "AESGConfigError",
        "AESGError",
        "AESGMemoryError",
        "AESGNavigationError",
        "AESGStorageError",
        "AESGTrainingError",
    ),
    "aesg.memory.context": ("RetrievedContext",),
    "aesg.memory.controller": ("AESGMemory",),
    "aesg.memory.modes": ("MemoryMode",),
    "aesg.storage.engine": ("AESGStorage",),
    "aesg.storage.logger": ("EvolutionLogger",),
    "aesg.trainer.callbacks": (
        "CSVLogger",
        "Callback",
        "Checkpoint",
        "EarlyStopping",
        "TensorBoardCallback",
        "WandBCallback",
    ),
    "aesg.trainer.trainer": ("AESGTrainer",),
    "aesg.validation": ("Validator",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from aesg.architectures.cnn_autoencoder import AESGCNNAutoencoder
    from aesg.architectures.cnn_classifier import AESGCNNClassifier
    from aesg.architectures.colorization import AESGColorizationNet
    from aesg.architectures.decoder_lm import AESGDecoderLM
    from aesg.architectures.gru_text import AESGGRUText
    from aesg.architectures.lstm_text import AESGLSTMText
    from aesg.architectures.seq2seq import AESGSeq2Seq
    from aesg.architectures.transformer import AESGTransformer
    from aesg.benchmarks.colorization import BaselineCNN, BenchmarkResult, ColorizationBenchmark
    from aesg.config import AESGConfig
    from aesg.data import ListDataset, ShuffledSampler, StreamBatch, StreamLoader, adapt_data
    from aesg.evaluation import Evaluator
    from aesg.exceptions import (
        AESGConfigError,
        AESGError,
        AESGMemoryError,
        AESGNavigationError,
        AESGStorageError,
        AESGTrainingError,
    )
    from aesg.memory.context import RetrievedContext
    from aesg.memory.controller import AESGMemory
    from aesg.memory.modes import MemoryMode
    from aesg.storage.engine import AESGStorage
    from aesg.storage.logger import EvolutionLogger
    from aesg.trainer.callbacks import (
        Callback,
        Checkpoint,
        CSVLogger,
        EarlyStopping,
        TensorBoardCallback,
        WandBCallback,
    )
    from aesg.trainer.trainer import AESGTrainer
    from aesg.validation import Validator

__all__ = [
    "AESGCNNAutoencoder",
    "AESGCNNClassifier",
    "AESGColorizationNet",
    "AESGConfig",
    "AESGConfigError",
    "AESGDecoderLM",
    "AESGError",
    "AESGGRUText",
    "AESGLSTMText",
    "AESGMemory",
    "AESGMemoryError",
    "AESGNavigationError",
    "AESGSeq2Seq",
    "AESGStorage",
    "AESGStorageError",
    "AESGTrainer",
    "AESGTrainingError",
    "AESGTransformer",
    "BaselineCNN",
    "BenchmarkResult",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "ColorizationBenchmark",
    "EarlyStopping",
    "Evaluator",
    "EvolutionLogger",
    "ListDataset",
    "MemoryMode",
    "RetrievedContext",
    "ShuffledSampler",
    "StreamBatch",
    "StreamLoader",
    "TensorBoardCallback",
    "Validator",
    "WandBCallback",
    "__version__",
    "adapt_data",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'aesg' has no attribute '{name}'")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
