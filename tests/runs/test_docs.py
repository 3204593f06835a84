"""docs/runs.md: its Python runs, prints what it says, and its commands exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aesg.tools.runs import _parser
from tests.test_readme import ROOT, snippets

PAGE = (ROOT / "docs" / "runs.md").read_text("utf-8")
SNIPPETS = snippets(PAGE)


@pytest.mark.parametrize(("block", "output"), SNIPPETS, ids=[f"line{block.line}" for block, _ in SNIPPETS])
def test_snippet(block, output, tmp_path: Path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    if output is not None:
        assert run.stdout == output


def test_the_first_snippet_has_its_output():
    assert len(SNIPPETS) == 3 and all(output is not None for _, output in SNIPPETS)


def test_commands_are_those_there_are():
    commands = re.findall(r"^aesg runs (.*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        _parser().parse_args([word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)])
