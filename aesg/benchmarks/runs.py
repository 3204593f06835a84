"""`aesg bench runs`: saving and recalling in a store of runs, beside mlflow's file and SQLite stores.

Rows: 1,000 small artifacts and 10,000 events, each its own save as in training; `best` over 100,000 artifacts
and `recent` over 1,000,000 events, median of single calls. mlflow has no call for the last two; beside them
stands its `get_metric_history`, which reads all of a metric. mlflow does not sync its files; "aesg, unsynced"
promises as much as it does.
"""

from __future__ import annotations

import argparse
import json
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
from aesg.runs import Store

SIZES = {"artifacts": 1_000, "events": 10_000, "best_over": 100_000, "recent_over": 1_000_000}
SHORT = {"artifacts": 10, "events": 50, "best_over": 500, "recent_over": 2_000}
PEER_EVENTS = 1_000  # of mlflow, whose figure is scaled: its 10,000 take minutes
CALLS = 200
TARGETS = {"best": 0.010, "recent": 0.002}  # seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and prints its table; 1 when what was recalled is not what was saved."""
    parser = argparse.ArgumentParser(prog="aesg bench runs", description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--out", metavar="DIR", help="write runs.json there")
    parser.add_argument("--no-mlflow", action="store_true")
    options = parser.parse_args(argv)
    sizes = SHORT if options.short else SIZES
    scratch = Path(tempfile.mkdtemp(prefix="aesg-bench-runs-"))
    try:
        seconds: dict[str, dict[str, float]] = {
            "aesg": _saving(scratch / "synced", sizes, True),
            "aesg, unsynced": _saving(scratch / "unsynced", sizes, False),
        }
        recalled, correct = _recalling(scratch / "large", sizes)
        seconds["aesg"].update(recalled)
        peer = "left out" if options.no_mlflow else _mlflow_version()
        if peer and not options.no_mlflow:
            for name, uri in (("mlflow file", "mlruns"), ("mlflow sqlite", "mlflow.db")):
                seconds[name] = _mlflow(scratch / name.replace(" ", "_"), uri, sizes)
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


def _saving(root: Path, sizes: dict[str, int], sync: bool) -> dict[str, float]:
    """Seconds to save all artifacts and events, one after the other."""
    with Store(root, sync=sync) as store, store.run("saving") as run:
        artifacts, memory = run.artifacts(), run.memory()
        started = time.perf_counter()
        for number in range(sizes["artifacts"]):
            artifacts.save_text(f"artifact {number}", kind="k", labels={"n": number}, metrics={"m": number})
        saved = time.perf_counter()
        for number in range(sizes["events"]):
            memory.record("log", data={"step": number}, metrics={"loss": 1 / (number + 1)})
        ended = time.perf_counter()
        assert len(artifacts.list()) == sizes["artifacts"]
    return {"artifacts": saved - started, "events": ended - saved}


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


def _mlflow(root: Path, name: str, sizes: dict[str, int]) -> dict[str, float]:
    """The same saves through mlflow: an artifact is a logged file with a metric, an event a metric."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    root.mkdir()
    is_database = name.endswith(".db")
    client = MlflowClient(tracking_uri=f"sqlite:///{root / name}" if is_database else (root / name).as_uri())
    experiment = client.create_experiment("bench", artifact_location=(root / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "warm", 0.0)
    started = time.perf_counter()
    for number in range(sizes["artifacts"]):
        path = root / f"artifact{number}.txt"
        path.write_text(f"artifact {number}")
        client.log_artifact(run_id, str(path), f"k{number}")
        client.log_metric(run_id, f"m{number}", number)
    saved = time.perf_counter()
    events = min(sizes["events"], PEER_EVENTS)
    for number in range(events):
        client.log_metric(run_id, "loss", 1 / (number + 1), step=number)
    ended = time.perf_counter()
    history, _ = _median(lambda: client.get_metric_history(run_id, "loss"), 3)
    return {
        "artifacts": saved - started,
        "events": (ended - saved) * sizes["events"] / events,
        f"history of {events:,}": history,
    }


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
    print(", ".join(f"{name} {value:,}" for name, value in report["sizes"].items()))
    for contestant, figures in report["seconds"].items():
        print(contestant)
        for name, value in figures.items():
            shown = f"{value * 1e3:,.3f} ms" if value < 1 else f"{value:,.2f} s"
            target = f"  (target {TARGETS[name] * 1e3:g} ms)" if name in TARGETS else ""
            print(f"  {name:24} {shown:>14}{target}")
