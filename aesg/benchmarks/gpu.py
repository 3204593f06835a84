"""Everything that only a GPU can prove, in one call of under ten minutes: `python -m aesg bench gpu`.

Builds the kernels, runs the tests marked `cuda`, every benchmark that has something on a device, and a small
case under compute-sanitizer. Each is a process with a limit of its own; one that fails hides no other's
results. All of it goes to one file, <gpu>-<date>.json, written anew after every step: machine, steps,
benchmarks with their ceilings, and the figures that have an aim.

Exit status: 0, also where an aim was missed; 1 if a step failed; 3 without a GPU. `--device cpu --small`
tries the pipeline without one. `--table FILE` prints README's table of such a file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from aesg.benchmarks import _steps, _targets
from aesg.benchmarks._device import gpu_facts
from aesg.benchmarks._steps import Step
from aesg.benchmarks._timing import machine
from aesg.exceptions import AESGConfigError, AESGStorageError
from aesg.tools.files import write_text

ROOT = Path(__file__).resolve().parents[2]  # of the checkout
RESULTS = ROOT / "benchmarks" / "results"
FAILED, NO_DEVICE = 1, 3
MOST = 570.0  # seconds in all, so that a call of ten minutes ends by itself
# For compute-sanitizer the last case of each: every kernel, and a memory that learns.
SANITIZED = "of_the_cpu or cuda_equals or loses_no_row or to_the_last_bit"

# By benchmark: its limit in seconds, its arguments, and those of a small run.
BENCHMARKS: dict[str, tuple[float, str, str]] = {
    "seeds": (
        90,
        "--n 1e6 --dim 64 --batch 1,32,256,4096 --threads 4",
        "--n 3000 --dim 64 --batch 1,256 --seconds 0.02",
    ),
    "retrieve": (
        130,
        "--n 1e6 --hops 0,4 --batch 1,32,256,4096 --threads 4",
        "--n 2000 --hops 0,4 --batch 1,32 --seconds 0.1",
    ),
    "spread": (
        110,
        "--n 1e6 --hops 4 --batch 1,4096 --threads 4",
        "--n 2000 --hops 4 --batch 1,32 --graph random --seconds 0.02",
    ),
    "train": (
        90,
        "--models AESGTransformer,AESGDecoderLM --concepts 1000,100000 --vocab 1000 --runs 50 --threads 4",
        "--short --models AESGTransformer",
    ),
    "insert": (
        90,
        "--n 1e6 --rows 1e6 --rounds 2 --at-a-time 256,4096 --threads 4",
        "--n 2000 --rows 4096 --rounds 1 --at-a-time 256,4096",
    ),
    "learn": (60, "--n 1e6 --batch 1,256,4096 --seconds 0.6 --threads 4", "--short"),
    "consolidate": (30, "--n 1e6,1e7 --threads 4", "--short"),
    "topology": (60, "--updates 50 --threads 4", "--short --updates 50"),
}
TO_A_FOLDER = ("train", "topology")  # these write NAME.json into --out
WITHOUT_ROOFLINE = ("topology",)


def plan(device: str, small: bool, folder: Path) -> list[Step]:
    """The steps in the order of their worth; results of benchmarks go to `folder`."""
    python, on_gpu = sys.executable, device == "cuda"
    checkout = None if (ROOT / "setup.py").is_file() else "no checkout"
    # A file that lacks a package fails the step, but hides no test of another file.
    cuda_tests = [python, "-m", "pytest", "-q", "-m", "cuda", "--continue-on-collection-errors"]
    steps = [
        Step(
            "build",
            [python, "-m", "pip", "install", "-q", "-e", ".", "--no-build-isolation", "--no-deps"],
            240,
            {"AESG_CUDA": "1", "TORCH_CUDA_ARCH_LIST": _architecture()} if on_gpu else {},
            left_out=checkout or (None if on_gpu else "on the CPU: what is there is used"),
        ),
        Step(
            "tests",
            [*cuda_tests, "tests", *([] if on_gpu else ["--collect-only"])],
            180,
            left_out=checkout,
            must_pass=on_gpu,
        ),
    ]
    for name, (limit, full, little) in BENCHMARKS.items():
        result = folder / f"{name}.json"
        where = ["--out", str(folder)] if name in TO_A_FOLDER else ["--json", str(result)]
        command = [python, "-m", "aesg", "bench", name, "--device", device, *where]
        command += [] if name in WITHOUT_ROOFLINE else ["--roofline"]
        words = (little if small else full).split()
        steps.append(Step(name, command + words, limit, result=result, judges=name == "topology"))
    sanitizer = _sanitizer()
    no_sanitizer = None if sanitizer is not None else "compute-sanitizer is not there"
    some_tests = [
        *cuda_tests, "--one-of-each", "-k", SANITIZED, "tests/ops", "tests/graph/test_device_learning.py",
    ]  # fmt: skip
    # torch asks the driver for what it may lack, an error of its API; the ops check what their launches say.
    options = ["--error-exitcode", "9", "--report-api-errors", "no", "--kernel-regex", "kns=aesg"]
    for tool in ("memcheck", "racecheck"):
        steps.append(
            Step(
                tool,
                [sanitizer or "compute-sanitizer", "--tool", tool, *options, *some_tests],
                90,
                left_out=checkout or (no_sanitizer if on_gpu else "on the CPU"),
                must_pass=True,
            )
        )
    return steps


def _sanitizer() -> str | None:
    """compute-sanitizer on PATH, else where CUDA has it, which often is not on it."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    beside = [str(Path(home, "bin")), str(Path(home, "compute-sanitizer"))]
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=os.pathsep.join(beside)
    )


