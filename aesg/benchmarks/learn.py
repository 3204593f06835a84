"""What learning costs beside answering: `python -m aesg bench learn`.

Clustered concepts with random edges, in TRAIN. A call of `retrieve` that learns beside one that does not,
`update_topology()` behind such calls, and births by asking: novel vectors, each of which the very next call
must find. On a device all of it is learnt there first and ends when the device is done; what the host does
later, when it takes in what was sent, is timed apart. What captured CUDA graphs take comes last.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg.benchmarks._ceilings import Ceilings, add_roofline, measured, roofline, told
from aesg.benchmarks._device import add_device, synchronize, why_not
from aesg.benchmarks._timing import integers, machine, write_json
from aesg.benchmarks._worlds import clustered, make_memory
from aesg.benchmarks.insert import LOST
from aesg.benchmarks.retrieve import ROUNDS, summary
from aesg.config import AESGConfig
from aesg.graph.awaited import MOST_CALLS, MOST_ROWS
from aesg.memory.context import RetrievedContext
from aesg.memory.controller import AESGMemory

NEVER = 1_000_000_000  # of updates between two sweeps
FOUND = 0.99  # likeness with which a newborn must be found
KEPT = "not learning", "learning"


class Host:
    """The host's part: it takes in what was sent to it, before it would have to within a call."""

    def __init__(self, memory: AESGMemory) -> None:
        self._memory = memory
        self._calls = self._rows = 0  # on their way
        self.seconds = 0.0
        self.queries = 0  # taken in

    def sent(self, rows: int) -> None:
        """A call of so many queries was made, and is done."""
        self._calls, self._rows = self._calls + 1, self._rows + rows
        if 2 * self._calls >= MOST_CALLS or 2 * self._rows >= MOST_ROWS:
            self.take_in()

    def take_in(self) -> float:
        """Seconds."""
        start = time.perf_counter()
        self._memory._state.settle()
        spent = time.perf_counter() - start
        self.seconds, self.queries = self.seconds + spent, self.queries + self._rows
        self._calls = self._rows = 0
        return spent


@contextmanager
def no_collection() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def novel(rows: int, dim: int, seed: int) -> Tensor:
    """Unit vectors [rows, D] in independent directions, which nothing explains."""
    made = torch.randn(rows, dim, generator=torch.Generator().manual_seed(1000 + seed))
    return torch.nn.functional.normalize(made, dim=1)


