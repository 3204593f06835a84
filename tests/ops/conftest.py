"""The CUDA kernels compiled once for the host, for all tests that run them there."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "csrc" / "ops" / "gpu"


def for_the_host(source: str) -> str:
    """A .cu file with its launches as calls, and dynamic shared memory as a pointer."""
    launched = re.sub(
        r"(\w+(?:<[\w, ]+>)?)<<<(.*?),\s*(?:stream|static_cast<cudaStream_t>\(stream\))>>>\((.*?)\);",
        r"on_host::launch(\2, [&] { \1(\3); });",
        source,
        flags=re.DOTALL,
    )
    assert "<<<" not in launched
    return '#include "tests/ops/on_host/cuda_on_host.h"\n' + launched.replace(
        "extern __shared__ __align__(16) char memory[];", "char* memory = dynamic_shared_memory;"
    )


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("on_host")
    sources = [str(path) for path in sorted((ROOT / "tests/ops/on_host").glob("*.cpp"))]
    for path in sorted(GPU.glob("*.cu")):
        sources.append(str(folder / f"{path.stem}.cpp"))
        Path(sources[-1]).write_text(for_the_host(path.read_text()))
    library = folder / "on_host.so"
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", f"-I{ROOT}"]
    flags.append("-DAESG_SMALL_TABLE_BITS=9")  # full at 256 concepts: spreading then needs its large tables
    subprocess.run(["c++", *flags, *sources, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
