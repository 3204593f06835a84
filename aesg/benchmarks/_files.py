"""Files in order: byte-level models on the standard library's sources, read by parallel streams.

Held out are whole files. "online" reads them with a memory that learns from what it has just read, while no
weight changes; "frozen" reads them with what training left. "abroad" are the C headers of the same Python, of
which training saw nothing: a frozen model in a new domain, where only its memory can learn. "Chunks" are read
at random: what went before says nothing of what comes.
"""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from aesg.architectures.base import MemoryModel
from aesg.benchmarks._device import device_of
from aesg.data import StreamLoader
from aesg.data.streams import StreamBatch
from aesg.tools.corpus import Corpus, load_corpus, openings

VOCABULARY = 256  # bytes
WARMUP_STEPS = 20
FINAL_SHARE = 0.1  # of the learning rate, at the end of the cosine
READ_BYTES = 1_500_000  # of the library, to train on and to hold out from


@dataclass(frozen=True)
class Files:
    """One size of the task; all models read the same bytes in the same order."""

    steps: int = 120
    streams: int = 8
    chunk: int = 128  # bytes a stream and step: all that a model without a memory sees
    held_out: int = 30_000  # bytes
    abroad: int = 60_000  # bytes of headers
    rate: float = 3e-3
    in_order: ClassVar[bool] = True

    def corpus(self) -> Corpus:
        return load_corpus(None, READ_BYTES)

    def training(self, corpus: Corpus, seed: int) -> StreamLoader:
        """Chunks of files in an order drawn from the seed."""
        return StreamLoader(
            corpus.train,
            self.streams,
            self.chunk,
            shuffle=True,
            seed=seed,
            drop_last=True,
            max_steps=self.steps,
        )

    def held(self, corpus: Corpus) -> StreamLoader:
        """Openings of held-out files."""
        return self._openings(corpus.held_out, self.held_out)

    def headers(self) -> StreamLoader:
        """Openings of Python's C headers."""
        return self._openings(load_corpus(sysconfig.get_paths()["include"]).train, self.abroad)

    def _openings(self, texts: list[bytes], limit: int) -> StreamLoader:
        """As long as the streams end about together."""
        each = limit // (2 * self.streams)
        return StreamLoader(openings(texts, limit, each), self.streams, self.chunk)


@dataclass(frozen=True)
class Chunks(Files):
    """The same bytes in pieces of one chunk, each from a place drawn at random."""

    in_order: ClassVar[bool] = False

    def training(self, corpus: Corpus, seed: int) -> StreamLoader:
        return self._pieces(corpus.train, self.steps * self.streams, seed)

    def held(self, corpus: Corpus) -> StreamLoader:
        return self._pieces(corpus.held_out, self.held_out // self.chunk, 0)

    def _pieces(self, texts: list[bytes], count: int, seed: int) -> StreamLoader:
        whole, generator = b"".join(texts), torch.Generator().manual_seed(seed)
        length = self.chunk + 1  # and the byte that follows
        places = torch.randint(len(whole) - length + 1, (count,), generator=generator).tolist()
        return StreamLoader([whole[at : at + length] for at in places], self.streams, self.chunk)


def _losses(model: MemoryModel, stream: StreamLoader) -> Iterator[tuple[torch.Tensor, int]]:
    """Of every chunk the summed loss in nats and how many bytes it is of; streams end with their files."""
    device = device_of(model)
    for batch in stream:
        assert isinstance(batch, StreamBatch)
        if model.memory is not None:
            model.memory.reset_state(batch.begins.nonzero()[:, 0].tolist())
        logits = model(batch.inputs.to(device))
        targets = batch.targets.flatten().to(device)
        loss = F.cross_entropy(logits.flatten(0, 1), targets, reduction="sum")
        yield loss, int((batch.targets >= 0).sum())
        if model.memory is not None:
            model.memory.update_topology()


def train(model: MemoryModel, task: Files, corpus: Corpus, seed: int) -> None:
    """One optimizer step a chunk, warm-up and cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.rate, weight_decay=0.01)
    model.train()
    for step, (loss, count) in enumerate(_losses(model, task.training(corpus, seed))):
        cosine = 0.5 * (1.0 + math.cos(math.pi * step / task.steps))
        rate = task.rate * (FINAL_SHARE + (1.0 - FINAL_SHARE) * cosine)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARMUP_STEPS)
        optimizer.zero_grad()
        (loss / count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def bits_per_byte(model: MemoryModel, texts: StreamLoader, mode: str = "INFERENCE") -> float:
    """On these texts, with the memory in this mode."""
    model.eval()
    if model.memory is not None:
        model.memory.set_mode(mode)
        model.memory.reset_state()
    total, counted = 0.0, 0
    for loss, count in _losses(model, texts):
        total += float(loss)
        counted += count
    return total / counted / math.log(2)
