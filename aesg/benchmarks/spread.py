"""Spreading activation against its peers: `python -m aesg bench spread`.

Contestants follow the same rule in the same fixed point, so their results must have equal bits: but for
the last. The rule drops every single transfer energy * strength * decay that is not above a floor, which no
product of a sparse matrix and a vector can express. scipy.sparse can still do it, by scaling the rows that
fire and summing them by a product with ones. torch.sparse offers the product only: it is timed with another
rule, without that floor and in f32, dense over all concepts, and its results are not compared. On a device
so are CuPy and PyG, and the op on the CPU is what ours there must equal.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from aesg.benchmarks import _device
from aesg.benchmarks._ceilings import add_roofline, measured, roofline, told
from aesg.benchmarks._device import add_device, tried
from aesg.benchmarks._device_peers import Dense, least_traffic
from aesg.benchmarks._timing import as_json, integers, machine, print_case, time_in_turn, write_json
from aesg.ops import spread_activation

DECAY, SOURCE_FLOOR, TRANSFER_FLOOR = 0.8, 0.1, 0.05
MOST_DENSE = 1 << 25  # energies of a dense contestant on a CPU, 128 MiB
SAMPLE = 16  # queries whose least traffic is counted
Spread = Callable[[], tuple[Tensor, Tensor]]  # energies [B, k], indices [B, k]


class Graph(NamedTuple):
    """One random graph twice: as CSR for the peers, as edge blocks for the op. A line of 64 bytes holds what
    is together in a block.
    """

    offsets: np.ndarray  # [N + 1] i64
    target: np.ndarray  # [E] i32
    strength: np.ndarray  # [E] f32
    heads: Tensor  # [N] i32, each concept's first block
    lines: Tensor  # [G, 40960] i32, blocks as a store has them

    def blocks(self, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """first_block, targets, strengths, next_block and active on a device."""
        heads, lines = self.heads.to(device), self.lines.to(device)
        stride, groups = (lines.shape[1], 16, 1), len(lines)
        return (
            heads,
            lines.as_strided((groups, 1024, 7), stride),
            lines.view(torch.float32).as_strided((groups, 1024, 7), stride, 7),
            lines.as_strided((groups, 1024), stride[:2], 14),
            torch.ones(len(heads), dtype=torch.uint8, device=device),
        )


def make_graph(n: int, degree: int, power_law: bool, seed: int = 0) -> Graph:
    """`degree` edges a concept (on average), targets uniform or with Zipf-like popularity."""
    rng = np.random.default_rng(seed)
    degrees = np.full(n, degree)
    if power_law:  # out-degrees too, with the same mean
        degrees = np.minimum(rng.zipf(2.0, n) * degree // 2, 100 * degree)
        degrees = np.maximum(1, (degrees * (degree / degrees.mean())).astype(np.int64))
    source = np.repeat(np.arange(n), degrees)
    uniform = rng.random(len(source))
    popular = (n * uniform**3).astype(np.int64) if power_law else (n * uniform).astype(np.int64)
    # No parallel edges: the peers know no rule for them.
    pairs = np.unique(source * n + popular)
    source, target = pairs // n, (pairs % n).astype(np.int32)
    strength = (0.2 + 0.8 * rng.random(len(pairs))).astype(np.float32)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(source, minlength=n), out=offsets[1:])
    return Graph(offsets, target, strength, *_as_blocks(n, offsets, source, target, strength))


def _as_blocks(
    n: int, offsets: np.ndarray, source: np.ndarray, target: np.ndarray, strength: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Heads, and lines: blocks of 64 bytes as a store has them, chains scattered as after learning."""
    per = -(-np.diff(offsets) // 7)
    first = np.concatenate([[0], np.cumsum(per)])
    count = int(first[-1])
    place = np.random.default_rng(1).permutation(count).astype(np.int32)
    groups = -(-max(count, 1) // 1024)
    bytes_ = torch.full((groups, 40960), -1, dtype=torch.int32)
    hot = bytes_.as_strided((groups, 1024, 16), (40960, 16, 1)).numpy()
    within = np.arange(len(target)) - offsets[source]
    block = place[first[source] + within // 7]
    hot[block // 1024, block % 1024, within % 7] = target
    hot.view(np.float32)[block // 1024, block % 1024, 7 + within % 7] = strength
    last = np.zeros(count, bool)
    last[first[1:][per > 0] - 1] = True
    following = np.where(last, -1, np.append(place[1:], -1))
    hot[place // 1024, place % 1024, 14] = following
    heads = np.where(per > 0, place[np.minimum(first[:-1], count - 1)], -1).astype(np.int32)
    return torch.from_numpy(heads), bytes_


def _ranked(slots: np.ndarray, energies: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((slots, -energies))[:k]
    values, indices = np.zeros(k, np.float32), np.full(k, -1)
    values[: len(order)], indices[: len(order)] = energies[order], slots[order]
    return values, indices


def numpy_spread(graph: Graph, seeds: np.ndarray, energies: np.ndarray, hops: int, k: int) -> Spread:
    """Frontier by frontier over CSR rows, dense scratch of N kept between calls."""
    n = len(graph.offsets) - 1
    a, fixed = np.zeros(n, np.float32), np.zeros(n, np.int64)

    def run() -> tuple[Tensor, Tensor]:
        rows = []
        for slots, start in zip(seeds, energies, strict=True):
            np.maximum.at(a, slots, start)
            known = np.unique(slots)
            for _ in range(hops):
                firing = known[a[known] >= SOURCE_FLOOR]
                lengths = graph.offsets[firing + 1] - graph.offsets[firing]
                steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                edges = np.repeat(graph.offsets[firing], lengths) + steps
                x = np.repeat(a[firing], lengths) * graph.strength[edges] * np.float32(DECAY)
                carried = x > np.float32(TRANSFER_FLOOR)
                reached = graph.target[edges[carried]]
                np.add.at(fixed, reached, np.rint(x[carried] * np.float32(2**24)).astype(np.int64))
                reached = np.unique(reached)
                share = np.minimum(fixed[reached], 2**24).astype(np.float32) * np.float32(2**-24)
                a[reached] = np.maximum(a[reached], share)
                fixed[reached] = 0
                known = np.union1d(known, reached)
            alive = known[a[known] > 0]
            rows.append(_ranked(alive, a[alive], k))
            a[known] = 0
        return torch.from_numpy(np.stack([r[0] for r in rows])), torch.from_numpy(
            np.stack([r[1] for r in rows])
        )

    return run


def numba_spread(graph: Graph, seeds: np.ndarray, energies: np.ndarray, hops: int, k: int) -> Spread | None:
    """The plain loop, compiled; dense scratch of N kept between calls. None where numba is missing."""
    try:
        import numba
    except ImportError:
        print("numba is not installed: left out (pip install numba)")
        return None
    n = len(graph.offsets) - 1
    scratch = np.zeros(n, np.float32), np.zeros(n, np.int64), np.zeros(n, np.bool_), np.empty(n, np.int32)

    @numba.njit(cache=False)
    def spread(offsets, target, strength, seeds, energies, a, fixed, seen, known, values, indices):  # type: ignore[no-untyped-def]
        decay, floor, least = np.float32(DECAY), np.float32(SOURCE_FLOOR), np.float32(TRANSFER_FLOOR)
        for b in range(seeds.shape[0]):
            size = 0
            for s in range(seeds.shape[1]):
                slot = seeds[b, s]
                if not seen[slot]:
                    seen[slot] = True
                    known[size] = slot
                    size += 1
                a[slot] = max(a[slot], energies[b, s])
            for _ in range(hops):
                before = size
                for i in range(before):
                    energy = a[known[i]]
                    if energy < floor:
                        continue
                    for e in range(offsets[known[i]], offsets[known[i] + 1]):
                        x = energy * strength[e] * decay
                        if x > least:
                            t = target[e]
                            if not seen[t]:
                                seen[t] = True
                                known[size] = t
                                size += 1
                            fixed[t] += np.int64(np.rint(x * np.float32(2.0**24)))
                for i in range(size):
                    t = known[i]
                    share = np.float32(min(fixed[t], 2**24)) * np.float32(2.0**-24)
                    if share > a[t]:
                        a[t] = share
                    fixed[t] = 0
            values[b, :] = 0
            indices[b, :] = -1
            for i in range(size):  # insertion into the k best: more energy, then the lower slot
                t = known[i]
                place = k
                while place > 0 and (
                    a[t] > values[b, place - 1]
                    or (a[t] == values[b, place - 1] and a[t] > 0 and t < indices[b, place - 1])
                ):
                    if place < k:
                        values[b, place] = values[b, place - 1]
                        indices[b, place] = indices[b, place - 1]
                    place -= 1
                if place < k:
                    values[b, place] = a[t]
                    indices[b, place] = t
            for i in range(size):
                a[known[i]] = 0
                seen[known[i]] = False

    def run() -> tuple[Tensor, Tensor]:
        values, indices = np.empty((len(seeds), k), np.float32), np.empty((len(seeds), k), np.int64)
        spread(graph.offsets, graph.target, graph.strength, seeds, energies, *scratch, values, indices)
        return torch.from_numpy(values), torch.from_numpy(indices)

    return run


def scipy_spread(graph: Graph, seeds: np.ndarray, energies: np.ndarray, hops: int, k: int) -> Spread | None:
    """The batch as one sparse matrix [B, N]: rows that fire are taken, scaled and summed by a product."""
    try:
        from scipy import sparse
    except ImportError:
        print("scipy is not installed: left out (pip install scipy)")
        return None
    batch, n = len(seeds), len(graph.offsets) - 1
    edges = sparse.csr_matrix((graph.strength, graph.target, graph.offsets), shape=(n, n))

    def run() -> tuple[Tensor, Tensor]:
        start = np.zeros(seeds.shape, np.float32)
        for s in range(seeds.shape[1]):  # of equal seeds the strongest counts
            same = seeds == seeds[:, s : s + 1]
            first = same.argmax(1) == s
            start[first, s] = np.where(same, energies, 0).max(1)[first]
        rows, columns = np.nonzero(start)
        a = sparse.csr_matrix((start[rows, columns], (rows, seeds[rows, columns])), shape=(batch, n))
        for _ in range(hops):
            firing = a.data >= np.float32(SOURCE_FLOOR)
            taken = edges[a.indices[firing]]
            x = np.repeat(a.data[firing], np.diff(taken.indptr)) * taken.data * np.float32(DECAY)
            fixed = np.where(x > np.float32(TRANSFER_FLOOR), np.rint(x * np.float32(2**24)), 0)
            given = sparse.csr_matrix((fixed.astype(np.int64), taken.indices, taken.indptr), taken.shape)
            given.eliminate_zeros()
            bounds = np.concatenate([[0], np.cumsum(firing)])[a.indptr]
            whose = sparse.csr_matrix(
                (np.ones(bounds[-1], np.int64), np.arange(bounds[-1]), bounds), (batch, bounds[-1])
            )
            sums = whose @ given
            share = np.minimum(sums.data, 2**24).astype(np.float32) * np.float32(2**-24)
            a = a.maximum(sparse.csr_matrix((share, sums.indices, sums.indptr), a.shape)).tocsr()
        row = np.repeat(np.arange(batch), np.diff(a.indptr))
        order = np.lexsort((a.indices, -a.data, row))
        rank = np.arange(len(order)) - a.indptr[row]
        values, indices = np.zeros((batch, k), np.float32), np.full((batch, k), -1)
        best = order[rank < k]
        places = row[best], rank[rank < k]
        values[places], indices[places] = a.data[best], a.indices[best]
        return torch.from_numpy(values), torch.from_numpy(indices)

    return run


def of_another_rule(graph: Graph, seeds: Tensor, energies: Tensor, hops: int, k: int) -> dict[str, Spread]:
    """Products of a sparse matrix with dense energies: torch's, on a device CuPy's and PyG's as well. Nothing
    on a CPU where the energies are too large.
    """
    there = _device.is_there(seeds)
    if not there and (len(graph.offsets) - 1) * len(seeds) > MOST_DENSE:
        return {}
    dense = Dense(graph[:3], seeds, energies, hops, k, DECAY, SOURCE_FLOOR)
    makers = {"torch.sparse": dense.torch_sparse}
    if there:
        makers |= {"CuPy sparse": dense.cupy, "PyG spmm": dense.pyg}
    made = {f"{name}, another rule": tried(name, make) for name, make in makers.items()}
    return {name: run for name, run in made.items() if run is not None}


def contestants(
    graph: Graph, seeds: Tensor, energies: Tensor, hops: int, k: int, device: str
) -> dict[str, Spread]:
    """Ours first, then the peers of the same rule; on a device ours and, to compare with, ours on the CPU."""

    def ours(device: str) -> Spread:
        inputs = seeds.to(device), energies.to(device), *graph.blocks(device)
        rules = {"decay": DECAY, "source_floor": SOURCE_FLOOR, "transfer_floor": TRANSFER_FLOOR}
        return lambda: spread_activation(*inputs, hops=hops, k=k, **rules)  # type: ignore[arg-type]

    found: dict[str, Spread] = {f"aesg.spread_activation, {device}": ours(device)}
    if device != "cpu":
        return found | {"aesg.spread_activation, cpu": ours("cpu")}
    compiled = numba_spread(graph, seeds.numpy(), energies.numpy(), hops, k)
    if compiled is not None:
        found["numba loop over CSR"] = compiled
    with_scipy = scipy_spread(graph, seeds.numpy(), energies.numpy(), hops, k)
    if with_scipy is not None:
        found["scipy.sparse, whole batch"] = with_scipy
    found["numpy, frontier by frontier"] = numpy_spread(graph, seeds.numpy(), energies.numpy(), hops, k)
    return found


def check_equal(runs: dict[str, Spread]) -> None:
    """All results have the same bits."""
    (first, reference), *others = runs.items()
    energies, indices = (each.cpu() for each in reference())
    for name, run in others:
        their_energies, their_indices = (each.cpu() for each in run())
        if not (torch.equal(energies, their_energies) and torch.equal(indices, their_indices)):
            raise AssertionError(f"{name} and {first} differ")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs every combination and prints one table each. Returns 0."""
    parser = argparse.ArgumentParser(prog="aesg bench spread", description=__doc__)
    parser.add_argument("--n", type=integers, default=[100_000], help="concepts, e.g. 1e5,1e6")
    parser.add_argument("--degree", type=int, default=8)
    parser.add_argument("--hops", type=integers, default=[1, 2, 4, 8])
    parser.add_argument("--batch", type=integers, default=[1, 32, 256])
    parser.add_argument("--graph", choices=["random", "power-law", "both"], default="both")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    add_device(parser)
    add_roofline(parser)
    parser.add_argument("--seconds", type=float, default=0.5, help="a contestant and case")
    parser.add_argument("--json", default=None, help="file to write")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print(f"spreading, degree {options.degree}, {options.threads} thread(s), {machine()}")
    ceilings = measured(options)
    cases: list[dict[str, Any]] = []
    for n in options.n:
        for kind in ("random", "power-law") if options.graph == "both" else (options.graph,):
            graph = make_graph(n, options.degree, kind == "power-law")
            for batch in options.batch:
                generator = torch.Generator().manual_seed(batch)
                seeds = torch.randint(0, n, (batch, options.seeds), generator=generator)
                energies = 0.4 + 0.6 * torch.rand(batch, options.seeds, generator=generator)
                for hops in options.hops:
                    runs = contestants(graph, seeds, energies, hops, options.k, options.device)
                    check_equal(runs)
                    if options.device != "cpu":  # it was there to compare with
                        del runs["aesg.spread_activation, cpu"]
                    there = seeds.to(options.device), energies.to(options.device)
                    runs |= of_another_rule(graph, *there, hops, options.k)
                    timings = time_in_turn(runs, options.seconds, device=options.device)
                    some = seeds[:SAMPLE].numpy(), energies[:SAMPLE].numpy()
                    moved, done = least_traffic(graph[:3], *some, hops, DECAY, (SOURCE_FLOOR, TRANSFER_FLOOR))
                    ours = next(iter(timings.values())).median
                    used = roofline(batch * (moved + 12 * options.k), batch * done, ours, ceilings)
                    title = f"N={n} {kind} T={hops} B={batch} ({told(used)})"
                    print_case(title, timings, 1e-6 * batch, "us/query")
                    case = {"n": n, "graph": kind, "hops": hops, "batch": batch}
                    cases.append(case | {"seconds": as_json(timings), "roofline": used})
                    write_json(options.json, "spread", options, cases, ceilings, done=False)
    write_json(options.json, "spread", options, cases, ceilings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
