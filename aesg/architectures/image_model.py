"""ImageModel: what models of pictures share: encoder, bottleneck with memory, decoder.

Letters: B pictures, C channels, Y x X height and width, F filters of the first block, n blocks.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from aesg.architectures.base import (
    DEFAULT_STORAGE_DIR,
    MAX_CONCEPTS,
    MemoryModel,
    check_positive,
    open_memory,
)
from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.nn.cnn import AESG_CNNLayer

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory

MAX_CHANNELS = 512  # blocks double the channels up to here; five doublings of 128 would be 50 M weights more

Model = TypeVar("Model", bound="ImageModel")


class ImageSize(NamedTuple):
    """One line of the reference's table of image models."""

    base_filters: int
    num_blocks: int
    vector_dim: int
    bottleneck_size: int  # edge of the bottleneck of a picture of 128 x 128


IMAGE_SIZES = {
    "small": ImageSize(32, 3, 64, 16),
    "medium": ImageSize(64, 4, 128, 8),
    "large": ImageSize(128, 5, 256, 4),
}


class ImageModel(MemoryModel):
    """Pictures [B, C, Y, X] of any size that the encoder can halve once a block.

    Blocks have F, 2F, 4F, ... filters, at most 512. The bottleneck is an AESG_CNNLayer, the one place that
    reads the memory. bottleneck_size: its edge for the pictures the model is meant for, as a record; no
    weight depends on it. `memory=None` is the plain model with the same other weights.
    `storage_dir=None` makes a preset without a memory. AESGConfigError: sizes below 1.
    """

    def __init__(
        self,
        base_filters: int,
        num_blocks: int,
        memory: AESGMemory | None,
        bottleneck_size: int,
        in_channels: int,
    ) -> None:
        check_positive(
            base_filters=base_filters,
            num_blocks=num_blocks,
            bottleneck_size=bottleneck_size,
            in_channels=in_channels,
        )
        super().__init__(memory)
        self.base_filters = base_filters
        self.num_blocks = num_blocks
        self.bottleneck_size = bottleneck_size
        self.in_channels = in_channels
        self.widths = [
            max(base_filters, min(MAX_CHANNELS, base_filters << block)) for block in range(num_blocks)
        ]
        self.encoder = nn.ModuleList(
            EncoderBlock(below, width)
            for below, width in zip([in_channels, *self.widths], self.widths, strict=False)
        )
        self.bottleneck = AESG_CNNLayer(self.widths[-1], self.widths[-1], memory, bottleneck_size)

    def encode(self, images: Tensor) -> tuple[Tensor, list[torch.Size]]:
        """Bottleneck features [B, C_n, Y/2^n, X/2^n] and the sizes (Y, X) in front of every block.

        Raises AESGMemoryError for another rank, channels, type, or a picture too small.
        """
        x, sizes = self.before_bottleneck(images)
        return self.bottleneck(x, read=self.reads_memory), sizes

    def before_bottleneck(self, images: Tensor) -> tuple[Tensor, list[torch.Size]]:
        """As `encode`, without the bottleneck."""
        self._check(images)
        x, sizes = images, []
        for block in self.encoder:
            sizes.append(x.shape[2:])
            x = block(x)
        return x, sizes

    def _check(self, images: Tensor) -> None:
        wanted = f"pictures [B, {self.in_channels}, Y, X]"
        if not isinstance(images, Tensor):
            raise AESGMemoryError(f"Expected {wanted}, got {type(images).__name__}")
        if not images.is_floating_point():
            raise AESGMemoryError(f"Expected {wanted} of floating point values, got {images.dtype}")
        if images.dim() != 4 or images.shape[0] == 0 or images.shape[1] != self.in_channels:
            raise AESGMemoryError(f"Expected {wanted} with B >= 1, got shape {list(images.shape)}")
        least = 1 << self.num_blocks
        if min(images.shape[2:]) < least:
            raise AESGMemoryError(
                f"Expected pictures of at least {least} x {least}, which {self.num_blocks} blocks can halve, "
                f"got {images.shape[2]} x {images.shape[3]}"
            )

    @classmethod
    def _preset(
        cls: type[Model], name: str, storage_dir: str | os.PathLike[str] | None, **further: Any
    ) -> Model:
        check_positive(**further)  # before a directory is made
        size = IMAGE_SIZES[name]
        memory = open_memory(storage_dir, AESGConfig(vector_dim=size.vector_dim, max_concepts=MAX_CONCEPTS))
        return cls(size.base_filters, size.num_blocks, memory, size.bottleneck_size, **further)


class ImagePresets(ImageModel):
    """The three sizes, for models that are made from a size and a directory alone."""

    @classmethod
    def small(cls: type[Model], storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR) -> Model:
        """32 filters, 3 blocks, concepts of 64 dimensions."""
        return cls._preset("small", storage_dir)

    @classmethod
    def medium(cls: type[Model], storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR) -> Model:
        """64 filters, 4 blocks, concepts of 128 dimensions."""
        return cls._preset("medium", storage_dir)

    @classmethod
    def large(cls: type[Model], storage_dir: str | os.PathLike[str] | None = DEFAULT_STORAGE_DIR) -> Model:
        """128 filters, 5 blocks, concepts of 256 dimensions."""
        return cls._preset("large", storage_dir)


class EncoderBlock(nn.Sequential):
    """Convolution, batch norm, ReLU, pooling: [B, C_in, Y, X] -> [B, C_out, Y // 2, X // 2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )


class Decoder(nn.Module):
    """The encoder's blocks in reverse: [B, C_n, ...] -> [B, out_channels, Y, X].

    A transposed convolution of 4 with stride 2 gives 2y or 2y + 1 rows from y, just what floor-halving took
    them from, and every pixel gets a share of the input.
    """

    def __init__(self, widths: list[int], out_channels: int) -> None:
        super().__init__()
        narrower = [*widths[-2::-1], widths[0]]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(width, to, 4, stride=2, padding=1, bias=False)
            for width, to in zip(reversed(widths), narrower, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in narrower)
        self.last = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, x: Tensor, sizes: list[torch.Size]) -> Tensor:
        """sizes: what `ImageModel.encode` noted, the largest first."""
        for up, norm, size in zip(self.up, self.norms, reversed(sizes), strict=True):
            x = norm(up(x, output_size=size)).relu()
        return self.last(x)
