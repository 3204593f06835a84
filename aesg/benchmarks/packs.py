"""Whether a pack of knowledge helps a model that does not change: `python -m aesg bench packs`.

A byte-level language model is trained on one half of the standard library's packages and frozen. A memory
then reads the other half with it, and is exported as a pack. Bits a byte on the other half's held-out files
are compared with the pack, without it, with the same pack whose concepts have changed places, and after one
pass of fine-tuning on what the pack was made from; and those at home before attaching and after detaching.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from aesg.architectures.decoder_lm import AESGDecoderLM
from aesg.benchmarks._facts import shuffle_contents
from aesg.benchmarks._measure import environment, interval
from aesg.benchmarks._packages import halves
from aesg.data import StreamLoader
from aesg.tools.corpus import openings
from aesg.tools.demo import LEARNING_RATE, Schedule
from aesg.trainer import AESGTrainer

VOCABULARY = 256  # bytes
PRIORITY = 50
FINE_TUNING_RATE = LEARNING_RATE / 3
SHORT = {"steps": 15, "grow": 10, "streams": 4, "chunk": 32, "held_out": 3_000}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints tables, writes `packs.json` below --out. 0 when every seed's bits at home came back equal, else
    1."""
    parser = argparse.ArgumentParser(prog="aesg bench packs", description=__doc__)
    parser.add_argument("--seeds", type=int, default=None, help="how many, default 5 (--short: 2)")
    parser.add_argument("--steps", type=int, default=600, help="training steps at home")
    parser.add_argument("--grow", type=int, default=250, help="steps of reading that the pack is made from")
    parser.add_argument("--streams", type=int, default=16, help="files read in parallel")
    parser.add_argument("--chunk", type=int, default=128, help="bytes a stream and step")
    parser.add_argument("--held-out", type=int, default=60_000, help="held-out bytes of each half")
    parser.add_argument("--short", action="store_true", help="small, for tests")
    parser.add_argument("--out", type=Path, default=None, help="directory for packs.json")
    options = parser.parse_args(argv)
    if options.short:
        vars(options).update(SHORT)
    seeds = range(options.seeds or (2 if options.short else 5))
    found: dict[str, list[dict[str, float]]] = {}
    began = time.perf_counter()
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="aesg-packs-") as directory:
            for task, figures in measure(Path(directory), seed, options).items():
                found.setdefault(task, []).append(figures)
    titles = {
        "away": "Bits a byte on the other half's held-out files (less is better)",
        "home": "Bits a byte on held-out files of the half it was trained on",
        "pack": "The pack",
    }
    seconds = (time.perf_counter() - began) / len(titles)
    tasks = {
        name: {"title": titles[name], "seconds": seconds, "figures": _figures(runs)}
        for name, runs in found.items()
    }
    same = tasks["home"]["figures"]["difference after detaching"]
    same |= {"aim": "= 0", "reached": not any(same["values"])}
    for task in tasks.values():
        print(f"\n{task['title']} ({len(seeds)} seeds)")
        for name, row in task["figures"].items():
            half = "" if row["half_width_95"] is None else f" +- {row['half_width_95']:.4f}"
            missed = "" if row.get("reached", True) else "  MISSED"
            print(f"  {name:46} {row['mean']:12.4f}{half}{missed}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        record = {
            "environment": environment(),
            "seeds": list(seeds),
            "short": options.short,
            "about": f"AESGDecoderLM.small, {options.steps} steps of {options.streams} x {options.chunk} "
            f"bytes at home; a pack from {options.grow} steps away; {options.held_out:,} held-out bytes each",
            "tasks": tasks,
        }
        (options.out / "packs.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"\nwritten: {options.out / 'packs.json'}")
    return 0 if same["reached"] else 1


def measure(directory: Path, seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The figures of one seed."""
    home, away = halves(seed)
    sizes = {"batch_size": options.streams, "chunk": options.chunk}
    torch.manual_seed(seed)
    model = AESGDecoderLM.small(VOCABULARY, storage_dir=directory / "home")
    memory = model.memory
    assert memory is not None
    schedule = Schedule(options.steps)
    _trainer(model, LEARNING_RATE, schedule).fit(
        StreamLoader(home.train, **sizes, shuffle=True, seed=seed, drop_last=True, max_steps=options.steps),
        progress=None,
    )
    model.reads_memory = True
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    def reading() -> StreamLoader:
        """What the pack is made from and the fine-tuned model is trained on: the same bytes in one order."""
        return StreamLoader(away.train, **sizes, drop_last=True, max_steps=options.grow)

    files = _grow(directory, weights, reading(), seed)
    held_out = {
        name: openings(half.held_out, options.held_out, max(2, options.held_out // (2 * options.streams)))
        for name, half in (("home", home), ("away", away))
    }

    def bits(which: str, of: AESGDecoderLM = model) -> float:
        return _trainer(of, LEARNING_RATE).evaluate(StreamLoader(held_out[which], **sizes))[
            "loss"
        ] / math.log(2)

    at_home, without = bits("home"), bits("away")
    attached: dict[str, dict[str, float]] = {}
    for name, file in files.items():
        pack = memory.load_pack(file)
        memory.attach_pack(pack, priority=PRIORITY)
        attached[name] = {which: bits(which) for which in ("home", "away")}
        memory.detach_pack(pack.name)
    with model.reads_switched_off():
        unread = bits("away")
    detached = bits("home")
    tuned = _fine_tuned(model, reading())
    after_tuning = {which: bits(which, tuned) for which in ("home", "away")}
    size, concepts = files["pack"].stat().st_size, len(memory.load_pack(files["pack"]))
    memory.close()
    return {
        "away": {
            "with the pack": attached["pack"]["away"],
            "without it": without,
            "with the pack shuffled": attached["shuffled"]["away"],
            "no memory is read": unread,
            "after one pass of fine-tuning, no pack": after_tuning["away"],
            "difference, pack less none": attached["pack"]["away"] - without,
            "difference, pack less shuffled pack": attached["pack"]["away"] - attached["shuffled"]["away"],
        },
        "home": {
            "before": at_home,
            "with the pack": attached["pack"]["home"],
            "after detaching": detached,
            "after one pass of fine-tuning": after_tuning["home"],
            "difference after detaching": detached - at_home,
        },
        "pack": {"concepts": float(concepts), "bytes": float(size)},
    }


def _grow(directory: Path, weights: dict[str, Any], reading: StreamLoader, seed: int) -> dict[str, Path]:
    """A memory that reads with the frozen model, exported as it is and with its contents shuffled."""
    files = {name: directory / f"{name}.aesgpack" for name in ("pack", "shuffled")}
    model = AESGDecoderLM.small(VOCABULARY, storage_dir=directory / "away")
    model.load_state_dict(weights)
    model.eval()
    memory = model.memory
    assert memory is not None
    memory.set_mode("ONLINE")
    for batch in reading:
        memory.reset_state(batch.begins.nonzero()[:, 0].tolist())
        with torch.no_grad():
            model(batch.inputs)
        memory.update_topology()
    memory.export_pack(files["pack"])
    shuffle_contents(memory, torch.Generator().manual_seed(seed))
    memory.export_pack(files["shuffled"])
    memory.close()
    return files


def _fine_tuned(model: AESGDecoderLM, reading: StreamLoader) -> AESGDecoderLM:
    """A copy of the model trained on for one pass; its memory, that of home, is only read."""
    tuned = copy.deepcopy(model)
    memory = tuned.memory
    assert memory is not None
    _trainer(tuned, FINE_TUNING_RATE).fit(reading, progress=None, memory_mode="INFERENCE")
    return tuned


def _trainer(model: AESGDecoderLM, rate: float, schedule: Schedule | None = None) -> AESGTrainer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    return AESGTrainer(model, optimizer, callbacks=[] if schedule is None else [schedule])


def _figures(runs: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        mean, half = interval(values)
        figures[name] = {
            "mean": mean,
            "half_width_95": half if math.isfinite(half) else None,
            "values": values,
        }
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
