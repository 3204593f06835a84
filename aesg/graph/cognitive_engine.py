"""CognitiveEngine: everything a graph does by itself, each within what the mode permits.

The rules, their equations and parameters: docs/self_organisation.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.graph.arguments import concept_vector, whole_numbers
from aesg.graph.birth import bear_abstract, bear_sensory
from aesg.graph.consolidation import age_concepts, find_doomed, find_excess, retire
from aesg.graph.core import SemanticGraph
from aesg.graph.permissions import Permissions
from aesg.graph.regions import DUE_ROWS, assign_regions
from aesg.graph.reporting import Reporter
from aesg.graph.use_log import LearningRates, Use
from aesg.storage.logger import EventType


class CognitiveEngine:
    """The rules of self-organisation on one graph.

    What the current mode forbids does nothing and returns None. Every change is logged as an event. Slots
    that are unknown or dead, and vectors that do not fit, raise AESGMemoryError before anything changed.
    """

    def __init__(
        self,
        graph: SemanticGraph,
        config: AESGConfig,
        permissions: Callable[[], Permissions],
        project: Callable[[Tensor], Tensor] = lambda mean: mean,
    ) -> None:
        self.graph = graph
        self.config = config
        self.permissions = permissions  # of the current mode
        self._project = project  # mean [D] -> abstract vector [D], the map of RetrievedContext.aggregate()
        self.report = Reporter(config.log_level, graph.state.directory)
        self._warned_full = False

    # -- birth ---------------------------------------------------------------------------------------------

    def create_sensory_concept(self, query_vector: Tensor) -> int | None:
        """Bears the vector [D] itself, linked to what it resembles; returns its slot. O(N D)."""
        vector = self.checked_vector(query_vector)
        return int(bear_sensory(self.graph, vector[None])[0]) if self._granted(1) else None

    def create_abstract_concept(self, source_indices: Sequence[int] | np.ndarray | Tensor) -> int | None:
        """Bears one concept above the given slots, from their mean, linked to each; returns its slot."""
        parents = self._slots(source_indices)
        if len(np.unique(parents)) != len(parents) or len(parents) == 0:
            raise AESGMemoryError(f"Abstract concept: expected different slots, got {parents.tolist()}")
        if not self.config.abstraction_enabled or not self._granted(1):
            return None
        self.graph.state.log.digest()
        return int(self._bear_abstract(parents, np.array([len(parents)]))[0])

    def observe_novelty(self, inputs: Tensor) -> int:
        """Offers inputs [n, D] that nothing explained to the novelty pool; bears what persisted. Returns
        births.

        FINETUNE needs ten times the persistence. The first input of an empty memory is born at once.
        """
        return len(self.bear_novel(inputs))

    def bear_novel(self, inputs: Tensor) -> np.ndarray:
        """`observe_novelty`; returns the slots of what was born, i64 [m]."""
        nothing = np.empty(0, dtype=np.int64)
        dim, permissions = self.graph.vector_dim, self.permissions()
        if not isinstance(inputs, Tensor) or inputs.dim() != 2 or inputs.shape[1] != dim:
            given = list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise AESGMemoryError(f"Inputs: expected a tensor of shape [n, {dim}], got {given}")
        if not permissions.create_concepts or inputs.shape[0] == 0:
            return nothing
        state, config = self.graph.state, self.config
        try:
            born = state.pool.offer(
                state.queries.without(inputs),
                threshold=config.novelty_explanation_threshold,
                birth_count=max(1, round(config.novelty_birth_threshold / permissions.learning_rate_scale)),
                birth_first=state.storage.core.active_count == 0,
            )
        except AESGNavigationError as error:  # of an input that is not finite: here they are no queries
            raise AESGMemoryError(error.message) from error
        state.touch()
        granted = self._granted(born.shape[0]) if born.shape[0] else 0
        if granted == 0:
            return nothing
        self.report.debug("%d concepts were born", granted)
        return bear_sensory(self.graph, state.queries.restored(born[:granted]))

    @torch.no_grad()
    def _bear_abstract(self, parents: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Bears abstract concepts above groups of `counts` [m] parents: the projection of their means."""
        rows = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        vectors = self.graph.gather(torch.from_numpy(parents))
        sums = torch.zeros(len(counts), vectors.shape[1]).index_add_(0, rows, vectors)
        means = sums / torch.from_numpy(counts)[:, None].float()
        vectors = self._project(means).to("cpu", torch.float32).contiguous()
        if not bool(torch.isfinite(vectors).all()):
            raise AESGMemoryError("Abstract concept: the abstraction projection gives NaN or infinity")
        return bear_abstract(self.graph, parents, counts, vectors)

    def _granted(self, count: int) -> int:
        """How many of `count` births the mode grants. Modes that do not prune stop at `max_concepts`."""
        permissions = self.permissions()
        if not permissions.create_concepts:
            return 0
        if permissions.evolutionary_pressure:
            return count
        room = max(0, self.config.max_concepts - self.graph.storage.core.active_count)
        if room < count and not self._warned_full:
            self._warned_full = True
            self._warn(
                f"The memory holds max_concepts={self.config.max_concepts} concepts and this mode does not "
                "prune: nothing new is born until TRAIN mode makes room."
            )
        return min(count, room)

    def _warn(self, message: str) -> None:
        """Tells it both to who runs the program and to its log."""
        self.report.warning("%s", message)
        warnings.warn(message, RuntimeWarning, stacklevel=5)

    # -- reinforcement -------------------------------------------------------------------------------------

    def note_retrieval(self, use: Use) -> None:
        """Notes what queries saw, to be digested in bulk."""
        scale = self.permissions().learning_rate_scale
        if scale > 0.0:
            self.graph.state.log.note(use, LearningRates.of(self.config, scale))
            self.graph.state.touch()

    # -- consolidation -------------------------------------------------------------------------------------

    @torch.inference_mode(False)  # what is kept is used outside of it as well
    @torch.no_grad()
    def update(self) -> None:
        """One topology update: digest, consolidation, and sweep and region detection when their time has
        come.
        """
        permissions = self.permissions()
        if permissions.consolidation and not self._update_there(permissions):
            self._update_here(permissions)

    def _update_there(self, permissions: Permissions) -> bool:
        """`update` on the device that answers, ahead of the host; whether that was possible."""
        state, copied = self.graph.state, self.graph.copied
        learning = None if copied is None else copied.learning
        if copied is None or learning is None:
            return False
        assert state.awaited is not None
        state.awaited.make_room()
        if not learning.can_update(self.config, permissions):
            return False
        asked = state.clock()

        def act() -> None:
            held = copied.learning is learning and learning.before_taking_in(True)
            try:
                with state.time.as_of(asked):
                    self._update_here(permissions)
            except BaseException:
                learning.lose()
                raise
            if held:
                learning.took_in()

        try:
            with learning.lost_where_it_fails():
                copied.join_streams()
                learning.update(self.config, permissions)
            if learning.lost:
                return False
            state.awaited.defer(act, changes_graph=True)
        except BaseException:
            learning.lose()
            raise
        return True

    def _update_here(self, permissions: Permissions) -> None:
        state, config = self.graph.state, self.config
        state.log.digest()
        self.consolidate()
        done = state.counters["consolidations"]
        if done % config.consolidation_epoch_interval == 0:
            self.sweep()
        if done % config.region_detection_interval == 0 and permissions.reorganization:
            self._detect_regions(DUE_ROWS)

    def consolidate(self) -> int | None:
        """Age += 1 and relevance *= decay for every living concept; prunes where the mode allows it.

        Pruned are concepts older than `prune_min_age` with relevance and use under their survival thresholds,
        then the weakest above `max_concepts`. After an import, and after concepts were aged in a mode that
        does not prune, the first of the two waits 20 consolidations. Returns how many died. O(N).
        """
        permissions = self.permissions()
        if not permissions.consolidation:
            return None
        state = self.graph.state
        doomed = age_concepts(self.graph)
        died = 0
        if state.pruning.due(permissions.evolutionary_pressure):
            died = retire(self.graph, doomed)
        if permissions.evolutionary_pressure:
            died += retire(self.graph, find_excess(self.graph))
        if died:
            self.report.debug("%d concepts died, %d live", died, state.storage.core.active_count)
        state.logger.log_event(
            EventType.CONSOLIDATE,
            state.counters["consolidations"],
            state.storage.core.active_count,
            float(died),
        )
        return died

    def apply_evolutionary_pressure(self) -> int | None:
        """Prunes by the survival thresholds and `max_concepts`, without ageing. Returns how many died.
        O(N).
        """
        if not self.permissions().evolutionary_pressure:
            return None
        self.graph.state.log.digest()
        return retire(self.graph, find_doomed(self.graph)) + retire(self.graph, find_excess(self.graph))

    # -- reorganisation ------------------------------------------------------------------------------------

    def sweep(self) -> tuple[int, int] | None:
        """Fades unused edges, removes weak ones and those into the dead, frees dead slots.

        Where the mode allows reorganisation, duplicates merge, crowded concepts split and pairs that were
        often used together get an abstract concept first. Returns (edges removed, slots freed). O(N + E).
        """
        permissions = self.permissions()
        if not permissions.consolidation:
            return None
        state, config = self.graph.state, self.config
        state.log.digest()
        self._settle_likeness()
        if permissions.reorganization:
            self._abstract_pairs()
            self._split_crowded()
            state.counters["merges"] += _core.merge_duplicates(
                state.storage.core,
                config.merge_similarity_threshold,
                state.now(),
                torch.get_num_threads(),
                None if state.queries.common is None else state.queries.common.numpy(),
            )
            retire(self.graph, find_excess(self.graph))
        state.log.pairs.forget(state.storage.column("is_active").reshape(-1).numpy() == 0)
        edges, slots = _core.sweep(state.storage.core, config.prune_confidence_threshold, config.edge_fade)
        state.counters["sweeps"] += 1
        state.touch()
        if edges or slots:
            self.report.info("a sweep removed %d edges and freed %d slots", edges, slots)
        state.logger.log_event(EventType.RESTRUCTURE, state.counters["sweeps"], edges, float(slots))
        return edges, slots

    def merge_concepts(self, idx1: int, idx2: int) -> int | None:
        """Merges two concepts: the first is kept, the second dies. Returns the kept slot. O(E)."""
        kept, dropped = self._slots([idx1, idx2])
        if kept == dropped:
            raise AESGMemoryError(f"Merge: expected two different concepts, got slot {kept} twice")
        if not self.permissions().reorganization:
            return None
        state = self.graph.state
        state.log.digest()
        _core.merge(state.storage.core, [kept], [dropped], state.now())
        state.counters["merges"] += 1
        state.touch()
        return int(kept)

    def split_concept(self, idx: int) -> int | None:
        """Splits a concept in two by its neighbours; returns the newborn's slot, None when there are no two
        groups.
        """
        (slot,) = self._slots([idx])
        if not self.permissions().reorganization:
            return None
        state = self.graph.state
        state.log.digest()
        fresh = _core.split(state.storage.core, int(slot), self.config.edge_initial_confidence, state.now())
        if fresh < 0:
            return None
        state.counters["births"] += 1
        state.counters["splits"] += 1
        state.touch()
        return fresh

    def find_semantic_regions(self) -> dict[int, int] | None:
        """Groups living concepts into regions 1..R of like direction (region_id); returns {region: size}.

        About sqrt(N) regions; none below 64 concepts. O(N sqrt(N) D).
        """
        return self._detect_regions(None) if self.permissions().reorganization else None

    def _detect_regions(self, rows: int | None) -> dict[int, int]:
        state = self.graph.state
        state.log.digest()
        found = assign_regions(self.graph, rows)
        state.coarse.renew()
        self.report.info("%d regions", len(found))
        state.logger.log_event(EventType.RESTRUCTURE, 0, len(found), 0.0)
        return found

    def _abstract_pairs(self) -> None:
        """Bears an abstract concept above every pair that was primary together often enough."""
        state, config = self.graph.state, self.config
        if not config.abstraction_enabled:
            return
        pairs = state.log.pairs.take(config.coactivation_threshold_create)
        alive = state.storage.column("is_active").reshape(-1).numpy() != 0
        pairs = pairs[alive[pairs].all(axis=1)]
        pairs = pairs[~_core.share_abstraction(state.storage.core, pairs)]
        if len(pairs):
            self._bear_abstract(pairs.reshape(-1), np.full(len(pairs), 2))

    def _settle_likeness(self) -> None:
        """Leaves out of likeness what all queries have in common, or no longer, as they have shown."""
        state, config, queries = self.graph.state, self.config, self.graph.state.queries
        common = queries.settle(config.query_collapse_threshold, config.novelty_explanation_threshold)
        if common is queries.common or (
            common is not None and queries.common is not None and torch.equal(common, queries.common)
        ):
            return
        candidates = state.pool.candidates[: len(state.pool)]
        if common is None or queries.common is None:
            self.report.info(
                "likeness %s what all queries have in common (resultant %.3f)",
                "compares again" if common is None else "leaves out",
                queries.resultant,
            )
        whole = queries.restored(candidates)
        queries.take(common)
        candidates.copy_(queries.without(whole))
        state.pool.changed()
        state.touch()

    def _split_crowded(self) -> None:
        config = self.config
        limit = min(config.split_density_threshold, config.max_edges_per_node)
        for slot in _core.find_crowded(self.graph.state.storage.core, limit):
            self.split_concept(int(slot))

    # -- arguments -----------------------------------------------------------------------------------------

    def checked_vector(self, value: Tensor) -> Tensor:
        """A finite f32 vector [D] on the CPU, or AESGMemoryError."""
        return concept_vector(value, self.graph.vector_dim)

    def _slots(self, values: Sequence[int] | np.ndarray | Tensor) -> np.ndarray:
        """Living slots, i64 [n], or AESGMemoryError."""
        slots = whole_numbers("Concepts", values)
        if slots.ndim != 1:
            raise AESGMemoryError(f"Concepts: expected a list of slots, got {values!r:.60}")
        storage = self.graph.state.storage
        count = storage.core.node_count
        unknown = slots[(slots < 0) | (slots >= count)]
        if len(unknown):
            raise AESGMemoryError(f"Unknown concept: expected slots in 0..{count - 1}, got {int(unknown[0])}")
        active = storage.column("is_active")
        dead = (
            slots[(active[slots // active.shape[1], slots % active.shape[1]] == 0).numpy()]
            if len(slots)
            else slots
        )
        if len(dead):
            raise AESGMemoryError(f"Dead concept: slot {int(dead[0])} holds no living concept")
        return slots
