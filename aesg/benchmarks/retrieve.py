"""Latency of the whole `memory.retrieve` by hops: `python -m aesg bench retrieve --hops 1,2,4,8`.

One query at a time over clustered concepts with random edges, in INFERENCE; beside it the time of its two ops
alone and, with `--released PYTHON`, that of aesg 3.0.0 on the same vectors and edges.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg.benchmarks._released import Released
from aesg.benchmarks._worlds import clustered, make_memory, random_edges
from aesg.benchmarks.timing import integers, machine, write_json
from aesg.config import AESGConfig
from aesg.memory.controller import AESGMemory

LONGEST = 1.0  # seconds of one call beyond which a contestant is not asked for more hops


def latencies(run: Callable[[Tensor], object], queries: Tensor, batch: int, seconds: float) -> list[float]:
    """Seconds of single calls, with other queries each time."""
    taken: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        run(queries[:batch])
        began = time.perf_counter()
        while len(taken) < 20 or time.perf_counter() - began < seconds:
            at = len(taken) * batch % (len(queries) - batch + 1)
            start = time.perf_counter()
            run(queries[at : at + batch])
            taken.append(time.perf_counter() - start)
            if len(taken) >= 3 and taken[-1] > 0.2 * seconds:
                break
    finally:
        if collecting:
            gc.enable()
    return taken


def summary(taken: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(taken, [50, 99])
    return {"average": float(np.mean(taken)), "p50": float(p50), "p99": float(p99), "calls": len(taken)}


def check_nearest(memory: AESGMemory, released: Released, queries: Tensor) -> None:
    """Both find the same two nearest concepts, near ties excepted."""
    scores, slots = memory.graph.search(queries, 3, 0.1)
    theirs = released.ask("nearest")["found"]
    for score, slot, other in zip(scores, slots, theirs, strict=True):
        if slot[:2].tolist() != other and float((score[:2] - score[1:]).min()) > 1e-5:
            raise AssertionError(f"aesg 3.0.0 finds {other} where ours finds {slot[:2].tolist()}")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one table a number of concepts. Returns 0."""
    parser = argparse.ArgumentParser(prog="aesg bench retrieve", description=__doc__)
    parser.add_argument("--n", type=integers, default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--hops", type=integers, default=[1, 2, 4, 8])
    parser.add_argument("--batch", type=integers, default=[1])
    parser.add_argument("--degree", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="a contestant and case")
    parser.add_argument("--released", default=None, metavar="PYTHON", help="a Python that has aesg 3.0.0")
    parser.add_argument("--released-n", type=int, default=100_000, help="largest N it is asked for")
    parser.add_argument("--short", action="store_true", help="a quick look: small N, few calls")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args(argv)
    if options.short:
        options.n, options.seconds, options.hops = [1_000, 10_000], 0.2, [1, 4]
    torch.set_num_threads(options.threads)
    print(
        f"memory.retrieve, D={options.dim}, degree {options.degree}, {options.threads} thread(s), {machine()}"
    )
    cases: list[dict[str, Any]] = []
    for n in options.n:
        with tempfile.TemporaryDirectory(prefix="aesg-bench-") as folder:
            cases += _one_size(Path(folder), n, options)
    write_json(options.json, "retrieve", options, cases)
    return 0


def _one_size(folder: Path, n: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    vectors, queries = clustered(n, options.dim, 0), clustered(4096, options.dim, 1)
    config = AESGConfig(vector_dim=options.dim, max_concepts=max(2 * n, 1000))
    memory = make_memory(folder / "memory", vectors, options.degree, config)
    released = None
    if options.released and n <= options.released_n:
        edges = tuple(part.numpy() for part in random_edges(n, options.degree)) if options.degree else None
        released = Released(options.released, vectors.numpy(), queries[:64].numpy(), edges)
        check_nearest(memory, released, queries[:64])
    cases: list[dict[str, Any]] = []
    for batch in options.batch:
        memory.retrieve(queries[:batch])
        stats = memory.stats()
        print(f"\nN={n} B={batch}, search {stats['search']} (recall {stats['search_recall']:.3f})")
        print("| hops | average | p50 | p99 | its two ops | ratio | aesg 3.0.0, p50 | times ours |")
        print("|:--:|--:|--:|--:|--:|--:|--:|--:|")
        slow = False
        for hops in options.hops:
            asked = AESGMemory(
                memory.directory, replace(config, spreading_activation_steps=hops, priming=0.0)
            )
            asked.set_mode("INFERENCE")

            def ops(rows: Tensor, graph: Any = asked.graph, hops: int = hops) -> object:
                scores, slots = graph.seek(rows, config.seed_top_k, config.seed_min_similarity)
                return graph.spread(slots, scores, hops=hops, k=config.context_size)

            with torch.no_grad():
                whole = summary(latencies(asked.retrieve, queries, batch, options.seconds))
                two = summary(latencies(ops, queries, batch, options.seconds))
            case: dict[str, Any] = {
                "n": n,
                "batch": batch,
                "hops": hops,
                "seconds": {"aesg": whole, "two ops": two},
            }
            theirs = "| | |"
            if released is not None and batch == 1 and not slow:
                taken = [released.ask("retrieve", hops=hops)["seconds"]]
                while len(taken) < 20 and sum(taken) < 2 * options.seconds:
                    taken.append(released.ask("retrieve", hops=hops)["seconds"])
                slow = min(taken) > LONGEST
                other = summary(taken)
                case["seconds"]["aesg 3.0.0"] = other
                theirs = f"| {1e3 * other['p50']:.2f} ms | {other['p50'] / whole['p50']:.0f} |"
            times = " | ".join(f"{1e3 * whole[name]:.3f} ms" for name in ("average", "p50", "p99"))
            ratio = whole["p50"] / two["p50"]
            print(f"| {hops} | {times} | {1e3 * two['p50']:.3f} ms | {ratio:.2f} {theirs}", flush=True)
            cases.append(case)
    if released is not None:
        released.close()
    memory.close()
    return cases


if __name__ == "__main__":
    raise SystemExit(main())
