"""What a GPU is to reach, as data, and whether results do: met, missed, or not measured and why.

A figure has the form of docs/evidence: {"mean", "half_width_95", "values", "aim", "reached"}, so a results
file is a table for `aesg.benchmarks._report` too.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ENOUGH_CALLS = 1000  # for a 99th percentile
TABLE_BEGIN, TABLE_END = "<!-- gpu table: {} -->", "<!-- end of gpu table -->"

Path = tuple[str, ...]  # keys that lead to a number in a case, or to several, whose median counts


class Target(NamedTuple):
    """One figure of one benchmark, and its bar."""

    figure: str
    benchmark: str
    case: Mapping[str, Any]  # what the case must say of itself
    of: Path
    bound: str  # ">=" or "<="
    bar: float
    over: Path | None = None  # what `of` is divided by
    scale: float = 1.0
    unit: str = "x"


_SEEDS = {"n": 1_000_000, "dim": 64, "k": 10}
_MILLION = {"n": 1_000_000}
_OURS, _TORCH = ("seconds", "aesg.seed_search", "median"), ("seconds", "torch matmul + topk", "median")
_SPREAD = ("seconds", "aesg.spread_activation, cuda", "median")
_SPARSE = ("seconds", "torch.sparse, another rule", "median")
_ALL = {"n": 1_000_000, "hops": 4}
_STEP = {"model": "AESGTransformer", "size": "small", "what": "training step"}
_BORN = ("births a second", "aesg, born and searched")

# One GPU, one run, a million concepts of 64 dimensions, K=10.
TARGETS: tuple[Target, ...] = (
    # The fused search against the product and the selection, one after the other, on the same device.
    Target(
        "exact search, B=256: torch over ours", "seeds", {**_SEEDS, "batch": 256}, _TORCH, ">=", 10, _OURS
    ),
    Target(
        "exact search, B=4096: torch over ours", "seeds", {**_SEEDS, "batch": 4096}, _TORCH, ">=", 10, _OURS
    ),
    Target("exact search, B=1: torch over ours", "seeds", {**_SEEDS, "batch": 1}, _TORCH, ">=", 3, _OURS),
    # One query reads all vectors: near the bandwidth that the same run measured.
    Target(
        "exact search, B=1: of the read bandwidth", "seeds", {**_SEEDS, "batch": 1},
        ("roofline", "of", "read"), ">=", 70, scale=100, unit="%",
    ),
    # Degree 8, four hops, against hops as products with a sparse matrix.
    Target(
        "spreading, 4 hops, B=4096: torch.sparse over ours", "spread",
        {**_MILLION, "graph": "random", "hops": 4, "batch": 4096}, _SPARSE, ">=", 20, _SPREAD,
    ),
    # Hops cost little beside the search.
    Target(
        "retrieve, B=4096: 4 hops over 0 hops", "retrieve", {**_ALL, "batch": 4096},
        ("times 0 hops",), "<=", 1.25,
    ),
    # A call by itself, and replayed in a captured graph.
    Target(
        "retrieve, B=1, 4 hops: p99", "retrieve", {**_ALL, "batch": 1},
        ("seconds", "aesg", "p99"), "<=", 150, scale=1e6, unit="us",
    ),
    Target(
        "retrieve, B=4096, 4 hops: p50", "retrieve", {**_ALL, "batch": 4096},
        ("seconds", "aesg", "p50"), "<=", 3, scale=1e3, unit="ms",
    ),
    Target(
        "retrieve in a graph, B=1, 4 hops: p99", "retrieve", {**_ALL, "batch": 1},
        ("captured", "p99"), "<=", 150, scale=1e6, unit="us",
    ),
    Target(
        "retrieve in a graph, B=4096, 4 hops: p50", "retrieve", {**_ALL, "batch": 4096},
        ("captured", "p50"), "<=", 3, scale=1e3, unit="ms",
    ),
    # What a memory costs a model that trains.
    Target(
        "AESGTransformer.small, a step with 100,000 concepts over one without", "train", _STEP,
        ("results", "100,000 concepts", "ms"), "<=", 1.3, ("results", "plain", "ms"),
    ),
    # Born, and found by the very next search.
    Target(
        "births a second and searched, 256 at a time", "insert", {**_MILLION, "at a time": 256},
        _BORN, ">=", 1e6, unit="",
    ),
    Target(
        "births a second and searched, 4096 at a time", "insert", {**_MILLION, "at a time": 4096},
        _BORN, ">=", 1e6, unit="",
    ),
    # The same by nothing but asking; what else a call teaches costs little beside its answer.
    Target(
        "births by asking, 4096 at a time: a second", "learn", {**_MILLION, "batch": 4096},
        ("births a second", "until the device is done"), ">=", 1e6, unit="",
    ),
    Target(
        "retrieve that learns, B=4096: over one that does not", "learn", {**_MILLION, "batch": 4096},
        ("seconds", "learning", "p50"), "<=", 1.5, ("seconds", "not learning", "p50"),
    ),
    Target(
        "retrieve that learns, in a graph, B=4096: over one that does not", "learn",
        {**_MILLION, "batch": 4096},
        ("captured", "learning", "p50"), "<=", 1.5, ("captured", "not learning", "p50"),
    ),
)  # fmt: skip


class Missing(Exception):
    """Why a figure is not there."""


def value_of(target: Target, benchmarks: Mapping[str, Any], any_size: bool = False) -> float:
    """The figure in what benchmarks wrote, by their names. `any_size`: whatever N was. Raises Missing."""
    record = benchmarks.get(target.benchmark)
    if record is None:
        raise Missing(f"{target.benchmark} left no results")
    asked = {key: value for key, value in target.case.items() if not (any_size and key == "n")}
    for case in record["cases"]:
        if all(case.get(key) == value for key, value in asked.items()):
            found = _number(case, target.of)
            return target.scale * found / (1.0 if target.over is None else _number(case, target.over))
    raise Missing(f"{target.benchmark} has no case of {asked}")


def _number(case: Mapping[str, Any], path: Path) -> float:
    found: Any = case
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            reason = found if isinstance(found, str) else f"no {key!r} in {path}"
            raise Missing(reason)
        if key == "p99" and found.get("calls", 0) < ENOUGH_CALLS:
            raise Missing(f"{found.get('calls', 0)} calls: too few for a 99th percentile")
        found = found[key]
    return float(statistics.median(found)) if isinstance(found, Sequence) else float(found)


def check(
    benchmarks: Mapping[str, Any], aims: bool = True, any_size: bool = False
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Every figure that was measured, with its aim, how it stands to it ("ratio", at least 1 where it is
    reached) and whether it is; and why the others were not. Without `aims` the figures alone.
    """
    figures: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for target in TARGETS:
        try:
            value = value_of(target, benchmarks, any_size)
        except Missing as reason:
            missing[target.figure] = str(reason)
            continue
        row: dict[str, Any] = {"mean": value, "half_width_95": None, "values": [value], "unit": target.unit}
        if aims:
            least = target.bound == ">="
            bar = f"{target.bar:,.0f}" if target.bar >= 1000 else f"{target.bar:g}"
            row["aim"] = f"{target.bound} {bar} {target.unit}".strip()
            row["reached"] = value >= target.bar if least else value <= target.bar
            row["ratio"] = value / target.bar if least else target.bar / value
        figures[target.figure] = row
    return figures, missing


