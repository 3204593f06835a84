"""Peers that run on a device: search by torch and CuPy, spreading by torch.sparse, CuPy and PyG.

All take tensors of one device, also of the CPU, where tests hold them to our ops. Those of spreading follow
another rule, without the floor of a single transfer, which no product of matrices can express, and dense over
all concepts: their results are not compared. What does not fit the device's memory is done in pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg.benchmarks import _device
from aesg.benchmarks._ceilings import in_tf32

Found = tuple[Tensor, Tensor]  # scores or energies [B, k], indices [B, k]
Peer = Callable[[], Found]
MOST_SORTED = 3e8  # scores that CuPy, which sorts them whole, is asked for
MOST_COLUMNS = 1024  # at a time on a device: enough to fill it, and room for everybody's memory pool
DENSE_COPIES = 6  # of the energies [N, B] that the products and the selection need at a time


def that_fit(rows: int, bytes_of_one: int, on: Tensor) -> int:
    """How many of `rows` at a time, if each needs so much of the memory of the tensor's device: all on a
    CPU.
    """
    if not _device.is_there(on):
        return rows
    torch.cuda.empty_cache()
    return max(1, min(rows, torch.cuda.mem_get_info(on.device)[0] // 2 // bytes_of_one))


def recall(found: Tensor, exact: Tensor) -> float:
    """Share of the indices [B, k] of an exact search that were found [B, k] as well."""
    return float((found[:, :, None] == exact[:, None, :]).any(dim=2).float().mean())


def torch_search(queries: Tensor, vectors: Tensor, k: int) -> Peer:
    """torch.matmul and torch.topk of unit queries [B, D] and vectors [N, D], in their dtype."""
    batch, n = len(queries), len(vectors)
    # The scores, and room for the selection.
    parts = queries.split(that_fit(batch, 2 * n * queries.element_size(), queries))

    def run() -> Found:
        if len(parts) == 1:
            scores, indices = (queries @ vectors.T).topk(k)
            return scores, indices
        found = [(part @ vectors.T).topk(k) for part in parts]
        return torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found])

    return run


def approximate_searches(queries: Tensor, vectors: Tensor, k: int) -> dict[str, Peer]:
    """The same with coarser products: recall is to be stated."""
    found = {"torch matmul + topk, bf16": torch_search(queries.bfloat16(), vectors.bfloat16(), k)}
    if _device.is_there(queries):
        found["torch matmul + topk, tf32"] = in_tf32(torch_search(queries, vectors, k))
    return found


def cupy_search(queries: Tensor, vectors: Tensor, k: int) -> Peer | None:
    """CuPy's product and argpartition; None where it would sort too much. Raises ImportError."""
    import cupy

    if len(queries) * len(vectors) > MOST_SORTED:
        return None
    return partition_search(cupy, cupy.from_dlpack(queries), cupy.from_dlpack(vectors), k)


def partition_search(arrays: Any, queries: Any, vectors: Any, k: int) -> Peer:
    """Product, argpartition and a sort of the best, by `arrays`: numpy, or a library with its interface."""

    def run() -> Found:
        scores = queries @ vectors.T
        rough = arrays.argpartition(-scores, k - 1, axis=1)[:, :k]
        values = arrays.take_along_axis(scores, rough, 1)
        order = arrays.argsort(-values, axis=1)
        best = arrays.take_along_axis(values, order, 1), arrays.take_along_axis(rough, order, 1)
        return torch.from_dlpack(best[0]), torch.from_dlpack(best[1])

    return run


