"""Reports of benchmarks as artifacts of a run."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aesg.exceptions import AESGStorageError
from aesg.runs.records import Artifact
from aesg.runs.run import Node
from aesg.runs.store import Store

KIND = "report"


def save_report(run: Node, name: str, report: Any) -> Artifact:
    """Saves a report as JSON, kind "report", label benchmark=name; its finite numbers become metrics, named
    by their path in it, as "cases.0.seconds".
    """
    return run.artifacts().save_json(report, kind=KIND, labels={"benchmark": name}, metrics=numbers(report))


def main(argv: Sequence[str]) -> int:
    """`aesg bench NAME ... --record DIR ...`: the benchmark inside a run "bench NAME" of the store in DIR."""
    name, *rest = argv
    place = rest.index("--record")
    benchmark = importlib.import_module(f"aesg.benchmarks.{name}").main
    return record_benchmark(rest[place + 1], name, benchmark, [*rest[:place], *rest[place + 2 :]])


def record_benchmark(root: str, name: str, benchmark: Callable[[list[str]], int], argv: Sequence[str]) -> int:
    """Runs a benchmark's `main`; every JSON file it writes to its `--out` is saved as a report of the run,
    and stays where it is when the caller named the folder. Returns the benchmark's exit code.
    """
    with Store(root) as store, store.run(f"bench {name}", params={"argv": list(argv)}) as run:
        arguments = list(argv)
        if "--out" in arguments[:-1]:
            out = Path(arguments[arguments.index("--out") + 1])
        else:
            out = store.temporary_directory()
            arguments += ["--out", str(out)]
        before = _reports(out)
        code = benchmark(arguments) or 0
        for path, changed in _reports(out).items():
            if before.get(path) != changed:
                try:
                    report = json.loads(path.read_text("utf-8"))
                except (OSError, ValueError) as error:
                    raise AESGStorageError(f"Expected a JSON report at '{path}': {error}") from None
                run.artifacts().save_file(path, KIND, {"benchmark": name}, numbers(report))
        run.memory().record("bench_end", data={"code": code})
        return code


def numbers(value: Any, path: str = "") -> dict[str, float]:
    """Every finite number in nested mappings and lists, by its dotted path."""
    if isinstance(value, bool) or value is None:
        return {}
    if isinstance(value, (int, float)):
        return {path: value} if path and math.isfinite(value) else {}
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(place), item) for place, item in enumerate(value)]
    else:
        return {}
    return {
        name: number
        for key, item in items
        for name, number in numbers(item, f"{path}.{key}" if path else key).items()
    }


def _reports(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.glob("*.json")} if out.is_dir() else {}
