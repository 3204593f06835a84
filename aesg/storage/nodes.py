"""What a user sees of the columns: `storage.nodes` and `storage.edges`, with the documented fields.

Reading gives copies that cannot be written; writing goes through item assignment, which marks what it
changed. So nobody changes the store without its knowing, and nothing that was handed out changes later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin

from aesg import _core
from aesg.exceptions import AESGMemoryError

if TYPE_CHECKING:
    from aesg.storage.engine import AESGStorage

GROUP = _core.GROUP_ROWS
BLOCK_EDGES = _core.BLOCK_EDGES
SHORTEST = float(np.finfo(np.float32).tiny)  # length below which a vector counts as zero: 1 / it leaves f32

NODE_COLUMNS: dict[str, tuple[int, str]] = {  # name: (index in the layout, dtype)
    name: (index, dtype)
    for index, (name, dtype) in enumerate(
        zip(
            _core.NODE_COLUMNS,
            ["<f4", "<u8", "<u8", "<u8", "<f4", "<u4", "<f4", "<u4", "<f4", "<u4", "<i4", "|u1"],
            strict=False,  # the reserved bytes at the end are nobody's column
        )
    )
}
NODE_FIELDS = [
    "id",
    "vector",
    "created_at",
    "modified_at",
    "use_frequency",
    "relevance",
    "age",
    "stability",
    "region_id",
    "is_active",
    "head_edge_idx",
]
_WRITABLE = frozenset(NODE_FIELDS) - {"id", "head_edge_idx"}

HOT_DTYPE = np.dtype([("target", "<i4", 7), ("strength", "<f4", 7), ("next", "<i4"), ("count", "<i4")])
COLD_DTYPE = np.dtype(
    [
        ("weight", "<f4", 7),
        ("confidence", "<f4", 7),
        ("use_count", "<u4", 7),
        ("tag", "|u1", 7),
        ("reserved", "|u1"),
        ("source", "<i4"),
    ]
)
EDGE_DTYPE = np.dtype(
    [
        ("source_id", "<u8"),
        ("target_id", "<u8"),
        ("weight", "<f4"),
        ("confidence", "<f4"),
        ("use_count", "<u4"),
        ("next_edge_idx", "<i8"),
        ("target", "<i8"),
        ("kind", "|u1"),
    ]
)


def node_dtype(vector_dim: int) -> np.dtype:
    """The documented record of a concept."""
    formats = {name: dtype for name, (_, dtype) in NODE_COLUMNS.items()} | {"head_edge_idx": "<i8"}
    return np.dtype(
        [(n, formats[n], (vector_dim,)) if n == "vector" else (n, formats[n]) for n in NODE_FIELDS]
    )


def grouped(storage: AESGStorage, name: str) -> np.ndarray:
    """Writable view [G, 1024(, D)] of a column."""
    index, dtype = NODE_COLUMNS[name]
    dim = storage.vector_dim
    item = np.dtype(dtype).itemsize
    shape: tuple[int, ...] = (storage.core.node_groups, GROUP)
    strides: tuple[int, ...] = (_core.group_bytes(dim), item)
    if name == "vector":
        shape, strides = (*shape, dim), (strides[0], item * dim, item)
    return np.ndarray(
        shape,
        dtype,
        buffer=storage.core.node_view(),
        offset=_core.column_offset(dim, index) if shape[0] else 0,
        strides=strides,
    )


def take(view: np.ndarray, rows: int | slice | np.ndarray, count: int) -> np.ndarray:
    """Read-only copy of rows of a grouped view, as if it were [count(, D)]."""
    if isinstance(rows, slice):
        start, stop, step = rows.indices(count)
        if step == 1 and start < stop:
            first = start // GROUP
            part = view[first : -(-stop // GROUP)].reshape(-1, *view.shape[2:])
            out = np.array(part[start - first * GROUP : stop - first * GROUP])
        else:
            index = np.arange(start, stop, step)
            out = view[index // GROUP, index % GROUP]
    else:
        index = np.asarray(rows)
        out = np.array(view[index // GROUP, index % GROUP])
    out.setflags(write=False)
    return out


def positions(key: Any, count: int, what: str) -> int | slice | np.ndarray:
    """A key as rows in 0..count-1: an int, a slice, or an integer array (masks and negatives resolved)."""
    if isinstance(key, slice):
        return key
    if isinstance(key, tuple):
        raise AESGMemoryError(f"{what}: expected rows (an int, a slice or an array), got a tuple")
    index = np.asarray(key.cpu() if isinstance(key, torch.Tensor) else key)
    if index.dtype == bool:
        if index.shape != (count,):
            raise AESGMemoryError(f"{what}: expected a mask of shape ({count},), got {index.shape}")
        return np.flatnonzero(index)
    if index.size == 0:
        return index.astype(np.int64)
    if index.dtype.kind not in "iu":
        raise AESGMemoryError(f"{what}: expected integer rows, got dtype {index.dtype}")
    index = index.astype(np.int64)
    if index.min() < -count or index.max() >= count:
        raise IndexError(f"{what}: expected rows in 0..{count - 1}, got {index.min()}..{index.max()}")
    index = np.where(index < 0, index + count, index)
    return int(index) if index.ndim == 0 else index


class NodeColumn(NDArrayOperatorsMixin):
    """One field of all slots 0..node_count-1; reading copies, item assignment writes and marks."""

    def __init__(self, storage: AESGStorage, name: str) -> None:
        self._storage = storage
        self._name = name

    def __len__(self) -> int:
        return self._storage.node_count

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), self._storage.vector_dim) if self._name == "vector" else (len(self),)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("<i8") if self._name == "head_edge_idx" else np.dtype(NODE_COLUMNS[self._name][1])

    def __getitem__(self, key: Any) -> Any:
        count = len(self)
        rows = positions(key, count, self._name)
        if self._name != "head_edge_idx":
            values = take(grouped(self._storage, self._name), rows, count)
        else:  # the position of the first edge: block * 7, as `storage.edges` counts
            first = take(grouped(self._storage, "first_block"), rows, count).astype(np.int64)
            values = np.where(first >= 0, first * BLOCK_EDGES, -1)
            values.setflags(write=False)
        return values[()] if values.ndim == 0 else values

    def __setitem__(self, key: Any, value: Any) -> None:
        name, storage = self._name, self._storage
        if name not in _WRITABLE:
            raise AESGMemoryError(f"nodes[{name!r}] cannot be assigned: the store keeps it")
        storage.require_assignable()
        count = len(self)
        rows = positions(key, count, name)
        index = np.arange(*rows.indices(count)) if isinstance(rows, slice) else np.asarray(rows)
        tail = (storage.vector_dim,) if name == "vector" else ()
        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
        shape = index.shape + tail
        kinds = "fiub" if self.dtype.kind == "f" else "iub"
        fits = array.dtype.kind in kinds and array.ndim <= len(shape)
        fits = fits and all(a in (1, b) for a, b in zip(array.shape[::-1], shape[::-1], strict=False))
        if fits and self.dtype.kind == "u" and array.size:
            fits = array.min() >= 0 and array.max() <= np.iinfo(self.dtype).max
        if not fits:
            raise AESGMemoryError(
                f"nodes[{name!r}]: expected values of shape {shape} that fit {self.dtype}, got {array.dtype} "
                f"of shape {array.shape}"
            )
        array = np.broadcast_to(array.astype(self.dtype), shape)
        if self.dtype.kind == "f" and not np.isfinite(array).all():
            raise AESGMemoryError(f"nodes[{name!r}]: expected finite values, got NaN or infinity")
        group, row = index // GROUP, index % GROUP
        if name == "is_active":
            self._count_active(index, array)
        grouped(storage, name)[group, row] = array
        storage.mark(name, index)
        if name == "vector":
            norms = np.sqrt(np.square(array, dtype=np.float64).sum(-1))
            inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms >= SHORTEST)
            grouped(storage, "inv_norm")[group, row] = inverse
            storage.mark("inv_norm", index)

    def _count_active(self, index: np.ndarray, values: np.ndarray) -> None:
        storage = self._storage
        if ((values != 0) & (values != 1)).any():
            raise AESGMemoryError("nodes['is_active']: expected 0 or 1")
        slots, first = np.unique(index, return_index=True)
        ids = take(grouped(storage, "id"), slots, len(self))
        if (ids == 0).any():
            raise AESGMemoryError("nodes['is_active']: expected slots that hold a concept, got a free one")
        before = take(grouped(storage, "is_active"), slots, len(self)).astype(np.int64)
        after = values.reshape(-1)[first].astype(np.int64)
        storage.core.counters.active_count += int(after.sum() - before.sum())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self[:]
        return values if dtype is None else values.astype(dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [x[:] if isinstance(x, NodeColumn) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __repr__(self) -> str:
        return f"<nodes[{self._name!r}] of shape {self.shape}, {self.dtype}>"


class Nodes:
    """`storage.nodes`: `nodes['relevance'][:n]`, `nodes[i]`, `nodes[a:b]`, `nodes['relevance'][3] = 0.5`."""

    def __init__(self, storage: AESGStorage) -> None:
        self._storage = storage

    @property
    def dtype(self) -> np.dtype:
        return node_dtype(self._storage.vector_dim)

    def __len__(self) -> int:
        return self._storage.node_count

    def __getitem__(self, key: Any) -> Any:
        """A name gives that field's column, a slot a record (a copy), slices and arrays structured arrays."""
        if isinstance(key, str):
            if key not in NODE_FIELDS and key != "inv_norm":
                raise AESGMemoryError(f"nodes: expected one of {', '.join(NODE_FIELDS)}, got {key!r}")
            return NodeColumn(self._storage, key)
        rows = positions(key, len(self), "nodes")
        columns = {name: NodeColumn(self._storage, name)[rows] for name in NODE_FIELDS}
        out = np.empty(np.shape(columns["id"]), self.dtype)
        for name, values in columns.items():
            out[name] = values
        out.setflags(write=False)
        return out[()] if out.ndim == 0 else out

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def groups(self, name: str) -> torch.Tensor:
        """The column itself, zero-copy, [G, 1024(, D)]. Who writes it says so with `storage.mark`."""
        self._storage.settle()
        return self._storage.column(name)

    def __repr__(self) -> str:
        return f"<{len(self)} nodes: {', '.join(NODE_FIELDS)}>"