class Dense:
    """Spreading over dense energies [N, B], whatever multiplies: `with_product` makes a peer of a product."""

    def __init__(
        self,
        csr: tuple[np.ndarray, np.ndarray, np.ndarray],  # offsets [N + 1], target [E], strength [E]
        seeds: Tensor,  # [B, S]
        energies: Tensor,  # [B, S]
        hops: int,
        k: int,
        decay: float,
        source_floor: float,
    ) -> None:
        offsets, target, strength = csr
        self.n, self.hops, self.k = len(offsets) - 1, hops, min(k, len(offsets) - 1)
        self.source_floor = source_floor
        fits = that_fit(len(seeds), 4 * DENSE_COPIES * self.n, seeds)
        if _device.is_there(seeds):
            fits = min(fits, MOST_COLUMNS)
        self.parts = list(zip(seeds.split(fits), energies.split(fits), strict=True))
        source = np.repeat(np.arange(self.n), np.diff(offsets))
        edges = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([target.astype(np.int64), source])),
            torch.from_numpy(strength * np.float32(decay)),
            (self.n, self.n),
        )
        self.backward = edges.to_sparse_csr().to(seeds.device)

    def with_product(self, product: Callable[[Tensor], Tensor]) -> Peer:
        """`product` takes firing energies [N, C] to what they give, [N, C]."""

        def part(seeds: Tensor, energies: Tensor) -> Found:
            a = torch.zeros(self.n, len(seeds), device=seeds.device)
            a.t().scatter_reduce_(1, seeds, energies, "amax")
            for _ in range(self.hops):
                a = torch.maximum(a, product(torch.where(a >= self.source_floor, a, 0.0)).clamp_(max=1.0))
            values, indices = a.t().contiguous().topk(self.k, dim=1)
            return values, indices

        def run() -> Found:
            found = [part(*each) for each in self.parts]
            return found[0] if len(found) == 1 else (
                torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found])
            )  # fmt: skip

        return run

    def torch_sparse(self) -> Peer:
        return self.with_product(lambda firing: self.backward @ firing)

    def pyg(self) -> Peer:
        """Raises ImportError."""
        from torch_geometric.utils import spmm

        return self.with_product(lambda firing: spmm(self.backward, firing, "sum"))

    def cupy(self) -> Peer:
        """Raises ImportError."""
        import cupy
        from cupyx.scipy import sparse

        parts = self.backward.values(), self.backward.col_indices(), self.backward.crow_indices()
        values, columns, offsets = (cupy.from_dlpack(p if p.is_floating_point() else p.int()) for p in parts)
        edges: Any = sparse.csr_matrix((values, columns, offsets), shape=(self.n, self.n))
        return self.with_product(lambda firing: torch.from_dlpack(edges @ cupy.from_dlpack(firing)))


def least_traffic(
    csr: tuple[np.ndarray, np.ndarray, np.ndarray],
    seeds: np.ndarray,  # [B, S]
    energies: np.ndarray,  # [B, S]
    hops: int,
    decay: float,
    floors: tuple[float, float],  # of sources, of transfers
) -> tuple[float, float]:
    """Bytes and FLOP a query that spreading cannot do without, the mean of these queries: 12 bytes a concept
    that fires (energy in and out, its first block), 64 a block of its edges, 3 FLOP an edge, each once.
    """
    offsets, target, strength = csr
    moved = done = 0.0
    for slots, start in zip(seeds, energies, strict=True):
        a: dict[int, float] = {}
        for slot, energy in zip(slots.tolist(), start.tolist(), strict=True):
            a[slot] = max(a.get(slot, 0.0), energy)
        fired: set[int] = set()
        for _ in range(hops):
            given: dict[int, float] = {}
            for source, energy in a.items():
                if energy < floors[0]:
                    continue
                fired.add(source)
                span = slice(offsets[source], offsets[source + 1])
                for reached, share in zip(target[span].tolist(), strength[span].tolist(), strict=True):
                    if (x := energy * share * decay) > floors[1]:
                        given[reached] = given.get(reached, 0.0) + x
            for reached, sum_ in given.items():
                a[reached] = max(a.get(reached, 0.0), min(1.0, sum_))
        edges = [int(offsets[source + 1] - offsets[source]) for source in fired]
        moved += sum(12 + 64 * -(-count // 7) for count in edges)
        done += 3 * sum(edges)
    return moved / len(seeds), done / len(seeds)
