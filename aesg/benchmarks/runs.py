"""`aesg bench runs`: saving and recalling in a store of runs, beside mlflow's file and SQLite stores.

Rows: 1,000 small artifacts and 10,000 events, each its own save as in training, in parts that all contestants
do in turn, so that a busy moment meets them all; `best` over 100,000 artifacts and `recent` over 1,000,000
events, median of single calls. mlflow has no call for the last two; beside them stands its
`get_metric_history`, which reads all of a metric. mlflow does not sync its files; "aesg, unsynced" promises
as much as it does.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aesg
from aesg.benchmarks._device import add_device
from aesg.runs import Store

SIZES = {"artifacts": 1_000, "events": 10_000, "best_over": 100_000, "recent_over": 1_000_000}
SHORT = {"artifacts": 10, "events": 50, "best_over": 500, "recent_over": 2_000}
PARTS = 10
CALLS = 200
TARGETS = {"best": 0.010, "recent": 0.002}  # seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and prints its table; 1 when what was recalled is not what was saved."""
    parser = argparse.ArgumentParser(prog="aesg bench runs", description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--out", metavar="DIR", help="write runs.json there")
    parser.add_argument("--no-mlflow", action="store_true")
    add_device(parser, nothing="it times files")
    options = parser.parse_args(argv)
    sizes = SHORT if options.short else SIZES
    scratch = Path(tempfile.mkdtemp(prefix="aesg-bench-runs-"))
    try:
        contestants: dict[str, Contestant] = {
            "aesg": Ours(scratch / "synced", True),
            "aesg, unsynced": Ours(scratch / "unsynced", False),
        }
        peer = "left out" if options.no_mlflow else _mlflow_version()
        if peer and not options.no_mlflow:
            contestants["mlflow file"] = Mlflow(scratch / "mlflow_file", "mlruns")
            contestants["mlflow sqlite"] = Mlflow(scratch / "mlflow_sqlite", "mlflow.db")
        seconds = _saving(contestants, sizes)
        recalled, correct = _recalling(scratch / "large", sizes)
        seconds["aesg"].update(recalled)
        for name, contestant in contestants.items():
            seconds[name].update(contestant.end(sizes))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report = {"benchmark": "runs", "environment": _environment(peer), "sizes": sizes, "seconds": seconds}
    report["targets_met"] = {name: seconds["aesg"][name] < limit for name, limit in TARGETS.items()}
    _print(report)
    if options.out:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        path = Path(options.out, "runs.json")
        path.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written: {path}")
    return 0 if correct else 1


class Ours:
    """A run of ours."""

    share_of_events = 1

    def __init__(self, root: Path, sync: bool) -> None:
        self.store = Store(root, sync=sync)
        self.run = self.store.run("saving")
        self.artifacts, self.memory = self.run.artifacts(), self.run.memory()

    def save(self, number: int) -> None:
        self.artifacts.save_text(f"artifact {number}", kind="k", labels={"n": number}, metrics={"m": number})

    def record(self, number: int) -> None:
        self.memory.record("log", data={"step": number}, metrics={"loss": 1 / (number + 1)})

    def end(self, sizes: dict[str, int]) -> dict[str, float]:
        assert len(self.artifacts.list()) == sizes["artifacts"]
        assert self.run.info().events == sizes["events"]
        self.run.finish()
        self.store.close()
        return {}


class Mlflow:
    """The same through mlflow: an artifact is a logged file with a metric, an event a metric."""

    share_of_events = 10  # does every tenth only, in each part of the work; its figure is multiplied

    def __init__(self, root: Path, name: str) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        from mlflow.tracking import MlflowClient

        root.mkdir()
        self.root = root
        uri = f"sqlite:///{root / name}" if name.endswith(".db") else (root / name).as_uri()
        self.client = MlflowClient(tracking_uri=uri)
        place = self.client.create_experiment("bench", artifact_location=(root / "artifacts").as_uri())
        self.run_id = self.client.create_run(place).info.run_id
        self.client.log_metric(self.run_id, "warm", 0.0)

    def save(self, number: int) -> None:
        path = self.root / f"artifact{number}.txt"
        path.write_text(f"artifact {number}")
        self.client.log_artifact(self.run_id, str(path), f"k{number}")
        self.client.log_metric(self.run_id, f"m{number}", number)

    def record(self, number: int) -> None:
        self.client.log_metric(self.run_id, "loss", 1 / (number + 1), step=number)

    def end(self, sizes: dict[str, int]) -> dict[str, float]:
        """Seconds to read a metric back."""
        seconds, history = _median(lambda: self.client.get_metric_history(self.run_id, "loss"), 3)
        return {f"history of {len(history):,}": seconds}


Contestant = Ours | Mlflow


def _saving(contestants: dict[str, Contestant], sizes: dict[str, int]) -> dict[str, dict[str, float]]:
    """Seconds of each to save all artifacts and to record all events, one after the other."""
    seconds = {name: {"artifacts": 0.0, "events": 0.0} for name in contestants}
    for what in ("artifacts", "events"):
        step = max(1, sizes[what] // PARTS)
        for first in range(0, sizes[what], step):
            numbers = range(first, min(first + step, sizes[what]))
            for name, contestant in contestants.items():
                share = contestant.share_of_events if what == "events" else 1
                do = contestant.record if what == "events" else contestant.save
                done = numbers[::share]
                started = time.perf_counter()
                for number in done:
                    do(number)
                seconds[name][what] += (time.perf_counter() - started) * len(numbers) / len(done)
    return seconds


def _recalling(root: Path, sizes: dict[str, int]) -> tuple[dict[str, float], bool]:
    """Median seconds of `best` and `recent` over a large store, and whether they answered rightly.

    The rows are put into the index in one transaction: a million single saves are not what is measured.
    """
    chance = random.Random(0)
    values = [chance.random() for _ in range(sizes["best_over"])]
    correct = True
    with Store(root, sync=False) as store, store.run("large") as run:
        place = run.place.run
        content = run.artifacts().save_text("content").uri.rpartition("/")[2]
        with store.index.write() as connection:
            first = connection.execute("SELECT max(seq) + 1 FROM artifacts").fetchone()[0]
            connection.executemany(
                "INSERT INTO artifacts VALUES(?, ?, ?, '', '', 'checkpoint', 0, ?, 7, '', '', '{}', ?, 0, 0)",
                (
                    (first + n, f"artifact-{n}", place, content, json.dumps({"val_loss": value}))
                    for n, value in enumerate(values)
                ),
            )
            connection.executemany(
                "INSERT INTO metrics VALUES('checkpoint', 'val_loss', ?, ?, ?, '', '')",
                ((value, first + n, place) for n, value in enumerate(values)),
            )
            connection.executemany(
                "INSERT INTO events(event_id, run, graph, node, kind, ts, tags, data) "
                "VALUES(?, ?, '', '', ?, 0, '[]', ?)",
                ((f"event-{n}", place, f"kind{n % 7}", f'{{"n":{n}}}') for n in range(sizes["recent_over"])),
            )
        seconds = {}
        for mode, scope, expected in (("min", "run", min(values)), ("max", "all", max(values))):
            timed, best = _median(lambda: run.artifacts().best("checkpoint", "val_loss", mode, scope))  # noqa: B023
            seconds["best" if scope == "run" else "best, all runs"] = timed
            correct &= best is not None and best.metrics == {"val_loss": expected}
        last = sizes["recent_over"] - 1
        for name, kinds in (("recent", None), ("recent, two kinds", ["kind1", "kind2"])):
            timed, events = _median(lambda: run.memory().recent(kinds, limit=20))  # noqa: B023
            seconds[name] = timed
            wanted = [n for n in range(last, -1, -1) if not kinds or f"kind{n % 7}" in kinds][:20]
            correct &= [event.data["n"] for event in events] == wanted[::-1]
    return seconds, correct


def _median(call: Callable[[], Any], calls: int = CALLS) -> tuple[float, Any]:
    """(median seconds, the last result)."""
    samples = []
    for _ in range(calls):
        started = time.perf_counter()
        result = call()
        samples.append(time.perf_counter() - started)
    return statistics.median(samples), result


def _mlflow_version() -> str | None:
    try:
        import mlflow
    except ImportError:
        return None
    return f"mlflow {mlflow.__version__}"


def _environment(peer: str | None) -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "peer": peer or "mlflow is not installed",
        "aesg": aesg.__version__,
    }


def _print(report: dict[str, Any]) -> None:
    print(", ".join(f"{name}: {value}" for name, value in report["environment"].items()))
    seconds = report["seconds"]
    print("".join(f"{name:>16}" for name in ("", *seconds)))
    for what in ("artifacts", "events"):
        figures = "".join(f"{each[what]:14.2f} s" for each in seconds.values())
        print(f"{report['sizes'][what]:7,} {what:8}{figures}")
    ours = seconds["aesg, unsynced"]
    for name in [name for name in seconds if name.startswith("mlflow")]:
        ratios = (f"{seconds[name][what] / ours[what]:.1f} times the {what}" for what in ours)
        print(f"{name} takes {', '.join(ratios)} of aesg, unsynced")
    for contestant, figures in seconds.items():
        for name, value in list(figures.items())[2:]:
            target, verdict = TARGETS.get(name), ""
            if target is not None:
                verdict = f"  target {target * 1e3:g} ms: {'met' if value < target else 'MISSED'}"
            over = report["sizes"][f"{name.split(',')[0]}_over"] if contestant == "aesg" else None
            size = "" if over is None else f" over {over:,}"
            print(f"{contestant}: {name}{size}: {value * 1e3:.3f} ms{verdict}")
