"""Builds the two extension modules: `aesg._core` (pybind11, no torch) and `aesg._ops` (torch stable ABI).

Environment
    AESG_CUDA             1: CUDA kernels are compiled, also on CPU torch (they then only register); 0: never;
                          unset: when this torch has CUDA and nvcc is found.
    TORCH_CUDA_ARCH_LIST  as in torch, default "8.0;9.0;10.0+PTX".
    MAX_JOBS              compilers at a time, default: the number of cores.
    CXX, CXXFLAGS         compiler, and flags put behind ours.

Objects live in build/objects and are made anew only when a source, a header or their command changed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OBJECTS = ROOT / "build" / "objects"
# Also in torch/headeronly: ops built with this target load in every torch from 2.11 on.
TORCH_TARGET = "0x020b000000000000"

try:
    import torch
    from torch.utils import cpp_extension
except ImportError:
    sys.exit(
        "aesg is built against the torch it will run with; there is none here. These two commands cure it:\n"
        "    pip install torch==2.13.0\n"
        "    pip install -e . --no-build-isolation"
    )


def source_lists() -> dict[str, list[str]]:
    """The set() lines of csrc/sources.cmake: name -> words."""
    text = re.sub(r"#.*", "", (ROOT / "csrc" / "sources.cmake").read_text())
    return {name: words.split() for name, words in re.findall(r"set\((\w+)\s+([^)]*)\)", text)}


LISTS = source_lists()


def sources(*names: str) -> list[str]:
    """Existing files that the named lists' patterns match, sorted: the same build on every machine."""
    return sorted(str(p.relative_to(ROOT)) for n in names for pattern in LISTS[n] for p in ROOT.glob(pattern))


def find_nvcc() -> str | None:
    """nvcc of the CUDA home torch knows, else the one on PATH; None when CUDA is switched off or absent."""
    wish = os.environ.get("AESG_CUDA", "")
    if wish not in ("", "0", "1"):
        sys.exit(f"AESG_CUDA: expected 0, 1 or nothing, got {wish!r}")
    if wish == "0" or (wish == "" and torch.version.cuda is None):
        return None
    home = cpp_extension.CUDA_HOME
    nvcc = str(Path(home) / "bin" / "nvcc") if home else ""
    nvcc = nvcc if os.path.exists(nvcc) else (shutil.which("nvcc") or "")
    if not nvcc and wish == "1":
        sys.exit("AESG_CUDA=1: expected nvcc under CUDA_HOME or on PATH, found none")
    if not nvcc:
        print("aesg: this torch has CUDA but nvcc was not found: building the CPU kernels only")
    return nvcc or None


def gencode_flags() -> list[str]:
    """-gencode flags of TORCH_CUDA_ARCH_LIST ("9.0", "8.0 9.0a+PTX", ...)."""
    wish = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    flags = []
    for arch in wish or LISTS["AESG_CUDA_ARCHITECTURES"]:
        match = re.fullmatch(r"(\d+)\.(\d+[af]?)(\+PTX)?", arch)
        if match is None:
            sys.exit(f"TORCH_CUDA_ARCH_LIST: expected numbers like 9.0 or 9.0+PTX, got {arch!r}")
        number = match[1] + match[2]
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match[3]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def is_fresh(output: Path, command: str) -> bool:
    """Whether `output` was made by this very command and is newer than all that went into it."""
    stamp = output.with_name(output.name + ".command")
    depfile = output.with_name(output.name + ".d")
    if not output.exists() or not stamp.exists() or stamp.read_text() != command:
        return False
    if not depfile.exists():
        return False
    files = depfile.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    made = output.stat().st_mtime
    return all(os.path.exists(file) and os.path.getmtime(file) <= made for file in files)


class BuildExtensions(build_ext):
    """Compiles changed sources in parallel, then links each module if any of its objects is new."""

    def build_extension(self, ext: Extension) -> None:
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        flags = [*LISTS["AESG_CXX_FLAGS"], "-I.", *ext.extra_compile_args]
        flags += shlex.split(os.environ.get("CXXFLAGS", ""))
        nvcc = next((arg[5:] for arg in ext.extra_link_args if arg.startswith("nvcc=")), None)
        link_args = [arg for arg in ext.extra_link_args if not arg.startswith("nvcc=")]
        cuda = [*LISTS["AESG_NVCC_FLAGS"], "-I.", *gencode_flags()] if nvcc else []

        jobs = []
        for source in ext.sources:
            output = OBJECTS / ext.name / (source + ".o")
            depfile = str(output) + ".d"
            front = [nvcc, *cuda] if source.endswith(".cu") else [*compiler, *flags]
            jobs.append((output, [*front, "-MD", "-MF", depfile, "-c", source, "-o", str(output)]))

        def compile_one(job: tuple[Path, list[str]]) -> bool:
            output, command = job
            line = shlex.join(command)
            if not self.force and is_fresh(output, line):
                return False
            output.parent.mkdir(parents=True, exist_ok=True)
            print(line, flush=True)
            subprocess.run(command, cwd=ROOT, check=True)
            output.with_name(output.name + ".command").write_text(line)
            return True

        workers = int(os.environ.get("MAX_JOBS", "0")) or os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:
            changed = any(list(pool.map(compile_one, jobs)))

        module = Path(self.get_ext_fullpath(ext.name)).absolute()
        objects = [str(output) for output, _ in jobs]
        # nvcc as linker knows where its own runtime lies.
        line = shlex.join(
            [*([nvcc] if nvcc else compiler), "-shared", *objects, *link_args, "-o", str(module)]
        )
        stamp = OBJECTS / ext.name / "link.command"
        if module.exists() and not changed and stamp.exists() and stamp.read_text() == line:
            return
        module.parent.mkdir(parents=True, exist_ok=True)
        print(line, flush=True)
        subprocess.run(shlex.split(line), cwd=ROOT, check=True)
        stamp.write_text(line)


def extensions() -> list[Extension]:
    if sys.platform != "linux":
        sys.exit(f"aesg: expected Linux (x86-64 or ARM), got {sys.platform}")
    # torch brings its own pybind11: nothing else is needed to build. -isystem keeps others' warnings out.
    includes = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    python = f"-isystem{sysconfig.get_path('include')}"
    found = []

    if any(source.startswith("csrc/storage/") for source in sources("AESG_CORE_SOURCES")):
        core = sources("AESG_CORE_SOURCES", "AESG_CORE_BINDING_SOURCES")
        found.append(Extension("aesg._core", core, extra_compile_args=[*includes, python]))
    else:
        print("aesg: csrc/storage has no sources yet: aesg._core is not built")

    nvcc = find_nvcc()
    compile_args = [*includes, python, f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"]
    # --no-as-needed: libtorch is kept and brings libtorch_cuda, if there is one, which knows the stream.
    link_args = [f"-L{path}" for path in cpp_extension.library_paths()]
    link_args += ["-Xlinker", "--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]
    if nvcc:
        compile_args.append("-DAESG_WITH_CUDA")
        link_args.append(f"nvcc={nvcc}")
    kernels = ["AESG_KERNEL_SOURCES", "AESG_OPS_BINDING_SOURCES", *(["AESG_CUDA_SOURCES"] if nvcc else [])]
    found.append(
        Extension(
            "aesg._ops",
            sources(*kernels),
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            py_limited_api=True,  # names it _ops.abi3.so; of Python it uses the limited API only
        )
    )
    return found


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})
