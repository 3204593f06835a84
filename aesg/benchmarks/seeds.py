"""Exact top-k cosine search against its peers: `python -m aesg bench seeds`.

Peers get vectors and queries scaled to length 1 beforehand; ours takes them as a memory has them (raw
vectors, stored inverse norms, an active mask), so the comparison is on the cautious side. On a device the
peers are torch, also with products in tf32 and bf16, whose recall is shown, and CuPy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from aesg.benchmarks import _device
from aesg.benchmarks._ceilings import add_roofline, measured, roofline, told
from aesg.benchmarks._device import add_device, tried
from aesg.benchmarks._device_peers import (
    approximate_searches,
    cupy_search,
    partition_search,
    recall,
    torch_search,
)
from aesg.benchmarks._timing import as_json, integers, machine, print_case, time_in_turn, write_json
from aesg.ops import seed_search
from aesg.ops.reference import normalize_ref

Search = Callable[[], tuple[Tensor, Tensor]]  # scores [B, k], indices [B, k]


def contestants(queries: Tensor, vectors: Tensor, k: int, threads: int) -> dict[str, Search]:
    """Ours first, then every peer that is installed: those that are exact."""
    inv_norm = 1 / vectors.norm(dim=1)
    active = torch.ones(vectors.shape[0], dtype=torch.uint8, device=vectors.device)
    unit_queries, unit_vectors = normalize_ref(queries), normalize_ref(vectors)

    def ours() -> tuple[Tensor, Tensor]:
        return seed_search(queries, vectors, k, inv_norm=inv_norm, active=active, min_score=-1.0)

    found: dict[str, Search] = {
        "aesg.seed_search": ours,
        "torch matmul + topk": torch_search(unit_queries, unit_vectors, k),
    }
    if _device.is_there(vectors):
        with_cupy = tried("CuPy", lambda: cupy_search(unit_queries, unit_vectors, k))
        return found if with_cupy is None else found | {"CuPy matmul + argpartition": with_cupy}
    try:
        import numpy as np

        if queries.shape[0] * vectors.shape[0] <= 4e6:  # beyond, argpartition takes seconds
            found["numpy matmul + argpartition"] = partition_search(
                np, unit_queries.numpy(), unit_vectors.numpy(), k
            )
    except ImportError:
        pass
    try:
        import faiss

        faiss.omp_set_num_threads(threads)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(unit_vectors.numpy())
        tuned = unit_queries.numpy()

        def faiss_search(threshold: int) -> Search:
            def run() -> tuple[Tensor, Tensor]:
                # Above it faiss multiplies with BLAS and selects afterwards, below it scans.
                faiss.cvar.distance_compute_blas_threshold = threshold
                scores, indices = index.search(tuned, k)
                return torch.from_numpy(scores), torch.from_numpy(indices)

            return run

        found["faiss IndexFlatIP, tuned"] = faiss_search(20)
        found["faiss IndexFlatIP, scanning"] = faiss_search(1 << 30)
    except ImportError:
        print("faiss is not installed: left out (pip install faiss-cpu)")
    return found


def approximate(
    queries: Tensor, vectors: Tensor, k: int, exact: Search
) -> tuple[dict[str, Search], dict[str, float]]:
    """Peers with coarser products, and the recall of each against an exact search."""
    wanted = exact()[1]
    found: dict[str, Search] = {}
    for name, run in approximate_searches(normalize_ref(queries), normalize_ref(vectors), k).items():
        if tried(name, lambda run=run: run) is not None:  # type: ignore[misc]
            found[name] = run
    return found, {name: recall(run()[1], wanted) for name, run in found.items()}


def check_equal(runs: dict[str, Search]) -> None:
    """Scores agree to rounding; indices too, except among scores that are equal to rounding."""
    reference, *others = runs.items()
    scores, indices = reference[1]()
    for name, run in others:
        their_scores, their_indices = run()
        torch.testing.assert_close(scores, their_scores, atol=2e-6, rtol=0, msg=f"{name}: other scores")
        different = indices != their_indices
        gap = torch.full_like(scores, float("inf"))
        gap[:, 1:] = scores[:, :-1] - scores[:, 1:]
        near_tie = (gap < 4e-6) | (gap.roll(-1, 1) < 4e-6)
        near_tie[:, -1] = True  # the next one is not seen
        if bool((different & ~near_tie).any()):
            raise AssertionError(f"{name} finds other concepts than {reference[0]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs every combination and prints one table each. Returns 0."""
    parser = argparse.ArgumentParser(prog="aesg bench seeds", description=__doc__)
    parser.add_argument("--n", type=integers, default=[100_000], help="concepts, e.g. 1e5,1e6")
    parser.add_argument("--dim", type=integers, default=[64, 256])
    parser.add_argument("--batch", type=integers, default=[1, 32, 256])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    add_device(parser)
    add_roofline(parser)
    parser.add_argument("--seconds", type=float, default=1.0, help="a contestant and case")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print(f"exact top-{options.k} cosine, {options.threads} thread(s), {machine()}")
    ceilings = measured(options)
    cases: list[dict[str, Any]] = []
    for n in options.n:
        for dim in options.dim:
            torch.manual_seed(0)
            vectors = torch.randn(n, dim).to(options.device)
            for batch in options.batch:
                queries = torch.randn(batch, dim).to(options.device)
                runs = contestants(queries, vectors, options.k, options.threads)
                check_equal(runs)
                recalls: dict[str, float] = {}
                if options.device != "cpu":
                    found, recalls = approximate(queries, vectors, options.k, runs["torch matmul + topk"])
                    runs |= found
                work: dict[str, Callable[[], object]] = dict(runs)
                if batch == 1:  # what one query cannot go much below
                    work["reading the vectors (sum)"] = vectors.sum
                timings = time_in_turn(work, options.seconds, device=options.device)
                ours = next(iter(timings.values())).median
                # The vectors once, the queries, what was found; norms and marks are ours to save.
                least = 4 * dim * (n + batch) + 12 * batch * options.k
                used = roofline(least, 2.0 * n * dim * batch, ours, ceilings)
                print_case(f"N={n} D={dim} B={batch} ({told(used)})", timings, 1e-6 * batch, "us/query")
                for name, value in recalls.items():
                    print(f"  recall@{options.k} {value:.4f}  {name}")
                case: dict[str, Any] = {"n": n, "dim": dim, "batch": batch, "k": options.k}
                case |= {"seconds": as_json(timings), "roofline": used, "recall": recalls}
                cases.append(case)
                write_json(options.json, "seeds", options, cases, ceilings, done=False)
    write_json(options.json, "seeds", options, cases, ceilings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
