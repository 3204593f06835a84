"""The models: one a file, over one base."""

from aesg.architectures.cnn_autoencoder import AESGCNNAutoencoder
from aesg.architectures.cnn_classifier import AESGCNNClassifier
from aesg.architectures.colorization import AESGColorizationNet
from aesg.architectures.decoder_lm import AESGDecoderLM
from aesg.architectures.gru_text import AESGGRUText
from aesg.architectures.lstm_text import AESGLSTMText
from aesg.architectures.seq2seq import AESGSeq2Seq
from aesg.architectures.transformer import AESGTransformer

__all__ = [
    "AESGCNNAutoencoder",
    "AESGCNNClassifier",
    "AESGColorizationNet",
    "AESGDecoderLM",
    "AESGGRUText",
    "AESGLSTMText",
    "AESGSeq2Seq",
    "AESGTransformer",
]
