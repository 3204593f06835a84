"""`aesg runs`, and benchmarks that record themselves."""

import json
import sys
import types
from pathlib import Path

import pytest

from aesg import cli
from aesg.runs import Store
from tests.runs.helpers import grow_old


@pytest.fixture
def root(tmp_path, clock, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store(tmp_path / "runs", clock=clock, sync=False) as store:
        for name, losses in (("first", [3, 1]), ("second", [2])):
            with store.run(name, params={"lr": 0.1}) as run:
                for number, loss in enumerate(losses):
                    run.artifacts().save_text(
                        f"{name}{number}", kind="checkpoint", metrics={"val_loss": loss}
                    )
                    run.memory().record("epoch", data={"epoch": number}, metrics={"val_loss": loss})
                run.memory().record_tool_result("t", outputs=[{"name": "x", "value": 1}])
        grow_old(store)
    return tmp_path


def aesg(capsys, *arguments, code=0):
    assert cli.main(["runs", *arguments]) == code
    return capsys.readouterr()


def test_ls_and_show(root, capsys):
    lines = aesg(capsys, "ls").out.splitlines()
    assert [line.split()[-1] for line in lines] == ["name", "second", "first"]
    assert [info["state"] for info in json.loads(aesg(capsys, "ls", "--json").out)] == ["finished"] * 2
    assert len(aesg(capsys, "ls", "--name", "first").out.splitlines()) == 2
    run_id = lines[1].split()[0]
    out = aesg(capsys, "show", run_id[:8]).out
    assert out.startswith(f"second  {run_id}  finished") and "lr = 0.1" in out and "last val_loss: 2" in out
    shown = json.loads(aesg(capsys, "show", "first", "--json").out)
    assert shown["metrics"] == {"val_loss": 1} and len(shown["artifacts"]) == 2


def test_best(root, capsys):
    assert "val_loss 1" in aesg(capsys, "best").out
    assert "val_loss 3" in aesg(capsys, "best", "--mode", "max").out
    assert "val_loss 2" in aesg(capsys, "best", "--run", "second").out
    best = json.loads(aesg(capsys, "best", "--to", str(root), "--json").out)
    assert Path(best["path"]).read_text() == "first1"
    assert "no checkpoint with x" in aesg(capsys, "best", "--metric", "x", code=1).err


def test_events(root, capsys):
    out = aesg(capsys, "events", "first").out.splitlines()
    assert len(out) == 3 and "val_loss=3" in out[0] and '"value": 1' in out[-1]
    assert len(aesg(capsys, "events", "--kind", "epoch", "--limit", "2").out.splitlines()) == 2
    assert [e["kind"] for e in json.loads(aesg(capsys, "events", "second", "--json").out)] == [
        "epoch",
        "tool_result",
    ]


def test_gc_verify_html(root, capsys):
    assert "would remove 1 artifacts" in aesg(capsys, "gc", "--keep-best", "val_loss:min:1").out
    assert "removed 1 artifacts, 1 objects of 6 bytes" in aesg(capsys, "gc", "--keep-last", "1", "--yes").out
    assert aesg(capsys, "verify").out == "all well\n"
    assert aesg(capsys, "html", "first", "--out", "page.html").out == f"written: {root / 'page.html'}\n"
    with Store(root / "runs") as store:
        path = store.objects.path(store.artifacts().list()[0].uri.rpartition("/")[2])
    path.chmod(0o644)
    path.write_text("broken")
    assert "1 findings" in aesg(capsys, "verify", code=1).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "--store", "nowhere"),
        ("ls", "--state", "done"),
        ("show", "nobody"),
        ("show", ""),
        ("best", "--mode", "least"),
        ("gc", "--keep-best", "val_loss"),
        ("gc", "--keep-last", "0"),
        ("events", "--limit", "0"),
        ("html", "--out", "missing/page.html"),
    ],
)
def test_errors_are_one_line(root, capsys, arguments):
    err = aesg(capsys, *arguments, code=2).err
    assert err.startswith("aesg: storage: ") and err.count("\n") == 1
    assert not (root / "nowhere").exists()


def test_a_benchmark_records_itself(root, capsys, monkeypatch):
    fake = types.ModuleType("aesg.benchmarks.fake")

    def main(argv):
        out = argv[argv.index("--out") + 1]
        import os

        os.makedirs(out, exist_ok=True)
        with open(f"{out}/fake.json", "w") as file:
            json.dump(
                {"cases": [{"seconds": 0.5, "name": "x"}], "short": "--short" in argv, "nan": 1e999}, file
            )
        return 0

    fake.main = main
    monkeypatch.setitem(sys.modules, "aesg.benchmarks.fake", fake)
    monkeypatch.setattr(cli, "_benchmarks", lambda: ["fake"])
    for out in ([], ["--out", str(root / "out")]):
        assert cli.main(["bench", "fake", "--short", "--record", "runs", *out]) == 0
        with Store(root / "runs") as store:
            run = store.open_run(store.runs(name="bench fake")[0].run_id)
            (report,) = run.artifacts().search("report", labels={"benchmark": "fake"})
            assert report.metrics == {"cases.0.seconds": 0.5} and run.info().state == "finished"
    assert (root / "out" / "fake.json").exists()
