"""Exporter: a memory's graph for other programs, and as a picture."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from aesg.memory.controller import AESGMemory
from aesg.tools.columns import KINDS, GraphColumns, read_columns
from aesg.tools.files import replacing
from aesg.tools.graph_files import NODE_ATTRIBUTES, gml_lines, graphml_lines
from aesg.tools.layout import place
from aesg.tools.optional import require

DRAWN = 2_000  # concepts in a picture, the best connected; more would be a grey square


class Csr(NamedTuple):
    """The living graph as compressed sparse rows: row i's edges are `indices[indptr[i] : indptr[i + 1]]`.

    `scipy.sparse.csr_array((data, indices, indptr), shape=(len(ids),) * 2)` takes it as it is.
    """

    indptr: np.ndarray  # [N + 1] i64
    indices: np.ndarray  # [E] i64, rows; ascending in a row, parallel edges of other kinds side by side
    data: np.ndarray  # [E] f32, strength = weight * confidence
    ids: np.ndarray  # [N] u64, the concept of each row
    kinds: np.ndarray  # [E] u8: 0 similarity, 1 succession, 2 abstraction


class Exporter:
    """Writes what lives in a memory: concepts by id, edges with weight, confidence, use_count and kind."""

    def __init__(self, memory: AESGMemory) -> None:
        self.memory = memory

    def to_csr(self) -> Csr:
        """The graph as arrays. O(N + E log E)."""
        columns = read_columns(self.memory.storage)
        order = np.lexsort((columns.kind, columns.target, columns.source))
        return Csr(
            np.concatenate([[0], np.cumsum(columns.out_degree())]),
            columns.target[order],
            columns.strength[order],
            columns.ids,
            columns.kind[order],
        )

    def to_networkx(self) -> Any:
        """A networkx MultiDiGraph: nodes are ids, the keys of edges their kinds ('similarity', ...).

        Nodes carry region, relevance, age, use_frequency, stability, created_at; edges weight, confidence,
        use_count. Raises AESGConfigError without networkx.
        """
        graph = require("networkx", "graphs").MultiDiGraph(name=str(self.memory.directory))
        columns = read_columns(self.memory.storage)
        ids = columns.ids.tolist()
        names = list(NODE_ATTRIBUTES)
        values = zip(*(columns.fields[NODE_ATTRIBUTES[name]].tolist() for name in names), strict=True)
        graph.add_nodes_from(
            (concept, dict(zip(names, row, strict=True))) for concept, row in zip(ids, values, strict=True)
        )
        edges = zip(
            columns.ids[columns.source].tolist(),
            columns.ids[columns.target].tolist(),
            np.asarray(KINDS, dtype=object)[columns.kind].tolist(),
            columns.weight.tolist(),
            columns.confidence.tolist(),
            columns.use_count.tolist(),
            strict=True,
        )
        graph.add_edges_from(
            (source, target, kind, {"weight": weight, "confidence": confidence, "use_count": uses})
            for source, target, kind, weight, confidence, uses in edges
        )
        return graph

    def export_gml(self, path: str | os.PathLike[str]) -> None:
        """Writes GML, labels being ids, as `networkx.read_gml` takes it. Raises AESGStorageError when the
        file cannot be written. O(N + E).
        """
        with replacing(path) as beside, beside.open("w", encoding="ascii") as file:
            file.writelines(gml_lines(read_columns(self.memory.storage)))

    def export_graphml(self, path: str | os.PathLike[str]) -> None:
        """Writes GraphML, node ids being ids, as `networkx.read_graphml` takes it. Raises AESGStorageError
        when the file cannot be written. O(N + E).
        """
        with replacing(path) as beside, beside.open("w", encoding="ascii") as file:
            file.writelines(graphml_lines(read_columns(self.memory.storage)))

    def visualize(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The graph as a matplotlib Figure: like concepts lie together, colours are regions, size is use.

        At most 2,000 concepts, the best connected; the title says which share. `path`: written there too, in
        the format of its suffix. Raises AESGConfigError without matplotlib, AESGStorageError when the file
        cannot be written.
        """
        collections = require("matplotlib.collections", "plots")
        figure = require("matplotlib.figure", "plots").Figure(figsize=(9, 9), layout="constrained")
        columns = read_columns(self.memory.storage)
        rows = best_connected(columns, DRAWN)
        vectors = self.memory.storage.nodes["vector"][columns.slots[rows]]
        at = place(vectors, columns.fields["region_id"][rows])  # [n, 2]
        row_of = np.full(len(columns), -1)
        row_of[rows] = np.arange(len(rows))
        source, target = row_of[columns.source], row_of[columns.target]
        inside = (source >= 0) & (target >= 0)
        axes = figure.subplots()
        lines = np.stack([at[source[inside]], at[target[inside]]], axis=1)
        colors = np.empty((len(lines), 4))
        colors[:] = (0.4, 0.44, 0.52, 0.0)
        colors[:, 3] = np.minimum(0.05 + 0.5 * columns.strength[inside], 1.0)
        axes.add_collection(collections.LineCollection(lines, colors=colors, linewidths=0.6, zorder=1))
        use = np.log1p(columns.fields["use_frequency"][rows])
        axes.scatter(
            *at.T,
            s=8 + 60 * use / max(1.0, use.max(initial=0.0)),
            c=columns.fields["region_id"][rows] % 20,
            cmap="tab20",
            linewidths=0.3,
            edgecolors="white",
            zorder=2,
        )
        axes.set_title(
            f"{len(rows):,} of {len(columns):,} concepts, {int(inside.sum()):,} of "
            f"{len(columns.source):,} edges"
        )
        axes.set_aspect("equal")
        axes.set_axis_off()
        if path is not None:
            with replacing(path) as beside:
                figure.savefig(beside, dpi=150)
        return figure


def best_connected(columns: GraphColumns, limit: int) -> np.ndarray:
    """At most `limit` rows, those with the most edges first, then the more used, then the older ones."""
    if len(columns) <= limit:
        return np.arange(len(columns))
    degree = columns.in_degree() + columns.out_degree()
    return np.sort(np.lexsort((-columns.fields["use_frequency"].astype(np.int64), -degree))[:limit])
