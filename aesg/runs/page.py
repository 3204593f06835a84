"""A page about runs that needs nothing but itself: curves, parameters, artifacts, in one HTML file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from aesg.exceptions import AESGStorageError
from aesg.runs import checks
from aesg.runs.artifacts import Artifacts
from aesg.runs.chart import line_chart, number
from aesg.runs.records import Event, RunInfo
from aesg.runs.store import Store

EVENTS = 20_000  # of a run, the newest, that curves are drawn from
POINTS = 1_000  # of a curve; longer ones are thinned evenly
ARTIFACTS = 200  # of a run, the newest, that are listed

STYLE = """
:root { color-scheme: light dark; --line: #d6dae1; --soft: #667085; --card: #fff; --back: #f5f6f8; }
@media (prefers-color-scheme: dark) { :root { --line: #394150; --soft: #98a2b3; --card: #1b212b;
  --back: #12161d; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; background: var(--back); color: CanvasText; }
main { max-width: 1120px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 8px; }
.soft, .path { color: var(--soft); } .path { overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 16px; }
figure, .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 0;
  padding: 12px; }
.card { overflow-x: auto; margin-top: 12px; }
figcaption { font-weight: 600; } svg { width: 100%; height: auto; display: block; }
svg .grid { stroke: var(--line); } svg path { fill: none; stroke-width: 2; }
svg text { fill: var(--soft); font-size: 12px; } svg .y { text-anchor: end; } svg .x { text-anchor: middle; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); } td, th { padding: 4px 12px 4px 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } tr:last-child td { border-bottom: 0; }
.state { border-radius: 10px; padding: 1px 8px; font-size: 13px; border: 1px solid currentColor; }
.finished { color: #2e9e5b; } .failed, .killed { color: #d9541e; } .running { color: #2a6fdb; }
code { font-size: 13px; }
"""


def write_page(store: Store, path: str | os.PathLike[str], runs: Sequence[RunInfo] | None = None) -> Path:
    """Writes the page about these runs (None: all) to `path`, replacing a file there as a whole.

    One chart a metric with a line a run, over the step of its events; then each run with parameters and
    artifacts. Raises AESGStorageError when the file cannot be written.
    """
    target = Path(checks.check_path(path, "path")).absolute()
    if target.exists() and not target.is_file():  # a device would be gone
        raise AESGStorageError(f"Failed to write '{target}': expected a regular file or none")
    html = render(store, store.runs() if runs is None else runs)
    try:
        descriptor, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(html)
            os.chmod(beside, 0o644)
            os.replace(beside, target)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        raise AESGStorageError(f"Failed to write '{target}': {error}") from error
    return target


def render(store: Store, runs: Sequence[RunInfo]) -> str:
    """The page as text."""
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for run in reversed(runs):  # the oldest first keeps its colour as runs come
        for name, points in curves(store.open_run(run.run_id).memory().recent(limit=EVENTS)).items():
            charts.setdefault(name, {})[f"{run.name} {run.run_id[:6]}"] = points
    drawn = "".join(filter(None, (line_chart(name, lines) for name, lines in sorted(charts.items()))))
    states = ", ".join(
        f"{count} {state}"
        for state in ("running", "finished", "failed", "killed")
        if (count := sum(run.state == state for run in runs))
    )
    sections = "".join(_section(store, run) for run in runs)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>runs of {escape(store.root.name)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>Runs of {escape(store.root.name)}</h1><div class="soft">{states or "none yet"}</div>'
        + (f'<h2>Curves</h2><div class="charts">{drawn}</div>' if drawn else "")
        + f"{sections}</main></body></html>\n"
    )


def curves(events: Sequence[Event]) -> dict[str, list[tuple[float, float]]]:
    """(step, value) by metric: the data's "step", else its "epoch", else the event's place among its kind."""
    found: dict[str, list[tuple[float, float]]] = {}
    places: dict[str, int] = {}
    for event in events:
        places[event.kind] = place = places.get(event.kind, -1) + 1
        data = event.data if isinstance(event.data, dict) else {}
        step = next((data[key] for key in ("step", "epoch") if type(data.get(key)) in (int, float)), place)
        for name, value in (event.metrics or {}).items():
            found.setdefault(name, []).append((float(step), float(value)))
    return {name: _thinned(points) for name, points in found.items()}


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= POINTS:
        return points
    return [points[round(place * (len(points) - 1) / (POINTS - 1))] for place in range(POINTS)]


def _section(store: Store, run: RunInfo) -> str:
    artifacts = store.open_run(run.run_id).artifacts()
    ended = "" if run.seconds is None else f", {_duration(run.seconds)}"
    head = (
        f'<h2>{escape(run.name)} <span class="state {run.state}">{run.state}</span></h2>'
        f'<div class="soft">{run.run_id} &middot; {run.started[:19]} UTC{ended} &middot; '
        f"{run.artifacts} artifacts, {run.events} events</div>"
    )
    error = f'<div class="card failed">{escape(run.error)}</div>' if run.error else ""
    return head + error + _table(["parameter", "value"], _params(run.params)) + _listing(artifacts)


def _params(params: dict[str, Any]) -> list[list[str]]:
    return [[escape(name), f"<code>{escape(_shown(value))}</code>"] for name, value in params.items()]


def _listing(artifacts: Artifacts) -> str:
    rows = [
        [
            escape(artifact.kind) + (' <span class="state">pinned</span>' if artifact.pinned else ""),
            escape(artifact.name or artifact.suffix or "-"),
            _size(artifact.size),
            escape(", ".join(f"{name}={_shown(value)}" for name, value in artifact.labels.items())),
            escape(", ".join(f"{name} {number(value)}" for name, value in artifact.metrics.items())),
            f"<code>{artifact.artifact_id[:12]}</code>",
        ]
        for artifact in artifacts.search(scope="run", limit=ARTIFACTS)
    ]
    return _table(["kind", "name", "size", "labels", "metrics", "id"], rows)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="card"><table><tr>{top}</tr>{body}</table></div>'


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    raise AssertionError


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
