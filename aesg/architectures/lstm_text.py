"""AESGLSTMText: an LSTM over tokens that asks its memory at every step."""

from __future__ import annotations

from torch import nn

from aesg.architectures.text_model import RecurrentText
from aesg.nn.rnn import AESG_LSTM


class AESGLSTMText(RecurrentText):
    """tokens [B, T] -> logits [B, T, V], through embedding, `num_layers` of LSTM, output.

    The last layer is an AESG_LSTM: at every step its input and state ask the memory, once for each sequence.
    `memory=None` is the plain LSTM with the same other weights.
    """

    plain = nn.LSTM
    reading = AESG_LSTM
