"""Births a second: `python -m aesg bench insert`.

Ours bear concepts into a store (id, vector, time stamps, an event each), so that the next search sees them;
`searched` makes the next search after every batch, for the last one born, so that what the cells cost is
counted too, and on a device what brings the changes there; it must find what was just born.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg.benchmarks._ceilings import add_roofline, measured, roofline, told
from aesg.benchmarks._device import add_device, synchronize
from aesg.benchmarks._released import Released
from aesg.benchmarks._timing import integers, machine, write_json
from aesg.benchmarks._worlds import clustered, make_memory
from aesg.config import AESGConfig

Insert = Callable[[Tensor], None]  # takes in one batch [n, D]
LOST = 0.1  # of the searches through cells, which promise a recall, on the CPU


def peers(vectors: Tensor, rows: int) -> dict[str, Insert]:
    """Installed peers that hold `vectors` already, and how each takes a batch."""
    found: dict[str, Insert] = {}
    dim = vectors.shape[1]
    try:
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.index_factory(dim, f"IVF{round(len(vectors) ** 0.5)},Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors.numpy())
        index.add(vectors.numpy())
        found["faiss IVFFlat"] = lambda batch: index.add(batch.numpy())
    except ImportError:
        print("faiss is not installed: left out (pip install faiss-cpu)")
    try:
        import hnswlib

        graph = hnswlib.Index(space="ip", dim=dim)
        graph.init_index(max_elements=100 * rows, ef_construction=100, M=16)
        graph.set_num_threads(1)
        found["hnswlib, empty at first"] = lambda batch: graph.add_items(batch.numpy())
    except ImportError:
        print("hnswlib is not installed: left out (pip install hnswlib)")
    return found


def missed(wanted: Sequence[int], found: Sequence[Tensor]) -> int:
    """How many searches [1, K] did not find the slot that was wanted."""
    slots = torch.cat(list(found)).cpu() if found else torch.empty(0, 1, dtype=torch.int64)
    return int((slots != torch.tensor(wanted, dtype=torch.int64)[:, None]).all(dim=1).sum())


def main(argv: Sequence[str] | None = None) -> int:
    """Prints births a second, one by one and in batches. Returns 0."""
    parser = argparse.ArgumentParser(prog="aesg bench insert", description=__doc__)
    parser.add_argument(
        "--n", type=lambda text: int(float(text)), default=100_000, help="concepts that are there already"
    )
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument(
        "--rows", type=lambda text: int(float(text)), default=8192, help="born in one measurement"
    )
    parser.add_argument("--at-a-time", type=integers, default=[1, 256])
    parser.add_argument("--rounds", type=int, default=5)
    add_device(parser)
    add_roofline(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--released", default=None, metavar="PYTHON", help="a Python that has aesg 3.0.0")
    parser.add_argument("--short", action="store_true", help="a quick look: small N, few rows")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args(argv)
    if options.short:
        options.n, options.rows, options.rounds = 2000, 512, 2
    torch.set_num_threads(options.threads)
    print(f"births into N={options.n}, D={options.dim}, {options.threads} thread(s), {machine()}")
    ceilings = measured(options)
    vectors = clustered(options.n, options.dim, 0)
    cases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="aesg-bench-") as folder:
        config = AESGConfig(
            vector_dim=options.dim, max_concepts=10**8, approximate_search_from=min(options.n, 50_000)
        )
        memory = make_memory(Path(folder) / "memory", vectors, 0, config, options.device)
        memory.set_mode("TRAIN")
        graph = memory.graph
        graph.seek(vectors[:1].to(options.device), 10, 0.1)  # makes the cells, or brings all to the device
        wanted: list[int] = []
        found: list[Tensor] = []

        def born(batch: Tensor) -> None:
            graph.add_concepts(batch)

        def searched(batch: Tensor) -> None:
            wanted.append(int(graph.add_concepts(batch)[-1]))
            found.append(graph.seek(batch[-1:].to(options.device), 10, 0.1)[1])

        new = clustered(1, options.dim, 4)
        slot = int(graph.add_concepts(new)[0])
        if int(graph.seek(new.to(options.device), 1, 0.1)[1]) != slot:
            raise AssertionError("a concept just born is not found")
        released = (
            Released(options.released, vectors[:1000].numpy(), vectors[:1].numpy())
            if options.released
            else None
        )
        others = peers(vectors, options.rows) if options.device == "cpu" else {}
        for size in options.at_a_time:
            runs: dict[str, Insert] = {"aesg, born": born, "aesg, born and searched": searched, **others}
            rates: dict[str, list[float]] = {name: [] for name in runs}
            if released is not None and size == 1:
                rates["aesg 3.0.0 add_node"] = []
            rows = options.rows if size > 1 else max(256, options.rows // 4)
            for round_ in range(options.rounds):
                batches = clustered(rows, options.dim, 5 + round_).split(size)
                for name, insert in runs.items():
                    if options.device != "cpu":  # what the one before left is not this one's to bring there
                        graph.seek(vectors[:1].to(options.device), 10, 0.1)
                        synchronize(options.device)
                    start = time.perf_counter()
                    for batch in batches:
                        insert(batch)
                    synchronize(options.device)
                    rates[name].append(rows / (time.perf_counter() - start))
                if released is not None and size == 1:
                    seconds = released.ask("insert", rows=min(rows, 1000))["seconds"]
                    rates["aesg 3.0.0 add_node"].append(min(rows, 1000) / seconds)
            print(f"\n{size} at a time\n  {'':28} {'median':>12} {'least':>12} {'most':>12}  births/s")
            for name, values in rates.items():
                shown = " ".join(f"{v:12.0f}" for v in (np.median(values), min(values), max(values)))
                print(
                    f"  {name:28} {shown}  {np.median(values) / np.median(rates['aesg, born']):5.2f} x ours"
                )
            seen = missed(wanted, found)
            print(f"  found by the next search: {len(found) - seen} of {len(found)} batches")
            if seen and (options.device != "cpu" or seen > LOST * len(found)):
                raise AssertionError(f"{seen} of {len(found)} batches just born are not found")
            wanted.clear()
            found.clear()
            by = "copy" if options.device == "cpu" else "send"
            # Each vector and the small columns that a search looks up, brought there once.
            rate = float(np.median(rates["aesg, born and searched"]))
            used = roofline(4.0 * options.dim + 21, 0.0, 1 / rate, ceilings, by)
            print(f"  {told(used)}")
            case: dict[str, Any] = {"n": options.n, "at a time": size, "births a second": rates}
            cases.append(case | {"roofline": used})
            write_json(options.json, "insert", options, cases, ceilings, done=False)
        if released is not None:
            released.close()
        memory.close()
    write_json(options.json, "insert", options, cases, ceilings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
