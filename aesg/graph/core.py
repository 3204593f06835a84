"""SemanticGraph: concepts and edges of one directory, addressed by slot."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.graph.arguments import (
    concept_vector,
    new_ids,
    real_number,
    real_numbers,
    whole_number,
    whole_numbers,
)
from aesg.graph.device_copy import DeviceCopy
from aesg.graph.permissions import Permissions
from aesg.graph.state import GraphState
from aesg.ops import Activated, Primed, activate_context, seed_search, spread_activation
from aesg.storage.engine import AESGStorage

GROUP_BITS = 10  # a group has 1024 slots
NEIGHBOR_MIN_SIMILARITY = 0.1  # reference, SemanticGraph.find_nearest_neighbors
SIMILARITY, SUCCESSION, ABSTRACTION = 0, 1, 2  # edge kinds


def spreading_rules(config: AESGConfig) -> dict[str, Any]:
    """What a config says about contexts, as `activate_context` takes it."""
    return {
        "relative": config.seed_relative_similarity,
        "hops": config.spreading_activation_steps,
        "decay": config.spreading_activation_decay,
        "facilitation": config.region_facilitation_multiplier,
        "source_floor": config.source_energy_floor,
        "transfer_floor": config.transfer_floor,
        "k": config.context_size,
    }


class SemanticGraph:
    """The graph as the engine and the navigator use it. All bulk work happens in C++ and custom ops."""

    def __init__(self, state: GraphState, config: AESGConfig, permissions: Callable[[], Permissions]) -> None:
        self.state = state
        self.config = config
        self._permissions = permissions
        self.copied: DeviceCopy | None = None  # see `use_copy`

    @property
    def storage(self) -> AESGStorage:
        return self.state.storage

    @property
    def store(self) -> _core.Store:
        return self.state.storage.core

    @property
    def vector_dim(self) -> int:
        return self.state.vector_dim

    def use_copy(self, device: torch.device | str | None, residency: str = "device") -> None:
        """Keeps a copy on `device`, from which `seek`, `activate` and `gather` answer what is asked there,
        where they stay; None: no copy. All else works on the store's columns, on the host. Who asks a copy
        settles before what its answer depends on. residency: where its vectors are, see `DeviceCopy`.
        """
        self.copied = None if device is None else self.state.copy_on(device, residency)

    def _copied(self, asked: Tensor) -> DeviceCopy | None:
        """The copy, brought up to date, where it is on the device of what is asked. What the host takes in it
        learns from the store, which is behind.
        """
        copied, awaited = self.copied, self.state.awaited
        if copied is None or asked.device != copied.device or (awaited is not None and awaited.taking):
            return None
        copied.refresh()
        return copied

    def search(self, queries: Tensor, k: int, min_score: float) -> tuple[Tensor, Tensor]:
        """Exact cosine top-k over living concepts: scores [B, k] f32, slots [B, k] i64. See `seed_search`.

        Without what all queries have in common, where that is left out: see `QueryMean`.
        """
        storage, health = self.state.storage, self.state.queries
        return seed_search(
            health.without(queries),
            storage.column("vector"),
            k,
            inv_norm=health.inverse_norms(storage),
            active=storage.column("is_active"),
            count=storage.core.node_count,
            min_score=min_score,
        )

    def seek(self, queries: Tensor, k: int, min_score: float) -> tuple[Tensor, Tensor]:
        """The same, through cells of like concepts where the graph holds `approximate_search_from` concepts:
        then with the `recall_target` only. See `CoarseIndex`. While likeness leaves out what all queries have
        in common it is exact: the cells are those of the whole vectors. On a copy it is exact as well.
        """
        if self.copied is not None and (copied := self._copied(queries)) is not None:
            return copied.search(queries, k, min_score, self.state.bare_queries)
        config, state = self.config, self.state
        if state.queries.common is not None:
            state.coarse.drop()
            return self.search(queries, k, min_score)
        if config.recall_target >= 1 or state.storage.core.active_count < config.approximate_search_from:
            return self.search(queries, k, min_score)
        return state.coarse.search(queries, k, min_score, config.recall_target, state.centers)

    def spread(self, seeds: Tensor, energies: Tensor, *, hops: int, k: int) -> tuple[Tensor, Tensor]:
        """Activation after `hops` hops from seeds [B, S]: energies [B, k], slots [B, k]. See
        `spread_activation`.
        """
        storage, config = self.state.storage, self.config
        blocks = storage.edge_blocks()
        return spread_activation(
            seeds,
            energies,
            blocks.first_block,
            blocks.targets,
            blocks.strengths,
            blocks.next_block,
            storage.column("is_active"),
            regions=storage.column("region_id"),
            hops=hops,
            decay=config.spreading_activation_decay,
            facilitation=config.region_facilitation_multiplier,
            source_floor=config.source_energy_floor,
            transfer_floor=config.transfer_floor,
            k=k,
        )

    def activate(
        self,
        similarities: Tensor,
        seeds: Tensor,
        *,
        bar: Tensor | None = None,
        primed: Primed | None = None,
        gather: bool = True,
        jacobian: bool = False,
    ) -> Activated:
        """Contexts from what `search` found [B, S], by the config's rules. See `activate_context`."""
        if self.copied is not None and (copied := self._copied(seeds)) is not None:
            blocks, here = copied.edge_blocks, copied.streamed is None
            found = activate_context(
                similarities, seeds, copied.vector, blocks.first_block, blocks.targets, blocks.strengths,
                blocks.next_block, copied.is_active, regions=copied.region_id, bar=bar, primed=primed,
                ids=None if primed is None else copied.id, gather=gather and here, jacobian=jacobian,
                **spreading_rules(self.config),
            )  # fmt: skip
            if here:
                return found
            return found._replace(
                vectors=copied.gathered(found.members) if gather else found.vectors,
                seed_vectors=copied.gathered(found.seeds) if jacobian else found.seed_vectors,
            )
        storage = self.state.storage
        blocks = storage.edge_blocks()
        return activate_context(
            similarities,
            seeds,
            storage.column("vector"),
            blocks.first_block,
            blocks.targets,
            blocks.strengths,
            blocks.next_block,
            storage.column("is_active"),
            regions=storage.column("region_id"),
            bar=bar,
            primed=primed,
            ids=None if primed is None else storage.column("id"),
            gather=gather,
            jacobian=jacobian,
            **spreading_rules(self.config),
        )

    def asker(self, jacobian: bool) -> Callable[[Tensor], Activated | None] | None:
        """`seek` and `activate`, unprimed, as one function of queries [B, D] in which everything is looked up
        already: for many small calls on a graph that nobody changes in between. None where search is not
        exact, and where a copy is in use. It raises as they do; once the graph has grown, or likeness is
        another, it returns None.
        """
        if self.copied is not None:
            return None
        config, storage, health = self.config, self.state.storage, self.state.queries
        core, common = storage.core, health.common
        if (
            common is None
            and config.recall_target < 1
            and core.active_count >= config.approximate_search_from
        ):
            return None
        sizes = core.node_groups, core.block_groups
        blocks, vectors, active = storage.edge_blocks(), storage.column("vector"), storage.column("is_active")
        search = functools.partial(
            seed_search, vectors=vectors, k=config.seed_top_k, inv_norm=health.inverse_norms(storage),
            active=active, min_score=config.seed_min_similarity,
        )  # fmt: skip
        activate: Any = functools.partial(
            activate_context, vectors=vectors, first_block=blocks.first_block, targets=blocks.targets,
            strengths=blocks.strengths, next_block=blocks.next_block, active=active,
            regions=storage.column("region_id"), jacobian=jacobian, **spreading_rules(config),
        )  # fmt: skip

        def ask(rows: Tensor) -> Activated | None:
            if (core.node_groups, core.block_groups) != sizes or health.common is not common:
                return None
            similarities, seeds = search(health.without(rows), count=core.node_count)
            return activate(similarities, seeds)

        return ask

    def without(self, vectors: Tensor) -> Tensor:
        """Vectors [..., D] without what all queries have in common, where that is left out; with gradient."""
        health, copied = self.state.bare_queries, self.copied
        if copied is not None and vectors.device == copied.device:
            return copied.without(vectors, health)
        return health.without(vectors)

    def directions(self, vectors: Tensor) -> Tensor:
        """What likeness compares of vectors [..., D]: `without` at length 1."""
        return torch.nn.functional.normalize(self.without(vectors), dim=-1)

    def gather(self, slots: Tensor) -> Tensor:
        """Copies of the vectors [..., D] of slots [...]; zero where the slot is negative."""
        copied = None if self.copied is None else self._copied(slots)
        if copied is not None and copied.streamed is not None:
            return copied.gathered(slots)
        groups = self.state.storage.column("vector") if copied is None else copied.vector  # [G, 1024, D]
        if groups.shape[0] == 0:
            return groups.new_zeros(*slots.shape, self.vector_dim)
        # Of a call that was taken back, or a directory restored, meanwhile, slots may be behind the last.
        clamped = slots.clamp(0, groups.shape[0] * groups.shape[1] - 1)
        if groups.shape[0] == 1:  # one index costs half of two
            rows = groups[0].index_select(0, clamped.reshape(-1)).view(*slots.shape, self.vector_dim)
        else:
            rows = groups[clamped >> GROUP_BITS, clamped & (groups.shape[1] - 1)]
        return rows.masked_fill_((slots < 0).unsqueeze(-1), 0.0)

    def gather_members(self, members: Tensor, origin: int, vectors: Tensor) -> None:
        """Writes the vectors of the memory's own `members` [Q, K] (origin 0, see `aesg.packs.ranking`) to
        `vectors` [Q, K, D], zeros where there is no member.
        """
        assert origin == 0
        _core.gather_own(self.store, members.numpy(), vectors.numpy())

    def ids(self, slots: Tensor) -> Tensor:
        """The identities of slots [...], i64 holding the bits of u64; 0 where the slot is negative."""
        return torch.from_numpy(self.identities(slots.numpy()))

    def identities(self, slots: np.ndarray) -> np.ndarray:
        """`ids` of an array: less work around a few slots."""
        return _core.identities(self.state.storage.core, slots)

    def still(self, slots: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Slots [...] that still hold the living concept of that identity; -1 in place of the others."""
        return _core.still(self.state.storage.core, slots, ids)

    def is_active(self, slot: int) -> bool:
        return bool(self._at("is_active", slot))

    def region(self, slot: int) -> int:
        return int(self._at("region_id", slot))

    def out_edges(self, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """Targets i64 [e] and strengths f32 [e] of a concept's edges."""
        edges = self.storage.get_edges(slot)
        return edges["target"], edges["weight"] * edges["confidence"]

    def _at(self, column: str, slot: int) -> Tensor:
        values = self.storage.column(column)
        return values[slot // values.shape[1], slot % values.shape[1]]

    def get_node_vector(self, node_idx: int) -> Tensor:
        """A copy of the vector [D] f32 of a slot in use. Raises AESGMemoryError for an unknown slot."""
        slot = self._slot(node_idx)
        return self.gather(torch.tensor([slot]))[0]

    def update_relevance(self, node_idx: int, delta: float) -> None:
        """Moves a concept's relevance by `delta`, kept in [0, 1]. Nothing happens in INFERENCE.

        Raises AESGMemoryError for an unknown or dead slot and a change that is not finite.
        """
        slot, change = self._slot(node_idx), real_number("Relevance change", delta)
        if not self.is_active(slot):
            raise AESGMemoryError(f"Dead concept: slot {slot} holds no living concept")
        if not self._permissions().learns:
            return
        column = self.storage.nodes["relevance"]
        self.storage.nodes["relevance"][slot] = min(1.0, max(0.0, float(column[slot]) + change))
        self.state.touch()

    def find_nearest_neighbors(self, query_vector: Tensor, top_k: int = 5) -> list[tuple[int, float]]:
        """The `top_k` living concepts nearest to a query [D]: (slot, cosine) above 0.1, best first. O(N
        D).

        Raises AESGMemoryError for what is no finite vector of that width, and k < 1.
        """
        query, k = concept_vector(query_vector, self.vector_dim), whole_number("top_k", top_k)
        if k < 1:
            raise AESGMemoryError(f"top_k: expected at least 1, got {k}")
        scores, slots = self.search(query[None], k, NEIGHBOR_MIN_SIMILARITY)
        pairs = zip(slots[0].tolist(), scores[0].tolist(), strict=True)
        return [(slot, score) for slot, score in pairs if slot >= 0]

    def add_concepts(self, vectors: Tensor | np.ndarray, ids: Sequence[int] | None = None) -> np.ndarray:
        """Bears a concept for each row of `vectors` [n, D], without novelty check or links.

        Returns their slots, i64 [n]. Raises AESGMemoryError for another width, values that are not finite and
        ids that are no new ones, before anything changed. O(n D).
        """
        self._require_writable("add_concepts")
        rows, named = real_numbers("vectors", vectors), None if ids is None else new_ids(ids)
        slots = _core.bear(self.storage.core, rows, self.state.now(), ids=named)
        self.state.counters["births"] += len(slots)
        self.state.touch()
        return slots

    def add_edges(
        self,
        sources: Tensor | np.ndarray | Sequence[int],
        targets: Tensor | np.ndarray | Sequence[int],
        weights: Tensor | np.ndarray | Sequence[float],
        confidences: Tensor | np.ndarray | Sequence[float],
        kind: int = SIMILARITY,
    ) -> int:
        """Makes directed edges between living slots, [n] each; sets weight and confidence where one exists.

        Returns how many are new. Raises AESGMemoryError for unequal lengths, unknown or dead slots, an edge
        from a concept to itself, or values outside [0, 1], before anything changed.
        """
        self._require_writable("add_edges")
        fresh = _core.put_edges(
            self.storage.core,
            whole_numbers("sources", sources),
            whole_numbers("targets", targets),
            real_numbers("weights", weights),
            real_numbers("confidences", confidences),
            whole_number("kind", kind),
        )
        self.state.touch()
        return fresh

    def _slot(self, node_idx: int) -> int:
        slot, count = whole_number("Concept", node_idx), self.storage.node_count
        if not 0 <= slot < count:
            raise AESGMemoryError(f"Unknown concept: expected a slot in 0..{count - 1}, got {node_idx}")
        return slot

    def _require_writable(self, what: str) -> None:
        """What a user asks for by name raises where it is not possible, instead of doing nothing in
        silence.
        """
        if self.storage.read_only:
            raise AESGMemoryError(
                f"{what}: the memory in '{self.storage.directory}' is open for reading only"
            )
        if not self._permissions().learns:
            raise AESGMemoryError(f"{what}: not possible in INFERENCE mode, call set_mode first")
