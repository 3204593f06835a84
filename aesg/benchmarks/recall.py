"""What the graph is worth: recall over hops, latest values, reopening, a budget, a long life.

`python -m aesg bench recall` measures every task over several seeds, beside its controls, and prints means
with 95 % intervals. A figure with an aim is marked where it is missed, and the exit code is 1 then. With
--out, recall.json and recall.md hold what was measured; tasks that recall.json holds already for the same
seeds are not measured again, so that a run that was broken off goes on. With `--device cuda` memories and the
networks beside them are there; controls by nearest neighbours are the host's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aesg.benchmarks._budget import digits_at_a_budget
from aesg.benchmarks._device import add_device
from aesg.benchmarks._facts import TOLD, associative_recall, latest_value
from aesg.benchmarks._long_life import long_life
from aesg.benchmarks._measure import environment, interval
from aesg.benchmarks._reopening import across_processes
from aesg.tools.files import write_text

Figures = dict[str, float]


@dataclass(frozen=True)
class Task:
    """One table. `run(directory, seed)` measures one seed; `aims`: (figure, "<" or ">", bound) of means."""

    title: str
    run: Callable[[Path, int], Figures]
    aims: tuple[tuple[str, str, float], ...] = ()


def tasks(short: bool, device: str = "cpu") -> dict[str, Task]:
    """All tasks by name; `short`: small enough for a test. `device`: where memories are."""
    facts, written, keys, inputs = (60, 60, 60, 20_000) if short else (1_000, 10_000, 1_000, 1_000_000)
    recalled = (("1 hops", ">", 0.95), ("3 hops", ">", 0.90))
    return {
        "facts": Task(
            f"{facts:,} facts told {TOLD} times, noise 0.1: is what lies so many facts away in the context?",
            lambda directory, seed: associative_recall(directory, facts, 0.1, seed, device=device),
            recalled,
        ),
        "noisy_facts": Task(
            f"{facts:,} facts, noise 0.1 on each of 64 components (0.8 in all), threshold 0.55",
            lambda directory, seed: associative_recall(
                directory, facts, 0.8, seed, threshold=0.55, device=device
            ),
            recalled,
        ),
        "latest": Task(
            f"{keys:,} keys get a new value twice: is the answer the latest?",
            lambda directory, seed: latest_value(directory, keys, 0.1, seed, device),
            (("stale, told once", "<", 0.01), (f"stale, told {TOLD} times", "<", 0.01)),
        ),
        "processes": Task(
            f"{written:,} facts written by one process, asked for by another",
            lambda directory, seed: across_processes(directory, written, seed, device),
            (("same bits", ">", 1.0), ("right after reopening, 2 hops", ">", 0.95)),
        ),
        "budget": Task(
            "digits, two classes at a time, at most 100 concepts, no replay: accuracy on all ten",
            lambda directory, seed: digits_at_a_budget(directory, seed, device),
            (("memory", ">", 0.96), ("concepts", "<", 100)),
        ),
        "long_life": Task(
            f"{inputs:,} inputs of a drifting stream through a memory of 1,024 concepts",
            lambda directory, seed: long_life(directory, inputs, seed, device),
            (
                ("recall of the recent", ">", 0.95),
                ("recall of the often used", ">", 0.95),
                ("concepts per pattern", "<", 1.1),
                ("most concepts", "<", 1024),
                ("findings of check()", "<", 0),
            ),
        ),
    }


def measure(
    name: str, short: bool, seeds: Sequence[int], jobs: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """The figures of every seed, each in a directory of its own; `jobs` of them at a time."""
    if jobs == 1:
        results = [measure_seed(name, short, device, seed) for seed in seeds]
    else:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            results = list(pool.map(partial(measure_seed, name, short, device), seeds))
    return {figure: [result[figure] for result in results] for figure in results[0]}


def measure_seed(name: str, short: bool, device: str, seed: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="aesg-recall-") as directory:
        return tasks(short, device)[name].run(Path(directory) / "memory", seed)


def summarize(task: Task, found: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Mean, interval, single values and, where there is one, the aim of every figure."""
    aims = {name: (sign, bound) for name, sign, bound in task.aims}
    rows: dict[str, dict[str, Any]] = {}
    for name, values in found.items():
        mean, half = interval(values)
        rows[name] = {"mean": mean, "half_width_95": half, "values": values}
        if name in aims:
            sign, bound = aims[name]
            reached = mean >= bound if sign == ">" else mean <= bound
            rows[name] |= {"aim": f"{sign}= {bound:g}", "reached": reached}
    return rows


