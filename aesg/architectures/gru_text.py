"""AESGGRUText: a GRU over tokens that asks its memory about every token."""

from __future__ import annotations

from torch import nn

from aesg.architectures.text_model import RecurrentText
from aesg.nn.rnn import AESG_GRU


class AESGGRUText(RecurrentText):
    """tokens [B, T] -> logits [B, T, V], through embedding, `num_layers` of GRU, output.

    The last layer is an AESG_GRU, whose memory is asked about every token and those before it.
    `memory=None` is the plain GRU with the same other weights.
    """

    plain = nn.GRU
    reading = AESG_GRU
