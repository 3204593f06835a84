"""adapt_data: lists, Datasets and loaders alike become something that yields (inputs, targets) batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from aesg.data.sampling import ShuffledSampler
from aesg.data.streams import StreamLoader
from aesg.exceptions import AESGTrainingError

EMPTY_DATASET = "Empty dataset provided. Training requires at least one sample."


class ListDataset(Dataset[Any]):
    """A Dataset over a sequence of (input, target) pairs."""

    def __init__(self, data: Sequence[Any]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


def adapt_data(data: Any, batch_size: int = 32, shuffle: bool = False) -> Iterable[Any]:
    """Makes batches of whatever holds training data.

    A DataLoader or StreamLoader is returned as it is. A Dataset (also an IterableDataset, which is never
    shuffled) and a list or tuple of pairs are wrapped in a DataLoader with `batch_size` and `shuffle`; the
    shuffled order comes from torch's global generator and can be gone on with within a pass.

    Raises AESGTrainingError for empty data, pairs that are no pairs, and types that hold no samples.
    """
    if isinstance(data, (DataLoader, StreamLoader)):
        loader: Any = data
    elif isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=batch_size, collate_fn=_collate)
    elif isinstance(data, Dataset) or (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        if isinstance(data, (str, bytes, dict, type)):
            what = f"the class {data.__name__}" if isinstance(data, type) else type(data).__name__
            raise AESGTrainingError(f"Expected (input, target) pairs, got {what}")
        if not isinstance(data, Dataset):
            for position, sample in enumerate(data):
                if not isinstance(sample, (tuple, list)) or len(sample) != 2:
                    raise AESGTrainingError(
                        f"Expected (input, target) pairs, got {_describe(sample)} at position {position}"
                    )
            data = ListDataset(data)
        if _length(data) == 0:
            raise AESGTrainingError(EMPTY_DATASET)
        sampler = ShuffledSampler(data) if shuffle else None
        return DataLoader(data, batch_size=batch_size, sampler=sampler, collate_fn=_collate)
    else:
        raise AESGTrainingError(
            "Expected a DataLoader, a Dataset, a StreamLoader or a list of (input, target) pairs, "
            f"got {type(data).__name__}"
        )
    if _length(loader) == 0:
        raise AESGTrainingError(EMPTY_DATASET)
    return loader


def _collate(samples: list[Any]) -> Any:
    """Samples as one batch; AESGTrainingError where their shapes differ."""
    try:
        return default_collate(samples)
    except (RuntimeError, TypeError) as error:
        raise AESGTrainingError(
            f"These samples make no batch: {error}. Use one shape, or a DataLoader whose collate_fn pads."
        ) from error


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # iterable data need not know its length
        return None


def _describe(sample: Any) -> str:
    if isinstance(sample, (tuple, list)):
        return f"{type(sample).__name__} of {len(sample)}"
    return type(sample).__name__
