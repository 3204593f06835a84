"""`aesg runs`: what is in a store of runs, and its upkeep."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from aesg.exceptions import AESGStorageError
from aesg.runs import RunInfo, Store
from aesg.runs.page import write_page

FINDINGS = 1  # exit code of `verify` when it found something


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand; 0, or 1 when `verify` has findings. Errors are AESGStorageError."""
    options = _parser().parse_args(argv)
    with Store(options.store, create=False) as store:
        return options.call(store, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aesg runs", description="Runs, their artifacts and events.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, call: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--store", default="./runs", metavar="DIR", help="the store's folder (./runs)")
        added.set_defaults(call=call)
        return added

    listed = command("ls", _ls, "list the runs, the newest first")
    listed.add_argument("--name", help="only runs of this name")
    listed.add_argument("--state", help="only runs in this state")
    listed.add_argument("--limit", type=int, default=50)
    listed.add_argument("--json", action="store_true")

    shown = command("show", _show, "show one run: parameters, last metrics, artifacts")
    shown.add_argument("run", help="run id, a beginning of one, or a name (its newest run)")
    shown.add_argument("--json", action="store_true")

    best = command("best", _best, "the best artifact by a metric")
    best.add_argument("--metric", default="val_loss")
    best.add_argument("--mode", default="min", help="min or max")
    best.add_argument("--kind", default="checkpoint")
    best.add_argument("--run", help="of one run; else of all")
    best.add_argument("--to", metavar="DIR", help="copy it into this directory")
    best.add_argument("--json", action="store_true")

    events = command("events", _events, "the newest events, the oldest of them first")
    events.add_argument("run", nargs="?", help="of one run; else of all")
    events.add_argument("--kind", action="append", help="only of this kind; may be repeated")
    events.add_argument("--limit", type=int, default=20)
    events.add_argument("--json", action="store_true")

    gc = command("gc", _gc, "remove what nothing refers to; only reports unless --yes")
    gc.add_argument("--keep-best", metavar="METRIC:MODE:N", help="such as val_loss:min:3, of each run")
    gc.add_argument("--keep-last", type=int, metavar="N", help="the newest of each run")
    gc.add_argument("--kind", default="checkpoint", help="what --keep-best and --keep-last speak of")
    gc.add_argument("--min-age", type=float, default=3600.0, metavar="SECONDS", help="younger things stay")
    gc.add_argument("--yes", action="store_true", help="do it")

    command("verify", _verify, "hash every object and check the index")

    html = command("html", _html, "write a page with curves that needs nothing but itself")
    html.add_argument("run", nargs="*", help="these runs; else all")
    html.add_argument("--out", default="runs.html", metavar="FILE")

    mlflow = command("mlflow", _mlflow, "hand a run on to MLflow")
    mlflow.add_argument("run")
    mlflow.add_argument("--to", required=True, metavar="DIR|URI", help="MLflow's directory or tracking uri")
    mlflow.add_argument("--experiment", default="aesg")
    return parser


def find_run(store: Store, text: str) -> RunInfo:
    """The run whose id is `text` or begins so, else the newest of that name. AESGStorageError without one."""
    runs = store.runs()
    begun = [run for run in runs if run.run_id.startswith(text)]
    if len(begun) > 1:
        raise AESGStorageError(f"run: expected one, '{text}' begins the ids of {len(begun)}")
    found = next(iter(begun), None) or next((run for run in runs if run.name == text), None)
    if not text or found is None:
        raise AESGStorageError(f"run: expected an id or name of a run in '{store.root}', got '{text}'")
    return found


def _ls(store: Store, options: argparse.Namespace) -> int:
    runs = store.runs(options.name, options.state, options.limit)
    if options.json:
        return _print_json([dataclasses.asdict(run) for run in runs])
    print(f"{'run':16}  {'state':8}  {'started (UTC)':19}  {'artifacts':>9}  {'events':>8}  name")
    for run in runs:
        started = run.started[:19].replace("T", " ")
        print(f"{run.run_id:16}  {run.state:8}  {started}  {run.artifacts:9}  {run.events:8}  {run.name}")
    return 0


def _show(store: Store, options: argparse.Namespace) -> int:
    info = find_run(store, options.run)
    run = store.open_run(info.run_id)
    artifacts = run.artifacts().list()
    last: dict[str, float] = {}
    for event in run.memory().recent(limit=1000):
        last.update(event.metrics or {})
    if options.json:
        content = {**dataclasses.asdict(info), "metrics": last}
        return _print_json({**content, "artifacts": [dataclasses.asdict(one) for one in artifacts]})
    ended = "" if info.seconds is None else f", {info.seconds:.1f} s"
    print(f"{info.name}  {info.run_id}  {info.state}  from {info.started[:19]} UTC{ended}")
    if info.error:
        print(f"  error: {info.error}")
    for name, value in info.params.items():
        print(f"  {name} = {json.dumps(value)}")
    for name, value in last.items():
        print(f"  last {name}: {value:g}")
    for one in artifacts:
        _print_artifact(one)
    return 0


def _best(store: Store, options: argparse.Namespace) -> int:
    artifacts = store.artifacts()
    if options.run:
        artifacts = store.open_run(find_run(store, options.run).run_id).artifacts()
    best = artifacts.best(options.kind, options.metric, options.mode)
    if best is None:
        print(f"no {options.kind} with {options.metric}", file=sys.stderr)
        return FINDINGS
    path = None
    if options.to:
        path = (artifacts.as_local_dir if best.is_directory else artifacts.as_local_file)(best, options.to)
    if options.json:
        return _print_json({**dataclasses.asdict(best), "path": path})
    _print_artifact(best)
    if path:
        print(f"  copied to {path}")
    return 0


def _events(store: Store, options: argparse.Namespace) -> int:
    memory = store.memory()
    if options.run:
        memory = store.open_run(find_run(store, options.run).run_id).memory()
    events = memory.recent(options.kind, options.limit)
    if options.json:
        return _print_json([dataclasses.asdict(event) for event in events])
    for event in events:
        said = [event.topic, event.text, json.dumps(event.outputs) if event.outputs else None]
        said += [f"{name}={value:g}" for name, value in (event.metrics or {}).items()]
        print(f"{event.seq:8}  {event.ts[:19]}  {event.kind}  {'  '.join(filter(None, said))}")
    return 0


def _gc(store: Store, options: argparse.Namespace) -> int:
    best = None
    if options.keep_best is not None:
        parts = options.keep_best.rsplit(":", 2)
        if len(parts) != 3 or not parts[2].isdecimal():
            raise AESGStorageError(f"--keep-best: expected METRIC:MODE:N, got '{options.keep_best}'")
        best = (parts[0], parts[1], int(parts[2]))
    report = store.gc(
        keep_best=best,
        keep_last=options.keep_last,
        kind=options.kind,
        min_age=options.min_age,
        dry_run=not options.yes,
    )
    word = "would remove" if report.dry_run else "removed"
    print(
        f"{word} {len(report.artifacts)} artifacts, {len(report.objects)} objects of {report.bytes:,} bytes, "
        f"{len(report.staging)} unfinished saves" + (" (--yes does it)" if report.dry_run else "")
    )
    return 0


def _verify(store: Store, options: argparse.Namespace) -> int:
    findings = store.verify()
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings" if findings else "all well")
    return FINDINGS if findings else 0


def _html(store: Store, options: argparse.Namespace) -> int:
    chosen = [find_run(store, text) for text in options.run] or None
    print(f"written: {write_page(store, options.out, chosen)}")
    return 0


def _mlflow(store: Store, options: argparse.Namespace) -> int:
    from aesg.runs.mlflow_export import export_to_mlflow

    run = store.open_run(find_run(store, options.run).run_id)
    print(f"mlflow run: {export_to_mlflow(run, options.to, options.experiment)}")
    return 0


def _print_artifact(one: Any) -> None:
    said = [f"{name}={json.dumps(value)}" for name, value in one.labels.items()]
    said += [f"{name} {value:g}" for name, value in one.metrics.items()] + ["pinned"] * one.pinned
    print(f"  {one.kind}  {one.artifact_id}  {one.size:,} bytes  {'  '.join([one.name, *said])}".rstrip())


def _print_json(content: Any) -> int:
    print(json.dumps(content, indent=2))
    return 0
