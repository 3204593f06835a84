"""`aesg demo`: trains a byte-level language model with and without a memory, then reopens it in a second
process.

Stages: train with the memory; evaluate on held-out files with its reads on and off; train the same model
without a memory for as many steps on the same bytes; let a copy of the memory write while the held-out files
are read in order; start a second process that reopens memory and checkpoint, compares and trains on. Figures
are as measured.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from aesg.architectures.base import TEXT_SIZES
from aesg.architectures.decoder_lm import AESGDecoderLM
from aesg.data import StreamLoader
from aesg.exceptions import AESGConfigError, AESGStorageError
from aesg.memory.controller import AESGMemory
from aesg.tools.corpus import Corpus, load_corpus, openings
from aesg.trainer import AESGTrainer, Callback
from aesg.trainer import checkpoint as files

VOCABULARY = 256  # bytes
LEARNING_RATE = 3e-3
WARMUP_STEPS = 20
FINAL_SHARE = 0.1  # of the learning rate, at the end of the cosine
JOINING_SHARE = 0.2  # of training passes before the memory joins
TRAINING_SHARE = 0.45  # of the time, at most, goes to training with the memory
RESUMED_STEPS = 20
RESULT, MEMORY, CHECKPOINT, ONLINE_COPY = "demo.json", "memory", "checkpoint", "memory-online"
MARKER = "aesg-demo.txt"  # says that a folder is the demo's own
SHORT = {"steps": 12, "batch_size": 4, "chunk": 32, "held_out": 4_000}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo with these arguments; 0 when the reopened state is what was left, else 1."""
    options = _parser().parse_args(argv)
    if options.short:
        vars(options).update(SHORT)
    if options.resume is not None:
        return second_process(Path(options.resume))
    return first_process(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aesg demo", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", metavar="DIR", help="text to train on (default: the standard library's own sources)")
    add("--out", metavar="DIR", default="./aesg_demo", help="where memory and checkpoint go (%(default)s)")
    add("--seconds", type=float, default=240.0, help="time for everything (%(default)s)")
    add("--steps", type=int, default=800, help="training steps, if time allows (%(default)s)")
    add("--batch-size", type=int, default=16, help="parallel streams (%(default)s)")
    add("--chunk", type=int, default=128, help="bytes a stream and step (%(default)s)")
    add("--held-out", type=int, default=150_000, help="held-out bytes evaluated (%(default)s)")
    add("--seed", type=int, default=0, help="of weights and order of files (%(default)s)")
    add("--short", action="store_true", help="a few steps on little data, in seconds")
    add("--resume", metavar="DIR", help="only reopen what an earlier run left in DIR, and train on")
    return parser


# -------------------------------------------------------------------------------------------- first process


def first_process(options: argparse.Namespace) -> int:
    for name in ("steps", "batch_size", "chunk", "held_out"):
        if getattr(options, name) < 1:
            raise AESGConfigError(
                f"--{name.replace('_', '-')}: expected at least 1, got {getattr(options, name)}"
            )
    started = time.perf_counter()
    options.corpus_bytes = _bytes_needed(options)
    corpus = load_corpus(options.data, options.corpus_bytes)
    out = _fresh_directory(Path(options.out))
    sizes = f"{len(corpus.train)} files, {sum(map(len, corpus.train)):,} bytes to train on; "
    say(f"Text: {corpus.source}: {sizes}{len(corpus.held_out)} files held out")
    say(f"Files: {out}")

    say("\n1. Training with the memory: files in order, in parallel streams")
    model = _seeded_model(options.seed, out / MEMORY)
    # Little text is read through in fewer steps; what follows goes by shares of those.
    options.steps = len(_training_stream(corpus, options, options.steps))
    schedule = Schedule(options.steps, limit=options.seconds * TRAINING_SHARE)
    trainer = make_trainer(model, schedule)
    trainer.fit(_training_stream(corpus, options, options.steps), epochs=1)
    memory = model.memory
    assert memory is not None
    trained = memory.stats()
    # A machine with more to do than this must not make the demo last for ever.
    options.held_out = min(
        options.held_out, max(2_000, int(schedule.bytes_per_second * options.seconds / 10))
    )
    held_out = _held_out_stream(corpus, options)
    trainer.save(out / CHECKPOINT)
    with_memory = trainer.evaluate(held_out, progress=None)["loss"]
    with model.reads_switched_off():
        reads_off = trainer.evaluate(held_out, progress=None)["loss"]
    memory.snapshot(out / ONLINE_COPY)
    left = _counts(memory)
    memory.close()

    say("\n2. Training the same model without a memory: same steps, same bytes, same seed")
    plain = _seeded_model(options.seed, None)
    plain_schedule = Schedule(schedule.steps_made, replay=schedule.rates)
    plain_trainer = make_trainer(plain, plain_schedule)
    plain_trainer.fit(_training_stream(corpus, options, schedule.steps_made), epochs=1)
    baseline = plain_trainer.evaluate(held_out, progress=None)["loss"]

    say("\n3. Reading the held-out files in order with a copy of the memory that writes (ONLINE)")
    online = _online_loss(model.state_dict(), out / ONLINE_COPY, held_out)

    result = {
        "data": options.data,
        "options": {
            name: getattr(options, name)
            for name in ("batch_size", "chunk", "held_out", "seed", "corpus_bytes")
        },
        "loss": {"with_memory": with_memory, "reads_off": reads_off, "online": online, "baseline": baseline},
        "counts": left,
        "steps": schedule.steps_made,
        "bytes_per_second": schedule.bytes_per_second,
        "baseline_bytes_per_second": plain_schedule.bytes_per_second,
        "training_seconds": schedule.seconds,
        "retrieval_seconds": trained["retrieval_seconds"],
        "topology_seconds": trained["topology_seconds"],
        "mean_explanation": trained["mean_explanation"],
    }
    (out / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    say("\n4. A second process reopens memory and checkpoint")
    command = [sys.executable, "-m", "aesg", "demo", "--resume", str(out)]
    code = subprocess.run(command, check=False).returncode
    _report(result, code == 0, time.perf_counter() - started)
    return code


def _online_loss(weights: dict[str, Any], directory: Path, held_out: StreamLoader) -> float:
    """Loss on the held-out files while the memory learns from what it has just read; no weight changes."""
    with AESGMemory(directory) as memory:
        model = _model(memory)
        model.load_state_dict(weights)
        model.eval()
        memory.set_mode("ONLINE")
        memory.reset_state()
        total, counted = 0.0, 0
        for batch in held_out:
            memory.reset_state(batch.begins.nonzero()[:, 0].tolist())
            with torch.no_grad():
                logits = model(batch.inputs)
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), batch.targets.flatten(), reduction="sum"
            )
            total += float(loss)
            counted += int((batch.targets >= 0).sum())
            memory.update_topology()
    return total / counted


