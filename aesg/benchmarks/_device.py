"""`--device` of the benchmarks: the one option, how work on a device is timed, and captured CUDA graphs."""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from aesg.exceptions import AESGConfigError

DEVICES = ("cpu", "cuda")
WARM_UPS = 3  # calls before a capture, so that whoever sets something up at first has done so
T = TypeVar("T")


def add_device(parser: argparse.ArgumentParser, nothing: str | None = None) -> None:
    """Adds `--device cpu|cuda`. `nothing`: why no part of the benchmark runs on a device.

    Parsing cuda raises AESGConfigError where there is nothing to time there, torch sees no CUDA device, or
    the library was built without kernels for it.
    """

    def device(text: str) -> str:
        if text not in DEVICES:
            raise argparse.ArgumentTypeError(f"expected {' or '.join(DEVICES)}, got {text!r}")
        if text != "cpu" and nothing is not None:
            raise AESGConfigError(f"--device {text}: {nothing}")
        if text != "cpu":
            require_cuda()
        return text

    about = "cpu (default) or cuda" if nothing is None else f"cpu only: {nothing}"
    parser.add_argument("--device", type=device, default="cpu", metavar="{cpu,cuda}", help=about)


def require_cuda() -> None:
    """Raises AESGConfigError unless a CUDA device and kernels for it are there."""
    if not torch.cuda.is_available():
        raise AESGConfigError("--device cuda: torch sees no CUDA device")
    from aesg._extension import has_cuda_kernels  # loads the library, which some benchmarks never need

    if not has_cuda_kernels():
        raise AESGConfigError(
            "--device cuda: this build has no CUDA kernels; build again with AESG_CUDA=1 and nvcc"
        )


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are: what it is asked goes there, and what is counted comes back."""
    return next(model.parameters()).device


def is_there(tensor: Tensor) -> bool:
    """Whether a tensor is on a device."""
    return tensor.is_cuda


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def until_done(run: Callable[[], T], device: str = "cuda") -> Callable[[], T]:
    """`run`, and the wait until the device has done it."""
    if device == "cpu":
        return run

    def whole() -> T:
        result = run()
        torch.cuda.synchronize()
        return result

    return whole


def seconds_of(run: Callable[[], object], repeats: int, device: str) -> float:
    """Seconds of one of `repeats` runs in a row. On a device between two events, so that the calls queue up
    as in a training loop; what waits on the host in between counts as well.
    """
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - start) / repeats
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return 1e-3 * begin.elapsed_time(end) / repeats


def tried(name: str, make: Callable[[], Callable[[], T] | None]) -> Callable[[], T] | None:
    """A peer, made and run once; None, and a line that says why, where it is missing or cannot do it.

    Peers depend on what is installed, on the device and on its free memory: none may end the others' run.
    """
    try:
        run = make()
        if run is not None:
            run()
        return run
    except ImportError as error:
        print(f"{name}: not installed, left out ({error})")
    except Exception as error:
        print(f"{name}: failed, left out ({type(error).__name__}: {_first_line(error)})")
    return None


class Captured(NamedTuple):
    """A call in a CUDA graph: `replay(query)` puts the query in its place and replays it; or why not."""

    replay: Callable[[Tensor], Any] | None
    failed: str | None


def capture(run: Callable[[Tensor], Any], query: Tensor) -> Captured:
    """`run(query)` as a CUDA graph. What `run` returned then is what every replay fills and returns.

    Never raises: where the call cannot be captured, `failed` is "capture failed: " and the reason.
    """
    if not is_there(query):
        return Captured(None, "capture failed: the query is not on a CUDA device")
    try:
        place = query.clone()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                run(place)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = run(place)

        def replay(asked: Tensor) -> Any:
            place.copy_(asked)
            graph.replay()
            return found

        replay(query)
        torch.cuda.synchronize()
        return Captured(replay, None)
    except Exception as error:
        return Captured(None, why_not(error))


def why_not(error: Exception) -> str:
    """What to say of a call that could not be captured."""
    reason = f"capture failed: {type(error).__name__}: {_first_line(error)}"
    try:
        torch.cuda.synchronize()
    except Exception as later:  # the capture took the device's context with it
        reason += f"; the device afterwards: {_first_line(later)}"
    return reason


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]


def gpu_facts() -> dict[str, Any] | None:
    """What a figure of this GPU must be read with; None without one. Clocks are those of this moment."""
    if not torch.cuda.is_available():
        return None
    told = torch.cuda.get_device_properties(torch.cuda.current_device())
    facts: dict[str, Any] = {
        "name": told.name,
        "capability": f"{told.major}.{told.minor}",
        "multiprocessors": told.multi_processor_count,
        "memory_gib": round(told.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
    }
    asked = {
        "driver": "driver_version",
        "sm_mhz": "clocks.sm",
        "sm_mhz_most": "clocks.max.sm",
        "memory_mhz": "clocks.mem",
        "power_limit_w": "power.limit",
        "temperature_c": "temperature.gpu",
    }
    command = ["nvidia-smi", f"--query-gpu={','.join(asked.values())}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return facts
    words = answer.splitlines()[0].split(",") if answer.strip() else []
    return facts | dict(zip(asked, (word.strip() for word in words), strict=False))