def check_same_life(folder: Path, dim: int, device: str) -> None:
    """A short life, births included, has the same answers and the same graph with a copy and without.

    Where no device has one, the copy is on the host.
    """
    config = AESGConfig(vector_dim=dim, novelty_birth_threshold=2)
    vectors = clustered(500, dim, 0)
    host = make_memory(folder / "host", vectors, 4, config)
    there = make_memory(folder / "there", vectors, 4, config, device)
    if there.graph.copied is None:
        there.graph.use_copy("cpu")
    for memory in (host, there):
        memory.set_mode("TRAIN")
    for step in range(6):
        rows = torch.cat([clustered(12, dim, step), novel(4, dim, step // 3)])
        ours, theirs = (memory.retrieve(rows.to(memory.device)) for memory in (host, there))
        for name in ("indices", "weights", "explanation"):
            if not torch.equal(getattr(ours, name), getattr(theirs, name).cpu()):
                raise AssertionError(f"call {step}: other {name} with a copy on {device} than without")
        for memory in (host, there):
            memory.update_topology()
    counts = [
        {name: memory.stats()[name] for name in ("active", "edges", "births")} for memory in (host, there)
    ]
    if counts[0] != counts[1] or not counts[0]["births"]:
        raise AssertionError(f"after a short life: expected {counts[0]} and some births, got {counts[1]}")
    host.close()
    there.close()


def calls(
    run: Callable[[Tensor], object], host: Host, queries: Tensor, batch: int, seconds: float, device: str
) -> list[float]:
    """Seconds of single calls until the device is done, with other queries each time; the host takes in
    between.
    """
    taken: list[float] = []
    parts = len(queries) - batch + 1
    with no_collection():
        run(queries[:batch])
        synchronize(device)
        host.sent(batch)
        began = time.perf_counter()
        while len(taken) < 2 or time.perf_counter() - began < seconds:
            at = len(taken) * batch % parts
            asked = queries[at : at + batch]
            start = time.perf_counter()
            run(asked)
            synchronize(device)
            taken.append(time.perf_counter() - start)
            host.sent(batch)
    host.take_in()
    return taken


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one table a number of concepts. Returns 0."""
    parser = argparse.ArgumentParser(prog="aesg bench learn", description=__doc__)
    parser.add_argument("--n", type=integers, default=[100_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=integers, default=[1, 256, 4096])
    parser.add_argument("--degree", type=int, default=8)
    add_device(parser)
    add_roofline(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="a contestant and case")
    parser.add_argument("--short", action="store_true", help="a quick look: small N, few calls")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args(argv)
    if options.short:
        options.n, options.batch, options.seconds = [2_000], [1, 32], 0.1
    torch.set_num_threads(options.threads)
    print(f"learning, D={options.dim}, degree {options.degree}, {options.threads} thread(s), {machine()}")
    ceilings = measured(options)
    cases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="aesg-bench-") as folder:
        check_same_life(Path(folder), options.dim, options.device)
        for n in options.n:
            _one_size(Path(folder) / str(n), n, options, ceilings, cases)
    write_json(options.json, "learn", options, cases, ceilings)
    return 0


def _one_size(
    folder: Path, n: int, options: argparse.Namespace, ceilings: Ceilings | None, cases: list[dict[str, Any]]
) -> None:
    """Adds the cases of one number of concepts, and writes what there is after each part."""
    device = options.device
    # No sweep is due and nothing dies for lack of use; what nothing explains is born at once by `bearing`.
    config = AESGConfig(
        vector_dim=options.dim,
        max_concepts=10**8,
        survival_threshold_relevance=0.0,
        consolidation_epoch_interval=NEVER,
        region_detection_interval=NEVER,
    )
    made = make_memory(folder, clustered(n, options.dim, 0), options.degree, config)
    queries = clustered(max(4096, 2 * max(options.batch)), options.dim, 1).to(device)
    born_at_once = replace(config, novelty_explanation_threshold=0.9, novelty_birth_threshold=1)
    asked, bearing = AESGMemory(folder, config, device), AESGMemory(folder, born_at_once, device)
    made.close()
    print(f"\nN={n}, {'the call learns within' if device == 'cpu' else 'until the device is done'}")
    mine: list[dict[str, Any]] = []
    print("| B | not learning: p50 | p99 | learning: p50 | p99 | ratio | the host later, a query |")
    print("|:--:|--:|--:|--:|--:|--:|--:|")
    for batch in options.batch:
        mine.append(_asked({"n": n, "batch": batch}, asked, queries, options, ceilings))
        cases.append(mine[-1])
        write_json(options.json, "learn", options, cases, ceilings, done=False)
    for case in mine:
        if "roofline" in case:
            print(f"B={case['batch']}, learning: {told(case['roofline'])}")
    print("\n| B | update_topology(): p50 | p99 | the host later |\n|:--:|--:|--:|--:|")
    for case in mine:
        _updated(case, asked, queries, options)
        write_json(options.json, "learn", options, cases, ceilings, done=False)
    print("\n| born at a time | births a second | with the host's part |\n|:--:|--:|--:|")
    for case in mine:
        _born(case, bearing, options)
        write_json(options.json, "learn", options, cases, ceilings, done=False)
    if device != "cpu":  # last: what fails in a capture may spoil what comes after it
        print()
        for case in mine:
            _captured(case, asked, queries, options)
            write_json(options.json, "learn", options, cases, ceilings, done=False)
    asked.close()
    bearing.close()


def _asked(
    case: dict[str, Any],
    memory: AESGMemory,
    queries: Tensor,
    options: argparse.Namespace,
    ceilings: Ceilings | None,
) -> dict[str, Any]:
    """The case with calls that learn and calls that do not, in turn."""
    batch, device = case["batch"], options.device
    runs: dict[str, Callable[[Tensor], object]] = {
        "not learning": lambda rows: memory.retrieve(rows, learn=False),
        "learning": memory.retrieve,
    }
    hosts = {name: Host(memory) for name in runs}
    taken = _in_turn(runs, hosts, queries, batch, options)
    plain, learning = (summary(taken[name]) for name in KEPT)
    case["seconds"] = {"not learning": plain, "learning": learning}
    case["ratio"] = learning["p50"] / plain["p50"]
    case["host"] = {name: host.seconds / host.queries for name, host in hosts.items()}
    times = " | ".join(f"{1e3 * each[p]:.3f} ms" for each in (plain, learning) for p in ("p50", "p99"))
    later = f"{1e6 * case['host']['learning']:.1f} us"
    print(f"| {batch} | {times} | {case['ratio']:.2f} | {later if device != 'cpu' else ''} |", flush=True)
    if device != "cpu" or memory.stats()["search"] == "exact":
        # As a call of `aesg bench retrieve`: what learning moves beside it is small.
        n, dim, k = case["n"], options.dim, memory.config.context_size
        moved = 4 * dim * (n + batch) + batch * k * (8 * dim + 12)
        case["roofline"] = roofline(moved, 2.0 * n * dim * batch, learning["p50"], ceilings)
    return case


def _in_turn(
    runs: dict[str, Callable[[Tensor], object]],
    hosts: dict[str, Host],
    queries: Tensor,
    batch: int,
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            taken[name] += calls(run, hosts[name], queries, batch, options.seconds / ROUNDS, options.device)
    return taken


def _updated(case: dict[str, Any], memory: AESGMemory, queries: Tensor, options: argparse.Namespace) -> None:
    """Adds `update_topology()` behind a call that learnt, which the host has taken in."""
    batch, device, host = case["batch"], options.device, Host(memory)
    taken: list[float] = []
    later: list[float] = []
    parts = len(queries) - batch + 1
    with no_collection():
        began = time.perf_counter()
        while len(taken) < 6 or time.perf_counter() - began < options.seconds:
            at = len(taken) * batch % parts
            memory.retrieve(queries[at : at + batch])
            synchronize(device)
            host.take_in()
            start = time.perf_counter()
            memory.update_topology()
            synchronize(device)
            taken.append(time.perf_counter() - start)
            later.append(host.take_in())
    update = summary(taken[1:])
    case["update"], case["host"]["an update"] = update, float(np.median(later[1:]))
    told_later = f"{1e3 * case['host']['an update']:.3f} ms" if device != "cpu" else ""
    print(
        f"| {batch} | {1e3 * update['p50']:.3f} ms | {1e3 * update['p99']:.3f} ms | {told_later} |",
        flush=True,
    )


def _born(case: dict[str, Any], memory: AESGMemory, options: argparse.Namespace) -> None:
    """Adds births by asking, of one batch after the other, each checked by the next call.

    Raises AssertionError where a newborn is not found, or was not born.
    """
    batch, device, host = case["batch"], options.device, Host(memory)
    before, asked, lost = memory.stats()["births"], 0, 0
    rates: list[float] = []
    whole: list[float] = []

    def bear() -> float:
        nonlocal asked, lost
        rows = novel(batch, options.dim, before + asked).to(device)
        synchronize(device)
        start = time.perf_counter()
        memory.retrieve(rows)
        synchronize(device)
        spent = time.perf_counter() - start
        asked += batch
        lost += missed(rows, memory.retrieve(rows, learn=False))
        return spent

    with no_collection():
        began = time.perf_counter()
        bear()
        host.take_in()
        # As many as the host has time for, which searches by itself what a newborn is linked to.
        fit = int(options.seconds / (time.perf_counter() - began))
        at_once = max(4, min(fit, MOST_CALLS // 4, MOST_ROWS // 4 // batch))
        began = time.perf_counter()
        while not whole or time.perf_counter() - began < options.seconds:
            taken = [bear() for _ in range(at_once)]
            rates += [batch / seconds for seconds in taken]
            whole.append(batch * at_once / (sum(taken) + host.take_in()))
    if lost > (0 if device != "cpu" or memory.stats()["search"] == "exact" else LOST * asked):
        raise AssertionError(f"{lost} of {asked} concepts just born are not found by the next call")
    if (born := memory.stats()["births"] - before) != asked:
        raise AssertionError(
            f"expected {asked} births, one for each vector that nothing explained, got {born}"
        )
    case["births a second"] = {"until the device is done": rates, "with the host's part": whole}
    case["births"] = asked
    rate, all_in = float(np.median(rates)), float(np.median(whole))
    print(f"| {batch} | {rate:,.0f} | {f'{all_in:,.0f}' if device != 'cpu' else ''} |", flush=True)


def missed(rows: Tensor, context: RetrievedContext) -> int:
    """How many of the vectors [B, D] are not the first member of their own answer."""
    first = torch.nn.functional.cosine_similarity(rows, context.vectors[:, 0], dim=1)
    found = (context.indices[:, 0] >= 0) & (first > FOUND) & (context.explanation > FOUND)
    return int((~found).sum())


def _captured(case: dict[str, Any], memory: AESGMemory, queries: Tensor, options: argparse.Namespace) -> None:
    """Adds what both calls take in CUDA graphs, in turn; or why they have none. Raises AssertionError where a
    replay answers otherwise than the call.
    """
    batch, device = case["batch"], options.device
    named = f"N={case['n']} B={batch}, in captured graphs"
    others = queries.roll(1, dims=0)[:batch]
    try:
        runs = {
            name: memory.capture(queries[:batch], learn=name == "learning")
            for name in ("not learning", "learning")
        }
        for run in runs.values():
            for _ in range(2):  # the first that learns is an ordinary call
                run(queries[:batch])
        synchronize(device)
    except Exception as error:
        case["captured"] = why_not(error)
        print(f"{named}: {case['captured']}")
        return
    for name, run in runs.items():
        memory.reset_state()  # what came before does not prime the one and not the other
        wanted = memory.retrieve(others, learn=False).indices.clone()
        memory.reset_state()
        if not torch.equal(run(others).indices, wanted):
            raise AssertionError(f"{named}, {name}: other members than the call itself finds")
    hosts = {name: Host(memory) for name in runs}
    hosts["learning"].take_in()
    taken = _in_turn(dict(runs), hosts, queries, batch, options)
    case["captured"] = {name: summary(taken[name]) for name in KEPT}
    case["captured"]["ratio"] = case["captured"]["learning"]["p50"] / case["captured"]["not learning"]["p50"]
    times = ", ".join(f"{name} {1e3 * case['captured'][name]['p50']:.3f} ms" for name in KEPT)
    print(f"{named}: {times} (p50), {case['captured']['ratio']:.2f} times as long")


if __name__ == "__main__":
    raise SystemExit(main())
