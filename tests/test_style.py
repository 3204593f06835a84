"""What no linter looks at: files stay short, and no file knows the machine it was written on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {
    ".py",
    ".h",
    ".inl",
    ".cpp",
    ".cu",
    ".cuh",
    ".md",
    ".txt",
    ".toml",
    ".cmake",
    ".yml",
    ".cfg",
    ".sh",
    "",
}
# Not ours to read: what was built or installed, and what runs left behind.
SKIPPED = {".git", "build", "dist", "checkpoints", "fixtures", "aesg_memory"}
CODE = {".py", ".h", ".inl", ".cpp", ".cu", ".cuh"}
MAX_LINES = 500
LONG_FILES: set[str] = set()  # hand-written files that may be longer, each with its reason

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|work|workspace|mnt|tmp/\w+/venv)/\w+")


def sources() -> Iterator[Path]:
    for directory, folders, files in os.walk(ROOT):
        # A folder that begins with a dot is an environment or a cache, but .ci is ours.
        folders[:] = sorted(
            name
            for name in folders
            if (not name.startswith(".") or name == ".ci")
            and name not in SKIPPED
            and not name.endswith(".egg-info")
            and not (Path(directory, name) / "pyvenv.cfg").exists()
        )
        yield from (
            Path(directory, name)
            for name in sorted(files)
            if Path(name).suffix in SUFFIXES and name != ".git"
        )


SOURCES = [path for path in sources() if path.relative_to(ROOT).as_posix() != "tests/test_style.py"]


def too_long(name: str, text: str) -> bool:
    return text.count("\n") > MAX_LINES and name not in LONG_FILES


def test_the_walk_sees_the_tree() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in SOURCES}
    assert {"README.md", "Makefile", ".ci/run", "aesg/config.py", "csrc/storage/layout.h"} <= names


def test_files_stay_short() -> None:
    code = [path for path in SOURCES if path.suffix in CODE]
    long = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in code}
    assert [
        f"{name}: {text.count(chr(10))} lines" for name, text in long.items() if too_long(name, text)
    ] == []
    assert too_long("aesg/a.py", "\n" * 501) and not too_long("aesg/a.py", "\n" * 500)


def test_no_file_knows_its_machine() -> None:
    found = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("see /home/me/aesg", True),
        ("cd /workspace/aesg", True),
        ("./home/x", False),
        ("docs/work/plan", False),
    ],
)
def test_machine_paths_are_told_from_others(line: str, bad: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is bad
