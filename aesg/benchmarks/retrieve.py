"""Latency of the whole `memory.retrieve` by hops: `python -m aesg bench retrieve --hops 1,2,4,8`.

One query at a time over clustered concepts with random edges, in INFERENCE; beside it the time of its two ops
alone and, with `--released PYTHON`, that of aesg 3.0.0 on the same vectors and edges. On a device a call ends
when the device is done; what a captured CUDA graph takes comes last.
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

from aesg.benchmarks._ceilings import Ceilings, add_roofline, measured, roofline, told
from aesg.benchmarks._device import add_device, capture, until_done
from aesg.benchmarks._released import Released
from aesg.benchmarks._timing import integers, machine, write_json
from aesg.benchmarks._worlds import clustered, make_memory, random_edges
from aesg.config import AESGConfig
from aesg.memory.controller import AESGMemory

ROUNDS = 4  # in which the hops are timed in turn
LONGEST = 1.0  # seconds of one call beyond which a contestant is not asked for more hops


def latencies(
    run: Callable[[Tensor], object], queries: Tensor, batch: int, seconds: float, least: int = 20
) -> list[float]:
    """Seconds of single calls, with other queries each time. A call that takes a fifth of `seconds` is made
    three times, others `least` times and more.
    """
    taken: list[float] = []
    parts = len(queries) - batch + 1
    collecting = gc.isenabled()
    gc.disable()
    try:
        run(queries[:batch])
        began = time.perf_counter()
        while len(taken) < least or time.perf_counter() - began < seconds:
            at = len(taken) * batch % parts
            asked = queries[at : at + batch]
            start = time.perf_counter()
            run(asked)
            taken.append(time.perf_counter() - start)
            if len(taken) >= 3 and taken[-1] > 0.2 * seconds:
                break
    finally:
        if collecting:
            gc.enable()
    return taken


def summary(taken: Sequence[float]) -> dict[str, float]:
    p10, p50, p90, p99 = np.percentile(taken, [10, 50, 90, 99])
    found = {"average": np.mean(taken), "p10": p10, "p50": p50, "p90": p90, "p99": p99}
    return {name: float(value) for name, value in found.items()} | {"calls": len(taken)}


def with_hops(directory: Path, config: AESGConfig, hops: int, device: str) -> AESGMemory:
    """The memory, at rest, that spreads so many hops: also none, which a config refuses and the ops take."""
    rules = replace(config, spreading_activation_steps=max(1, hops))
    memory = AESGMemory(directory, rules, device)
    for reader in (memory, memory.graph, memory.navigator):
        reader.config = replace(rules, spreading_activation_steps=hops)
    memory.set_mode("INFERENCE")
    return memory


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
    add_device(parser)
    add_roofline(parser)
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
    ceilings = measured(options)
    cases: list[dict[str, Any]] = []
    for n in options.n:
        with tempfile.TemporaryDirectory(prefix="aesg-bench-") as folder:
            _one_size(Path(folder), n, options, ceilings, cases)
    write_json(options.json, "retrieve", options, cases, ceilings)
    return 0


def _one_size(
    folder: Path, n: int, options: argparse.Namespace, ceilings: Ceilings | None, cases: list[dict[str, Any]]
) -> None:
    """Adds the cases of one number of concepts, and writes what there is after each."""
    vectors, queries = clustered(n, options.dim, 0), clustered(4096, options.dim, 1)
    config = AESGConfig(vector_dim=options.dim, max_concepts=max(2 * n, 1000))
    memory = make_memory(folder / "memory", vectors, options.degree, config)
    released = None
    if options.released and n <= options.released_n:
        edges = tuple(part.numpy() for part in random_edges(n, options.degree)) if options.degree else None
        released = Released(options.released, vectors.numpy(), queries[:64].numpy(), edges)
        check_nearest(memory, released, queries[:64])
    there = queries.to(options.device)
    asked: dict[int, AESGMemory] = {}
    for hops in options.hops:
        asked[hops] = with_hops(memory.directory, replace(config, priming=0.0), hops, options.device)
    before = len(cases)
    for batch in options.batch:
        asked[options.hops[0]].retrieve(there[:batch])
        stats = memory.stats()
        where = f"search {stats['search']} (recall {stats['search_recall']:.3f})"
        print(f"\nN={n} B={batch}, {where if options.device == 'cpu' else 'on the device'}")
        print("| hops | average | p50 | p99 | its two ops | ratio | aesg 3.0.0, p50 | times ours |")
        print("|:--:|--:|--:|--:|--:|--:|--:|--:|")
        whole, two = _in_turn(asked, there, batch, options)
        slow, notes = False, []
        for hops in options.hops:
            ours, ops = whole[hops], two[hops]
            case: dict[str, Any] = {
                "n": n,
                "batch": batch,
                "hops": hops,
                "seconds": {"aesg": ours, "two ops": ops},
            }
            theirs = "| | |"
            if released is not None and batch == 1 and not slow:
                taken = [released.ask("retrieve", hops=hops)["seconds"]]
                while len(taken) < 20 and sum(taken) < 2 * options.seconds:
                    taken.append(released.ask("retrieve", hops=hops)["seconds"])
                slow = min(taken) > LONGEST
                other = summary(taken)
                case["seconds"]["aesg 3.0.0"] = other
                theirs = f"| {1e3 * other['p50']:.2f} ms | {other['p50'] / ours['p50']:.0f} |"
            times = " | ".join(f"{1e3 * ours[name]:.3f} ms" for name in ("average", "p50", "p99"))
            ratio = ours["p50"] / ops["p50"]
            print(f"| {hops} | {times} | {1e3 * ops['p50']:.3f} ms | {ratio:.2f} {theirs}", flush=True)
            if 0 in whole and hops:
                case["times 0 hops"] = ours["p50"] / whole[0]["p50"]
                notes.append(f"{hops} hops: {case['times 0 hops']:.3f} times as long as 0 hops")
            if options.device != "cpu" or stats["search"] == "exact":
                # All vectors, the queries, the members and their vectors; the products of the search.
                dim, k = options.dim, config.context_size
                moved = 4 * dim * (n + batch) + batch * k * (8 * dim + 12)
                case["roofline"] = roofline(moved, 2.0 * n * dim * batch, ours["p50"], ceilings)
                notes.append(f"{hops} hops: {told(case['roofline'])}")
            cases.append(case)
            write_json(options.json, "retrieve", options, cases, ceilings, done=False)
        print("\n".join(notes))
    if options.device != "cpu":  # last: what fails in a capture may spoil what comes after it
        for case in cases[before:]:
            _captured(case, asked[case["hops"]], there, options)
            write_json(options.json, "retrieve", options, cases, ceilings, done=False)
    if released is not None:
        released.close()
    for each in (*asked.values(), memory):
        each.close()


def _in_turn(
    asked: dict[int, AESGMemory], queries: Tensor, batch: int, options: argparse.Namespace
) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    """By hops: the whole call, and its two ops alone. The hops are timed in turn, ROUNDS times."""
    whole: dict[int, list[float]] = {hops: [] for hops in asked}
    two: dict[int, list[float]] = {hops: [] for hops in asked}
    device = options.device
    with torch.no_grad():
        for _ in range(ROUNDS):
            for hops, memory in asked.items():
                for found, run in ((whole, memory.retrieve), (two, _two_ops(memory, device))):
                    done = _done(run, device)
                    found[hops] += latencies(done, queries, batch, options.seconds / ROUNDS)
    return {h: summary(t) for h, t in whole.items()}, {h: summary(t) for h, t in two.items()}


def _two_ops(memory: AESGMemory, device: str) -> Callable[[Tensor], object]:
    config, graph = memory.config, memory.graph

    def ops(rows: Tensor) -> object:
        scores, slots = graph.seek(rows, config.seed_top_k, config.seed_min_similarity)
        if device != "cpu":
            return graph.activate(scores, slots)
        return graph.spread(slots, scores, hops=config.spreading_activation_steps, k=config.context_size)

    return ops


def _done(run: Callable[[Tensor], object], device: str) -> Callable[[Tensor], object]:
    return run if device == "cpu" else lambda rows: until_done(lambda: run(rows))()


def _captured(case: dict[str, Any], memory: AESGMemory, queries: Tensor, options: argparse.Namespace) -> None:
    """Adds what the call takes in a captured CUDA graph, the query put in its place included; or why it has
    none. Raises AssertionError where a replay answers otherwise than the call.
    """
    named = f"N={case['n']} B={case['batch']} T={case['hops']}, in a captured graph"
    with torch.no_grad():
        # Captured with others than it is then asked: an answer that only stayed where it was would show.
        others = queries.roll(1, dims=0)[: case["batch"]]
        wanted = memory.retrieve(others).indices.clone()
        captured = capture(memory.retrieve, queries[: case["batch"]])
        if captured.replay is None:
            case["captured"] = captured.failed
            print(f"{named}: {captured.failed}")
            return
        if not torch.equal(captured.replay(others).indices, wanted):
            raise AssertionError(f"{named}: other members than the call itself finds")
        run = _done(captured.replay, options.device)
        case["captured"] = summary(latencies(run, queries, case["batch"], options.seconds / 2))
    times = ", ".join(f"{name} {1e3 * case['captured'][name]:.3f} ms" for name in ("p50", "p99"))
    print(f"{named}: {times}")


if __name__ == "__main__":
    raise SystemExit(main())
