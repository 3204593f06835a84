"""Approximate search at equal recall: `python -m aesg bench approximate`.

Concepts in 1000 clusters. Every contestant takes the cheapest setting whose recall@k over the queries of the
benchmark reaches the target. Ours is the search of a memory: raw vectors, births and deaths seen at once; its
setting is the one it found by sampling, and the recall shown is measured on the queries here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg.benchmarks._device import add_device
from aesg.benchmarks._device_peers import recall
from aesg.benchmarks._timing import as_json, integers, machine, print_case, time_in_turn, write_json
from aesg.benchmarks._worlds import clustered, make_memory
from aesg.config import AESGConfig
from aesg.graph.core import SemanticGraph

Search = Callable[[Tensor], Tensor]  # queries [B, D] -> indices [B, k]
QUERIES = 256


def faiss_settings(vectors: np.ndarray, k: int, threads: int) -> Iterator[tuple[str, Search]]:
    import faiss

    faiss.omp_set_num_threads(threads)
    for lists in (1, 4):
        cells = round(lists * len(vectors) ** 0.5)
        index = faiss.index_factory(vectors.shape[1], f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[: 64 * cells])
        index.add(vectors)
        for probes in (1, 2, 3, 4, 6, 8, 16, 32):

            def search(queries: Tensor, index: Any = index, probes: int = probes) -> Tensor:
                index.nprobe = probes
                return torch.from_numpy(index.search(queries.numpy(), k)[1])

            yield f"faiss IVF{cells} probes {probes}", search


def hnsw_settings(vectors: np.ndarray, k: int, threads: int) -> Iterator[tuple[str, Search]]:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), ef_construction=100, M=16)
    index.add_items(vectors)
    index.set_num_threads(threads)
    for ef in (10, 12, 16, 24, 32, 48, 64, 128):

        def search(queries: Tensor, ef: int = ef) -> Tensor:
            index.set_ef(ef)
            return torch.from_numpy(index.knn_query(queries.numpy(), k)[0].astype(np.int64))

        yield f"hnswlib M=16 ef={ef}", search


def usearch_settings(vectors: np.ndarray, k: int, threads: int) -> Iterator[tuple[str, Search]]:
    from usearch.index import Index

    for expansion in (16, 32, 64, 128):
        index = Index(ndim=vectors.shape[1], metric="ip", expansion_add=100, expansion_search=expansion)
        index.add(np.arange(len(vectors)), vectors)

        def search(queries: Tensor, index: Any = index) -> Tensor:
            keys = index.search(queries.numpy(), k, threads=threads).keys
            return torch.from_numpy(keys.reshape(len(queries), k).astype(np.int64))

        yield f"usearch expansion {expansion}", search


def cheapest(
    settings: Iterator[tuple[str, Search]], queries: Tensor, exact: Tensor, target: float, per_family: bool
) -> dict[str, Search]:
    """The first setting that reaches the target; for faiss the first of each number of lists."""
    found: dict[str, Search] = {}
    done: set[str] = set()
    for name, search in settings:
        family = name.split(" probes")[0]
        if family in done:
            continue
        if recall(search(queries), exact) >= target:
            found[name] = search
            done.add(family)
            if not per_family:
                break
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs every combination and prints one table each. Returns 0."""
    parser = argparse.ArgumentParser(prog="aesg bench approximate", description=__doc__)
    parser.add_argument("--n", type=integers, default=[100_000], help="concepts, e.g. 1e5,1e6")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=integers, default=[1, 32, 256])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--peers", default="faiss,hnswlib,usearch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="a contestant and case")
    parser.add_argument("--short", action="store_true", help="a quick look: small N")
    parser.add_argument("--json", default=None, help="file to write")
    add_device(
        parser,
        nothing="a memory on a device searches exactly: bench seeds, bench retrieve",
    )
    options = parser.parse_args(argv)
    if options.short:
        options.n, options.seconds = [4000], 0.1
    torch.set_num_threads(options.threads)
    print(
        f"approximate top-{options.k}, recall >= {options.recall}, {options.threads} thread(s), {machine()}"
    )
    cases: list[dict[str, Any]] = []
    for n in options.n:
        with tempfile.TemporaryDirectory(prefix="aesg-bench-") as folder:
            cases += _one_size(Path(folder), n, options)
    write_json(options.json, "approximate", options, cases)
    return 0


def _one_size(folder: Path, n: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    vectors, queries = clustered(n, options.dim, 0), clustered(QUERIES, options.dim, 1)
    config = AESGConfig(
        vector_dim=options.dim,
        max_concepts=2 * n,
        approximate_search_from=min(n, 50_000),
        recall_target=options.recall,
    )
    memory = make_memory(folder / "memory", vectors, 0, config)
    graph: SemanticGraph = memory.graph
    _, exact = graph.search(queries, options.k, -1.0)
    start = time.perf_counter()
    graph.seek(queries[:1], options.k, -1.0)
    built = time.perf_counter() - start
    for query in queries:  # what it measures its recall on
        graph.seek(query[None], options.k, -1.0)
    graph.state.coarse.renew()
    runs: dict[str, Search] = {
        "aesg memory": lambda q: graph.seek(q, options.k, -1.0)[1],
        "aesg memory, exact": lambda q: graph.search(q, options.k, -1.0)[1],
    }
    print(f"\nN={n} D={options.dim}: cells made in {built:.2f} s, {memory.stats()}")
    makers = {"faiss": faiss_settings, "hnswlib": hnsw_settings, "usearch": usearch_settings}
    for peer in filter(None, options.peers.split(",")):
        try:
            settings = makers[peer](vectors.numpy(), options.k, options.threads)
            runs |= cheapest(settings, queries, exact, options.recall, peer == "faiss")
        except ImportError:
            print(f"{peer} is not installed: left out")
    recalls = {name: recall(search(queries), exact) for name, search in runs.items()}
    for name, value in recalls.items():
        print(f"  recall@{options.k} {value:.4f}  {name}")
        if value < options.recall - 0.02:
            raise AssertionError(f"{name}: expected a recall of {options.recall}, got {value}")
    cases: list[dict[str, Any]] = []
    for batch in options.batch:
        parts = list(queries.split(batch)) if batch < QUERIES else [queries]

        def all_of(search: Search, parts: list[Tensor] = parts) -> Callable[[], object]:
            return lambda: [search(part) for part in parts]

        timings = time_in_turn({name: all_of(s) for name, s in runs.items()}, options.seconds)
        print_case(f"N={n} D={options.dim} B={batch}", timings, 1e-6 * QUERIES, "us/query")
        cases.append(
            {"n": n, "dim": options.dim, "batch": batch, "recall": recalls, "seconds": as_json(timings)}
        )
    memory.close()
    return cases


if __name__ == "__main__":
    raise SystemExit(main())
