"""The page of `aesg inspect --html`: one file with its data, styles and program, and no network."""

from __future__ import annotations

import base64
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from aesg.storage.engine import AESGStorage
from aesg.tools.columns import GraphColumns, read_columns
from aesg.tools.files import write_text
from aesg.tools.layout import place
from aesg.tools.look import evolution

HUBS_KEPT = 0.05  # of a sample, at least, are the best connected; the others are spread evenly over the slots
EDGES = 60_000  # drawn at most, the strongest of those between drawn concepts
STRONGEST = 8  # edges of a concept that its details list, drawn or not


def write_page(
    storage: AESGStorage, facts: dict[str, Any], path: str | os.PathLike[str], limit: int = 20_000
) -> Path:
    """Writes the page about an open store, replacing a file there as a whole.

    facts: of `look`. limit: concepts drawn. Raises AESGStorageError when the file cannot be written.
    O(N + E + limit D^2).
    """
    return write_text(path, render(storage, facts, limit))


def render(storage: AESGStorage, facts: dict[str, Any], limit: int) -> str:
    """The page as text."""
    columns = read_columns(storage)
    data = {"facts": facts, "evolution": evolution(storage), "graph": _graph(storage, columns, limit)}
    # Inside <script>, only "<" could end the element.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = resources.files("aesg.tools") / "page"
    html = (page / "inspect.html").read_text("utf-8")
    for mark, part in (
        ("/*STYLE*/", (page / "inspect.css").read_text("utf-8")),
        ("/*CHARTS*/", (page / "charts.js").read_text("utf-8")),
        ("/*PROGRAM*/", (page / "inspect.js").read_text("utf-8")),
        ("/*DATA*/", text),
    ):
        before, after = html.split(mark)
        html = before + part + after
    return html


def sample(columns: GraphColumns, limit: int) -> np.ndarray:
    """At most `limit` rows, ascending: the best connected, and an even share of the others."""
    n = len(columns)
    if n <= limit:
        return np.arange(n)
    degree = columns.in_degree() + columns.out_degree()
    hubs = np.argsort(-degree, kind="stable")[: int(np.ceil(limit * HUBS_KEPT))]
    others = np.setdiff1d(np.arange(n), hubs)
    even = others[np.linspace(0, len(others) - 1, limit - len(hubs)).round().astype(np.int64)]
    return np.union1d(hubs, even)


def _graph(storage: AESGStorage, columns: GraphColumns, limit: int) -> dict[str, Any]:
    """Columns of the drawn concepts and edges, little-endian and base64; edges name drawn concepts by
    place."""
    rows = sample(columns, limit)
    fields = {name: values[rows] for name, values in columns.fields.items()}
    at = place(storage.nodes["vector"][columns.slots[rows]], fields["region_id"])
    place_of = np.full(len(columns), -1, dtype=np.int64)
    place_of[rows] = np.arange(len(rows))
    source, target = place_of[columns.source], place_of[columns.target]
    between = np.flatnonzero((source >= 0) & (target >= 0))
    drawn = between[np.argsort(-columns.strength[between], kind="stable")[:EDGES]]
    first, strongest = _strongest(columns, rows)
    arrays = {
        "x": at[:, 0].astype("<f4"),
        "y": at[:, 1].astype("<f4"),
        "id": columns.ids[rows].astype("<f8"),  # a number in the page; exact below 2^53
        "region": fields["region_id"].astype("<u4"),
        "relevance": fields["relevance"].astype("<f4"),
        "age": fields["age"].astype("<u4"),
        "use": fields["use_frequency"].astype("<u4"),
        "created": fields["created_at"].astype("<f8"),
        "modified": fields["modified_at"].astype("<f8"),
        "in": columns.in_degree()[rows].astype("<u4"),
        "out": columns.out_degree()[rows].astype("<u4"),
        "abstract": columns.abstract()[rows].astype("<u1"),
        "source": source[drawn].astype("<u4"),
        "target": target[drawn].astype("<u4"),
        "kind": columns.kind[drawn],
        "strength": columns.strength[drawn].astype("<f4"),
        "first": first.astype("<u4"),
        "nearId": columns.ids[columns.target[strongest]].astype("<f8"),
        "nearKind": columns.kind[strongest],
        "nearStrength": columns.strength[strongest].astype("<f4"),
    }
    return {
        "concepts": len(columns),
        "edges": len(columns.source),
        "between": len(between),
        "hubs": int(np.ceil(limit * HUBS_KEPT)) if len(rows) < len(columns) else 0,
        "arrays": {name: _packed(array) for name, array in arrays.items()},
    }


def _strongest(columns: GraphColumns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The strongest edges out of each row: those of row i are `edges[first[i] : first[i + 1]]`."""
    order = np.lexsort((-columns.strength, columns.source))
    source = columns.source[order]
    begin = np.searchsorted(source, rows)
    count = np.minimum(np.searchsorted(source, rows, "right") - begin, STRONGEST)
    first = np.concatenate([[0], np.cumsum(count)])
    within = np.arange(first[-1]) - np.repeat(first[:-1], count)
    return first, order[np.repeat(begin, count) + within]


def _packed(array: np.ndarray) -> list[str]:
    return [array.dtype.str.lstrip("<|"), base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()]
