"""One report over several benchmarks, as report.md and as report.html that needs nothing but itself.

Every part is the JSON that a benchmark wrote: {"environment", "seeds", "short", "about"?, "tasks": {name:
{"title", "seconds", "options"?, "figures": {name: {"mean", "half_width_95", "values", "aim"?, "reached"?}}}},
"pictures"?: [paths beside the report]}.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from aesg.exceptions import AESGStorageError
from aesg.runs.reports import numbers
from aesg.tools.files import write_text

PLOT_WIDTH, ROW_HEIGHT, NAMES = 760, 24, 330


def write_report(directory: Path, parts: Mapping[str, dict[str, Any]], command: str) -> list[Path]:
    """Writes report.md and report.html below `directory`; returns their paths. Pictures are found there.

    Raises AESGStorageError.
    """
    return [
        write_text(directory / "report.md", as_markdown(parts, command)),
        write_text(directory / "report.html", as_html(parts, command, directory)),
    ]


def read_part(path: Path) -> dict[str, Any]:
    """What a benchmark wrote; of another shape than above, its numbers by their paths, without intervals.

    Raises AESGStorageError naming a file that is no JSON object.
    """
    try:
        part = json.loads(path.read_text("utf-8"))
        if not isinstance(part, dict):
            raise ValueError(f"a {type(part).__name__}")
    except (OSError, ValueError) as error:
        raise AESGStorageError(f"'{path}': expected a benchmark's JSON object, got: {error}") from error
    if "tasks" not in part and _is_table(part.get("figures")):  # one table, without a title
        part["tasks"] = {"figures": {"title": path.stem, "seconds": 0.0, "figures": part["figures"]}}
        part.setdefault("seeds", list(range(max(len(row["values"]) for row in part["figures"].values()))))
    tasks = part.get("tasks")
    if isinstance(tasks, dict) and all(
        isinstance(task, dict) and "title" in task and _is_table(task.get("figures"))
        for task in tasks.values()
    ):
        return part
    told = {key: value for key, value in part.items() if key != "environment"}
    figures: dict[str, dict[str, Any]] = {
        name: {"mean": value, "half_width_95": None, "values": []} for name, value in numbers(told).items()
    }
    return {
        "environment": part.get("environment", {}),
        "tasks": {"figures": {"title": "All figures", "seconds": 0.0, "figures": figures}},
    }


def _is_table(figures: Any) -> bool:
    """Whether these are figures by name, each with its mean and values."""
    return (
        isinstance(figures, dict)
        and len(figures) > 0
        and all(
            isinstance(row, dict) and isinstance(row.get("mean"), (int, float)) and "values" in row
            for row in figures.values()
        )
    )


def as_markdown(parts: Mapping[str, dict[str, Any]], command: str) -> str:
    lines = ["# What the memory is worth: measurements", "", f"`{command}`", "", *_summary(parts), ""]
    for name, part in parts.items():
        lines += [f"## {name}", ""]
        if part.get("about"):
            lines += [f"{part['about']}.", ""]
        lines += [_seeds(part), ""]
        if part.get("command"):
            lines += [f"`{part['command']}`", ""]
        for task in part["tasks"].values():
            lines += [
                f"### {task['title']}",
                "",
                *([f"`{_options(task)}`", ""] if task.get("options") else []),
                "| | mean | 95 % interval | seeds | aim |",
                "|---|---:|---:|---:|---|",
            ]
            for figure, row in task["figures"].items():
                cells = [
                    figure,
                    number(row["mean"]),
                    _interval(row),
                    str(len(row.get("values", [0]))),
                    _aim(row),
                ]
                lines.append("| " + " | ".join(cells).replace("\n", " ") + " |")
            lines.append("")
        lines += [f"![{path}]({path})" for path in part.get("pictures", [])]
        lines += [f"Environment: {_environment(part)}.", ""]
    return "\n".join(lines)


def as_html(parts: Mapping[str, dict[str, Any]], command: str, directory: Path) -> str:
    style = (resources.files("aesg.benchmarks") / "report.css").read_text("utf-8")
    body = [f"<h1>What the memory is worth</h1><p><code>{escape(command)}</code></p>"]
    body += [f"<p>{escape(line)}</p>" for line in _summary(parts)]
    for name, part in parts.items():
        body.append(f"<section><h2>{escape(name)}</h2>")
        about = f"{part['about']}. " if part.get("about") else ""
        body.append(f'<p class="soft">{escape(about + _seeds(part))}</p>')
        if part.get("command"):
            body.append(f"<p><code>{escape(part['command'])}</code></p>")
        for task in part["tasks"].values():
            options = f"<p><code>{escape(_options(task))}</code></p>" if task.get("options") else ""
            title = escape(task["title"])
            body.append(f"<div><h3>{title}</h3>{options}{_table(task)}{interval_plot(task)}</div>")
        pictures = [directory / path for path in part.get("pictures", [])]
        shown = "".join(_picture(path) for path in pictures if path.is_file())
        body.append(f"<div>{shown}</div>" if shown else "")
        body.append(f'<p class="soft">{escape(_environment(part))}</p></section>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>aesg: measurements</title><style>{style}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _options(task: dict[str, Any]) -> str:
    """The options of the run that made this table, as they were typed."""
    words = []
    for name, value in task["options"].items():
        if value is None or value is False:
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return " ".join(words)


def interval_plot(task: dict[str, Any]) -> str:
    """Means with intervals and single seeds on one scale, as SVG; "" where the figures share none.

    Differences, gains and counts are left to the table: beside the others they would squeeze the scale.
    """
    rows = {name: row for name, row in task["figures"].items() if _drawable(name, row)}
    if not rows:
        return ""
    sizes = sorted(abs(row["mean"]) for row in rows.values())
    if sizes[-1] > 1.5:  # not shares: only what is of like size fits on one scale
        middle = sizes[len(sizes) // 2]
        rows = {n: row for n, row in rows.items() if middle / 4 <= abs(row["mean"]) <= 4 * middle}
    if len(rows) < 2:
        return ""
    ends = [
        v
        for row in rows.values()
        for v in (*row["values"], row["mean"] - _half(row), row["mean"] + _half(row))
    ]
    low, high = min(ends), max(ends)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad

    def across(value: float) -> float:
        return NAMES + (value - low) / (high - low) * (PLOT_WIDTH - NAMES - 20)

    height = ROW_HEIGHT * len(rows) + 26
    parts = [f'<svg viewBox="0 0 {PLOT_WIDTH} {height}" role="img" aria-label="means and intervals">']
    for step in range(5):
        value = low + (high - low) * step / 4
        x = across(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 22}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{number(value)}</text>')
    for place, (name, row) in enumerate(rows.items()):
        y = ROW_HEIGHT * (place + 0.5)
        half = _half(row)
        parts.append(f'<text x="{NAMES - 14}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<line class="ci" x1="{across(row["mean"] - half):.1f}" x2="{across(row["mean"] + half):.1f}" '
            f'y1="{y}" y2="{y}"/>'
        )
        parts += [f'<circle class="one" cx="{across(v):.1f}" cy="{y}" r="3"/>' for v in row["values"]]
        parts.append(
            f'<circle class="mean" cx="{across(row["mean"]):.1f}" cy="{y}" r="4.5">'
            f"<title>{escape(name)}: {number(row['mean'])} {_interval(row)}</title></circle>"
        )
    return "".join(parts) + "</svg>"


def number(value: float) -> str:
    """Four digits that say something, and no noise."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return (
        f"{value:.4g}"
        if abs(value) < 1e-3
        else f"{value:.4f}".rstrip("0").rstrip(".")
        if abs(value) < 10
        else f"{value:.2f}"
    )


