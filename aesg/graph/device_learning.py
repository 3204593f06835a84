"""DeviceLearning: births, use, succession and consolidation on a device, ahead of the store.

The device changes its columns by ops that have the bits of the host's code; the host does the same later,
when what it needs has come (`aesg.graph.awaited`). So the next answer waits for nobody, and the store, once
it has taken everything in, holds what the device does.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from aesg.config import AESGConfig
from aesg.exceptions import AESGNavigationError
from aesg.graph.device_copy import DeviceCopy
from aesg.graph.permissions import Permissions
from aesg.graph.pruning import Pruning
from aesg.graph.use_log import MAX_PENDING_ROWS, PRIMARY_COUNT, LearningRates
from aesg.ops import (
    COUNTERS,
    bear_,
    coactivate_,
    consolidate_,
    count_use_,
    follow_,
    pack_rows,
    pool_novelty_,
    retire_,
    seed_search,
)
from aesg.storage.nodes import BLOCK_EDGES

if TYPE_CHECKING:
    from aesg.graph.state import GraphState

ACTIVE = COUNTERS.index("active_count")


class Seen(NamedTuple):
    """What Q queries saw, on the device; as `aesg.graph.use_log.Use`."""

    members: Tensor  # [Q, K] i64
    energies: Tensor  # [Q, K] f32
    previous: Tensor  # [Q] i64
    current: Tensor  # [Q] i64


class DeviceLearning:
    """What one copy of a graph learns by itself. It is in step while the store, when it has taken in all that
    this copy did already, will hold what the copy holds; otherwise `take_over` brings it there.
    """

    def __init__(self, state: GraphState, copied: DeviceCopy) -> None:
        self.epoch = 0  # counts `take_over`
        self._state = state
        self._copied = weakref.proxy(copied)  # which holds this, and goes with who uses it
        self._known: tuple[object, ...] | None = None  # of the host, see `_signature`
        self._ahead: deque[tuple[int, int]] = deque()  # concepts and blocks each awaited call may have made
        self._all_ahead = 0, 0  # their sums
        self._most_ahead = 0, 0  # since `take_over`
        self._counters = torch.zeros(len(COUNTERS), dtype=torch.int64, device=copied.device)
        self._zero = torch.zeros((), device=copied.device)
        self._pool: list[Tensor] = []  # as those of `NoveltyPool`
        self._log: list[Seen] = []
        self._log_rows = 0
        self._rates: LearningRates | None = None
        self._consolidations = 0
        self._pruning = Pruning()

    # -- staying in step -----------------------------------------------------------------------------------

    @property
    def in_step(self) -> bool:
        """Whether all that is awaited was done here, and nobody else changed anything since."""
        if self._known is None or self._known != self._signature():
            return False
        awaited = self._state.awaited
        return awaited is not None and awaited.changing == len(self._ahead)

    @property
    def lost(self) -> bool:
        """Whether nothing here is known to be right."""
        return self._known is None

    @property
    def possible(self) -> bool:
        """Whether this device can learn what the host would."""
        return not self._state.bare_storage.read_only

    @torch.inference_mode(False)  # what is kept is used outside of it as well
    @torch.no_grad()
    def take_over(self) -> None:
        """Makes everything here as it is on the host. REQUIRES: nothing is awaited that changes the graph."""
        if self.in_step:
            return
        state, device = self._state, self._copied.device
        if self._ahead:  # done here alone: whoever asked for it was interrupted
            self._copied.forget()
        self._known = None
        self._clear_ahead()
        self._copied.refresh_learnt()
        self._copied.inverse_norms(state.bare_queries)
        core, pool = state.bare_storage.core, state.bare_pool
        numbers = torch.tensor([int(getattr(core.counters, name)) for name in COUNTERS])
        kept = [self._counters, *self._pool]
        now = [numbers, pool.candidates, pool.counts, pool.stamps, pool.state]
        if [part.shape for part in kept] != [part.shape for part in now]:
            kept = [torch.empty(part.shape, dtype=part.dtype, device=device) for part in now]
        for there, part in zip(kept, now, strict=True):  # where they lie, for what is captured
            there.copy_(_sent(part, device))
        self._counters, *self._pool = kept
        log = state.bare_log
        self._log = [Seen(*(_sent(torch.from_numpy(part), device) for part in (
            use.members, use.energies, use.previous, use.current
        ))) for use in log.pending]  # fmt: skip
        self._log_rows, self._rates = log.pending_rows, log.rates
        self._consolidations = state.bare_counters["consolidations"]
        self._pruning = copy.copy(state.pruning)
        self._reserve(*self._most_ahead)  # once more, so that what is captured fits
        self._most_ahead = 0, 0
        self._known = self._signature()
        self.epoch += 1

    def lose(self) -> None:
        """What is here is not what the host will have: all of it is brought anew before the next answer."""
        if self._known is not None:
            self._known = None
            self._clear_ahead()
            self._copied.forget()

    @contextmanager
    def lost_where_it_fails(self) -> Iterator[None]:
        """Inside, a device that fails, mostly for want of room, loses what it learnt, which costs time and
        nothing else: the host learns it in any case.
        """
        try:
            yield
        except Exception as error:
            self.lose()
            tell_of_failure(error)

    def before_taking_in(self, ahead: bool) -> bool:
        """The host is about to do what was awaited longest. ahead: it was done here. Whether it still counts
        as done here.
        """
        if self._known is None:
            return False
        if ahead and self._ahead and self._known == self._signature():
            return True
        self.lose()
        return False

    def took_in(self) -> None:
        """The host has done it, too."""
        nodes, blocks = self._ahead.popleft()
        self._all_ahead = self._all_ahead[0] - nodes, self._all_ahead[1] - blocks
        self._known = self._signature()
        self._copied.holds(self._state.bare_storage.core.changes)

    def _signature(self) -> tuple[object, ...]:
        """Changes with everything on the host that was taken over."""
        state = self._state
        return (
            state.bare_storage.core.changes, state.bare_pool.version, state.bare_log.version,
            state.bare_counters["consolidations"], state.pruning.wait, state.pruning.aged_unpruned,
            state.bare_queries.version,
        )  # fmt: skip

    def used_on(self, stream: torch.cuda.Stream) -> None:
        """Keeps torch's allocator from giving anything here away before the stream's work is done."""
        for part in (self._counters, *self._pool, *(part for seen in self._log for part in seen)):
            part.record_stream(stream)

    def layout(self) -> tuple[int, ...]:
        """Changes when what captured learning uses lies elsewhere, or is longer."""
        return (*self._copied.learnt_layout(), *(part.data_ptr() for part in (self._counters, *self._pool)))

    # -- learning ------------------------------------------------------------------------------------------

    def begin_call(self, rows: int, config: AESGConfig) -> None:
        """A call of so many queries is going to be learnt from here, before the host does."""
        self._begin(*self._most(rows, config))

    def make_room(self, rows: int, config: AESGConfig) -> None:
        """Room for all that one more such call may make, so that nothing moves during it."""
        self._reserve(*self._most(rows, config))

    def _most(self, rows: int, config: AESGConfig) -> tuple[int, int]:
        """The most concepts and blocks that such a call makes, those of the edges noted before included."""
        blocks = rows * (-(-config.link_count // BLOCK_EDGES) + config.link_count)
        return rows, blocks + self._log_rows + rows

    def _begin(self, nodes: int, blocks: int) -> None:
        """Something is going to be done here, before the host does it, that makes at most so many."""
        self._reserve(nodes, blocks)
        self._ahead.append((nodes, blocks))
        self._all_ahead = self._all_ahead[0] + nodes, self._all_ahead[1] + blocks

    def _clear_ahead(self) -> None:
        self._ahead.clear()
        self._all_ahead = 0, 0

    def _reserve(self, nodes: int, blocks: int) -> None:
        counters, room = self._state.bare_storage.core.counters, self._copied.room()
        ahead = nodes + self._all_ahead[0], blocks + self._all_ahead[1]
        if counters.node_count + ahead[0] > room[0] or counters.block_count + ahead[1] > room[1]:
            # By doubling: what is captured must be captured anew.
            self._copied.reserve(counters.node_count + 2 * ahead[0], counters.block_count + 2 * ahead[1])
        self._most_ahead = max(self._most_ahead[0], ahead[0]), max(self._most_ahead[1], ahead[1])

    def bear(
        self, rows: Tensor, explanation: Tensor, config: AESGConfig, permissions: Permissions
    ) -> tuple[Tensor, Tensor]:
        """Offers what nothing explained among queries [Q, D] to the pool and bears what persisted, as
        `CognitiveEngine.bear_novel`. Returns for each such query the place of the newborn that it means, [Q]
        i64, -1: none, and the newborn, slots [n] i64.
        """
        copied, threshold = self._copied, config.novelty_explanation_threshold
        health = self._state.bare_queries
        if not permissions.create_concepts:
            nobody = torch.full((len(rows),), -1, dtype=torch.int64, device=rows.device)
            return nobody, nobody
        living = self._counters[ACTIVE : ACTIVE + 1]
        # Zero rows change nothing. A number instead of a tensor would be brought there by every call.
        rests = copied.without(rows, health)
        novel = torch.where((explanation < threshold)[:, None], rests, self._zero)
        candidates, counts, stamps, sizes = self._pool
        born, vectors = pool_novelty_(
            candidates,
            counts,
            stamps,
            sizes,
            novel,
            threshold=threshold,
            birth_count=max(1, round(config.novelty_birth_threshold / permissions.learning_rate_scale)),
            birth_first=True,
            living=living,
        )
        most = None if permissions.evolutionary_pressure else config.max_concepts - living
        packed, _, count = pack_rows(copied.restored(vectors, health), born, most=most)
        cosines, neighbors = copied.search(packed, config.link_count, config.link_min_similarity, health)
        slots = bear_(
            packed, count, neighbors, cosines, copied.nodes, copied.edges, self._counters,
            confidence=config.edge_initial_confidence,
        )  # fmt: skip
        copied.note_lengths(packed, slots, health)
        # What is behind the newborn is zero, and like nothing.
        return seed_search(novel, copied.without(packed, health), 1, min_score=threshold)[1][:, 0], slots

    # -- use -----------------------------------------------------------------------------------------------

    def note(self, seen: Seen, rates: LearningRates) -> None:
        """`UseLog.note`."""
        if self._log_rows >= MAX_PENDING_ROWS or (self._rates != rates and self._log_rows):
            self._digest()
        self._rates = rates
        self._log.append(seen)
        self._log_rows += len(seen.members)

    def digested(self) -> None:
        """The host wrote into the graph what was noted of use. REQUIRES: in step before, nothing awaited."""
        self._begin(0, self._log_rows)
        self._digest()
        self.took_in()

    def _digest(self) -> None:
        """`UseLog.digest`."""
        log, rates = self._log, self._rates
        if not self._log_rows or rates is None:
            return
        self._log, self._log_rows = [], 0
        copied = self._copied
        active, edges = copied.is_active, copied.edges
        members = torch.cat([seen.members.reshape(-1) for seen in log])
        energies = torch.cat([seen.energies.reshape(-1) for seen in log])
        gain = rates.relevance_gain
        count_use_(copied.use_frequency, copied.relevance, active, members, energies, gain=gain)
        primaries = torch.cat([_first_columns(seen.members, PRIMARY_COUNT) for seen in log])
        coactivate_(edges, active, primaries, rate=rates.coactivation_rate)
        follow_(
            edges,
            active,
            self._counters,
            torch.cat([seen.previous for seen in log]),
            torch.cat([seen.current for seen in log]),
            initial=rates.edge_initial_confidence,
            rate=rates.succession_rate,
            yield_=rates.succession_yield,
        )

    # -- consolidation -------------------------------------------------------------------------------------

    def can_update(self, config: AESGConfig, permissions: Permissions) -> bool:
        """Whether the next topology update can be done here: sweeps and the search for regions cannot."""
        if not (self.in_step and self.possible and config.survival_threshold_frequency > 0):
            return False
        done = self._consolidations + 1
        return done % config.consolidation_epoch_interval != 0 and not (
            permissions.reorganization and done % config.region_detection_interval == 0
        )

    def update(self, config: AESGConfig, permissions: Permissions) -> None:
        """`CognitiveEngine.update`. REQUIRES: `can_update`."""
        self._begin(0, self._log_rows)  # an edge of succession may take a block
        self._digest()
        copied, counters = self._copied, self._counters
        doomed = consolidate_(
            copied.age,
            copied.relevance,
            copied.use_frequency,
            copied.is_active,
            count=copied.age.numel(),
            relevance_decay=config.relevance_decay,
            min_age=config.prune_min_age,
            relevance_threshold=config.survival_threshold_relevance,
            frequency_threshold=config.survival_threshold_frequency,
        )
        self._consolidations += 1
        if self._pruning.due(permissions.evolutionary_pressure):
            retire_(copied.edges, copied.is_active, counters, doomed)
        most = self._state.bare_storage.core.active_count + self._all_ahead[0]
        if permissions.evolutionary_pressure and most > config.max_concepts:
            retire_(copied.edges, copied.is_active, counters, self._excess(config))

    def _excess(self, config: AESGConfig) -> Tensor:
        """`find_excess` as a mask [G, 1024] u8. O(N log N)."""
        copied = self._copied
        living = copied.is_active.reshape(-1) != 0
        uses = (copied.use_frequency.reshape(-1).to(torch.int64) & 0xFFFFFFFF).double()
        worth = copied.relevance.reshape(-1).double() + 0.5 * uses / (
            uses + config.survival_threshold_frequency
        )
        worth = torch.where(living, worth, torch.inf)
        # Of equals the higher slot goes: it stands first, and the order is kept among them.
        order = len(worth) - 1 - torch.sort(worth.flip(0), stable=True)[1]
        excess = self._counters[ACTIVE] - config.max_concepts
        goes = torch.arange(len(order), device=order.device) < excess
        mask = torch.zeros(len(order), dtype=torch.uint8, device=order.device)
        return mask.scatter_(0, order, goes.to(torch.uint8)).view(copied.is_active.shape)


def tell_of_failure(error: Exception) -> None:
    """Warns of what a device failed at and the host does instead."""
    if not isinstance(error, AESGNavigationError):  # not finite: left out here, and the host will say so
        warnings.warn(
            "What the device was to learn by itself it learns from the host, which takes longer and changes "
            f"no answer: {error}",
            RuntimeWarning,
            stacklevel=5,
        )


def _first_columns(slots: Tensor, width: int) -> Tensor:
    """The first `width` columns of [Q, K], filled up with -1 where K is less."""
    missing = width - slots.shape[1]
    return torch.nn.functional.pad(slots, (0, missing), value=-1) if missing > 0 else slots[:, :width]


def _sent(part: Tensor, device: torch.device) -> Tensor:
    """A copy on the device. The host does not wait."""
    if device.type == "cpu":
        return part.clone()
    return part.pin_memory().to(device, non_blocking=True)
