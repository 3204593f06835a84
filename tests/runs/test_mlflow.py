"""Export to MLflow, read back with the real package."""

import math
import sys

import pytest

from aesg import cli
from aesg.exceptions import AESGStorageError
from aesg.runs.mlflow_export import export_to_mlflow, metrics_of


def filled(store, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.bin").write_bytes(b"weights")
    with (
        pytest.raises(ValueError),
        store.run("first run", params={"lr": 0.1, "name": "x", "a/b": [1, None]}) as run,
    ):
        for epoch in range(3):
            loss = math.nan if epoch == 1 else 1 / (epoch + 1)
            run.memory().record("epoch", data={"epoch": epoch + 1}, metrics={"loss": loss, "a%b": epoch})
        text = run.artifacts().save_text("hello", kind="note", labels={"n": 1}, metrics={"m": 2})
        run.artifacts().save_dir(tmp_path / "model", kind="checkpoint")
        raise ValueError("it broke")
    return run, text


def test_metrics_have_steps(run):
    mem = run.memory()
    mem.record("a", data={"step": 5, "epoch": 1}, metrics={"m": 1})
    mem.record("a", data={"epoch": True}, metrics={"m/x": 2})
    found = metrics_of(mem.recent())
    assert [(name, value, step) for name, value, _, step in found] == [("m", 1.0, 5), ("m_x", 2.0, 1)]
    assert all(milliseconds > 1.6e12 for _, _, milliseconds, _ in found)


def test_without_mlflow(run, tmp_path, monkeypatch):
    for name in ("mlflow", "mlflow.entities", "mlflow.exceptions", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AESGStorageError, match=r"aesg\[mlflow\]"):
        export_to_mlflow(run, tmp_path / "mlruns")
    assert not (tmp_path / "mlruns").exists()


def test_mlflow_reads_what_was_exported(store, tmp_path, capsys):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    run, text = filled(store, tmp_path)
    exported = export_to_mlflow(run, tmp_path / "mlruns", experiment="exp")
    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    found = client.get_run(exported)
    assert client.get_experiment(found.info.experiment_id).name == "exp"
    assert (found.info.run_name, found.info.status) == ("first run", "FAILED")
    assert found.data.params == {"lr": "0.1", "name": "x", "a_b": "[1, null]"}
    assert found.data.tags["aesg.run_id"] == run.run_id
    assert found.data.tags["aesg.error"] == "ValueError: it broke"
    assert 0 <= found.info.end_time - found.info.start_time < 600_000
    history = client.get_metric_history(exported, "loss")
    assert [(metric.step, metric.value) for metric in history if metric.step != 2] == [(1, 1), (3, 1 / 3)]
    assert math.isnan(next(metric.value for metric in history if metric.step == 2))
    assert [m.value for m in client.get_metric_history(exported, "a_b")] == [0, 1, 2]
    place = f"note/{text.artifact_id[:12]}"
    files = {file.path for file in client.list_artifacts(exported, place)}
    assert files == {f"{place}/aesg.json", f"{place}/{text.artifact_id[:12]}.txt"}
    (folder,) = client.list_artifacts(exported, "checkpoint")
    path = client.download_artifacts(exported, f"{folder.path}/model/w.bin", str(tmp_path))
    with open(path, "rb") as file:
        assert file.read() == b"weights"
    # A second run joins the experiment; the command does the same.
    where = ["--store", str(store.root), "--to", str(tmp_path / "mlruns"), "--experiment", "exp"]
    assert cli.main(["runs", "mlflow", run.run_id, *where]) == 0
    assert len(client.search_runs([found.info.experiment_id])) == 2


def test_what_mlflow_refuses(run, tmp_path):
    pytest.importorskip("mlflow")
    with pytest.raises(AESGStorageError):
        export_to_mlflow(run, "nonsense://nowhere")
    with pytest.raises(AESGStorageError, match="experiment"):
        export_to_mlflow(run, tmp_path / "mlruns", experiment="../x")
    assert not (tmp_path / "mlruns").exists()
