"""Runs handed on to MLflow, through the client of the installed mlflow (the extra `aesg[mlflow]`)."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from aesg.exceptions import AESGStorageError
from aesg.runs import checks
from aesg.runs.run import Run

STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
MAX_VALUE = 5000  # characters: a tag may have so many, a parameter 6,000
BATCH = 1000  # metrics a call, the client's limit
EVENTS = 1_000_000


def export_to_mlflow(run: Run, tracking_uri: str | os.PathLike[str], experiment: str = "aesg") -> str:
    """Copies a run to the MLflow store at `tracking_uri`; returns the run id that MLflow gave.

    tracking_uri: a directory for MLflow's file layout, or any uri its client takes. Parameters become
    parameters, the metrics of events metrics with step (the data's "step", else "epoch", else the event's
    place among those of its kind), artifacts files below their kind, labels and pins `aesg.json` beside them.

    Raises AESGStorageError without mlflow, and where mlflow refuses; an unfinished export is marked FAILED
    there.
    """
    checks.check_name(experiment, "experiment")
    where = _tracking_uri(tracking_uri)
    if where.startswith("file:"):  # mlflow 3 asks for this word before it writes its file layout
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    info = run.info()
    try:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise AESGStorageError(
            f"Expected mlflow to be installed (pip install 'aesg[mlflow]'): {error}"
        ) from None

    events = run.memory().recent(limit=EVENTS)
    metrics = [Metric(*each) for each in metrics_of(events)]
    params = [Param(name, value) for name, value in _params(info.params)]
    tags = [RunTag("aesg.run_id", info.run_id), RunTag("aesg.state", info.state)]
    tags += [RunTag("aesg.error", info.error[:MAX_VALUE])] if info.error else []
    try:
        client = MlflowClient(tracking_uri=where)
        found = client.get_experiment_by_name(experiment)
        identity = found.experiment_id if found else client.create_experiment(experiment)
        exported = client.create_run(
            identity, start_time=_milliseconds(info.started), run_name=info.name
        ).info.run_id
        try:
            client.log_batch(exported, params=params, tags=tags)
            for start in range(0, len(metrics), BATCH):
                client.log_batch(exported, metrics=metrics[start : start + BATCH])
            _export_artifacts(client, exported, run)
            ended = None if info.ended is None else _milliseconds(info.ended)
            client.set_terminated(exported, STATUS[info.state], end_time=ended)
        except BaseException:
            client.set_terminated(exported, "FAILED")
            raise
    except MlflowException as error:
        raise AESGStorageError(f"mlflow refused the run {info.run_id}: {error}") from error
    return str(exported)


def metrics_of(events: list[Any]) -> list[tuple[str, float, int, int]]:
    """(name, value, milliseconds, step) of every metric of the events. Names hold what MLflow allows."""
    found = []
    places: dict[str, int] = {}
    for event in events:
        places[event.kind] = place = places.get(event.kind, -1) + 1
        data = event.data if isinstance(event.data, dict) else {}
        step = next((data[key] for key in ("step", "epoch") if type(data.get(key)) is int), place)
        for name, value in (event.metrics or {}).items():
            found.append((_allowed(name), float(value), _milliseconds(event.ts), step))
    return found


def _export_artifacts(client: Any, exported: str, run: Run) -> None:
    artifacts = run.artifacts()
    with tempfile.TemporaryDirectory(prefix="aesg-mlflow-") as scratch:
        for artifact in artifacts.list():
            place = Path(scratch, artifact.artifact_id)
            place.mkdir()
            copy = artifacts.as_local_dir if artifact.is_directory else artifacts.as_local_file
            copy(artifact, into=place)
            about = {"labels": artifact.labels, "metrics": artifact.metrics, "pinned": artifact.pinned,
                     "uri": artifact.uri, "artifact_id": artifact.artifact_id}  # fmt: skip
            (place / "aesg.json").write_text(json.dumps(about, indent=2) + "\n")
            client.log_artifacts(
                exported, str(place), f"{_allowed(artifact.kind)}/{artifact.artifact_id[:12]}"
            )


def _tracking_uri(given: Any) -> str:
    text = checks.check_path(given, "tracking_uri")
    return text if "://" in text or ":/" in text else Path(text).absolute().as_uri()


def _params(params: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (_allowed(name), (value if isinstance(value, str) else json.dumps(value))[:MAX_VALUE])
        for name, value in params.items()
    ]


def _allowed(name: str) -> str:
    """MLflow's names: letters, digits, _ - . space : and slash."""
    kept = "".join(c if c.isalnum() or c in "_-. :" else "_" for c in name)
    return (kept.strip(".") or "_")[:250]


def _milliseconds(iso: str) -> int:
    return int(datetime.fromisoformat(iso).timestamp() * 1000)
