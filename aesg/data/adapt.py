"""adapt_data: lists, Datasets and loaders alike become something that yields (inputs, targets) batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

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
    shuffled) and a list or tuple of pairs are wrapped in a DataLoader with `batch_size` and `shuffle`.

    Raises AESGTrainingError for empty data, pairs that are no pairs, and types that hold no samples.
    """
    if isinstance(data, (DataLoader, StreamLoader)):
        loader: Any = data
    elif isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=batch_size)
    elif isinstance(data, Dataset) or (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        if isinstance(data, (str, bytes, dict)):
            raise AESGTrainingError(f"Expected (input, target) pairs, got {type(data).__name__}")
        if not isinstance(data, Dataset):
            for position, sample in enumerate(data):
                if not isinstance(sample, (tuple, list)) or len(sample) != 2:
                    raise AESGTrainingError(
                        f"Expected (input, target) pairs, got {_describe(sample)} at position {position}"
                    )
            data = ListDataset(data)
        if _length(data) == 0:
            raise AESGTrainingError(EMPTY_DATASET)
        return DataLoader(data, batch_size=batch_size, shuffle=shuffle)
    else:
        raise AESGTrainingError(
            "Expected a DataLoader, a Dataset, a StreamLoader or a list of (input, target) pairs, "
            f"got {type(data).__name__}"
        )
    if _length(loader) == 0:
        raise AESGTrainingError(EMPTY_DATASET)
    return loader


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # iterable data need not know its length
        return None


def _describe(sample: Any) -> str:
    if isinstance(sample, (tuple, list)):
        return f"{type(sample).__name__} of {len(sample)}"
    return type(sample).__name__
