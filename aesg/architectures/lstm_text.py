"""AESGLSTMText: an LSTM over tokens that asks its memory about every token."""

from __future__ import annotations

from torch import nn

from aesg.architectures.text_model import RecurrentText
from aesg.nn.rnn import AESG_LSTM


class AESGLSTMText(RecurrentText):
    """tokens [B, T] -> logits [B, T, V], through embedding, `num_layers` of LSTM, output.

    The last layer is an AESG_LSTM, whose memory is asked about every token and those before it.
    `memory=None` is the plain LSTM with the same other weights.
    """

    plain = nn.LSTM
    reading = AESG_LSTM
