"""The benchmark of the store runs in short and finds that what was recalled is right."""

import json

import pytest

from aesg import cli
from aesg.benchmarks import runs


def test_short_form(tmp_path, capsys):
    assert cli.main(["bench", "runs", "--short", "--no-mlflow", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "runs.json").read_text())
    assert set(report["seconds"]) == {"aesg", "aesg, unsynced"}
    assert {"artifacts", "events", "best", "recent"} <= set(report["seconds"]["aesg"])
    said = capsys.readouterr().out
    assert "best over 500" in said and "target 10 ms: met" in said and "recent over 2,000" in said
    assert "environment" in report and report["targets_met"] == {"best": True, "recent": True}


def test_beside_mlflow(tmp_path, capsys):
    pytest.importorskip("mlflow")
    assert cli.main(["bench", "runs", "--short", "--out", str(tmp_path)]) == 0
    seconds = json.loads((tmp_path / "runs.json").read_text())["seconds"]
    assert list(seconds) == ["aesg", "aesg, unsynced", "mlflow file", "mlflow sqlite"]
    assert all(each["artifacts"] > 0 and each["events"] > 0 for each in seconds.values())
    assert "history of 10" in seconds["mlflow file"] and "mlflow file takes" in capsys.readouterr().out


def test_a_part_that_was_done_is_scaled_to_the_whole(monkeypatch):
    """A clock that goes on by one with every save, and a contestant that does every fifth."""
    clock = iter(range(10**6))
    done = []

    class Fake:
        def __init__(self, share):
            self.share_of_events = share

        def save(self, number):
            done.append(number)

        def record(self, number):
            pass

    monkeypatch.setattr(runs.time, "perf_counter", lambda: next(clock))
    found = runs._saving({"all": Fake(1), "some": Fake(5)}, {"artifacts": 20, "events": 100})
    assert sorted(done) == sorted([*range(20)] * 2)
    assert found == {"all": {"artifacts": 10, "events": 10}, "some": {"artifacts": 10, "events": 50}}
