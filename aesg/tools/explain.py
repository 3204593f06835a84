"""Explainer: what a concept is, why a query activates what it does, and which concepts matter or lie idle."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError
from aesg.graph.core import whole_numbers
from aesg.graph.forgetting import slots_of_ids
from aesg.memory.controller import AESGMemory
from aesg.memory.state import BatchActiveContext
from aesg.memory.trace import paths_of, trace_hops
from aesg.storage.logger import EventHistory, EventType
from aesg.tools.columns import KINDS, find_hubs, read_columns, read_edges

NEIGHBOURS = 10  # strongest edges each way, and nearest concepts, that `explain` lists
EVENTS = 20  # of a concept, the newest, that `explain` lists


class Trace(list[int]):
    """Ids of what a query activated, strongest first, and how its energy got there. Printing it tells it.

    energies: of each concept. paths: ids from a seed to the concept. hops: for hop 0 (the seeds), 1, 2, ...
    the concepts whose energy that hop raised, {id: (energy, id of who sent most of it, how much)}.
    """

    def __init__(
        self,
        ids: list[int],
        energies: list[float],
        paths: list[list[int]],
        hops: list[dict[int, tuple[float, int, float]]],
    ) -> None:
        super().__init__(ids)
        self.energies = energies
        self.paths = paths
        self.hops = hops

    def __str__(self) -> str:
        lines = []
        for number, hop in enumerate(self.hops):
            lines.append("seeds" if number == 0 else f"hop {number}" + ("" if hop else ": nothing new"))
            for concept, (energy, source, sent) in sorted(hop.items(), key=lambda item: -item[1][0]):
                came = "" if source == concept else f"  <- {sent:.3f} from {source}"
                lines.append(f"  {concept:>8}  {energy:.3f}{came}")
        context = ", ".join(
            f"{concept} ({energy:.2f})" for concept, energy in zip(self, self.energies, strict=True)
        )
        return "\n".join([*lines, f"context: {context or 'nothing is like the query'}"])


class Explainer:
    """Looks at a memory and changes nothing: no use is counted, no stream goes on, in any mode."""

    def __init__(self, memory: AESGMemory) -> None:
        self.memory = memory

    def explain(self, concept_id: int) -> dict[str, Any]:
        """All there is to say about a living concept.

        Its fields (slot, created_at, use_frequency, relevance, age, region_id, ...), `norm`, `degree_in` and
        `degree_out`, its strongest edges `out` and `in`, `parents` and `children` by abstraction, the
        concepts `nearest` by cosine, and its `events`. Raises AESGMemoryError for an id of none. O(N D + E).
        """
        storage, graph = self.memory.storage, self.memory.graph
        slot = self._slot(concept_id)
        record = storage.nodes[slot]
        edges = read_edges(storage)
        ids = storage.nodes["id"][:]
        alive = storage.nodes["is_active"][:] != 0
        between = alive[edges["source"]] & alive[edges["target"]]
        out, into = (np.flatnonzero(between & (edges[end] == slot)) for end in ("source", "target"))
        vector = graph.get_node_vector(slot)
        nearest = graph.find_nearest_neighbors(vector, NEIGHBOURS + 1) if float(vector.norm()) > 0 else []
        up = (edges["kind"] == KINDS.index("abstraction")) & edges["up"]
        fields = {
            name: record[name].item() for name in record.dtype.names if name not in ("vector", "is_active")
        }
        return {
            **fields,
            "slot": slot,
            "norm": float(vector.norm()),
            "degree_out": len(out),
            "degree_in": len(into),
            "out": _strongest(edges, out, ids[edges["target"][out]]),
            "in": _strongest(edges, into, ids[edges["source"][into]]),
            "parents": ids[edges["source"][into[up[into]]]].tolist(),
            "children": ids[edges["target"][out[up[out]]]].tolist(),
            "nearest": [{"id": int(ids[at]), "cosine": score} for at, score in nearest if at != slot],
            "events": self._events(int(concept_id)),
        }

    def trace(self, input_vector: Tensor | np.ndarray | Sequence[float]) -> Trace:
        """The ids that a query [D] activates in the memory itself, strongest first, with the way its energy
        went.

        What `retrieve` in a fresh stream would answer, attached packs left out. Raises AESGNavigationError
        and AESGMemoryError as `retrieve`. O(N D), then Python steps in the number of edges touched.
        """
        navigator, graph = self.memory.navigator, self.memory.graph
        streams = BatchActiveContext()
        try:
            vector = torch.as_tensor(input_vector)
        except (TypeError, ValueError, RuntimeError) as error:
            raise AESGMemoryError(f"trace: expected a vector [{graph.vector_dim}], got: {error}") from None
        query = navigator.check(vector.detach(), streams, 0)
        if len(query.rows) != 1:
            raise AESGMemoryError(f"trace: expected one query [{graph.vector_dim}], got {list(vector.shape)}")
        _, (own, *_) = navigator.find(query, streams)
        ids = self.memory.storage.nodes["id"][:]
        hops = list(trace_hops(graph, own.found.seeds[0].tolist(), own.found.similarities[0].tolist()))
        paths = paths_of(hops)
        members = [
            (slot, energy)
            for slot, energy in zip(own.members[0].tolist(), own.energies[0].tolist(), strict=True)
            if slot >= 0
        ]
        return Trace(
            [int(ids[slot]) for slot, _ in members],
            [energy for _, energy in members],
            [ids[paths[slot]].tolist() for slot, _ in members],
            [
                {
                    int(ids[slot]): (arrival.energy, int(ids[arrival.source]), arrival.transfer)
                    for slot, arrival in hop.items()
                }
                for hop in hops
            ],
        )

    def find_hubs(self, top_n: int = 10) -> list[dict[str, Any]]:
        """The living concepts with the most edges, in and out, most first; of equals the lower slot.

        Each {'id', 'slot', 'degree', 'degree_in', 'degree_out', 'strength' (of all its edges together),
        'use_frequency', 'relevance', 'region_id'}. Concepts without an edge are no hubs. O(N + E).
        """
        if top_n < 1:
            raise AESGMemoryError(f"top_n: expected at least 1, got {top_n}")
        return find_hubs(read_columns(self.memory.storage), top_n)

    def find_dead_nodes(self, use_threshold: int = 0) -> list[int]:
        """Ids of living concepts that were used at most `use_threshold` times, by slot. O(N)."""
        if use_threshold < 0:
            raise AESGMemoryError(f"use_threshold: expected at least 0, got {use_threshold}")
        nodes = self.memory.storage.nodes
        idle = (nodes["is_active"][:] != 0) & (nodes["use_frequency"][:] <= use_threshold)
        return nodes["id"][idle].tolist()

    def _slot(self, concept_id: int) -> int:
        if not isinstance(concept_id, numbers.Number):
            raise AESGMemoryError(f"explain: expected the id of a living concept, got {concept_id!r}")
        number = int(whole_numbers("concept_id", [concept_id])[0]) if abs(concept_id) < 2**63 else concept_id
        if 0 < number < 2**64:
            bits = np.array([number], dtype=np.uint64).view(np.int64)  # as the column holds them
            slots, _ = slots_of_ids(self.memory.graph, bits)
            if len(slots):
                return int(slots[0])
        raise AESGMemoryError(f"explain: expected the id of a living concept, got {concept_id}")

    def _events(self, concept_id: int) -> list[dict[str, Any]]:
        """Events of kinds whose ids are concepts, not counters."""
        events = self.memory.logger.get_history().array
        about = (events["id1"] == concept_id) | (events["id2"] == concept_id)
        about &= ~np.isin(events["type"], (EventType.CONSOLIDATE, EventType.RESTRUCTURE))
        return list(EventHistory(events[about][-EVENTS:]))


def _strongest(edges: dict[str, np.ndarray], which: np.ndarray, others: np.ndarray) -> list[dict[str, Any]]:
    strength = edges["weight"][which] * edges["confidence"][which]
    return [
        {
            "id": int(others[place]),
            "kind": KINDS[edges["kind"][which[place]]],
            "strength": float(strength[place]),
            **{name: edges[name][which[place]].item() for name in ("weight", "confidence", "use_count")},
        }
        for place in np.argsort(-strength, kind="stable")[:NEIGHBOURS].tolist()
    ]
