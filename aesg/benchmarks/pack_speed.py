"""What packs cost: reading, attaching, detaching, and answering with one: `python -m aesg bench pack_speed`.

A memory of N concepts with a pack of N attached is compared with one memory that holds both, at rest
(INFERENCE), with the same queries: with vectors at random, which no index helps to search, and with vectors
in 1000 clusters, which large memories and packs search through cells.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aesg import AESGConfig, AESGMemory
from aesg.benchmarks._device import add_device
from aesg.benchmarks._timing import as_json, integers, machine, print_case, time_in_turn, write_json
from aesg.benchmarks._worlds import clustered
from aesg.packs import read_pack

DEGREE = 8


def at_random(n: int, dim: int, seed: int) -> torch.Tensor:
    """Vectors [n, D] of a normal distribution."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32))


WORLDS = {"at random": at_random, "in 1000 clusters": clustered}


def fill(memory: AESGMemory, n: int, seed: int, world: str = "at random") -> torch.Tensor:
    """n concepts with DEGREE random edges of confidence 0.5 each; returns their vectors [n, D]."""
    vectors = WORLDS[world](n, memory.vector_dim, seed)
    random = np.random.default_rng(seed)
    slots = memory.graph.add_concepts(vectors)
    sources, targets = np.repeat(slots, DEGREE), random.choice(slots, n * DEGREE)
    good = sources != targets
    weights = random.uniform(0.5, 1.0, good.sum())
    memory.graph.add_edges(sources[good], targets[good], weights, np.full(good.sum(), 0.5))
    return vectors


def handling(memory: AESGMemory, path: Path, rounds: int) -> dict[str, float]:
    """Medians of the milliseconds to load, attach and detach the pack in a file."""
    times: dict[str, list[float]] = {"load": [], "attach": [], "detach": []}
    for _ in range(rounds):
        begin = time.perf_counter()
        pack = memory.load_pack(path)
        loaded = time.perf_counter()
        memory.attach_pack(pack)
        attached = time.perf_counter()
        memory.detach_pack(pack.name)
        detached = time.perf_counter()
        for name, seconds in zip(
            times, (loaded - begin, attached - loaded, detached - attached), strict=True
        ):
            times[name].append(1e3 * seconds)
    return {name: float(np.median(values)) for name, values in times.items()}


def compare(world: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Prints a table for each format and batch size."""
    cases: list[dict[str, Any]] = []
    print(f"\nvectors {world}")
    with tempfile.TemporaryDirectory() as folder:
        where, config = Path(folder), AESGConfig(vector_dim=options.dim)
        with (
            AESGMemory(where / "home", config) as home,
            AESGMemory(where / "other", config) as other,
            AESGMemory(where / "both", config) as both,
        ):
            known = torch.cat([fill(home, options.n, 1, world), fill(other, options.n, 2, world)])
            fill(both, options.n, 1, world)
            fill(both, options.n, 2, world)
            for version in (1, 2):
                path = where / f"v{version}.aesgpack"
                other.export_pack(path, format_version=version)
                measured = handling(home, path, 3 if options.short else 9)
                print(f"format {version}: {', '.join(f'{k} {v:.3f} ms' for k, v in measured.items())}")
                cases.append({"world": world, "format": version, "milliseconds": measured})
            home.set_mode("INFERENCE")
            both.set_mode("INFERENCE")
            pack = read_pack(where / "v2.aesgpack")
            home.attach_pack(pack)
            for batch in options.batch:
                rows = torch.randint(0, len(known), (batch,))
                noise = torch.randn(batch, options.dim) / options.dim**0.5
                queries = known[rows] + 0.3 * known[rows].norm(dim=1, keepdim=True) * noise

                def ask(memory: AESGMemory, queries: torch.Tensor = queries) -> None:
                    memory.reset_state()
                    memory.retrieve(queries)

                runs = {"memory + pack": lambda: ask(home), "one memory": lambda: ask(both)}
                timings = time_in_turn(runs, options.seconds)
                print_case(f"retrieve, B={batch}", timings, 1e-6 * batch, "us/query")
                ratio = timings["memory + pack"].median / timings["one memory"].median
                print(f"  memory + pack takes {ratio:.3f} times as long as one memory")
                cases.append({"world": world, "batch": batch, "ratio": ratio, "seconds": as_json(timings)})
            found = {"memory": home.stats(), "pack": pack.coarse.stats(), "one memory": both.stats()}
            print("searched: " + ", ".join(f"{name} {stats['search']}" for name, stats in found.items()))
    return cases


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table for each format and batch size. Returns 0."""
    parser = argparse.ArgumentParser(prog="aesg bench pack_speed", description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="concepts of the memory, and of the pack")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=integers, default=[1, 32, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="a contestant and case")
    parser.add_argument("--short", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--out", default=None, metavar="DIR", help="where to write pack_speed.json")
    add_device(parser, nothing="packs are read, attached and searched on the host")
    options = parser.parse_args(argv)
    if options.short:
        options.n, options.dim, options.seconds, options.batch = 2000, 16, 0.05, [1, 8]
    torch.set_num_threads(options.threads)
    print(f"packs of {options.n} concepts, D={options.dim}, {options.threads} thread(s), {machine()}")
    cases = [case for world in WORLDS for case in compare(world, options)]
    if options.out is not None:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        write_json(str(Path(options.out) / "pack_speed.json"), "pack_speed", options, cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
