"""AESGGRUText: a GRU over tokens that asks its memory at every step."""

from __future__ import annotations

from torch import nn

from aesg.architectures.text_model import RecurrentText
from aesg.nn.rnn import AESG_GRU


class AESGGRUText(RecurrentText):
    """tokens [B, T] -> logits [B, T, V], through embedding, `num_layers` of GRU, output.

    The last layer is an AESG_GRU: at every step its input and state ask the memory, once for each sequence.
    `memory=None` is the plain GRU with the same other weights.
    """

    plain = nn.GRU
    reading = AESG_GRU
