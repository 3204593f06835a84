"""AESG_CNNLayer: a convolution that adds what the memory says about the picture.

Letters: B pictures, C channels, Y x X the map's height and width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from aesg.nn.memory_layer import (
    MemoryLayer,
    apart_from_other_weights,
    check_shape,
    check_sizes,
    reader_heads,
)
from aesg.nn.pooled_reader import PooledReader

if TYPE_CHECKING:
    from aesg.memory.context import RetrievedContext
    from aesg.memory.controller import AESGMemory

MAX_HEADS = 8  # of a reader: every head reads the same few concepts, those of one query a picture


class AESG_CNNLayer(MemoryLayer):
    """Convolution 3x3, batch norm, memory, ReLU: [B, C_in, Y, X] -> [B, C_out, Y, X].

    The memory is asked once a picture, with its mean position; every position attends to the concepts that
    come back and adds what it read. The query is taken behind the batch norm and before the ReLU: there the
    features are centred over pictures, so that queries of different pictures differ.

    map_size: edge of the map the layer is meant for, as a record; maps of any size are taken and no weight
    depends on it.
    """

    def __init__(self, in_channels: int, out_channels: int, memory: AESGMemory | None, map_size: int) -> None:
        check_sizes(in_channels=in_channels, out_channels=out_channels, map_size=map_size)
        super().__init__(memory)
        self.in_channels = in_channels
        self.map_size = map_size
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.reader: PooledReader | None = None
        if memory is not None:
            heads = min(MAX_HEADS, reader_heads(out_channels))
            with apart_from_other_weights():
                self.reader = PooledReader(out_channels, memory.vector_dim, heads)

    def forward(self, x: Tensor, *, read: bool = True) -> Tensor:
        """read: False leaves the memory out. Raises AESGMemoryError for other shapes."""
        return self.with_context(x, read=read)[0]

    def with_context(
        self, x: Tensor, *, read: bool = True, said: Tensor | None = None
    ) -> tuple[Tensor, RetrievedContext | None]:
        """`forward`, and what the memory answered, one query a picture; None where it was not asked.

        said [B, D]: what pictures say of themselves, see `MemoryReader.ask`.
        """
        features, context = self._features(x), None
        if self.reader is not None and read:
            positions = features.flatten(2).mT  # [B, Y X, C]
            asked = None if said is None else said.unsqueeze(1)
            added, context = self.reader.with_context(positions, self.memory, asked)
            features = features + added.mT.unflatten(2, features.shape[2:])
        return F.relu(features), context

    def query(self, x: Tensor, said: Tensor | None = None) -> Tensor:
        """What the memory is asked for x: f32 [B, D]; said as of `with_context`. REQUIRES a memory."""
        assert self.reader is not None
        asked = None if said is None else said.unsqueeze(1)
        return self.reader.query(self._features(x).flatten(2).mT, asked)[:, 0]

    def _features(self, x: Tensor) -> Tensor:
        check_shape("x", x, "B", self.in_channels, "Y", "X")
        return self.norm(self.conv(x))  # [B, C, Y, X]
