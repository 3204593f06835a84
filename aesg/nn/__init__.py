"""Layers that read a memory, for the models of `aesg.architectures` and for anybody's own."""

from aesg.nn.attention import CausalSelfAttention, KeyValueCache
from aesg.nn.memory_reader import MemoryReader

__all__ = ["CausalSelfAttention", "KeyValueCache", "MemoryReader"]
