"""Every example runs in its short form, prints what it is there to show, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem != "common")


def run(name: str, cwd: Path) -> str:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    strict = ["-W", "error::UserWarning", "-W", "error::RuntimeWarning"]
    done = subprocess.run(
        [sys.executable, *strict, f"{ROOT}/examples/{name}.py", "--short"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


def share(text: str) -> float:
    return float(text) / 100


def check_text(out):
    assert re.search(r"held out: [\d.]+ bits a byte; [\d.]+ when the memory is not asked", out)
    assert "it writes: def __init__(self" in out


def check_images(out):
    assert "rows: what it is" in out and re.search(r"memory: \d+ concepts", out)
    assert (
        sum(map(int, re.findall(r"(?<= )\d+(?= |$)", out.split("ring\n")[1].split("memory:")[0], re.M)))
        == 200
    )


def check_own_lstm(out):
    (with_memory, without) = re.findall(r"(\d+)% of the latest values known", out)
    assert share(with_memory) > 0.4 > share(without)


def check_packs(out):
    rows = re.findall(r"chemistry +(\d+)%   medicine +(\d+)%", out)
    assert [row[1] for row in rows] == ["0", "100", "0"] and {row[0] for row in rows} == {"100"}
    assert "bit for bit: True" in out


def check_continual_learning(out):
    own, other = re.findall(r"(\d+)%", out.split("\nall")[1])[:2]
    assert share(own) > 0.9 > share(other)


def check_training_loop(out):
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", out)]
    assert losses[-1] < losses[0]
    before, after = re.findall(r"next token right: (\d+)%", out)
    assert before == after and re.search(r"reopened: (\d+) of \1 concepts", out)


def check_explain(out):
    assert "hop 4: heron" in out and "from fish" in out
    assert "succession to river" in out and re.search(r"health +sound", out)


def test_every_example_is_checked_and_listed():
    assert {f"check_{name}" for name in EXAMPLES} == {name for name in globals() if name.startswith("check_")}
    listed = re.findall(r"\]\((\w+)\.py\)", (ROOT / "examples" / "README.md").read_text())
    assert sorted(listed) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    globals()[f"check_{name}"](run(name, tmp_path))
    assert list(tmp_path.iterdir()) == []
