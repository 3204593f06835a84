"""Packs: portable, read-only graphs that a memory searches together with its own."""

from __future__ import annotations

from aesg.packs.export import export_pack
from aesg.packs.files import (
    AESGPACK_MAGIC,
    AESGPACK_VERSION,
    deserialize_pack,
    parse_pack,
    read_pack,
    serialize_pack,
)
from aesg.packs.graph import PackGraph
from aesg.packs.manager import MAX_ATTACHED_PACKS, PackManager
from aesg.packs.pack import MemoryPack, PackState

__all__ = [
    "AESGPACK_MAGIC",
    "AESGPACK_VERSION",
    "MAX_ATTACHED_PACKS",
    "MemoryPack",
    "PackGraph",
    "PackManager",
    "PackState",
    "deserialize_pack",
    "export_pack",
    "parse_pack",
    "read_pack",
    "serialize_pack",
]
