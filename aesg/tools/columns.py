"""GraphColumns: a memory's living graph as flat arrays, for tools that look at all of it.

Letters: N living concepts, E edges between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aesg import _core
from aesg.storage.engine import AESGStorage
from aesg.storage.nodes import BLOCK_EDGES, blocks

KINDS = ("similarity", "succession", "abstraction")  # edge kinds by number
UP_BIT = 0x40  # kEdgeUpBit of csrc/storage/layout.h: the target was abstracted from the source
FIELDS = (
    "id",
    "created_at",
    "modified_at",
    "use_frequency",
    "relevance",
    "age",
    "stability",
    "region_id",
)


@dataclass(frozen=True)
class GraphColumns:
    """Copies, taken at one moment. Rows are living concepts in the order of their slots; edges name rows."""

    slots: np.ndarray  # [N] i64
    fields: dict[str, np.ndarray]  # FIELDS, [N] each, as stored
    source: np.ndarray  # [E] i64, rows
    target: np.ndarray  # [E] i64, rows
    weight: np.ndarray  # [E] f32
    confidence: np.ndarray  # [E] f32
    use_count: np.ndarray  # [E] u32
    kind: np.ndarray  # [E] u8, places in KINDS
    up: np.ndarray  # [E] bool: of abstraction, and the target was made above the source

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def ids(self) -> np.ndarray:
        """[N] u64."""
        return self.fields["id"]

    @property
    def strength(self) -> np.ndarray:
        """[E] f32: weight * confidence, the share of energy that an edge carries."""
        return self.weight * self.confidence

    def out_degree(self) -> np.ndarray:
        """[N] i64."""
        return np.bincount(self.source, minlength=len(self))

    def in_degree(self) -> np.ndarray:
        """[N] i64."""
        return np.bincount(self.target, minlength=len(self))

    def abstract(self) -> np.ndarray:
        """[N] bool: concepts made above living others."""
        found = np.zeros(len(self), dtype=bool)
        found[self.target[self.up]] = True
        return found


def read_columns(storage: AESGStorage) -> GraphColumns:
    """The living graph of an open store. Edges into the dead are left out. O(N + E), no Python loop."""
    storage.settle()
    slots = np.flatnonzero(storage.nodes["is_active"][:] != 0)
    row_of = np.full(storage.core.node_count, -1, dtype=np.int64)
    row_of[slots] = np.arange(len(slots))
    edges = read_edges(storage)
    source, target = row_of[edges["source"]], row_of[edges["target"]]
    living = (source >= 0) & (target >= 0)
    return GraphColumns(
        slots,
        {name: storage.nodes[name][slots] for name in FIELDS},
        source[living],
        target[living],
        **{name: edges[name][living] for name in ("weight", "confidence", "use_count", "kind", "up")},
    )


def read_edges(storage: AESGStorage) -> dict[str, np.ndarray]:
    """Every stored edge: source and target (slots), weight, confidence, use_count, kind, up; [E] each,
    by position."""
    hot, cold = (part.reshape(-1)[: storage.core.counters.block_count] for part in blocks(storage))
    used = np.arange(BLOCK_EDGES) < hot["count"][:, None]  # [blocks, 7]
    return {
        "source": np.repeat(cold["source"].astype(np.int64), hot["count"]),
        "target": hot["target"][used].astype(np.int64),
        "weight": cold["weight"][used],
        "confidence": cold["confidence"][used],
        "use_count": cold["use_count"][used],
        "kind": cold["tag"][used] & _core.EDGE_KIND_MASK,
        "up": (cold["tag"][used] & UP_BIT) != 0,
    }


def find_hubs(columns: GraphColumns, top_n: int) -> list[dict[str, Any]]:
    """The concepts with the most edges; see `Explainer.find_hubs`."""
    into, out = columns.in_degree(), columns.out_degree()
    strength = np.bincount(columns.source, columns.strength, len(columns))
    strength += np.bincount(columns.target, columns.strength, len(columns))
    degree = into + out
    best = np.argsort(-degree, kind="stable")[:top_n]
    return [
        {
            "id": int(columns.ids[row]),
            "slot": int(columns.slots[row]),
            "degree": int(degree[row]),
            "degree_in": int(into[row]),
            "degree_out": int(out[row]),
            "strength": float(strength[row]),
            **{
                name: columns.fields[name][row].item() for name in ("use_frequency", "relevance", "region_id")
            },
        }
        for row in best[degree[best] > 0].tolist()
    ]
