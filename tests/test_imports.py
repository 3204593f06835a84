"""Imports go down only: the floors of docs/design.md in Python, the order of csrc in C++."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "aesg"

# Lowest first. A part imports from its own floor and from those below it.
FLOORS: list[tuple[str, set[str]]] = [
    ("F0", {"exceptions", "config", "validation", "_extension", "_core", "_core_loader", "ops"}),
    ("F1", {"storage"}),
    ("F2", {"graph"}),
    ("F3", {"memory", "packs"}),
    ("F4 layers", {"nn"}),
    ("F4 models", {"architectures"}),
    ("F5", {"trainer", "evaluation", "data", "runs", "integrations"}),
    ("F6", {"cli", "benchmarks", "tools", "__main__"}),
]
LEVEL = {part: level for level, (_, parts) in enumerate(FLOORS) for part in parts}

# Loaded when somebody asks for what needs them.
HEAVY = [
    "torchvision",
    "torchmetrics",
    "matplotlib",
    "networkx",
    "tensorboard",
    "wandb",
    "scipy",
    "PIL",
    "tqdm",
]


def module_name(path: Path, package: Path) -> str:
    parts = ("aesg", *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything imported, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                around = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join(around[: len(around) - node.level + 1] + ([base] if base else []))
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def violations(package: Path) -> list[str]:
    """Every import that goes up, every part that stands on no floor. The root __init__ may show anything."""
    found = []
    for path in sorted(package.rglob("*.py")):
        module = module_name(path, package)
        if module == "aesg":
            continue
        part = module.split(".")[1]
        place = path.relative_to(package.parent)
        if part not in LEVEL:
            found.append(f"{place}: aesg.{part} stands on no floor of docs/design.md")
            continue
        for line, name in imports(ast.parse(path.read_text("utf-8")), module, path.name == "__init__.py"):
            words = name.split(".")
            if words[0] != "aesg" or words[1:] == ["__version__"]:
                continue
            target = words[1] if len(words) > 1 else ""
            if target not in LEVEL:  # `import aesg`, `from aesg import AESGMemory`: through the roof
                if LEVEL[part] < len(FLOORS) - 1:
                    found.append(f"{place}:{line}: {name} goes through the top of the package")
            elif LEVEL[target] > LEVEL[part]:
                found.append(
                    f"{place}:{line}: {FLOORS[LEVEL[part]][0]} imports {name} of {FLOORS[LEVEL[target]][0]}"
                )
    return found


def test_imports_go_down_only() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        (
            "storage/engine.py",
            "from aesg.memory.controller import AESGMemory",
            "F1 imports aesg.memory.controller",
        ),
        ("ops/a.py", "def f():\n    import aesg.graph.core", "F0 imports aesg.graph.core"),
        ("graph/core.py", "from ..trainer import AESGTrainer", "F2 imports aesg.trainer.AESGTrainer"),
        ("nn/__init__.py", "from ..architectures import base", "F4 layers imports aesg.architectures.base"),
        ("memory/state.py", "from aesg import AESGTrainer", "goes through the top"),
        ("somewhere.py", "", "aesg.somewhere stands on no floor"),
    ],
)
def test_an_import_that_goes_up_is_found(tmp_path: Path, path: str, source: str, complaint: str) -> None:
    file = tmp_path / "aesg" / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    (found,) = violations(tmp_path / "aesg")
    assert complaint in found


def test_imports_that_go_down_or_stay_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "aesg" / "memory" / "controller.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import torch\nfrom aesg import __version__\nfrom aesg.packs import PackState\nfrom . import state"
    )
    assert violations(tmp_path / "aesg") == []


# What a C++ file under the prefix may include of ours, and whether torch's headers are open to it.
CXX_RULES: list[tuple[str, tuple[str, ...], bool]] = [
    ("csrc/base/", ("csrc/base/",), False),
    ("csrc/storage/", ("csrc/base/", "csrc/storage/"), False),
    ("csrc/graph/", ("csrc/base/", "csrc/storage/", "csrc/graph/"), False),
    ("csrc/ops/cpu/", ("csrc/base/", "csrc/storage/layout.h", "csrc/ops/"), False),
    ("csrc/ops/gpu/", ("csrc/base/", "csrc/storage/layout.h", "csrc/ops/"), False),
    ("csrc/bindings/answers_binding", ("csrc/",), False),
    ("csrc/bindings/core_module", ("csrc/",), False),
    ("csrc/bindings/graph_binding", ("csrc/",), False),
    ("csrc/tests/", ("csrc/",), False),
    ("csrc/", ("csrc/base/", "csrc/storage/layout.h", "csrc/ops/", "csrc/bindings/"), True),
]
TORCH_HEADERS = ("torch/", "ATen/", "c10/", "caffe2/")
# Slow to compile or bound to one torch version; the stable ABI needs neither.
BANNED_HEADERS = ("torch/extension.h", "torch/torch.h", "ATen/cuda/CUDAContext.h")


def include_violations(path: str, text: str) -> list[str]:
    _, ours, torch = next(rule for rule in CXX_RULES if path.startswith(rule[0]))
    found = []
    for header in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text, re.MULTILINE):
        is_torch = header.startswith(TORCH_HEADERS)
        if header in BANNED_HEADERS or (is_torch and not torch):
            found.append(f"{path}: {header} is not open to this file")
        elif header.startswith("csrc/") and not header.startswith(ours):
            found.append(f"{path}: {header} lies above this file")
    return found


def test_cxx_includes_go_down_only() -> None:
    files = [
        path
        for path in sorted((ROOT / "csrc").rglob("*"))
        if path.suffix in (".h", ".inl", ".cpp", ".cu", ".cuh")
    ]
    assert files
    found = [
        v for p in files for v in include_violations(p.relative_to(ROOT).as_posix(), p.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("csrc/base/error.h", "csrc/storage/store.h"),
        ("csrc/storage/store.cpp", "torch/csrc/stable/tensor.h"),
        ("csrc/storage/store.cpp", "csrc/graph/graph.h"),
        ("csrc/ops/gpu/seed_search.cu", "c10/cuda/CUDAStream.h"),
        ("csrc/bindings/ops_module.cpp", "torch/extension.h"),
    ],
)
def test_an_include_that_goes_up_is_found(path: str, header: str) -> None:
    assert len(include_violations(path, f"#include <{header}>\n#include <vector>\n")) == 1


def loaded(statement: str, names: list[str]) -> tuple[float, set[str]]:
    """(processor seconds of the statement, which of the modules are there afterwards), in a new process."""
    code = f"import sys, time; t = time.process_time(); {statement}; print(time.process_time() - t); "
    code += f"print(*[name for name in {names!r} if name in sys.modules])"
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split()
    return float(out[0]), set(out[1:])


def test_import_is_quick_and_light() -> None:
    """Processor time, so that a busy machine does not count."""
    seconds, there = loaded("import aesg", [*HEAVY, "torch", "numpy"])
    assert there == set()
    assert seconds < 0.3


def test_a_memory_brings_in_nothing_heavy_of_its_own() -> None:
    _, by_torch = loaded("import torch", HEAVY)
    _, there = loaded("from aesg import AESGMemory, AESGDecoderLM, AESGTrainer", HEAVY)
    assert there - by_torch <= {"tqdm"}
