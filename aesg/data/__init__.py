"""Data for the trainer: adapters for what people have, and long texts as parallel streams."""

from aesg.data.adapt import ListDataset, adapt_data
from aesg.data.sampling import ShuffledSampler
from aesg.data.streams import StreamBatch, StreamLoader

__all__ = ["ListDataset", "ShuffledSampler", "StreamBatch", "StreamLoader", "adapt_data"]
