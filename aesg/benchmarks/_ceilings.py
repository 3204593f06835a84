"""What the machine itself can do, measured in the same run, and how much of it a figure used.

Ceilings are what torch reaches with nothing else to do; of several tries the best, so that no share
flatters. Work is what must be moved and done at least, whatever the way: a share is a lower bound.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch

from aesg.benchmarks._timing import time_in_turn

READ_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}  # beyond every cache
EDGE = {"cpu": 1024, "cuda": 8192}  # of the square matrices
SENT_BYTES = 1 << 26
SECONDS = 0.15  # a contestant

Ceilings = dict[str, float]  # "read", "copy", "send": bytes a second; "f32", "tf32", "bf16": FLOP a second


def add_roofline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--roofline", action="store_true", help="measure this machine's ceilings, show the share of each"
    )


def measured(options: argparse.Namespace) -> Ceilings | None:
    """The ceilings of `options.device` where they were asked for, printed."""
    if not options.roofline:
        return None
    found = measure(options.device)
    shown = ", ".join(f"{name} {1e-9 * rate:,.1f} G{unit(name)}/s" for name, rate in found.items())
    print(f"ceilings measured: {shown}")
    return found


def unit(name: str) -> str:
    return "B" if name in ("read", "copy", "send") else "FLOP"


def measure(device: str) -> Ceilings:
    """Bytes a second read and copied (read and written), FLOP a second of matrix products in f32; on a GPU
    also bytes a second sent there from pinned memory, and products in tf32 and bf16.
    """
    data = torch.ones(READ_BYTES[device] // 4, device=device)
    other = torch.empty_like(data)
    size, found = float(READ_BYTES[device]), Ceilings()
    reading = _best({"sum": data.sum, "max": data.amax, "copy": lambda: other.copy_(data)}, device)
    found["read"] = size / min(reading["sum"], reading["max"])
    found["copy"] = 2 * size / reading["copy"]
    if device != "cpu":
        pinned = torch.empty(SENT_BYTES, dtype=torch.uint8, pin_memory=True)
        there = torch.empty(SENT_BYTES, dtype=torch.uint8, device=device)
        found["send"] = SENT_BYTES / _best({"": lambda: there.copy_(pinned, non_blocking=True)}, device)[""]
    edge = EDGE[device]
    for name in ("f32",) if device == "cpu" else ("f32", "tf32", "bf16"):
        kind = torch.bfloat16 if name == "bf16" else torch.float32
        # Random numbers: of zeros a GPU multiplies more, for less power.
        a, b = torch.randn(2, edge, edge, device=device).to(kind)
        product = torch.empty_like(a)

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = product) -> object:
            return torch.mm(a, b, out=out)

        run = in_tf32(multiply) if name == "tf32" else multiply
        found[name] = 2 * edge**3 / _best({name: run}, device)[name]
    return found


def in_tf32(run: Callable[[], Any]) -> Callable[[], Any]:
    """`run` with products of f32 matrices in tf32 on a GPU."""

    def whole() -> Any:
        matmul = torch.backends.cuda.matmul
        former = matmul.fp32_precision
        matmul.fp32_precision = "tf32"
        try:
            return run()
        finally:
            matmul.fp32_precision = former

    return whole


def _best(runs: Mapping[str, Callable[[], object]], device: str) -> dict[str, float]:
    return {name: t.low for name, t in time_in_turn(runs, SECONDS, device=device).items()}


def roofline(
    moved: float, done: float, seconds: float, ceilings: Ceilings | None, by: str = "read"
) -> dict[str, Any]:
    """The least bytes and FLOP of one run that took `seconds`, their rates, and the share of each ceiling.

    `by` is the ceiling of the bytes. More than 1 of "f32" is the work of matrix units.
    """
    used: dict[str, Any] = {
        "bytes": moved, "flop": done, "bytes_a_second": moved / seconds, "flop_a_second": done / seconds,
    }  # fmt: skip
    if ceilings is not None:
        used["of"] = {
            name: used["flop_a_second" if unit(name) == "FLOP" else "bytes_a_second"] / rate
            for name, rate in ceilings.items()
            if name == by or (unit(name) == "FLOP" and done)
        }
    return used


def told(used: Mapping[str, Any]) -> str:
    """One line of `roofline`."""
    rates = f"{1e-9 * used['bytes_a_second']:.1f} GB/s"
    if used["flop"]:
        rates += f", {1e-9 * used['flop_a_second']:.1f} GFLOP/s"
    shares = ", ".join(f"{100 * share:.1f} % of {name}" for name, share in used.get("of", {}).items())
    return f"at least {rates}" + (f": {shares}" if shares else "")
