"""AESGCNNClassifier: what a picture shows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from torch import Tensor, nn

from aesg.architectures.base import DEFAULT_STORAGE_DIR, check_positive
from aesg.architectures.image_model import ImageModel

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory

CHANNELS = 3  # red, green, blue


class AESGCNNClassifier(ImageModel):
    """Pictures [B, 3, Y, X] -> logits [B, num_classes], from the mean of the bottleneck's features."""

    def __init__(
        self,
        base_filters: int,
        num_blocks: int,
        memory: AESGMemory | None,
        bottleneck_size: int,
        num_classes: int = 10,
    ) -> None:
        check_positive(num_classes=num_classes)
        super().__init__(base_filters, num_blocks, memory, bottleneck_size, CHANNELS)
        self.num_classes = num_classes
        self.output_proj = nn.Linear(self.widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Raises AESGMemoryError for pictures that do not fit."""
        features, _ = self.encode(images)  # [B, C_n, Y/2^n, X/2^n]
        return self.output_proj(features.mean(dim=(2, 3)))

    @classmethod
    def small(
        cls, num_classes: int = 10, storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR
    ) -> AESGCNNClassifier:
        """32 filters, 3 blocks, concepts of 64 dimensions."""
        return cls._preset("small", storage_dir, num_classes=num_classes)

    @classmethod
    def medium(
        cls, num_classes: int = 10, storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR
    ) -> AESGCNNClassifier:
        """64 filters, 4 blocks, concepts of 128 dimensions."""
        return cls._preset("medium", storage_dir, num_classes=num_classes)

    @classmethod
    def large(
        cls, num_classes: int = 10, storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR
    ) -> AESGCNNClassifier:
        """128 filters, 5 blocks, concepts of 256 dimensions."""
        return cls._preset("large", storage_dir, num_classes=num_classes)
