"""Where the energy of one query came from, hop by hop. For explanation, not for speed: plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from aesg.graph.core import SemanticGraph
from aesg.packs.graph import PackGraph

_FIXED_POINT = 1 << 24  # energies are summed as integers of this scale, see docs/design.md, "Spreading"


class Arrival(NamedTuple):
    """What raised a concept's energy in one hop."""

    energy: float  # the concept's from here on
    source: int  # slot that sent most of it, the concept itself for a seed
    transfer: float  # how much that one sent


def trace_paths(
    graph: SemanticGraph | PackGraph, seeds: list[int], energies: list[float]
) -> dict[int, list[int]]:
    """Paths of activation from `seeds` (slots, -1 ignored) through the graph as it is now.

    A concept's path is that of the largest transfer in the hop that last raised its energy.
    """
    return paths_of(trace_hops(graph, seeds, energies))


def paths_of(hops: Iterable[dict[int, Arrival]]) -> dict[int, list[int]]:
    """The path of every concept that what `trace_hops` gave reached."""
    paths: dict[int, list[int]] = {}
    for hop in hops:
        before = dict(paths)
        for slot, arrival in hop.items():
            paths[slot] = [slot] if arrival.source == slot else [*before[arrival.source], slot]
    return paths


def trace_hops(
    graph: SemanticGraph | PackGraph, seeds: list[int], energies: list[float]
) -> Iterator[dict[int, Arrival]]:
    """The concepts (slots) whose energy each hop raised; hop 0 is the seeds themselves.

    Follows the rule of `aesg.ops.spread_activation`. Cost: Python steps in the number of edges touched.
    """
    config = graph.config
    energy: dict[int, np.float32] = {}
    for slot, value in zip(seeds, energies, strict=True):
        if slot >= 0 and np.float32(value) > energy.get(slot, np.float32(0)):
            energy[slot] = np.float32(value)
    yield {slot: Arrival(float(value), slot, float(value)) for slot, value in energy.items()}
    dominant = graph.region(seeds[0]) if seeds and seeds[0] >= 0 else 0
    decay = np.float32(config.spreading_activation_decay)
    facilitation = np.float32(config.region_facilitation_multiplier)
    edges: dict[int, dict[int, np.float32]] = {}
    for _ in range(config.spreading_activation_steps):
        sums: dict[int, int] = {}
        strongest: dict[int, tuple[np.float32, int]] = {}
        for source in [
            slot for slot, value in energy.items() if value >= np.float32(config.source_energy_floor)
        ]:
            if source not in edges:
                edges[source] = _strongest_edges(graph, source)
            for target, strength in edges[source].items():
                if not graph.is_active(target):
                    continue
                factor = facilitation if dominant and graph.region(target) == dominant else np.float32(1)
                transfer = np.float32(np.float32(np.float32(energy[source] * strength) * decay) * factor)
                if transfer <= np.float32(config.transfer_floor):
                    continue
                sums[target] = sums.get(target, 0) + int(np.rint(np.float64(transfer) * _FIXED_POINT))
                if transfer > strongest.get(target, (np.float32(0), -1))[0]:
                    strongest[target] = (transfer, source)
        raised = {}
        for target, total in sums.items():
            arrived = np.float32(min(1.0, total / _FIXED_POINT))
            if arrived > energy.get(target, np.float32(0)):
                energy[target] = arrived
                transfer, source = strongest[target]
                raised[target] = Arrival(float(arrived), source, float(transfer))
        yield raised


def _strongest_edges(graph: SemanticGraph | PackGraph, source: int) -> dict[int, np.float32]:
    """Target slot -> strength of the strongest parallel edge."""
    found: dict[int, np.float32] = {}
    for target, strength in zip(*graph.out_edges(source), strict=True):
        if strength > found.get(int(target), np.float32(-1)):
            found[int(target)] = strength
    return found
