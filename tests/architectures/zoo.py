"""All eight models in small, with inputs that suit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aesg import architectures
from aesg.architectures.base import MemoryModel

V = 50
TEXTS = ["AESGGRUText", "AESGLSTMText", "AESGSeq2Seq", "AESGDecoderLM", "AESGTransformer"]
IMAGES = ["AESGColorizationNet", "AESGCNNClassifier", "AESGCNNAutoencoder"]
ALL = TEXTS + IMAGES
CHANNELS = {"AESGColorizationNet": 1, "AESGCNNClassifier": 3, "AESGCNNAutoencoder": 3}


def build(name: str, memory: Any, *, layers: int = 2, seed: int = 0, **further: Any) -> MemoryModel:
    """The model, 32 wide or of 8 filters, with weights drawn from `seed`."""
    torch.manual_seed(seed)
    model = getattr(architectures, name)
    if name in IMAGES:
        return model(8, layers, memory, 8, **further)
    heads = {"nhead": 4} if name == "AESGTransformer" else {}
    return model(V, 32, layers, memory=memory, **heads, **further)


def inputs(name: str, batch: int = 4, seed: int = 1, size: tuple[int, int] = (16, 16)) -> Tensor:
    """Tokens [B, 9] or pictures [B, C, 16, 16]."""
    generator = torch.Generator().manual_seed(seed)
    if name in IMAGES:
        return torch.rand(batch, CHANNELS[name], *size, generator=generator)
    return torch.randint(0, V, (batch, 9), generator=generator)


def other_first(x: Tensor) -> Tensor:
    """The same batch with another sample 0."""
    y = x.clone()
    y[0] = 1 - y[0] if x.is_floating_point() else (y[0] + 7) % V
    return y


def fill(memory: Any, concepts: int = 60, edges: int = 200) -> Any:
    """Concepts and edges drawn at random, always the same ones."""
    generator = torch.Generator().manual_seed(5)
    memory.graph.add_concepts(torch.randn(concepts, memory.vector_dim, generator=generator))
    ends = torch.randint(0, concepts, (2, edges), generator=generator)
    ends = ends[:, ends[0] != ends[1]]
    memory.graph.add_edges(*ends, torch.ones(ends.shape[1]), torch.full((ends.shape[1],), 0.5))
    return memory


def reader_of(model: MemoryModel) -> Any:
    """The last reader of a model."""
    return [part for part in model.modules() if hasattr(part, "query_proj")][-1]


def loss(output: Tensor) -> Tensor:
    return output.float().square().mean()


Make = Callable[..., Any]
