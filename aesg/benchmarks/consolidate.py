"""One pass of ageing over all concepts: `python -m aesg bench consolidate`.

The peer is the same in numpy, over columns; on a device in torch, there.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg.benchmarks._ceilings import add_roofline, measured, roofline, told
from aesg.benchmarks._device import add_device
from aesg.benchmarks._released import Released
from aesg.benchmarks._timing import as_json, integers, machine, print_case, time_in_turn, write_json
from aesg.ops import consolidate_

RULES = {
    "relevance_decay": 0.95, "min_age": 5, "relevance_threshold": 0.05, "frequency_threshold": 5,
}  # fmt: skip
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # age, relevance, use_frequency, active


def columns(n: int) -> Columns:
    rng = np.random.default_rng(0)
    return (
        rng.integers(0, 20, n).astype(np.int32),
        rng.random(n, dtype=np.float32),
        rng.integers(0, 20, n).astype(np.int32),
        (rng.random(n) < 0.95).astype(np.uint8),
    )


def numpy_consolidate(
    age: np.ndarray, relevance: np.ndarray, use: np.ndarray, active: np.ndarray
) -> np.ndarray:
    """The same over columns, as good as numpy does it: nothing is gathered, masks are multiplied in."""
    alive = active.view(np.bool_)
    np.add(age, active, out=age, casting="unsafe")
    np.multiply(relevance, np.float32(RULES["relevance_decay"]), out=relevance, where=alive)
    doomed = relevance < np.float32(RULES["relevance_threshold"])
    doomed &= age > RULES["min_age"]
    doomed &= use < RULES["frequency_threshold"]
    doomed &= alive
    return doomed


def torch_consolidate(age: Tensor, relevance: Tensor, use: Tensor, active: Tensor) -> Tensor:
    """The same in torch's operations, in place."""
    alive = active.bool()
    age.add_(active)
    relevance.mul_(torch.where(alive, RULES["relevance_decay"], 1.0))
    doomed = relevance < RULES["relevance_threshold"]
    doomed &= age > RULES["min_age"]
    doomed &= use < RULES["frequency_threshold"]
    return doomed & alive


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one table a number of concepts. Returns 0."""
    parser = argparse.ArgumentParser(prog="aesg bench consolidate", description=__doc__)
    parser.add_argument("--n", type=integers, default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=64, help="of the released version's records")
    add_device(parser)
    add_roofline(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="a contestant and case")
    parser.add_argument("--released", default=None, metavar="PYTHON", help="a Python that has aesg 3.0.0")
    parser.add_argument("--released-n", type=int, default=100_000, help="largest N it is asked for")
    parser.add_argument("--short", action="store_true", help="a quick look: small N")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args(argv)
    if options.short:
        options.n, options.seconds = [10_000], 0.1
    torch.set_num_threads(options.threads)
    print(f"consolidation, {options.threads} thread(s), {machine()}")
    ceilings = measured(options)
    cases: list[dict[str, Any]] = []
    for n in options.n:
        check_equal(n, options.device)
        ours = on(options.device, n)

        def run(ours: list[Tensor] = ours, n: int = n) -> object:
            return consolidate_(*ours, count=n, **RULES)  # type: ignore[arg-type]

        runs: dict[str, Callable[[], object]] = {"aesg.consolidate_": run}
        if options.device == "cpu":
            runs["numpy, columnar"] = functools.partial(numpy_consolidate, *columns(n))
        else:
            runs["torch"] = functools.partial(torch_consolidate, *on(options.device, n))
        timings = time_in_turn(runs, options.seconds, device=options.device)
        # Reads the four columns, writes age, relevance and the doomed; one product a concept.
        used = roofline(22.0 * n, float(n), timings["aesg.consolidate_"].median, ceilings)
        print_case(f"N={n} ({told(used)})", timings, 1e-6, "us")
        case: dict[str, Any] = {"n": n, "seconds": as_json(timings), "roofline": used}
        if options.released and n <= options.released_n:
            world = np.random.default_rng(0).standard_normal((n, options.dim), dtype=np.float32)
            released = Released(options.released, world, world[:1])
            taken = sorted(released.ask("consolidate")["seconds"] for _ in range(7))
            released.close()
            ratio = taken[3] / timings["aesg.consolidate_"].median
            print(f"  {'aesg 3.0.0 consolidate()':28} {1e6 * taken[3]:10.0f} us, {ratio:.0f} x ours")
            case["seconds"]["aesg 3.0.0"] = taken
        cases.append(case)
        write_json(options.json, "consolidate", options, cases, ceilings, done=False)
    write_json(options.json, "consolidate", options, cases, ceilings)
    return 0


def on(device: str, n: int) -> list[Tensor]:
    return [torch.from_numpy(column).to(device) for column in columns(n)]


def check_equal(n: int, device: str = "cpu") -> None:
    """All give the same doomed and leave the same columns."""
    ours, in_torch, theirs = on(device, n), on(device, n), columns(n)
    doomed = consolidate_(*ours, count=n, **RULES)  # type: ignore[arg-type]
    numpys, torchs = torch.from_numpy(numpy_consolidate(*theirs)), torch_consolidate(*in_torch)
    for name, found, left in (
        ("numpy", numpys, [torch.from_numpy(column) for column in theirs]),
        ("torch", torchs, in_torch),
    ):
        same = torch.equal(doomed.bool().cpu(), found.cpu())
        if not (same and all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(ours, left, strict=True))):
            raise AssertionError(f"{name} and consolidate_ differ")


if __name__ == "__main__":
    raise SystemExit(main())
