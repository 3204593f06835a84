"""Lines of GML and GraphML files of a memory's graph.

Written here and not by networkx, which takes a minute for 100,000 concepts; the tests read them with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aesg.tools.columns import KINDS, GraphColumns

NODE_ATTRIBUTES = {  # name in exported graphs: column
    "region": "region_id",
    "relevance": "relevance",
    "age": "age",
    "use_frequency": "use_frequency",
    "stability": "stability",
    "created_at": "created_at",
}
EDGE_ATTRIBUTES = ("weight", "confidence", "use_count")


def gml_lines(columns: GraphColumns) -> Iterator[str]:
    """GML (Himsolt, 1997): a directed multigraph, keys of edges being their kinds."""
    yield "graph [\n  directed 1\n  multigraph 1\n"
    names = " ".join(f"{name} %s" for name in NODE_ATTRIBUTES)
    node = f'  node [ id %d label "%d" {names} ]\n'
    for row in zip(range(len(columns)), columns.ids.tolist(), *_node_values(columns), strict=True):
        yield node % row
    names = " ".join(f"{name} %s" for name in EDGE_ATTRIBUTES)
    edge = f'  edge [ source %d target %d key "%s" {names} ]\n'
    ends = columns.source.tolist(), columns.target.tolist()
    for row in zip(*ends, _kinds(columns), *_edge_values(columns), strict=True):
        yield edge % row
    yield "]\n"


def graphml_lines(columns: GraphColumns) -> Iterator[str]:
    """GraphML (graphml.graphdrawing.org): kinds of edges are an attribute, ids of edges are unique."""
    yield (
        '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
    )
    types = {name: _graphml_type(columns.fields[column]) for name, column in NODE_ATTRIBUTES.items()}
    for name, type_ in types.items():
        yield f'<key id="{name}" for="node" attr.name="{name}" attr.type="{type_}"/>\n'
    types = {"kind": "string", **{name: _graphml_type(getattr(columns, name)) for name in EDGE_ATTRIBUTES}}
    for name, type_ in types.items():
        yield f'<key id="{name}" for="edge" attr.name="{name}" attr.type="{type_}"/>\n'
    yield '<graph edgedefault="directed">\n'
    data = "".join(f'<data key="{name}">%s</data>' for name in NODE_ATTRIBUTES)
    node = f'<node id="%d">{data}</node>\n'
    for row in zip(columns.ids.tolist(), *_node_values(columns), strict=True):
        yield node % row
    data = "".join(f'<data key="{name}">%s</data>' for name in types)
    edge = f'<edge id="e%d" source="%d" target="%d">{data}</edge>\n'
    ends = columns.ids[columns.source].tolist(), columns.ids[columns.target].tolist()
    numbers = range(len(columns.source))
    for row in zip(numbers, *ends, _kinds(columns), *_edge_values(columns), strict=True):
        yield edge % row
    yield "</graph>\n</graphml>\n"


def _node_values(columns: GraphColumns) -> list[list[str] | list[int]]:
    return [_numbers(columns.fields[column]) for column in NODE_ATTRIBUTES.values()]


def _edge_values(columns: GraphColumns) -> list[list[str] | list[int]]:
    return [_numbers(getattr(columns, name)) for name in EDGE_ATTRIBUTES]


def _kinds(columns: GraphColumns) -> list[str]:
    return np.asarray(KINDS, dtype=object)[columns.kind].tolist()


def _numbers(values: np.ndarray) -> list[str] | list[int]:
    """Reals always with a point and without an exponent, which GML asks for; finer than f32 within [0, 1]."""
    return values.tolist() if values.dtype.kind != "f" else [f"{value:.9f}" for value in values.tolist()]


def _graphml_type(values: np.ndarray) -> str:
    return "double" if values.dtype.kind == "f" else "long"
