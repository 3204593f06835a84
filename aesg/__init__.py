"""aesg: a persistent, self-organising external memory for PyTorch."""

__version__ = "0.1.0"