def _summary(parts: Mapping[str, dict[str, Any]]) -> list[str]:
    rows = [
        row for part in parts.values() for task in part["tasks"].values() for row in task["figures"].values()
    ]
    aims = [row for row in rows if "reached" in row]
    missed = sum(not row["reached"] for row in aims)
    lines = []
    if aims:
        lines.append(f"{len(aims)} figures have an aim; {missed or 'none'} of them missed it.")
    if any(part.get("short") for part in parts.values()):
        lines.append("Short runs, made to try the programs: these figures say nothing about the memory.")
    lines.append(
        "Intervals are of the mean over seeds (Student's t); a difference whose interval holds zero is none."
    )
    return lines


def _seeds(part: dict[str, Any]) -> str:
    count = len(part.get("seeds", [0]))
    return f"{count} seeds." if count > 1 else "One seed: no intervals; differences may be chance."


def _half(row: dict[str, Any]) -> float:
    half = row.get("half_width_95")
    return half if isinstance(half, (int, float)) and math.isfinite(half) else 0.0


def _interval(row: dict[str, Any]) -> str:
    half = row.get("half_width_95")
    if half is None or not math.isfinite(half):
        return ""
    return f"{number(row['mean'] - half)} to {number(row['mean'] + half)}"


def _aim(row: dict[str, Any]) -> str:
    return "" if "aim" not in row else f"{row['aim']}" + ("" if row["reached"] else " MISSED")


def _environment(part: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in part.get("environment", {}).items())


def _drawable(name: str, row: dict[str, Any]) -> bool:
    return (
        not name.startswith(("difference", "gain"))
        and "is_a_difference" not in row
        and bool(row.get("values"))
    )


def _table(task: dict[str, Any]) -> str:
    rows = []
    for name, row in task["figures"].items():
        aim = _aim(row)
        state = ' class="bad"' if "MISSED" in aim else ' class="good"' if aim else ""
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="n">{number(row["mean"])}</td>'
            f'<td class="n">{_interval(row)}</td><td{state}>{escape(aim)}</td></tr>'
        )
    head = '<tr><th></th><th class="n">mean</th><th class="n">95 % interval</th><th>aim</th></tr>'
    return f"<table>{head}{''.join(rows)}</table>"


def _picture(path: Path) -> str:
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(os.path.basename(path))}" src="data:image/png;base64,{encoded}">'
