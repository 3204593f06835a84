"""AESGCNNAutoencoder: pictures through a bottleneck and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from aesg.architectures.image_model import Decoder, ImagePresets

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory


class AESGCNNAutoencoder(ImagePresets):
    """Pictures [B, C, Y, X] -> their reconstruction, of the same shape and any range of values."""

    def __init__(
        self,
        base_filters: int,
        num_blocks: int,
        memory: AESGMemory | None,
        bottleneck_size: int,
        in_channels: int = 3,
    ) -> None:
        super().__init__(base_filters, num_blocks, memory, bottleneck_size, in_channels)
        self.decoder = Decoder(self.widths, out_channels=in_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Raises AESGMemoryError for pictures that do not fit."""
        features, sizes = self.encode(images)  # [B, C_n, Y/2^n, X/2^n]
        return self.decoder(features, sizes)