def told(figures: Mapping[str, Mapping[str, Any]], missing: Mapping[str, str]) -> str:
    """The same for a terminal, a line a figure, and how many there are of each."""
    lines = []
    for name, row in figures.items():
        verdict = ""
        if "aim" in row:
            verdict = f"  {row['aim']:>14}  {'met' if row['reached'] else 'MISSED':6} ({row['ratio']:.2f} x)"
        lines.append(f"  {name:70} {_shown(row):>14}{verdict}")
    lines += [f"  {name:70} not measured: {reason}" for name, reason in missing.items()]
    met = sum(bool(row.get("reached")) for row in figures.values())
    missed = sum("aim" in row for row in figures.values()) - met
    return "\n".join([*lines, f"targets: {met} met, {missed} missed, {len(missing)} not measured"])


def as_markdown(record: Mapping[str, Any]) -> str:
    """README's table of a results file: where and when, every figure, its aim, and how it stands to it."""
    machine, gpu = record["machine"], record["machine"].get("gpu_facts") or {}
    where = [gpu.get("name", machine["cpu"])]
    where += [f"driver {gpu['driver']}"] if "driver" in gpu else []
    where += [f"torch {machine['torch']}", f"revision {machine['revision']}", record["date"][:10]]
    lines = [", ".join(where) + ":", "", "| | measured | aim | |", "|---|--:|--:|---|"]
    for name, row in record["figures"].items():
        verdict = "" if "aim" not in row else "met" if row["reached"] else "missed"
        lines.append(f"| {name} | {_shown(row)} | {row.get('aim', '')} | {verdict} |")
    lines += [f"| {name} | not measured | | |" for name in record["not_measured"]]
    return "\n".join(lines) + "\n"


def _shown(row: Mapping[str, Any]) -> str:
    value = row["mean"]
    digits = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{digits} {row['unit']}".strip()
