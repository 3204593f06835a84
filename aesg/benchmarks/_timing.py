"""What every benchmark shares: timing contestants in turn, the table, the machine, the JSON file."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import aesg
from aesg.benchmarks._device import seconds_of, synchronize
from aesg.tools.files import write_text


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant's runs."""

    median: float
    low: float  # 10th percentile
    high: float  # 90th percentile
    runs: int


def time_in_turn(
    contestants: Mapping[str, Callable[[], object]],
    seconds: float = 1.0,
    least: int = 5,
    device: str = "cpu",
) -> dict[str, Timing]:
    """Runs the contestants one after the other, again and again: disturbances meet them all alike.

    Stops after `seconds` a contestant, but not before `least` rounds. A run shorter than a millisecond is
    repeated inside one measurement. On a device, runs of one measurement queue up, and its events are read.
    """
    repeats: dict[str, int] = {}
    for name, run in contestants.items():
        run()  # warm: caches, lazy initialisation
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        repeats[name] = max(1, int(1e-3 / max(time.perf_counter() - start, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = time.perf_counter()
        while True:
            for name, run in contestants.items():
                run()  # brings back what the others pushed out of the caches
                samples[name].append(seconds_of(run, repeats[name], device))
            rounds = len(next(iter(samples.values())))
            if rounds >= least and time.perf_counter() - began > seconds * len(contestants):
                break
    finally:
        if collecting:
            gc.enable()
    return {name: _timing(values) for name, values in samples.items()}


def _timing(values: Sequence[float]) -> Timing:
    ordered = sorted(values)
    last = len(ordered) - 1
    return Timing(
        statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)], len(ordered)
    )


def machine() -> dict[str, Any]:
    """What a figure must be read with."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "aesg": aesg.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "revision": _revision(),
    }


def _revision() -> str | None:
    """The git revision of the sources, with a + when they were changed; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def print_case(title: str, timings: Mapping[str, Timing], unit: float, unit_name: str) -> None:
    """One table: each contestant's median and spread in `unit`s, and how many times ours it takes."""
    print(f"\n{title}")
    ours = next(iter(timings.values())).median
    print(f"  {'':28} {'median':>10} {'10 %':>10} {'90 %':>10}  {unit_name:12} {'x ours':>7} {'runs':>5}")
    for name, t in timings.items():
        values = " ".join(f"{value / unit:10.2f}" for value in (t.median, t.low, t.high))
        print(f"  {name:28} {values}  {unit_name:12} {t.median / ours:7.2f} {t.runs:5d}")


def write_json(
    path: str | None,
    name: str,
    options: argparse.Namespace,
    cases: list[dict[str, Any]],
    ceilings: Mapping[str, float] | None = None,
    done: bool = True,
) -> None:
    """Cases with their timings, the options, the machine and what it can do to `path` (None: nothing), as a
    whole. `done=False`: more will follow; what ends the run then leaves those there are.
    """
    if path is None:
        return
    record: dict[str, Any] = {"benchmark": name, "machine": machine(), "options": vars(options)}
    if ceilings is not None:
        record["ceilings"] = dict(ceilings)
    record["cases"] = cases
    write_text(path, json.dumps(record, indent=2) + "\n")
    if done:
        print(f"\nwritten: {path}")


def as_json(timings: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    return {name: asdict(timing) for name, timing in timings.items()}


def integers(text: str) -> list[int]:
    """ "1,32,1e6" as a list, for command lines."""
    return [int(float(part)) for part in text.split(",")]
