"""Pack files: opened without trust, mapped, checked, and written in one rename."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from aesg.exceptions import AESGStorageError
from aesg.packs import version1, version2
from aesg.packs.pack import MemoryPack
from aesg.storage.nodes import node_dtype
from aesg.storage.v3_records import EDGE_RECORD

AESGPACK_MAGIC = b"AESGPACK"
AESGPACK_VERSION = version1.VERSION  # what is written unless told otherwise
RECORDS_VERSION = "1.0"  # version text of packs that say none, as in 3.0.0

PathLike = str | os.PathLike[str]


def read_pack(path: PathLike, name: str | None = None) -> MemoryPack:
    """The pack in a file. `name` stands in for the one it would have: its own (version 2) or the file's stem.

    The file is mapped, so it must not be changed in place while the pack is used (export never does).

    Raises AESGStorageError with the path and the reason, after checks in this order: a regular file, size,
    magic, version, header, section sizes against the file's size, SHA-256, meaning. Nothing larger than the
    file is allocated, and no name in a file is ever used as a path.
    """
    text = _text(path)
    return parse_pack(_map(text), f"'{text}'", Path(text).stem, name=name, path=os.path.realpath(text))


def parse_pack(
    buffer: memoryview, where: str, stem: str, *, name: str | None = None, path: str | None = None
) -> MemoryPack:
    """The pack in a buffer, which it keeps; `where` names it in errors. Raises AESGStorageError."""
    if len(buffer) < version1.HEADER.size:
        raise AESGStorageError(f"Pack file {where} is too small to contain a valid header")
    magic, version = struct.unpack_from(">8sI", buffer)
    if magic != AESGPACK_MAGIC:
        raise AESGStorageError(f"Invalid magic bytes in {where}: expected {AESGPACK_MAGIC!r}, got {magic!r}")
    if name is not None:
        version2.check_name(name, where)
    if version == version1.VERSION:
        records = version1.parse(buffer, where)
        columns, findings = version1.to_columns(records.nodes, records.edges, where)
        pack = MemoryPack(
            name or stem,
            RECORDS_VERSION,
            records.vector_dim,
            records.nodes,
            records.edges,
            records.checksum,
            path=path,
            columns=columns,
        )
        pack._findings = findings
        return pack
    if version == version2.VERSION:
        content = version2.parse(buffer, where)
        return MemoryPack(
            name or content.metadata.get("name") or stem,
            content.metadata.get("version") or RECORDS_VERSION,
            content.columns.vector_dim,
            None,
            None,
            content.checksum,
            path=path,
            format_version=version,
            metadata=content.metadata,
            columns=content.columns,
        )
    raise AESGStorageError(f"Pack file {where}: expected format version 1 or 2, got {version}")


def _text(path: PathLike) -> str:
    if not isinstance(path, str | os.PathLike):
        raise AESGStorageError(f"Pack file: expected a path, got {path!r}")
    return os.fspath(path)


def _map(path: str) -> memoryview:
    """The bytes of a regular file, mapped privately."""
    try:
        # O_NONBLOCK: a named pipe must not hold us up before it is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise AESGStorageError(f"Failed to read pack file '{path}': {error}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AESGStorageError(f"Failed to read pack file '{path}': expected a regular file")
        if status.st_size < version1.HEADER.size:
            raise AESGStorageError(f"Pack file '{path}' is too small to contain a valid header")
        # A private mapping: pages are shared between processes, and a write could never reach the file.
        return memoryview(mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_COPY))
    except (OSError, ValueError) as error:
        raise AESGStorageError(f"Failed to read pack file '{path}': {error}") from error
    finally:
        os.close(descriptor)


def write_atomically(path: PathLike, pieces: list[bytes]) -> None:
    """Writes a file beside its place and renames it, so that nobody ever sees half of it. Makes parents.

    Raises AESGStorageError; what was there before is then untouched. Renaming onto a device or a named pipe
    would do away with it, so only a regular file is replaced (or a link to one, which then is a file).
    """
    text = _text(path)
    folder = os.path.dirname(text) or "."
    temporary = None
    try:
        if os.path.exists(text) and not os.path.isfile(text):
            raise AESGStorageError(f"Failed to write pack file '{text}': expected a regular file or none")
        os.makedirs(folder, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".aesgpack-", dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, text)
    except (OSError, ValueError) as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise AESGStorageError(f"Failed to write pack file '{text}': {error}") from error


def serialize_pack(
    name: str,
    version: str,
    vector_dim: int,
    nodes_array: np.ndarray,
    edges_array: np.ndarray,
    path: PathLike,
) -> None:
    """Writes records as a version-1 pack. The format holds neither name nor version: the stem is the name.

    Raises AESGStorageError for arrays of other fields and when writing fails.
    """
    for what, array, dtype in (
        ("nodes", nodes_array, node_dtype(vector_dim)),
        ("edges", edges_array, EDGE_RECORD),
    ):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.names != dtype.names:
            raise AESGStorageError(f"{what}_array: expected records of {dtype.names}, got {type(array)}")
    if nodes_array.dtype["vector"].shape != (vector_dim,):
        raise AESGStorageError(
            f"nodes_array: expected vectors of {vector_dim}, got {nodes_array.dtype['vector'].shape}"
        )
    write_atomically(path, version1.encode(vector_dim, nodes_array, edges_array, AESGPACK_MAGIC))


def deserialize_pack(path: PathLike) -> dict[str, Any]:
    """name, version, vector_dim, nodes, edges (records) and checksum of a file. Raises AESGStorageError."""
    pack = read_pack(path)
    return {
        name: getattr(pack, name) for name in ("name", "version", "vector_dim", "nodes", "edges", "checksum")
    }