def print_table(title: str, rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{title}")
    for name, row in rows.items():
        aim = "" if "aim" not in row else f"  aim {row['aim']}{'' if row['reached'] else '  MISSED'}"
        print(f"  {name:42} {row['mean']:10.4f} +- {row['half_width_95']:.4f}{aim}")


def as_markdown(record: dict[str, Any]) -> str:
    """The record as tables that can be read."""
    machine = ", ".join(f"{name} {value}" for name, value in record["environment"].items())
    seeds = record["seeds"]
    lines = [
        f"# aesg bench recall, seeds {seeds[0]} to {seeds[-1]}",
        "",
        "Means and 95 % intervals. " + machine,
    ]
    for name, task in record["tasks"].items():
        lines += [
            "",
            f"## {name}",
            "",
            task["title"],
            "",
            "| figure | mean | +- | aim |",
            "|---|---|---|---|",
        ]
        for figure, row in task["figures"].items():
            aim = "" if "aim" not in row else row["aim"] + (", reached" if row["reached"] else ", MISSED")
            lines.append(f"| {figure} | {row['mean']:.4f} | {row['half_width_95']:.4f} | {aim} |")
    return "\n".join(lines) + "\n"


def measured_before(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The tasks that a file holds for the same seeds, sizes and environment."""
    if not path.exists():
        return {}
    there = json.loads(path.read_text())
    same = all(there.get(name) == record[name] for name in ("environment", "seeds", "short"))
    return dict(there["tasks"]) if same else {}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, writes recall.json and recall.md below --out. Returns 0 when every aim is reached,
    else 1.
    """
    names = list(tasks(short=True))
    parser = argparse.ArgumentParser(prog="aesg bench recall", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small tasks, for tests")
    parser.add_argument("--seeds", type=int, default=None, help="how many, default 5 (--short: 2)")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="e.g. 10: none that a setting was chosen on"
    )
    parser.add_argument("--jobs", type=int, default=1, help="seeds measured at a time")
    parser.add_argument("--tasks", nargs="+", choices=names, default=names)
    add_device(parser)
    parser.add_argument("--out", type=Path, default=None, help="directory for recall.json and recall.md")
    options = parser.parse_args(argv)
    count = options.seeds or (2 if options.short else 5)
    seeds = range(options.first_seed, options.first_seed + count)
    record: dict[str, Any] = {
        "environment": environment(options.device),
        "seeds": list(seeds),
        "short": options.short,
    }
    path = None if options.out is None else options.out / "recall.json"
    record["tasks"] = {} if path is None else measured_before(path, record)
    reached = True
    for name in options.tasks:
        task = tasks(options.short)[name]
        if name not in record["tasks"]:
            began = time.perf_counter()
            found = measure(name, options.short, seeds, options.jobs, options.device)
            figures = summarize(task, found)
            seconds = time.perf_counter() - began
            record["tasks"][name] = {"title": task.title, "seconds": seconds, "figures": figures}
        done = record["tasks"][name]
        print_table(f"{name}: {done['title']} ({count} seeds, {done['seconds']:.0f} s)", done["figures"])
        reached &= all(row.get("reached", True) for row in done["figures"].values())
        if path is not None:
            write_text(path, json.dumps(record, indent=2) + "\n")
            write_text(path.with_suffix(".md"), as_markdown(record))
    if path is not None:
        print(f"\nwritten: {path}, {path.with_suffix('.md')}")
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
