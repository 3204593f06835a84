"""The models: one a file, over one base."""

from aesg.architectures.decoder_lm import AESGDecoderLM

__all__ = ["AESGDecoderLM"]
