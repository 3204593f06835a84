"""A long life: a stream whose patterns drift and go, with some that stay; bounded size, no duplicates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from aesg.benchmarks._facts import CONFIG, noisy, unit_vectors
from aesg.memory.controller import AESGMemory

LIVE = 512  # patterns the stream speaks of at a time
OFTEN = 64  # patterns that stay from beginning to end, each in about every twelfth batch
OFTEN_SHARE = 0.02
LIMIT = 1024  # max_concepts
BATCH = 256
LIFETIME = 400  # batches a passing pattern is spoken of, in every second of them
TURN = 0.5  # how far a passing pattern turns in its life, in radians
NOISE = 0.1
FOUND = 0.8  # a context member this like the pattern stands for it
SAME = 0.6  # the memory's own measure of what is one thing


class Stream:
    """Patterns that turn slowly and are replaced in turn, and OFTEN that stay."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.often = unit_vectors(OFTEN, generator)
        self.live = unit_vectors(LIVE, generator)
        self.towards = unit_vectors(LIVE, generator)
        self.age = torch.randint(0, LIFETIME, (LIVE,), generator=generator)

    def batch(self) -> Tensor:
        """The next BATCH inputs [BATCH, D]."""
        self.age += 1
        gone = self.age >= LIFETIME
        fresh = int(gone.sum())
        self.live[gone] = unit_vectors(fresh, self.generator)
        self.towards[gone] = unit_vectors(fresh, self.generator)
        self.age[gone] = 0
        self.live = nn.functional.normalize(self.live + TURN / LIFETIME * self.towards, dim=1)
        inputs = self.live[torch.randint(0, LIVE, (BATCH,), generator=self.generator)]
        which = torch.rand(BATCH, generator=self.generator) < OFTEN_SHARE
        inputs[which] = self.often[torch.randint(0, OFTEN, (int(which.sum()),), generator=self.generator)]
        return noisy(inputs, NOISE, self.generator)


def long_life(directory: Path, inputs: int, seed: int, device: str = "cpu") -> dict[str, float]:
    """Recall of what lives now and of what was often heard, duplicates and size after so many inputs."""
    generator = torch.Generator().manual_seed(seed)
    stream = Stream(generator)
    batches = inputs // BATCH
    config = replace(CONFIG, max_concepts=LIMIT)
    most, size, early_size = 0, 0, 0
    with AESGMemory(directory, config, device) as memory:
        for number in range(batches):
            memory.retrieve(stream.batch().to(device))
            memory.update_topology()
            most = max(most, memory.storage.active_count)
            if number in (batches // 4, batches - 1):
                memory.compact()
                size = sum(file.stat().st_size for file in directory.iterdir() if file.suffix == ".aesg")
                early_size = early_size or size
        memory.set_mode("INFERENCE")
        memory.reset_state()
        settled = stream.live[stream.age > LIFETIME // 10]  # the others are perhaps still waiting to be born
        figures = {
            "recall of the recent": _found(memory, settled, generator),
            "recall of the often used": _found(memory, stream.often, generator),
            "concepts per pattern": _per_pattern(memory, torch.cat([settled, stream.often])),
            "most concepts": float(most),
            "size at the end / at a quarter": size / early_size,
            "findings of check()": float(len(memory.check())),
        }
    return figures | controls(inputs, seed)


def controls(inputs: int, seed: int) -> dict[str, float]:
    """The same stream kept as it comes by stores of the same size, asked by nearest neighbours alone: one
    that keeps each input with the same chance, one that keeps the last.
    """
    stream = Stream(torch.Generator().manual_seed(seed))
    dice = torch.Generator().manual_seed(seed + 1)
    reservoir, window = torch.zeros(2, LIMIT, CONFIG.vector_dim)
    for number in range(inputs // BATCH):
        batch = stream.batch()
        chance = torch.rand(BATCH, generator=dice, dtype=torch.float64)
        places = (chance * torch.arange(number * BATCH + 1, (number + 1) * BATCH + 1)).long()
        if number * BATCH < LIMIT:  # the first ones fill it
            places = torch.arange(number * BATCH, (number + 1) * BATCH)
        kept = places < LIMIT
        reservoir[places[kept]] = batch[kept]
        window = torch.cat([window[BATCH:], batch])
    figures = {}
    asked = {
        "recent": stream.live[stream.age > LIFETIME // 10],
        "often used": stream.often,
    }
    for name, store in (("reservoir", reservoir), ("the last inputs", window)):
        units = nn.functional.normalize(store, dim=1)
        for what, patterns in asked.items():
            queries = nn.functional.normalize(noisy(patterns, NOISE, dice), dim=1)
            nearest = units[(queries @ units.T).topk(CONFIG.context_size, dim=1).indices]
            likeness = torch.cosine_similarity(nearest, patterns[:, None], dim=2).max(dim=1).values
            figures[f"recall of the {what}, {name}"] = float((likeness >= FOUND).float().mean())
    return figures


def _found(memory: AESGMemory, patterns: Tensor, generator: torch.Generator) -> float:
    members = memory.retrieve(noisy(patterns, NOISE, generator).to(memory.device)).vectors.cpu()
    memory.reset_state()
    likeness = torch.cosine_similarity(members, patterns[:, None], dim=2)
    return float((likeness.max(dim=1).values >= FOUND).float().mean())


def _per_pattern(memory: AESGMemory, patterns: Tensor) -> float:
    """Living concepts per pattern that has one, by the memory's own measure of likeness."""
    cosines, _ = memory.graph.search(patterns, 16, SAME)
    many = (cosines >= SAME).sum(dim=1)
    return float(many[many > 0].float().mean())
