"""Births on a store and on its columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from edge_helpers import NODES, Learnt
from torch import Tensor

from aesg import _core
from aesg.ops import Edges, Nodes, bear_
from aesg.storage.engine import AESGStorage

DIM = 5
CONFIDENCE = 0.3


class Births(NamedTuple):
    packed: Tensor  # [n, D]
    count: Tensor  # [1]
    neighbors: Tensor  # [n, L]
    cosines: Tensor  # [n, L]


def make_store(folder: Path, concepts: int, degree: int, *, dead: float = 0.0, seed: int = 0) -> AESGStorage:
    """A store with random edges; of the concepts some died, so that slots and blocks are free."""
    storage = AESGStorage(str(folder), DIM, clock=lambda: 1.7e9)
    rng = np.random.default_rng(seed)
    if concepts:
        _core.bear(storage.core, rng.standard_normal((concepts, DIM)).astype(np.float32), 1)
    for _ in range(degree):
        sources, targets = rng.integers(concepts, size=(2, concepts))
        differ = sources != targets
        weights = np.full(int(differ.sum()), 0.5, dtype=np.float32)
        kind = int(rng.integers(2))
        _core.put_edges(storage.core, sources[differ], targets[differ], weights, weights, kind)
    if dead:
        _core.retire(storage.core, rng.permutation(concepts)[: int(dead * concepts)], 2)
        _core.bury(storage.core)
    return storage


def some_births(storage: AESGStorage, n: int, links: int, count: int | None = None, seed: int = 0) -> Births:
    """Rows with up to `links` different living neighbours, few of which are much sought."""
    generator = torch.Generator().manual_seed(seed)
    living = storage.column("is_active").flatten().nonzero().flatten()
    neighbors = torch.full((n, links), -1)
    for row in range(n):
        few = living[: max(links, 3)] if row % 3 == 0 else living
        chosen = few[torch.randperm(len(few), generator=generator)][:links]
        neighbors[row, : len(chosen)] = chosen
        neighbors[row, int(torch.randint(0, links + 1, (), generator=generator)) :] = -1
    cosines = torch.rand(n, links, generator=generator) * 2.4 - 1.2  # also outside 0..1
    cosines = torch.where(neighbors >= 0, cosines, 0.0)
    packed = torch.randn(n, DIM, generator=generator)
    packed[::7] = 0
    packed[3::7] *= 1e-38
    return Births(packed, torch.tensor([n if count is None else count]), neighbors, cosines)


def bear_on_store(storage: AESGStorage, births: Births, relevance: float = 1.0) -> np.ndarray:
    """What `bear_sensory` does with the answer of its search."""
    count = min(max(int(births.count), 0), len(births.packed))
    slots = _core.bear(storage.core, births.packed[:count].numpy(), 1_700_000_000, relevance)
    rows, columns = torch.nonzero(births.neighbors[:count] >= 0, as_tuple=True)
    ones, others = slots[rows.numpy()], births.neighbors[rows, columns].numpy()
    weights = births.cosines[rows, columns].clamp(0.0, 1.0).numpy()
    confidences = np.full(len(weights), CONFIDENCE, dtype=np.float32)
    if len(ones):
        _core.put_edges(storage.core, ones, others, weights, confidences, 0)
        _core.put_edges(storage.core, others, ones, weights, confidences, 0)
    return slots


def nodes_of(learnt: Learnt) -> Nodes:
    return Nodes(*(learnt.nodes[name] for name in NODES))


def bear_on_columns(learnt: Learnt, births: Births, relevance: float = 1.0) -> Tensor:
    return bear_(
        *births, nodes_of(learnt), learnt.edges, learnt.counters, confidence=CONFIDENCE, relevance=relevance
    )


def changed(learnt: Learnt, by: Callable[[Tensor], Tensor]) -> Learnt:
    """Every column by `by`; first_block stays one tensor."""
    nodes = {name: by(column) for name, column in learnt.nodes.items()}
    edges = Edges(nodes["first_block"], *map(by, learnt.edges[1:]))
    return Learnt(nodes, edges, by(learnt.counters) if by is not flat else learnt.counters.clone())


def flat(column: Tensor) -> Tensor:
    """The rows of a grouped column one behind the other, a copy."""
    return column.flatten(0, 1).clone()


def assert_equal(one: Learnt, other: Learnt) -> None:
    assert one.counters.tolist() == other.counters.tolist()
    for name, column in one.nodes.items():
        assert torch.equal(column, other.nodes[name]), name
    for name, ours, theirs in zip(Edges._fields, one.edges, other.edges, strict=True):
        assert torch.equal(ours, theirs), name
