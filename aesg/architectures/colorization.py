"""AESGColorizationNet: grey pictures to coloured ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from aesg.architectures.image_model import Decoder, ImagePresets

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory


class AESGColorizationNet(ImagePresets):
    """Grey [B, 1, Y, X] -> colours [B, 3, Y, X] in [0, 1], of the same size."""

    def __init__(
        self, base_filters: int, num_blocks: int, memory: AESGMemory | None, bottleneck_size: int
    ) -> None:
        super().__init__(base_filters, num_blocks, memory, bottleneck_size, in_channels=1)
        self.decoder = Decoder(self.widths, out_channels=3)

    def forward(self, images: Tensor) -> Tensor:
        """Raises AESGMemoryError for pictures that do not fit."""
        features, sizes = self.encode(images)  # [B, C_n, Y/2^n, X/2^n]
        return self.decoder(features, sizes).sigmoid()