class Edges:
    """`storage.edges`: every edge by its position, block * 7 + place; positions stay while an edge lives.

    `edges[p]` is one record, `edges['weight']` the field of all edges in the order of their positions,
    `edges.positions` those positions. O(blocks) a call, O(1) for one record.
    """

    def __init__(self, storage: AESGStorage) -> None:
        self._storage = storage

    def __len__(self) -> int:
        return self._storage.edge_count

    @property
    def positions(self) -> np.ndarray:
        self._storage.settle()
        hot = blocks(self._storage)[0].reshape(-1)[: self._storage.core.counters.block_count]
        used = np.arange(BLOCK_EDGES) < hot["count"][:, None]
        return np.flatnonzero(used.reshape(-1))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in EDGE_DTYPE.fields:  # type: ignore[operator]
                raise AESGMemoryError(
                    f"edges: expected one of {', '.join(EDGE_DTYPE.names or ())}, got {key!r}"
                )
            return self[self.positions][key]
        if isinstance(key, slice):
            return self[self.positions[key]]
        self._storage.settle()
        limit = self._storage.core.counters.block_count * BLOCK_EDGES
        place = positions(key, limit, "edges")
        assert not isinstance(place, slice)
        return edge_records(self._storage, np.asarray(place))

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])

    def __repr__(self) -> str:
        return f"<{len(self)} edges: {', '.join(EDGE_DTYPE.names or ())}>"


