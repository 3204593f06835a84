"""What a memory gives a text model: `python -m aesg bench lm`.

Associative recall beyond the window (see `_mqar`): the model with its memory, with the answers of other rows
(shuffled contents), and the same model without a memory; means over seeds with 95 % intervals. Training and
asking are online: what is told is learnt while it is read.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aesg import architectures
from aesg.architectures.base import MemoryModel, token_config
from aesg.benchmarks._measure import environment, interval
from aesg.benchmarks._mqar import Chunk, Recall
from aesg.memory.controller import AESGMemory

MODELS = ("AESGGRUText", "AESGLSTMText", "AESGDecoderLM", "AESGTransformer")
WIDTH, DIM, HEADS = 128, 64, 4  # as the preset small
EVALUATED = 10  # episodes
Figures = dict[str, float]


def make_model(name: str, vocab: int, memory: AESGMemory | None) -> MemoryModel:
    """One layer; the Transformer causal, so that it asks for every token."""
    further: dict[str, Any] = {"nhead": HEADS, "causal": True} if name == "AESGTransformer" else {}
    return getattr(architectures, name)(vocab, WIDTH, 1, memory=memory, **further)


@contextmanager
def shuffled_contents(memory: AESGMemory) -> Iterator[None]:
    """Inside, every question gets the context that belongs to another row of the batch."""
    retrieve = memory.retrieve

    def other_rows(query: Tensor, **further: Any) -> Any:
        context = retrieve(query, **further)
        for part in ("vectors", "weights", "indices", "mask"):
            setattr(context, part, getattr(context, part).roll(1, dims=0))
        return context

    memory.retrieve = other_rows  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del memory.retrieve


def run(model: MemoryModel, chunk: Chunk) -> Tensor:
    """Logits of one chunk; the streams end where it begins."""
    if model.memory is not None and chunk.begins:
        model.memory.reset_state()
    return model(chunk.tokens)


def train(model: MemoryModel, task: Recall, episodes: int, rate: float, generator: torch.Generator) -> None:
    """One optimizer step for every chunk that asks."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    model.train()
    for chunk in task.episodes(episodes, generator):
        asks = bool((chunk.targets >= 0).any())
        with torch.set_grad_enabled(asks):
            logits = run(model, chunk)
        if asks:
            loss = F.cross_entropy(logits.flatten(0, 1), chunk.targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        if model.memory is not None:
            model.memory.update_topology()


@torch.no_grad()
def accuracy(model: MemoryModel, task: Recall, episodes: int, generator: torch.Generator) -> float:
    """Share of the questions answered rightly, the memory learning on as it is told."""
    model.eval()
    right = asked = 0
    for chunk in task.episodes(episodes, generator):
        wanted = chunk.targets >= 0
        right += int((run(model, chunk).argmax(-1) == chunk.targets)[wanted].sum())
        asked += int(wanted.sum())
        if model.memory is not None:
            model.memory.update_topology()
    return right / asked


def one_seed(name: str, task: Recall, options: argparse.Namespace, seed: int) -> Figures:
    """The three accuracies of one model and seed, and how many concepts it took."""
    evaluated = 2 if options.short else EVALUATED
    figures: Figures = {"chance": task.chance}
    for kind in ("without memory", "memory"):
        with tempfile.TemporaryDirectory(prefix="aesg-lm-") as folder:
            torch.manual_seed(seed)
            config = dataclasses.replace(
                token_config(DIM), spreading_activation_steps=task.hops, memory_mode="ONLINE"
            )
            memory = AESGMemory(Path(folder, "memory"), config) if kind == "memory" else None
            model = make_model(name, task.vocab, memory)
            generator = torch.Generator().manual_seed(seed)
            train(model, task, options.episodes, options.rate, generator)
            figures[kind] = accuracy(model, task, evaluated, generator)
            if memory is not None:
                with shuffled_contents(memory):
                    figures["shuffled contents"] = accuracy(model, task, evaluated, generator)
                figures["concepts"] = float(memory.stats()["active"])
                memory.close()
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, writes `lm.json` below --out."""
    parser = argparse.ArgumentParser(prog="aesg bench lm", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--hops", nargs="+", type=int, default=[1, 2, 3], help="steps of composition")
    parser.add_argument("--episodes", type=int, default=400, help="to train on")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--seeds", type=int, default=None, help="how many, default 5 (--short: 1)")
    parser.add_argument("--short", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--out", type=Path, default=None, help="directory for lm.json")
    options = parser.parse_args(argv)
    seeds = range(options.seeds or (1 if options.short else 5))
    sizes: dict[str, int] = {}
    if options.short:
        options.episodes, options.hops = 2, options.hops[:1]
        sizes = {"streams": 2, "keys": 4, "values": 8}
    cases = []
    for hops in options.hops:
        task = Recall(hops=hops, **sizes)
        for name in options.models:
            began = time.perf_counter()
            runs = [one_seed(name, task, options, seed) for seed in seeds]
            print(f"\n{name}, {hops} step(s), {len(seeds)} seed(s), {time.perf_counter() - began:.0f} s")
            rows = {}
            for figure in runs[0]:
                values = [found[figure] for found in runs]
                mean, half = interval(values)
                rows[figure] = {"mean": mean, "half_width_95": half, "values": values}
                print(f"  {figure:20} {mean:10.3f} +- {half:.3f}", flush=True)
            cases.append({"model": name, "hops": hops, "figures": rows})
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        chosen = {key: value for key, value in vars(options).items() if key != "out"}
        record = {"environment": environment(), "options": chosen, "seeds": list(seeds), "cases": cases}
        (options.out / "lm.json").write_text(json.dumps(record, indent=2) + "\n")
    return 0