def _architecture() -> str:
    told = os.environ.get("TORCH_CUDA_ARCH_LIST")
    return told or "{}.{}".format(*torch.cuda.get_device_capability())


def describe(revision: str | None) -> dict[str, Any]:
    """The machine, the GPU's facts, and the sources: revision, and whether they differ from it (None: not
    known). `revision`: for sources without their history, a + behind it for changed ones.
    """
    found = machine() | {"gpu_facts": gpu_facts()}
    if revision is not None:
        return found | {"revision": revision.rstrip("+"), "dirty": revision.endswith("+")}
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    try:
        at, changes = (
            subprocess.run([*command, *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return found | {"revision": None, "dirty": None}
    return found | {"revision": at[:12], "dirty": bool(changes)}


def gather(record: dict[str, Any], step: Step) -> None:
    """Takes what a benchmark wrote into the record, and finds the figures anew."""
    if step.result is not None and step.result.is_file():
        written = json.loads(step.result.read_text())
        written.pop("machine", None)
        record["benchmarks"][step.name] = written
        for name, rate in written.get("ceilings", {}).items():
            record["ceilings"][name] = max(rate, record["ceilings"].get(name, 0.0))
    full = record["device"] == "cuda" and not record["small"]
    record["figures"], record["not_measured"] = _targets.check(
        record["benchmarks"], aims=full, any_size=record["small"]
    )


def write(path: Path, record: dict[str, Any]) -> None:
    write_text(path, json.dumps(record, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the steps. Returns the exit status above."""
    parser = argparse.ArgumentParser(prog="aesg bench gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes: tries the steps, measures nothing")
    parser.add_argument("--out", type=Path, default=None, help="default: $OUT, else benchmarks/results")
    parser.add_argument("--steps", default=None, help="only these, comma-separated")
    parser.add_argument("--most", type=float, default=MOST, help="seconds in all")
    parser.add_argument("--revision", default=None, help="of the sources, where git is not there to ask")
    parser.add_argument("--table", type=Path, default=None, metavar="FILE", help="README's table of a file")
    options = parser.parse_args(argv)
    if options.table is not None:
        print(_targets.as_markdown(read(options.table)), end="")
        return 0
    out = options.out or (Path(os.environ["OUT"]) if os.environ.get("OUT") else None)
    if options.device == "cpu" and out is None:
        raise AESGConfigError("--device cpu only tries the steps: name a folder with --out")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("aesg bench gpu: torch sees no CUDA device; --device cpu --small tries the steps without one")
        return NO_DEVICE
    return _run((out or RESULTS).resolve(), options)


def _run(out: Path, options: argparse.Namespace) -> int:
    began, now = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
    about = describe(options.revision)
    name = (about["gpu"] if options.device == "cuda" else "cpu").lower().replace(" ", "-")
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-{now:%Y%m%d}.json"
    log = path.with_suffix(".log")
    log.write_bytes(b"")
    record: dict[str, Any] = {
        "benchmark": "gpu", "date": f"{now:%Y-%m-%dT%H:%M:%SZ}", "device": options.device,
        "small": options.small, "machine": about, "steps": [], "ceilings": {}, "benchmarks": {},
        "figures": {}, "not_measured": {},
    }  # fmt: skip
    print(f"{about}\noutput of the steps: {log}", flush=True)
    with tempfile.TemporaryDirectory(prefix="aesg-gpu-") as folder:
        steps = plan(options.device, options.small, Path(folder))
        for step in chosen(steps, options.steps):
            done = _steps.run(step, ROOT, log, options.most - (time.monotonic() - began))
            record["steps"].append(done)
            gather(record, step)
            write(path, record)
            print(told(done), flush=True)
    record["seconds"] = round(time.monotonic() - began, 1)
    record["machine"]["gpu_facts_after"] = gpu_facts()
    write(path, record)
    print(_targets.told(record["figures"], record["not_measured"]))
    failed = [done["name"] for done in record["steps"] if not done["ok"]]
    print(f"{record['seconds']} s, failed: {', '.join(failed) or 'none'}\nwritten: {path}")
    return FAILED if failed else 0


def chosen(steps: list[Step], names: str | None) -> list[Step]:
    """Those of `steps` that are named. Raises AESGConfigError for a name that is none of theirs."""
    if names is None:
        return steps
    wanted, there = names.split(","), [step.name for step in steps]
    if unknown := [name for name in wanted if name not in there]:
        raise AESGConfigError(f"--steps: expected some of {', '.join(there)}, got {', '.join(unknown)}")
    return [step for step in steps if step.name in wanted]


def told(done: dict[str, Any]) -> str:
    """A line for a step; of a failed one the end of its output as well."""
    if "left_out" in done:
        return f"left out           {done['name']}: {done['left_out']}"
    counts = ", ".join(f"{count} {kind}" for kind, count in done.get("tests", {}).items())
    line = f"{'ok' if done['ok'] else 'FAILED':8} {done['seconds']:7.1f} s  {done['name']}"
    line += f": {counts}" if counts else ""
    return line if done["ok"] else f"{line}: {done['reason']}\n{done.get('tail', '')}"


def read(path: Path) -> dict[str, Any]:
    """A results file. Raises AESGStorageError for what is none."""
    try:
        record = json.loads(path.read_text("utf-8"))
        if not isinstance(record, dict) or record.get("benchmark") != "gpu":
            raise ValueError("it is none of `aesg bench gpu`")
        return record
    except (OSError, ValueError) as error:
        raise AESGStorageError(f"'{path}': expected a results file, got: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main())