def blocks(storage: AESGStorage) -> tuple[np.ndarray, np.ndarray]:
    """Hot and cold blocks, structured writable views [Gb, 1024]."""
    groups, buffer = storage.core.block_groups, storage.core.edge_view()
    shape = (groups, GROUP)
    cold_offset = _core.HOT_GROUP_BYTES if groups else 0
    hot = np.ndarray(shape, HOT_DTYPE, buffer, strides=(_core.EDGE_GROUP_BYTES, HOT_DTYPE.itemsize))
    cold = np.ndarray(
        shape, COLD_DTYPE, buffer, offset=cold_offset, strides=(_core.EDGE_GROUP_BYTES, COLD_DTYPE.itemsize)
    )
    return hot, cold


def edge_records(storage: AESGStorage, place: np.ndarray) -> Any:
    """Records (read-only) of the edges at the given positions; an int position gives one record.

    Raises AESGMemoryError for a position that holds no edge.
    """
    hot, cold = blocks(storage)
    block, k = np.divmod(place, BLOCK_EDGES)
    group, row = np.divmod(block, GROUP)
    h, c = hot[group, row], cold[group, row]
    if (h["count"] <= k).any():
        raise AESGMemoryError(f"edges: expected positions that hold an edge, got {place.tolist()}")

    def at(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, k[..., None], -1)[..., 0]

    ids = grouped(storage, "id")
    target = at(h["target"]).astype(np.int64)
    out = np.empty(place.shape, EDGE_DTYPE)
    out["source_id"] = ids[c["source"] // GROUP, c["source"] % GROUP]
    out["target_id"] = ids[target // GROUP, target % GROUP]
    for name in ("weight", "confidence", "use_count"):
        out[name] = at(c[name])
    following = np.where(h["next"] >= 0, h["next"].astype(np.int64) * BLOCK_EDGES, -1)
    out["next_edge_idx"] = np.where(k + 1 < h["count"], place + 1, following)
    out["target"] = target
    out["kind"] = at(c["tag"]) & _core.EDGE_KIND_MASK
    out.setflags(write=False)
    return out[()] if out.ndim == 0 else out


def chain_positions(storage: AESGStorage, slot: int) -> np.ndarray:
    """Positions of a slot's edges, in the order of its chain."""
    hot, _ = blocks(storage)
    found: list[int] = []
    block = int(grouped(storage, "first_block")[slot // GROUP, slot % GROUP])
    for _ in range(storage.core.counters.block_count):
        if block < 0:
            break
        record = hot[block // GROUP, block % GROUP]
        found.extend(range(block * BLOCK_EDGES, block * BLOCK_EDGES + int(record["count"])))
        block = int(record["next"])
    return np.asarray(found, dtype=np.int64)
