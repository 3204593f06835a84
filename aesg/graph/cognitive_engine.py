"""CognitiveEngine: birth, reinforcement, consolidation and sweep, each within what the mode permits."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.graph.core import SIMILARITY, SemanticGraph
from aesg.graph.permissions import Permissions
from aesg.graph.use_log import LearningRates
from aesg.ops import consolidate_
from aesg.storage.logger import EventType
from aesg.validation import Validator


class CognitiveEngine:
    """The rules of `docs/self_organisation.md` on one graph.

    What the current mode forbids does nothing and returns None. Every change is logged as an event.
    """

    def __init__(self, graph: SemanticGraph, config: AESGConfig, permissions: Callable[[], Permissions]) -> None:
        self.graph = graph
        self.config = config
        self._permissions = permissions
        self._warned_full = False

    # -- birth ---------------------------------------------------------------------------------------------

    def create_sensory_concept(self, query_vector: Tensor) -> int | None:
        """Bears the vector [D] itself, linked to what it resembles; returns its slot.

        None where the mode or a full memory forbids it. Raises AESGMemoryError for another shape or values
        that are not finite.
        """
        vector = self._vector(query_vector)
        if not self._granted(1):
            return None
        return int(self._bear(vector[None])[0])

    def observe_novelty(self, inputs: Tensor) -> int:
        """Offers inputs [n, D] that nothing explained to the novelty pool; bears what persisted. Returns births.

        FINETUNE needs ten times the persistence. The first input of an empty memory is born at once.
        """
        scale = self._permissions().learning_rate_scale
        if not self._permissions().create_concepts or inputs.shape[0] == 0:
            return 0
        state, config = self.graph.state, self.config
        born = state.pool.offer(
            inputs,
            threshold=config.novelty_explanation_threshold,
            birth_count=max(1, round(config.novelty_birth_threshold / scale)),
            birth_first=state.storage.core.active_count == 0,
        )
        state.touch()
        granted = self._granted(born.shape[0]) if born.shape[0] else 0
        return len(self._bear(born[:granted])) if granted else 0

    def _bear(self, vectors: Tensor) -> np.ndarray:
        """Concepts from vectors [n, D] with links both ways to their nearest, as they are before this birth."""
        state, config = self.graph.state, self.config
        cosines, neighbors = self.graph.search(vectors, config.link_count, config.link_min_similarity)
        slots = _core.bear(state.storage.core, vectors.numpy(), state.now())
        rows, columns = torch.nonzero(neighbors >= 0, as_tuple=True)
        if len(rows):
            ends, starts = neighbors[rows, columns].numpy(), slots[rows.numpy()]
            weights = cosines[rows, columns].clamp(0.0, 1.0).numpy()
            confidences = np.full(len(weights), config.edge_initial_confidence, dtype=np.float32)
            for sources, targets in ((starts, ends), (ends, starts)):
                _core.put_edges(state.storage.core, sources, targets, weights, confidences, SIMILARITY)
        state.counters["births"] += len(slots)
        state.touch()
        return slots

    def _granted(self, count: int) -> int:
        """How many of `count` births the mode grants. Modes that do not prune stop at `max_concepts`."""
        permissions = self._permissions()
        if not permissions.create_concepts:
            return 0
        if permissions.evolutionary_pressure:
            return count
        room = max(0, self.config.max_concepts - self.graph.storage.core.active_count)
        if room < count and not self._warned_full:
            self._warned_full = True
            warnings.warn(
                f"The memory holds max_concepts={self.config.max_concepts} concepts and this mode does not prune: "
                "nothing new is born until TRAIN mode makes room.",
                RuntimeWarning,
                stacklevel=4,
            )
        return min(count, room)

    # -- reinforcement -------------------------------------------------------------------------------------

    def note_retrieval(self, members: Tensor, energies: Tensor, previous: Tensor, current: Tensor) -> None:
        """Notes contexts (slots, energies [Q, K]) and successions (slots [Q], -1: none), to be digested in bulk."""
        scale = self._permissions().learning_rate_scale
        if scale > 0.0:
            self.graph.state.log.note(members, energies, previous, current, LearningRates.of(self.config, scale))
            self.graph.state.touch()

    # -- consolidation -------------------------------------------------------------------------------------

    def update(self) -> None:
        """One topology update: digest, consolidation, and the sweep when its interval is over."""
        if not self._permissions().consolidation:
            return
        self.graph.state.log.digest()
        self.consolidate()
        interval = self.config.consolidation_epoch_interval
        if self.graph.state.counters["consolidations"] % interval == 0:
            self.sweep()

    def consolidate(self) -> int | None:
        """Age += 1 and relevance *= decay for every living concept; prunes where the mode allows it.

        Pruned are concepts with age over `prune_min_age`, relevance and use under their survival thresholds,
        then the weakest above `max_concepts`. Returns how many died. O(N), columnar.
        """
        permissions = self._permissions()
        if not permissions.consolidation:
            return None
        state, config, storage = self.graph.state, self.config, self.graph.storage
        doomed = consolidate_(
            storage.column("age"),
            storage.column("relevance"),
            storage.column("use_frequency"),
            storage.column("is_active"),
            count=storage.core.node_count,
            relevance_decay=config.relevance_decay,
            min_age=config.prune_min_age,
            relevance_threshold=config.survival_threshold_relevance,
            frequency_threshold=config.survival_threshold_frequency,
        )
        storage.mark("age")
        storage.mark("relevance")
        state.counters["consolidations"] += 1
        state.touch()
        died = 0
        if permissions.evolutionary_pressure:
            died = self._retire(torch.nonzero(doomed.reshape(-1))[:, 0].numpy()) + self._retire_excess()
        state.logger.log_event(
            EventType.CONSOLIDATE, state.counters["consolidations"], storage.core.active_count, float(died)
        )
        return died

    def apply_evolutionary_pressure(self) -> int | None:
        """Prunes by the survival thresholds and `max_concepts`, without ageing. Returns how many died."""
        if not self._permissions().evolutionary_pressure:
            return None
        config, storage = self.config, self.graph.storage
        self.graph.state.log.digest()
        doomed = (
            (storage.column("is_active") != 0)
            & (storage.column("age") > config.prune_min_age)
            & (storage.column("relevance") < config.survival_threshold_relevance)
            & (storage.column("use_frequency") < config.survival_threshold_frequency)
        )
        return self._retire(torch.nonzero(doomed.reshape(-1))[:, 0].numpy()) + self._retire_excess()

    def _retire(self, slots: np.ndarray) -> int:
        if len(slots) == 0:
            return 0
        state = self.graph.state
        died = _core.retire(state.storage.core, slots, state.now())
        state.counters["prunes"] += died
        state.touch()
        return died

    def _retire_excess(self) -> int:
        """Prunes the weakest above `max_concepts`: least relevant first, then least used, then the youngest slot."""
        storage = self.graph.storage
        excess = storage.core.active_count - self.config.max_concepts
        if excess <= 0:
            return 0
        living = torch.nonzero(storage.column("is_active").reshape(-1))[:, 0].numpy()
        relevance = storage.column("relevance").reshape(-1).numpy()[living]
        uses = storage.column("use_frequency").reshape(-1).numpy()[living]
        weakest = np.lexsort((-living, uses, relevance))[:excess]
        return self._retire(np.sort(living[weakest]))

    def sweep(self) -> tuple[int, int] | None:
        """Fades unused edges, removes weak ones and those into the dead, frees dead slots.

        Returns (edges removed, slots freed). O(N + E).
        """
        if not self._permissions().consolidation:
            return None
        state, config = self.graph.state, self.config
        edges, slots = _core.sweep(state.storage.core, config.prune_confidence_threshold, config.edge_fade)
        state.counters["sweeps"] += 1
        state.touch()
        state.logger.log_event(EventType.RESTRUCTURE, state.counters["sweeps"], edges, float(slots))
        return edges, slots

    def _vector(self, value: Tensor) -> Tensor:
        """A finite f32 vector [D] on the CPU, or AESGMemoryError."""
        if not isinstance(value, Tensor) or value.dim() != 1:
            given = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise AESGMemoryError(f"Concept vector: expected a tensor of shape [{self.graph.vector_dim}], got {given}")
        Validator.validate_vector_dim_match(self.graph.vector_dim, value.shape[0])
        vector = value.detach().to("cpu", torch.float32)
        if not bool(torch.isfinite(vector).all()):
            raise AESGMemoryError("Concept vector: expected finite values, got NaN or infinity")
        return vector.contiguous()
