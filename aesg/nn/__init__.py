"""Layers that read a memory, for the models of `aesg.architectures` and for anybody's own."""

from aesg.nn.attention import CausalSelfAttention, KeyValueCache
from aesg.nn.cnn import AESG_CNNLayer
from aesg.nn.memory_reader import MemoryReader
from aesg.nn.pooled_reader import PooledReader
from aesg.nn.rnn import AESG_GRU, AESG_LSTM
from aesg.nn.transformer import AESG_TransformerLayer

__all__ = [
    "AESG_GRU",
    "AESG_LSTM",
    "AESG_CNNLayer",
    "AESG_TransformerLayer",
    "CausalSelfAttention",
    "KeyValueCache",
    "MemoryReader",
    "PooledReader",
]
