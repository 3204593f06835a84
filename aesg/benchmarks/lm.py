"""What a memory gives a text model: `python -m aesg bench lm`.

recall: associative recall beyond the window (see `_mqar`). Training and asking are online: what is told is
learnt while it is read. files: the standard library's files in order, then, weights frozen, C headers.
chunks: pieces of these files at random, read with what training left (see `_files`). A "gain" is what the
memory saves against the same seed's model without one.

Each model with its memory, with the answers of other rows (shuffled contents), and without a memory; means
over seeds with 95 % intervals, equal steps and data. With `--device cuda` models and memories are there;
tables say so, and stand beside those of a CPU.
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
from aesg.benchmarks import _files
from aesg.benchmarks._device import add_device, device_of
from aesg.benchmarks._files import Chunks, Files
from aesg.benchmarks._measure import environment, interval
from aesg.benchmarks._mqar import Chunk, Recall
from aesg.config import AESGConfig
from aesg.memory.controller import AESGMemory
from aesg.tools.files import write_text

MODELS = ("AESGGRUText", "AESGLSTMText", "AESGDecoderLM", "AESGTransformer")
WIDTH, DIM, HEADS = 128, 64, 4  # as the preset small
EVALUATED = 10  # episodes
RECALL_AIM = 0.95
FILE_AIMS = {"gain frozen": 0.0, "gain online": 0.0, "gain abroad, online": 0.0}
TASKS = ("recall", "files", "chunks")
SHORT_RECALL = {"streams": 2, "keys": 4, "values": 8}
SHORT_FILES = {"steps": 3, "streams": 2, "chunk": 32, "held_out": 2_000, "abroad": 2_000}
Figures = dict[str, float]


def make_model(name: str, vocab: int, memory: AESGMemory | None) -> MemoryModel:
    """One layer; the Transformer causal, so that it asks for every token."""
    further: dict[str, Any] = {"nhead": HEADS, "causal": True} if name == "AESGTransformer" else {}
    return getattr(architectures, name)(vocab, WIDTH, 1, memory=memory, **further)


def recall_config(hops: int) -> AESGConfig:
    """Of a memory for facts: a token is one concept wherever it stands, and what was told last counts."""
    return dataclasses.replace(
        token_config(DIM),
        memory_mode="ONLINE",
        query_context=0.1,
        novelty_explanation_threshold=0.7,
        seed_top_k=1,
        spreading_activation_steps=hops,
        succession_rate=0.9,
        edge_initial_confidence=0.9,
    )


@contextmanager
def shuffled_contents(memory: AESGMemory) -> Iterator[None]:
    """Inside, every question gets the context that belongs to another row of the batch."""
    retrieve = memory.retrieve

    def other_rows(query: Tensor, **further: Any) -> Any:
        context = retrieve(query, **further)
        for part in ("vectors", "weights", "indices"):
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
    device = device_of(model)
    for chunk in task.episodes(episodes, generator):
        asks, there = bool((chunk.targets >= 0).any()), chunk.to(device)
        with torch.set_grad_enabled(asks):
            logits = run(model, there)
        if asks:
            loss = F.cross_entropy(logits.flatten(0, 1), there.targets.flatten())
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
    device, right, asked = device_of(model), 0, 0
    for chunk in task.episodes(episodes, generator):
        wanted = chunk.targets >= 0
        told = run(model, chunk.to(device)).argmax(-1).cpu()
        right += int((told == chunk.targets)[wanted].sum())
        asked += int(wanted.sum())
        if model.memory is not None:
            model.memory.update_topology()
    return right / asked


def recall_of(name: str, task: Recall, options: argparse.Namespace, seed: int) -> Figures:
    """The three accuracies of one model and seed, and how many concepts it took."""
    evaluated = 2 if options.short else EVALUATED
    figures: Figures = {"chance": task.chance}
    for kind in ("without memory", "memory"):
        with tempfile.TemporaryDirectory(prefix="aesg-lm-") as folder:
            torch.manual_seed(seed)
            config = recall_config(task.hops)
            memory = _memory(kind, folder, config, options.device)
            model = make_model(name, task.vocab, memory).to(options.device)
            generator = torch.Generator().manual_seed(seed)
            train(model, task, options.episodes, options.rate, generator)
            figures[kind] = accuracy(model, task, evaluated, generator)
            if memory is not None:
                with shuffled_contents(memory):
                    figures["shuffled contents"] = accuracy(model, task, evaluated, generator)
                figures["concepts"] = float(memory.stats()["active"])
                memory.close()
    return figures


def _memory(kind: str, folder: str, config: AESGConfig, device: str) -> AESGMemory | None:
    return AESGMemory(Path(folder, "memory"), config, device) if kind == "memory" else None


def bits_of(name: str, task: Files, seed: int, device: str = "cpu") -> Figures:
    """Held-out bits a byte of one model and seed, and how many concepts it took."""
    corpus = task.corpus()
    figures: Figures = {}
    for kind in ("without memory", "memory"):
        with tempfile.TemporaryDirectory(prefix="aesg-lm-") as folder:
            torch.manual_seed(seed)
            memory = _memory(kind, folder, token_config(DIM), device)
            model = make_model(name, _files.VOCABULARY, memory).to(device)
            _files.train(model, task, corpus, seed)
            held, abroad = task.held(corpus), task.headers() if task.in_order else None
            if memory is None:
                figures[kind] = _files.bits_per_byte(model, held)
                if abroad is not None:
                    figures[f"abroad, {kind}"] = _files.bits_per_byte(model, abroad)
                continue
            figures["concepts"] = float(memory.stats()["active"])
            figures["memory frozen"] = _files.bits_per_byte(model, held)
            with shuffled_contents(memory):
                figures["shuffled contents, frozen"] = _files.bits_per_byte(model, held)
            with model.reads_switched_off():
                figures["reads switched off"] = _files.bits_per_byte(model, held)
            if abroad is not None:
                figures["memory online"] = _files.bits_per_byte(model, held, "ONLINE")
                figures["abroad, memory frozen"] = _files.bits_per_byte(model, abroad)
                figures["abroad, memory online"] = _files.bits_per_byte(model, abroad, "ONLINE")
            memory.close()
    for state in ("frozen", "online") if task.in_order else ("frozen",):
        figures[f"gain {state}"] = figures["without memory"] - figures[f"memory {state}"]
        if task.in_order:
            figures[f"gain abroad, {state}"] = (
                figures["abroad, without memory"] - figures[f"abroad, memory {state}"]
            )
    return figures


def table(title: str, runs: list[Figures], seconds: float, aims: Figures) -> dict[str, Any]:
    """Prints the figures of all seeds; returns them for the record.

    aims: the least mean of a figure, of a gain the least lower end of its interval.
    """
    print(f"\n{title}, {len(runs)} seed(s), {seconds:.0f} s")
    rows: dict[str, dict[str, Any]] = {}
    for figure in runs[0]:
        values = [found[figure] for found in runs]
        mean, half = interval(values)
        rows[figure] = {"mean": mean, "half_width_95": half, "values": values}
        if figure in aims:
            gain = figure.startswith("gain")
            aim = f"interval >= {aims[figure]:g}" if gain else f">= {aims[figure]:g}"
            rows[figure] |= {"aim": aim, "reached": mean - (half if gain else 0.0) >= aims[figure]}
        missed = "" if rows[figure].get("reached", True) else "  MISSED"
        print(f"  {figure:26} {mean:10.4f} +- {half:.4f}{missed}", flush=True)
    return {"title": title, "seconds": seconds, "figures": rows}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, writes `lm.json` below --out after every table; those of other runs stay in it."""
    parser = argparse.ArgumentParser(prog="aesg bench lm", description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--hops", nargs="+", type=int, default=[1, 2, 3], help="steps of composition")
    parser.add_argument("--episodes", type=int, default=100, help="of recall to train on")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate of recall")
    parser.add_argument("--steps", type=int, default=Files.steps, help="of files to train on")
    parser.add_argument("--seeds", type=int, default=None, help="how many, default 5 (--short: 1)")
    add_device(parser)
    parser.add_argument("--short", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--out", type=Path, default=None, help="directory for lm.json")
    options = parser.parse_args(argv)
    seeds = range(options.seeds or (1 if options.short else 5))
    if options.short:
        options.episodes, options.hops = 2, options.hops[:1]
    for task in options.tasks:
        for hops in options.hops if task == "recall" else [0]:
            for name in options.models:
                began = time.perf_counter()
                if task == "recall":
                    recall = Recall(hops=hops, **(SHORT_RECALL if options.short else {}))
                    runs = [recall_of(name, recall, options, seed) for seed in seeds]
                    title, aims = f"{name}, recall over {hops} step(s)", {"memory": RECALL_AIM}
                else:
                    kind = Files if task == "files" else Chunks
                    files = kind(**(SHORT_FILES if options.short else {"steps": options.steps}))
                    runs = [bits_of(name, files, seed, options.device) for seed in seeds]
                    title = f"{name}, {'files in order' if files.in_order else 'chunks at random'}"
                    if not options.short and options.steps != Files.steps:
                        title += f", {options.steps} steps"
                    aims = FILE_AIMS if files.in_order else {}
                if options.device != "cpu":
                    title += f", on {options.device}"
                found = table(title, runs, time.perf_counter() - began, {} if options.short else aims)
                if options.out is not None:
                    record(options, list(seeds), found)
    return 0


def record(options: argparse.Namespace, seeds: list[int], found: dict[str, Any]) -> None:
    """Puts one table into `lm.json`; those of earlier runs stay until one of their title replaces them."""
    path = options.out / "lm.json"
    former = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    told = {key: value for key, value in vars(options).items() if key != "out"}
    part = {
        "about": "What a memory gives a text model: accuracy in recall, bits a byte on files",
        "environment": environment(options.device),
        "seeds": seeds,
        "short": options.short,
        "tasks": former.get("tasks", {}) | {found["title"]: {**found, "seeds": seeds, "options": told}},
    }
    write_text(path, json.dumps(part, indent=2) + "\n")
