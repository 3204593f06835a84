"""AESGCNNClassifier: what a picture shows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aesg.architectures.base import DEFAULT_STORAGE_DIR, check_positive
from aesg.architectures.image_model import ImageModel
from aesg.exceptions import AESGMemoryError
from aesg.graph.core import SUCCESSION
from aesg.nn.evaluating import evaluating

if TYPE_CHECKING:
    from aesg.memory.context import RetrievedContext
    from aesg.memory.controller import AESGMemory

CHANNELS = 3  # red, green, blue
LABEL_WEIGHT = 20.0  # logits a fully active class adds: more than a trained classifier's own differ by
SKETCH = 8  # edge of the coarse picture that a query tells of
SAME = 0.99  # cosine of a concept with a class's direction from which on it is that class's


class AESGCNNClassifier(ImageModel):
    """Pictures [B, 3, Y, X] -> logits [B, num_classes], from the mean of the bottleneck's features.

    The memory is asked by what a picture coarsely looks like, a fixed random projection of its 8 x 8 means,
    which its features only lean (`MemoryReader.ask`): features move while an encoder trains, and what was
    stored under them is not found again.

    What the memory notes by itself are pictures, not what they show. `teach` tells it: every picture becomes
    a concept that leads to the concept of its class, a fixed direction. What a picture asked for then brings
    back its neighbours' classes, whose energies, weighed by `label_weight`, are added to the logits of an
    evaluation. So a class is learnt from a few examples and without changing a weight, and what was taught is
    not overwritten by what is trained later: it goes where `max_concepts` are exceeded, and ways to a class
    that are never used fade. Concepts that the memory bore by itself say no class and can stand nearer than
    those that were taught: where few are taught, let it learn nothing else (mode INFERENCE) while the model
    trains.
    """

    label_weight = LABEL_WEIGHT
    sketch: Tensor  # [D, 3 SKETCH^2]
    codes: Tensor  # [num_classes, D], the directions of the classes' concepts, the same in every process

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
        if memory is not None:
            # Whatever dtype and device the process makes tensors in.
            fixed: Any = {
                "generator": torch.Generator().manual_seed(0),
                "dtype": torch.float32,
                "device": "cpu",
            }
            codes = torch.randn(num_classes, memory.vector_dim, **fixed)
            self.register_buffer("codes", F.normalize(codes, dim=-1), persistent=False)
            sketch = torch.randn(memory.vector_dim, CHANNELS * SKETCH**2, **fixed)
            self.register_buffer("sketch", sketch, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Raises AESGMemoryError for pictures that do not fit."""
        x, _ = self.before_bottleneck(images)
        read = self.reads_memory and self.memory is not None
        said = self._sketched(images) if read else None
        features, context = self.bottleneck.with_context(x, read=read, said=said)  # [B, C_n, Y/2^n, X/2^n]
        logits = self.output_proj(features.mean(dim=(2, 3)))
        if context is None or self.training:  # what weights can say they shall learn to say themselves
            return logits
        return logits + self.label_weight * self._told(context).to(logits.dtype)

    def _sketched(self, images: Tensor) -> Tensor:
        """Fixed random directions of what pictures coarsely look like [B, D], of length 1."""
        coarse = F.adaptive_avg_pool2d(images.float(), SKETCH).flatten(1)  # [B, 3 SKETCH^2]
        # f32, as the memory is, whatever the model is.
        said = (coarse - coarse.mean(dim=1, keepdim=True)) @ self.sketch.float().T
        return F.normalize(said.float(), dim=-1)

    def _told(self, context: RetrievedContext) -> Tensor:
        """Energy that reached each class's concept [B, num_classes]; 0 for those that did not come back."""
        members = F.normalize(context.vectors.squeeze(1), dim=-1)  # [B, K, D]
        is_class = members @ self.codes.float().T > SAME  # [B, K, num_classes]
        return (context.weights.squeeze(1).unsqueeze(-1) * is_class).sum(dim=1)

    @torch.no_grad()
    def teach(self, images: Tensor, labels: Tensor) -> None:
        """Tells the memory what pictures [B, 3, Y, X] show: labels i64 [B], 0..num_classes - 1.

        Bears one concept a picture; no weight changes. The features are those of evaluation, whatever mode
        the model is in. Raises AESGMemoryError for other pictures or labels, in mode INFERENCE, and without a
        memory.
        """
        memory = self.memory
        if memory is None:
            raise AESGMemoryError("teach: expected a model with a memory, got memory=None")
        self._check(images)
        good = isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.shape == images.shape[:1]
        if not good or not bool(((labels >= 0) & (labels < self.num_classes)).all()):
            raise AESGMemoryError(
                f"labels: expected i64 [{len(images)}] in 0..{self.num_classes - 1}, got "
                f"{labels.dtype if isinstance(labels, Tensor) else type(labels).__name__} "
                f"{list(labels.shape) if isinstance(labels, Tensor) else labels!r}"
            )
        with evaluating(self):
            queries = self.bottleneck.query(self.before_bottleneck(images)[0], self._sketched(images))
        graph = memory.graph
        pictures = graph.add_concepts(F.normalize(queries, dim=-1).cpu())
        classes = self._class_concepts(labels.unique().tolist())
        confidence = 1.0 / memory.config.seed_top_k  # as many neighbours as are asked make it certain
        graph.add_edges(
            pictures,
            [classes[label] for label in labels.tolist()],
            [1.0] * len(pictures),
            [confidence] * len(pictures),
            SUCCESSION,
        )
        # Told on purpose counts as used often: what is not asked for is else gone after 58 updates.
        told, config = np.concatenate([pictures, list(classes.values())]), memory.config
        uses = graph.storage.nodes["use_frequency"][told]
        graph.storage.update(told, use_frequency=np.maximum(uses, config.survival_threshold_frequency))

    def _class_concepts(self, labels: list[int]) -> dict[int, int]:
        """The slot of each label's concept; born here where there is none."""
        assert self.memory is not None
        graph = self.memory.graph
        codes = self.codes.float().cpu()[labels]
        nearest = graph.search(codes, 1, SAME)[1][:, 0]
        there = (nearest >= 0) & (F.cosine_similarity(graph.gather(nearest).cpu(), codes) > SAME)
        slots = torch.where(there, nearest.cpu(), -1)
        slots[~there] = torch.from_numpy(graph.add_concepts(codes[~there]))
        return dict(zip(labels, slots.tolist(), strict=True))

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
