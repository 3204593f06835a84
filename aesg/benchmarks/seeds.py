"""Exact top-k cosine search against its peers: `python -m aesg bench seeds`.

Peers get vectors and queries scaled to length 1 beforehand; ours takes them as a memory has them (raw
vectors, stored inverse norms, an active mask), so the comparison is on the cautious side.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from aesg.benchmarks.timing import (
    as_json,
    integers,
    machine,
    print_case,
    time_in_turn,
    until_done,
    write_json,
)
from aesg.ops import seed_search
from aesg.ops.reference import normalize_ref

Search = Callable[[], tuple[Tensor, Tensor]]  # scores [B, k], indices [B, k]


def contestants(queries: Tensor, vectors: Tensor, k: int, threads: int) -> dict[str, Search]:
    """Ours first, then every peer that is installed; on a device only torch, each run to its end."""
    inv_norm = 1 / vectors.norm(dim=1)
    active = torch.ones(vectors.shape[0], dtype=torch.uint8, device=vectors.device)
    unit_queries, unit_vectors = normalize_ref(queries), normalize_ref(vectors)

    def ours() -> tuple[Tensor, Tensor]:
        return seed_search(queries, vectors, k, inv_norm=inv_norm, active=active, min_score=-1.0)

    def torch_search() -> tuple[Tensor, Tensor]:
        scores, indices = (unit_queries @ unit_vectors.T).topk(k)
        return scores, indices

    found: dict[str, Search] = {"aesg.seed_search": ours, "torch matmul + topk": torch_search}
    if vectors.is_cuda:
        return {name: until_done(run) for name, run in found.items()}
    try:
        import numpy as np

        q, v = unit_queries.numpy(), unit_vectors.numpy()

        def numpy_search() -> tuple[Tensor, Tensor]:
            scores = q @ v.T
            rough = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            values = np.take_along_axis(scores, rough, 1)
            order = np.argsort(-values, axis=1)
            best = np.take_along_axis(values, order, 1), np.take_along_axis(rough, order, 1)
            return torch.from_numpy(best[0]), torch.from_numpy(best[1])

        if queries.shape[0] * vectors.shape[0] <= 4e6:  # beyond, argpartition takes seconds
            found["numpy matmul + argpartition"] = numpy_search
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
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--seconds", type=float, default=1.0, help="a contestant and case")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print(f"exact top-{options.k} cosine, {options.threads} thread(s), {machine()}")
    cases: list[dict[str, Any]] = []
    for n in options.n:
        for dim in options.dim:
            torch.manual_seed(0)
            vectors = torch.randn(n, dim).to(options.device)
            for batch in options.batch:
                queries = torch.randn(batch, dim).to(options.device)
                runs = contestants(queries, vectors, options.k, options.threads)
                check_equal(runs)
                work: dict[str, Callable[[], object]] = dict(runs)
                if batch == 1:  # what one query cannot go much below
                    work["reading the vectors (sum)"] = vectors.sum
                timings = time_in_turn(work, options.seconds)
                ours = next(iter(timings.values())).median
                rate = f"{2e-9 * n * dim * batch / ours:.1f} GFLOP/s, {4e-9 * n * dim / ours:.1f} GB/s"
                print_case(f"N={n} D={dim} B={batch} ({rate})", timings, 1e-6 * batch, "us/query")
                cases.append(
                    {"n": n, "dim": dim, "batch": batch, "k": options.k, "seconds": as_json(timings)}
                )
    write_json(options.json, "seeds", options, cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
