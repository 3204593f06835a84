"""README.md tells the truth: its Python runs, prints what it says, and its commands and links exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass
class Block:
    """A fenced block: its language, first line number and text."""

    language: str
    line: int
    text: str


def blocks(markdown: str) -> list[Block]:
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [Block(m[1], markdown[: m.start()].count("\n") + 2, m[2]) for m in fence.finditer(markdown)]


def snippets(markdown: str) -> list[tuple[Block, str | None]]:
    """Each python block with the text block that follows it at once, which is what it prints."""
    found = blocks(markdown)
    after: list[Block | None] = [*found[1:], None]
    pairs = []
    for block, nxt in zip(found, after, strict=True):
        if block.language != "python":
            continue
        end = block.line + block.text.count("\n")  # line of the closing fence; one empty line may follow
        adjacent = nxt is not None and nxt.language == "text" and nxt.line - end <= 3
        pairs.append((block, nxt.text if nxt is not None and adjacent else None))
    return pairs


SNIPPETS = snippets(README.read_text("utf-8"))


@pytest.mark.parametrize(("block", "output"), SNIPPETS, ids=[f"line{block.line}" for block, _ in SNIPPETS])
def test_snippet_runs_and_prints_what_it_says(block: Block, output: str | None, tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    if output is not None:
        assert run.stdout == output


def test_there_are_snippets_for_memory_and_for_training() -> None:
    text = "".join(block.text for block, _ in SNIPPETS)
    assert "AESGMemory" in text and "AESGTrainer" in text


def test_snippet_reader_finds_code_and_its_output() -> None:
    code, loose = "```python\nprint(1)\n```\n", "\nwords\n\n"
    output = "```text\n1\n```\n"
    assert [(b.text, o) for b, o in snippets(code + output)] == [("print(1)\n", "1\n")]
    assert [(b.text, o) for b, o in snippets(code + "\n" + output)] == [("print(1)\n", "1\n")]
    assert [(b.text, o) for b, o in snippets(code + loose + output)] == [("print(1)\n", None)]
    assert snippets(output) == []


def test_make_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"^(?:\w+=\S+ )*make ([a-z-]+)", _code(path), re.MULTILINE)
    }
    assert named and named <= targets


def _code(path: Path) -> str:
    """What stands in fences and backticks."""
    text = path.read_text("utf-8")
    fenced = "\n".join(block.text for block in blocks(text))
    return fenced + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


def evidence() -> list[tuple[float, float | None]]:
    """Every (mean, half width) that docs/evidence holds."""
    found: list[tuple[float, float | None]] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if "mean" in value:
                found.append((value["mean"], value.get("half_width_95")))
            for part in value.values():
                walk(part)

    for path in sorted((ROOT / "docs" / "evidence").glob("*.json")):
        walk(json.loads(path.read_text("utf-8")))
    return found


def quoted(text: str) -> list[str]:
    """The figures of tables that give an interval, as they stand there."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [figure for row in rows for figure in re.findall(r"[-+]?\d+\.\d+ ± \d+\.\d+", row)]


@pytest.mark.parametrize("name", ["README.md", "docs/quality.md"])
def test_figures_with_an_interval_are_those_of_the_evidence(name: str) -> None:
    measured, figures = evidence(), quoted((ROOT / name).read_text("utf-8"))
    assert len(figures) > 10
    for figure in figures:
        mean, half = figure.removeprefix("+").split(" ± ")
        digits, half_digits = (len(part.partition(".")[2]) for part in (mean, half))
        assert any(
            f"{m:.{digits}f}" == mean and h is not None and f"{h:.{half_digits}f}" == half
            for m, h in measured
        ), f"{name}: {figure}"
