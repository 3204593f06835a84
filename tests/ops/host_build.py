"""The CUDA kernels compiled for the host, for the tests that run them there."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "csrc" / "ops" / "gpu"


def for_the_host(source: str) -> str:
    """A .cu file with its launches as calls, and dynamic shared memory as a pointer."""
    launched = re.sub(
        r"(\w+(?:<[\w, ]+>)?)\s*<<<(.*?),\s*(?:stream|static_cast<cudaStream_t>\(stream\))>>>\((.*?)\);",
        r"on_host::launch(on_host::address_of(&\1), \2, [&] { \1(\3); });",
        source,
        flags=re.DOTALL,
    )
    assert "<<<" not in launched
    static = launched.replace(
        "extern __shared__ __align__(16) char memory[];", "char* memory = dynamic_shared_memory;"
    )
    filled = re.sub(
        r"__shared__ (?:__align__\(16\) )?\w+ (\w+)(?:\[[^;]*\])?;",
        r"\g<0> on_host::find_shared(&\1, sizeof \1);",
        static,
    )
    assert filled.count("find_shared") == static.count("__shared__ ")
    return '#include "tests/ops/on_host/cuda_on_host.h"\n' + filled


class Library(ctypes.CDLL):
    """The launchers, each of which raises where CUDA would refuse something."""

    def __getattr__(self, name: str) -> Any:
        function = super().__getattr__(name)
        if name != "on_host_order":
            function.errcheck = expect_launched
        return function


def expect_launched(error: int, function: Any, _: object) -> int:
    assert error == 0, f"{function.__name__}: CUDA error {error}"
    return error


def build(folder: Path, *flags: str) -> ctypes.CDLL:
    """All kernels and their launchers in one library."""
    sources = [str(path) for path in sorted((ROOT / "tests/ops/on_host").glob("*.cpp"))]
    for path in sorted(GPU.glob("*.cu")):
        sources.append(str(folder / f"{path.stem}.cpp"))
        Path(sources[-1]).write_text(for_the_host(path.read_text()))
    library = folder / "on_host.so"
    always = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", f"-I{ROOT}"]
    subprocess.run(["c++", *always, *flags, *sources, "-o", str(library)], check=True)
    return Library(str(library))
