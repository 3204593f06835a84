"""PackMethods: what AESGMemory does with packs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.graph.arguments import real_number
from aesg.graph.core import SemanticGraph
from aesg.packs.absorb import Absorbed, absorb
from aesg.packs.export import export_pack
from aesg.packs.manager import PackManager
from aesg.packs.pack import MemoryPack


class PackMethods:
    """A part of AESGMemory, in a file of its own for its length."""

    config: AESGConfig
    graph: SemanticGraph
    pack_manager: PackManager

    def _require_open(self, what: str) -> None:
        raise NotImplementedError

    def _require_learning(self, what: str) -> None:
        raise NotImplementedError

    def export_pack(
        self,
        path: str | os.PathLike[str],
        region_id: int | None = None,
        min_relevance: float | None = None,
        *,
        ids: Sequence[int] | np.ndarray | Tensor | None = None,
        format_version: int = 1,
        **described: Any,
    ) -> None:
        """Writes the living concepts that meet every condition given, and the edges among them, as a pack
        file.

        Version 1 is what aesg 3.0.0 reads. Version 2 is mapped when attached, has a checksum over all of it,
        keeps the kinds of edges, and takes `name`, `version`, `description`, `licence`, `embedding` (a
        fingerprint of the model whose vectors these are) and `provenance` (a dict of JSON values).
        Directories are made, an older file is replaced in one step.

        Raises AESGMemoryError for unknown ids and other arguments, AESGStorageError when writing fails.
        """
        self._require_open("export_pack")
        options = {"ids": ids, "format_version": format_version, **described}
        export_pack(self.graph, path, region_id, min_relevance, **options)

    def load_pack(self, path: str | os.PathLike[str], name: str | None = None) -> MemoryPack:
        """The pack in a file, checked, under its own name or `name`. See `PackManager.load_pack`."""
        return self.pack_manager.load_pack(path, name)

    def attach_pack(self, pack: MemoryPack, priority: int = 50, *, name: str | None = None) -> None:
        """Searches the pack together with the memory from now on. See `PackManager.attach_pack`."""
        self._require_open("attach_pack")
        self.pack_manager.attach_pack(pack, priority, name=name)

    def detach_pack(self, pack_name: str) -> None:
        """Ends what `attach_pack` began: answers are exactly those of before."""
        self.pack_manager.detach_pack(pack_name)

    def absorb(self, pack: MemoryPack, *, similarity: float | None = None) -> Absorbed:
        """Copies a pack's concepts and edges into this memory; near-duplicates become one.

        `similarity`: the cosine from which two concepts are one, by default `merge_similarity_threshold`. The
        pack may be attached or not. Raises AESGMemoryError in INFERENCE and for bad arguments,
        AESGStorageError for another vector_dim, before anything changed.
        """
        self._require_learning("absorb")
        self.pack_manager.require_fitting(pack)
        threshold = self.config.merge_similarity_threshold if similarity is None else similarity
        threshold = real_number("absorb: similarity", threshold)
        if not 0.0 <= threshold <= 1.0:
            raise AESGMemoryError(f"absorb: expected a similarity in [0, 1], got {similarity}")
        return absorb(self.graph, pack.columns, threshold)