def _report(result: dict[str, Any], same: bool, seconds: float) -> None:
    bits = {name: loss / math.log(2) for name, loss in result["loss"].items()}
    counts = result["counts"]
    share = result["retrieval_seconds"] / result["training_seconds"]
    rows = [
        ("held-out bits per byte, with the memory", f"{bits['with_memory']:.4f}"),
        ("  its reads switched off", f"{bits['reads_off']:.4f}"),
        ("  the same model trained without a memory", f"{bits['baseline']:.4f}"),
        ("  memory writing as it reads in order (ONLINE)", f"{bits['online']:.4f}"),
        ("concepts in the graph (living)", f"{counts['concepts']:,} ({counts['active']:,})"),
        ("edges", f"{counts['edges']:,}"),
        ("training steps", f"{result['steps']:,}"),
        ("bytes per second in training", f"{result['bytes_per_second']:,.0f}"),
        ("  without a memory", f"{result['baseline_bytes_per_second']:,.0f}"),
        ("time in retrieval while training", f"{result['retrieval_seconds']:.1f} s ({share:.0%})"),
        ("time in topology updates", f"{result['topology_seconds']:.1f} s"),
        ("reopened in a second process", "equal to the last digit" if same else "DIFFERENT"),
        ("whole demo", f"{seconds:.0f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    say("\n" + "-" * (width + 26))
    for name, value in rows:
        say(f"{name:<{width}}  {value:>24}")
    say("-" * (width + 26))
    say(_verdict(bits))


def _verdict(bits: dict[str, float]) -> str:
    def against_baseline(value: float) -> str:
        gain = bits["baseline"] - value
        if round(gain, 4) == 0:
            return "as good as the model trained without one"
        side = "better" if gain > 0 else "worse"
        return f"{abs(gain):.4f} bits a byte ({abs(gain) / bits['baseline']:.1%}) {side} than without one"

    return (
        f"With its memory frozen the model is {against_baseline(bits['with_memory'])};\n"
        f"with the memory writing it is {against_baseline(bits['online'])}.\n"
        "One seed: small differences may be chance."
    )


# ------------------------------------------------------------------------------------------- second process


def second_process(out: Path) -> int:
    """Reopens what the first left in `out`: same counts, same evaluation? Then trains on. 0 when all is
    equal."""
    if not (out / RESULT).is_file():
        raise AESGStorageError(f"Expected what an earlier demo left in '{out}', found no {RESULT}")
    result = files.read_json(out / RESULT)
    options = argparse.Namespace(**result["options"])
    corpus = load_corpus(result["data"], options.corpus_bytes)
    held_out = _held_out_stream(corpus, options)
    expected = (result["counts"], result["loss"]["with_memory"])
    with AESGMemory(out / MEMORY) as memory:
        model = _model(memory)
        trainer = make_trainer(model)
        weights = files.read_tensors(files.find_checkpoint(out / CHECKPOINT) / files.WEIGHTS)
        model.load_state_dict(weights)
        reopened = (_counts(memory), trainer.evaluate(held_out, progress=None)["loss"])
        same = _compare("memory directory", expected, reopened)
        trainer.resume(out / CHECKPOINT)
        restored = (_counts(memory), trainer.evaluate(held_out, progress=None)["loss"])
        same = _compare("checkpoint", expected, restored) and same
        options.seed += 1  # other files than those the first process began with
        losses = trainer.fit(_training_stream(corpus, options, RESUMED_STEPS), epochs=1)
        now = _counts(memory)
    say(
        f"   trained on for {RESUMED_STEPS} steps: {losses[-1] / math.log(2):.4f} bits per byte in training, "
        f"{now['concepts']:,} concepts, {now['edges']:,} edges"
    )
    return 0 if same else 1


def _compare(what: str, expected: tuple[dict[str, int], float], found: tuple[dict[str, int], float]) -> bool:
    counts, loss = found
    say(
        f"   {what}: {counts['concepts']:,} concepts, {counts['edges']:,} edges, "
        f"held-out loss {loss!r}: {'equal' if found == expected else f'DIFFERENT from {expected}'}"
    )
    return found == expected


# --------------------------------------------------------------------------------------------------- parts


class Schedule(Callback):
    """Warm-up and cosine of the learning rate, by steps or by time, whichever is further; measures speed.

    The memory joins, read and writing, when `JOINING_SHARE` is done: first steps cost less without it.
    Stops at `limit` seconds. `replay`: the rates of an earlier run, so that a second one is trained alike.
    """

    def __init__(self, steps: int, limit: float = math.inf, replay: list[float] | None = None) -> None:
        self.steps = steps
        self.limit = limit
        self.replay = replay
        self.rates: list[float] = []
        self.seconds = 0.0
        self._bytes = 0
        self._started = 0.0

    @property
    def steps_made(self) -> int:
        return len(self.rates)

    @property
    def bytes_per_second(self) -> float:
        return self._bytes / max(self.seconds, 1e-9)

    def on_train_start(self, logs: dict[str, Any]) -> None:
        self._started = time.perf_counter()

    def on_batch_start(self, batch: int, logs: dict[str, Any]) -> None:
        if self.replay is not None:
            rate = self.replay[batch]
        else:
            done = max(batch / self.steps, (time.perf_counter() - self._started) / self.limit)
            logs["trainer"].model.reads_memory = done >= JOINING_SHARE
            cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
            rate = LEARNING_RATE * (FINAL_SHARE + (1.0 - FINAL_SHARE) * cosine)
            rate *= min(1.0, (batch + 1) / WARMUP_STEPS)
        self.rates.append(rate)
        for group in logs["trainer"].optimizer.param_groups:
            group["lr"] = rate

    def on_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        self.seconds = time.perf_counter() - self._started
        self._bytes += logs["counted"]
        if self.seconds >= self.limit:
            logs["stop_training"] = True


def _model(memory: AESGMemory | None) -> AESGDecoderLM:
    size = TEXT_SIZES["small"]
    return AESGDecoderLM(VOCABULARY, size.hidden_size, size.num_layers, memory)


def _seeded_model(seed: int, storage_dir: Path | None) -> AESGDecoderLM:
    torch.manual_seed(seed)
    return AESGDecoderLM.small(VOCABULARY, storage_dir=storage_dir)


def make_trainer(model: AESGDecoderLM, schedule: Schedule | None = None) -> AESGTrainer:
    """A trainer on the device where the model is."""
    callbacks, device = [] if schedule is None else [schedule], next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The model has no AESGMemory")  # the baseline: on purpose
        return AESGTrainer(model, optimizer, callbacks=callbacks, device=device)


def _training_stream(corpus: Corpus, options: argparse.Namespace, steps: int) -> StreamLoader:
    streams = min(options.batch_size, len(corpus.train))
    return StreamLoader(
        corpus.train, streams, options.chunk, shuffle=True, seed=options.seed, drop_last=True, max_steps=steps
    )


def _bytes_needed(options: argparse.Namespace) -> int:
    """Enough to train on without reading a file twice, and ten times what is held out."""
    return max(2 * options.steps * options.batch_size * options.chunk, 10 * options.held_out, 1_000_000)


def _held_out_stream(corpus: Corpus, options: argparse.Namespace) -> StreamLoader:
    each = options.held_out // (2 * options.batch_size)  # so that the streams end about together
    texts = openings(corpus.held_out, options.held_out, each)
    return StreamLoader(texts, options.batch_size, options.chunk)


def _counts(memory: AESGMemory) -> dict[str, int]:
    stats = memory.stats()
    return {name: int(stats[name]) for name in ("concepts", "active", "edges")}


def _fresh_directory(out: Path) -> Path:
    """`out`, emptied when an earlier demo left it. Raises AESGStorageError when it holds anything else."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        # Names alone prove nothing: a user's folder may well be called "memory".
        if not (out / MARKER).is_file():
            raise AESGStorageError(f"Expected nothing or an earlier demo at '{out}', found something else")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("Made by `aesg demo`, which empties this folder when it is run again.\n")
    return out.resolve()


def say(text: str) -> None:
    print(text, flush=True)
