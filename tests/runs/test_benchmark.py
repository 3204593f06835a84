"""The benchmark of the store runs in short and finds that what was recalled is right."""

import json

from aesg import cli


def test_short_form(tmp_path, capsys):
    assert cli.main(["bench", "runs", "--short", "--no-mlflow", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "runs.json").read_text())
    assert set(report["seconds"]) == {"aesg", "aesg, unsynced"}
    assert {"artifacts", "events", "best", "recent"} <= set(report["seconds"]["aesg"])
    assert "environment" in report and "target 10 ms" in capsys.readouterr().out
