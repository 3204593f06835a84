"""What `update_topology()` costs: alone, with a sweep, and with the regions on top of a sweep.

`python -m aesg bench topology` makes 100,000 concepts with 8 edges each and lives through 100 updates, a
batch of queries before each. Every edge is new at the first sweep, which therefore compares them all. The
exit code is 1 where a median is above its aim. With `--device cuda` the queries are asked there; the update
itself is the host's work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from aesg.benchmarks._device import add_device, synchronize
from aesg.benchmarks._measure import environment
from aesg.config import AESGConfig
from aesg.memory.controller import AESGMemory

AIMS = {"no sweep": 3.0, "sweep": 150.0, "sweep, every edge new": 150.0, "sweep and regions": 150.0}  # ms


def fill(memory: AESGMemory, concepts: int, degree: int) -> None:
    """Concepts in random directions, each with `degree` edges to random others: the worst order to fetch."""
    generator = torch.Generator().manual_seed(0)
    slots = memory.graph.add_concepts(torch.randn(concepts, memory.vector_dim, generator=generator))
    sources = torch.arange(concepts).repeat_interleave(degree)
    steps = torch.randint(1, concepts, (concepts, degree), generator=generator)
    targets = (torch.arange(concepts)[:, None] + steps) % concepts
    some = torch.ones(concepts * degree)
    memory.graph.add_edges(slots[sources], slots[targets.reshape(-1)], some, 0.9 * some)


def live(memory: AESGMemory, updates: int, device: str = "cpu") -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of every update by what was due in it: (wall clock, processor)."""
    config, found = memory.config, dict[str, list[tuple[float, float]]]()
    generator = torch.Generator().manual_seed(1)
    for update in range(1, updates + 1):
        memory.retrieve(torch.randn(64, memory.vector_dim, generator=generator).to(device))
        due = "no sweep"
        if update % config.consolidation_epoch_interval == 0:
            due = "sweep" if found.get("sweep, every edge new") else "sweep, every edge new"
        if update % config.region_detection_interval == 0:
            due = "sweep and regions"
        synchronize(device)
        wall, processor = time.perf_counter(), time.process_time()
        memory.update_topology()
        synchronize(device)
        spent = time.perf_counter() - wall, time.process_time() - processor
        found.setdefault(due, []).append((1e3 * spent[0], 1e3 * spent[1]))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="aesg bench topology", description=__doc__)
    parser.add_argument("--concepts", type=int, default=100_000)
    parser.add_argument("--degree", type=int, default=8, help="edges a concept")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--updates", type=int, default=100)
    add_device(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="a small graph, for tests")
    parser.add_argument("--out", type=Path, default=None, help="directory for topology.json")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    concepts = 2_000 if options.short else options.concepts
    # Nothing dies for lack of use and nothing is born: the graph keeps its size.
    config = AESGConfig(
        vector_dim=options.dim, survival_threshold_relevance=0.0, novelty_explanation_threshold=0.0
    )
    with (
        tempfile.TemporaryDirectory(prefix="aesg-topology-") as directory,
        AESGMemory(Path(directory) / "memory", config, options.device) as memory,
    ):
        fill(memory, concepts, options.degree)
        counts = memory.storage.active_count, memory.storage.edge_count
        print("{:,} concepts, {:,} edges, D={}".format(*counts, options.dim))
        found = live(memory, options.updates, options.device)
    rows: dict[str, dict[str, Any]] = {}
    print(
        f"{'update_topology()':24} {'times':>5} {'median ms':>10} {'worst ms':>10} {'processor ms':>13}  aim"
    )
    for due, spent in found.items():
        wall, processor = [each[0] for each in spent], [each[1] for each in spent]
        middle = statistics.median(wall)
        rows[due] = {
            "wall_ms": wall,
            "processor_ms": processor,
            "median_ms": middle,
            "aim_ms": AIMS[due],
            "reached": middle < AIMS[due],
        }
        print(
            f"{due:24} {len(spent):5} {middle:10.2f} {max(wall):10.2f} {statistics.median(processor):13.2f}"
            f"  < {AIMS[due]:g}{'' if rows[due]['reached'] else '  MISSED'}"
        )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        record = {
            "environment": environment(options.device),
            "concepts": concepts,
            "degree": options.degree,
            "updates": rows,
        }
        (options.out / "topology.json").write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(row["reached"] for row in rows.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
