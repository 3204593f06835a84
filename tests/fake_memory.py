"""FakeMemory: the interface of AESGMemory as models and trainer see it, over a plain tensor of concepts.

Exact cosine search, no graph. It records what it was asked, so that tests can tell what the trainer did.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from aesg.config import AESGConfig
from aesg.validation import Validator


class FakeContext:
    def __init__(
        self, memory: FakeMemory, vectors: Tensor, weights: Tensor, mask: Tensor, indices: Tensor
    ) -> None:
        self.vectors, self.weights, self.mask, self.indices = vectors, weights, mask, indices
        self._projection = memory.abstraction_projection

    def projection(self, mean: Tensor) -> Tensor:
        return self._projection(mean)

    def aggregate(self) -> Tensor:
        total = self.weights.sum(-1, keepdim=True)
        shares = self.weights / torch.where(total > 0, total, torch.ones_like(total))
        mean = (shares.unsqueeze(-1) * self.vectors).sum(-2)
        return mean + self._projection(mean)


class FakeMemory(nn.Module):
    def __init__(
        self, vector_dim: int = 16, concepts: int = 0, context_size: int = 4, births: bool = False
    ) -> None:
        super().__init__()
        self.config = AESGConfig(vector_dim=vector_dim)
        self.vector_dim = vector_dim
        self.context_size = context_size
        self.births = births
        generator = torch.Generator().manual_seed(5)
        self.concepts = torch.randn(concepts, vector_dim, generator=generator)
        self.abstraction_projection = nn.Linear(vector_dim, vector_dim, bias=False)
        nn.init.zeros_(self.abstraction_projection.weight)
        self.mode = SimpleNamespace(value="TRAIN")
        self.calls: list[tuple] = []

    @property
    def storage(self) -> SimpleNamespace:
        return SimpleNamespace(node_count=len(self.concepts), edge_count=0)

    def set_mode(self, name: str) -> None:
        Validator.validate_memory_mode(name)
        self.mode = SimpleNamespace(value=name)
        self.calls.append(("mode", name))

    def retrieve(self, query: Tensor, batch_idx: int = 0, *, learn: bool = True) -> FakeContext:
        Validator.validate_vector_dim_match(self.vector_dim, query.shape[-1])
        lead, k = query.shape[:-1], self.context_size
        vectors = query.new_zeros(*lead, k, self.vector_dim)
        weights = query.new_zeros(*lead, k) * query.sum(-1, keepdim=True)
        indices = torch.full((*lead, k), -1)
        found = min(k, len(self.concepts))
        if found:
            unit = nn.functional.normalize(self.concepts, dim=-1)
            scores = nn.functional.normalize(query, dim=-1) @ unit.T
            best = scores.topk(found, dim=-1)
            good = best.values > 0.1
            weights = torch.cat((torch.where(good, best.values, 0.0), weights[..., found:]), dim=-1)
            indices[..., :found] = torch.where(good, best.indices, -1)
            vectors[..., :found, :] = torch.where(good.unsqueeze(-1), self.concepts[best.indices], 0.0)
        if self.births and self.mode.value != "INFERENCE":
            self.concepts = torch.cat((self.concepts, query.detach().reshape(-1, self.vector_dim)[:1]))
        return FakeContext(self, vectors, weights, indices >= 0, indices)

    forward = retrieve

    def update_topology(self) -> None:
        self.calls.append(("update_topology",))

    def reset_state(self, streams: list[int] | None = None) -> None:
        self.calls.append(("reset_state", streams))

    def save(self) -> None:
        self.calls.append(("save",))

    def snapshot(self, directory: str) -> None:
        Path(directory).mkdir()
        (Path(directory) / "concepts.json").write_text(json.dumps(self.concepts.tolist()))

    def restore(self, directory: str) -> None:
        loaded = json.loads((Path(directory) / "concepts.json").read_text())
        self.concepts = torch.tensor(loaded).reshape(-1, self.vector_dim)

    def count(self, name: str) -> int:
        return sum(1 for call in self.calls if call[0] == name)
