"""CoarseIndex: approximate search of a large graph through cells of like concepts, its recall measured.

Derived from the graph and kept in memory only: it is made at the first search that wants it, and anew
after opening and after every commit. Cells that followed the graph's changes find others than cells made
of it at once; since none outlive a commit, whoever reopens the directory gets the same bits as the
process that went on.

Cells begin as the graph's regions where there are as many as are wanted; their own centres are then
refined on a larger sample, since a search pays for every badly placed centre: with 1000 clusters among
100,000 concepts one probe finds 0.89 of the ten nearest in cells as rough as the regions, 0.97 in as many
cells refined longer, and 0.999 in twice as many.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from aesg.graph.clustering import evenly, refine_centers
from aesg.ops import Cells, make_cells, region_add_, region_remove_, region_search, seed_search, with_room
from aesg.storage.engine import AESGStorage

MOST_CELLS = 4096
FINE_CELLS = 1000  # up to so many, cells are twice as fine as regions; more would cost births too much
SAMPLE_ROWS_PER_CELL, ROUNDS = 32, 8
MOST_PENDING = 256  # changed rows that are compared one by one; then they go into cells
GROWTH = 2  # times as many concepts as when the cells were made: they are made anew
CHECKED_QUERIES, CHECKED_K = 64, 10  # the recall is that of the ten nearest, over so many queries
ASKED_EVERY = 8  # calls between two queries kept for it
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
POOLS = (2, 8)  # rows compared exactly, times k
LEAST_POOL = 24
USELESS = 0.005  # gain in recall below which more probes are no help
WORTH = 4  # exact search where the cells looked into hold more than this part of all rows

# A pack's index may be shared by threads. Not an attribute of it: locks cannot be copied.
_making = threading.RLock()


class Rows(Protocol):
    """The concepts that a `CoarseIndex` searches."""

    @property
    def vectors(self) -> Tensor: ...  # [N, D] or [G, 1024, D] f32
    @property
    def inv_norm(self) -> Tensor: ...  # [N] or [G, 1024] f32
    @property
    def active(self) -> Tensor: ...  # [N] or [G, 1024] u8
    @property
    def count(self) -> int: ...  # rows that were ever in use: the first ones
    @property
    def living(self) -> int: ...
    def at(self, slots: Tensor) -> Tensor: ...  # their vectors [n, D]
    def slots(self) -> Tensor: ...  # of the living, ascending, i64
    def only_used(self, slots: Tensor) -> Tensor: ...  # of these, those that were ever given to a concept
    def take_changes(self) -> tuple[bool, np.ndarray]: ...  # since the last call: all of them, or which


class StoreRows:
    """The concepts of a store."""

    def __init__(self, storage: AESGStorage) -> None:
        self._storage = storage

    @property
    def vectors(self) -> Tensor:
        return self._storage.column("vector")

    @property
    def inv_norm(self) -> Tensor:
        return self._storage.column("inv_norm")

    @property
    def active(self) -> Tensor:
        return self._storage.column("is_active")

    @property
    def count(self) -> int:
        return self._storage.core.node_count

    @property
    def living(self) -> int:
        return self._storage.core.active_count

    def at(self, slots: Tensor) -> Tensor:
        groups = self.vectors
        return groups[slots // groups.shape[1], slots % groups.shape[1]]

    def slots(self) -> Tensor:
        return torch.nonzero(self.active.reshape(-1))[:, 0]

    def only_used(self, slots: Tensor) -> Tensor:
        ids = self._storage.column("id")
        return slots[ids[slots // ids.shape[1], slots % ids.shape[1]] != 0]

    def take_changes(self) -> tuple[bool, np.ndarray]:
        return self._storage.core.take_vector_changes()


class Setting(NamedTuple):
    """How much of the cells a search looks into."""

    probes: int
    pool: int  # rows compared exactly, times k
    recall: float | None = None  # as measured
    serves: bool = False  # whether the recall asked for is reached with less work than an exact search


class CoarseIndex:
    """One graph's cells and how much of them a search looks into."""

    def __init__(self, rows: Rows, *, ask: bool = True) -> None:
        """ask: the recall is measured on queries, too, and not on stored concepts alone."""
        self._rows = rows
        self._ask = ask
        self._cells: Cells | None = None
        self._pending = torch.empty(0, dtype=torch.int64)  # ascending; in no cell
        self._asked: deque[Tensor] = deque(maxlen=CHECKED_QUERIES)
        self._calls = 0
        self._made_of = 0  # concepts when the cells were made
        self._settings: dict[float, Setting] = {}  # by the recall asked for, for the cells as they are
        self._target = 0.0  # the recall last asked for

    def search(
        self, queries: Tensor, k: int, min_score: float, target: float, centers: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The k nearest living concepts by a search whose sampled recall is at least `target`: (scores [B, k]
        f32, slots [B, k] i64), without gradient. See `region_search`, and `seed_search` for what is raised.

        Exact where no number of probes worth it reaches the target. What was born or changed since is seen,
        what died is not. The first call makes the cells, from `centers` [R, D] where they fit, in
        O(N sqrt(N) D).
        """
        bare = queries.detach() if queries.requires_grad else queries
        everything, changed = self._rows.take_changes()
        setting = self._settings.get(target)
        if setting is None or everything or len(changed) or self._rows.living > GROWTH * self._made_of:
            setting = self._keep_up(everything, changed, target, centers)
        self._target = target
        self._calls += 1
        if self._ask and self._calls % ASKED_EVERY == 1 and queries.shape[0]:
            self._keep_asked(bare)
        if not setting.serves:
            return self._exact(bare, k, min_score)
        return self._look(bare, k, min_score, setting)

    # The cells are kept, and written to, outside of inference_mode as well. Not a matter for every search:
    # entering these modes takes a tenth of the time of one for one query.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _keep_up(
        self, everything: bool, changed: np.ndarray, target: float, centers: Tensor | None
    ) -> Setting:
        with _making:
            self._follow(everything, changed)
            if self._cells is None or self._rows.living > GROWTH * self._made_of:
                self._make(centers)
            if target not in self._settings:
                self._settings[target] = self._tuned(target)
            return self._settings[target]

    @torch.inference_mode(False)
    def _keep_asked(self, queries: Tensor) -> None:
        self._asked.append(queries[0].clone())

    def renew(self) -> None:
        """Measures the recall anew, on what was asked since; nothing where there are no cells."""
        if self._cells is not None:
            self._follow(*self._rows.take_changes())
        for target in self._settings:
            self._settings[target] = self._tuned(target)

    def drop(self) -> None:
        """Gives up the cells and what was asked: the next search is as the first after opening."""
        self._give_up()
        self._asked.clear()
        self._calls = 0

    def _give_up(self) -> None:
        self._settings = {}
        self._cells = None

    def stats(self) -> dict[str, Any]:
        """search: 'exact' or 'approximate'; search_recall: as last measured (1.0 where exact);
        search_probes: cells looked into.
        """
        setting = self._settings.get(self._target)
        if setting is None or not setting.serves:
            return {"search": "exact", "search_recall": 1.0, "search_probes": 0}
        return {"search": "approximate", "search_recall": setting.recall, "search_probes": setting.probes}

    # -- keeping up ----------------------------------------------------------------------------------------

    def _follow(self, everything: bool, changed: np.ndarray) -> None:
        """Takes in what changed: out of the cells, among the pending, and into cells when these are many."""
        if everything:
            self._give_up()
        if self._cells is None or len(changed) == 0:
            return
        slots, pending = torch.from_numpy(np.unique(changed) if len(changed) > 1 else changed), self._pending
        region_remove_(self._cells, slots)
        both = torch.cat([pending, slots])
        fresh = len(pending) == 0 or int(pending[-1]) < int(slots[0])  # nearly always: births at the end
        self._pending = both if fresh else torch.unique(both)
        if len(self._pending) > MOST_PENDING:
            self._put(self._pending)

    def _put(self, slots: Tensor) -> None:
        """Puts slots into cells, free ones excepted: nothing lives there until they change again."""
        rows = self._rows
        slots = rows.only_used(slots)
        assert self._cells is not None
        self._cells = with_room(self._cells, len(slots), rows.vectors.shape[:-1].numel())
        region_add_(self._cells, rows.vectors, rows.inv_norm, slots)
        self._pending = self._pending[:0]
        if int(self._cells.used) * 32 > 3 * rows.living + 64 * len(self._cells.heads):
            self._give_up()  # mostly places of what went

    def _make(self, centers: Tensor | None) -> None:
        rows = self._rows
        slots = rows.slots()
        root = round(len(slots) ** 0.5)
        count = min(MOST_CELLS, max(1, root, min(2 * root, FINE_CELLS)))
        picked = slots[evenly(len(slots), min(len(slots), count * SAMPLE_ROWS_PER_CELL))]
        sample = torch.nn.functional.normalize(rows.at(picked), dim=1)
        fitting = centers is not None and len(centers) == count
        start = centers if fitting and centers is not None else sample[evenly(len(sample), count)]
        self._cells = make_cells(refine_centers(sample, start, ROUNDS), rows.vectors.shape[:-1].numel())
        self._made_of = rows.living
        self._settings = {}
        self._put(slots)

    # -- measuring -----------------------------------------------------------------------------------------

    def _tuned(self, target: float) -> Setting:
        """The fewest probes whose recall on the sample reaches the target."""
        assert self._cells is not None
        queries = self._sample()
        exact, _ = self._exact(queries, CHECKED_K, -1.0)
        wanted = max(1, int((exact >= -1.0).sum()))
        rows = int(self._cells.used) * 32 / len(self._cells.heads)  # of a cell, on average

        def recall(probes: int, pool: int) -> float:
            scores, slots = self._look(queries, CHECKED_K, -1.0, Setting(probes, pool))
            return min(1.0, int(((scores >= exact[:, -1:]) & (slots >= 0)).sum()) / wanted)

        pool, before = POOLS[0], 0.0
        for probes in PROBES:
            if probes > 1 and WORTH * probes * rows > self._rows.count:
                break
            reached = recall(probes, pool)
            if reached < target and reached - before < USELESS:  # it is the codes that are too rough
                pool = POOLS[-1]
                reached = recall(probes, pool)
            if reached >= target:
                return Setting(probes, pool, reached, True)
            before = reached
        return Setting(0, pool)

    def _sample(self) -> Tensor:
        """What was asked, and where that is little, stored concepts."""
        if len(self._asked) >= CHECKED_QUERIES // 4:
            return torch.stack(list(self._asked))
        living = self._rows.slots()
        picked = living[evenly(len(living), min(len(living), CHECKED_QUERIES))]
        stored = self._rows.at(picked)
        return torch.cat([stored, *(query[None] for query in self._asked)])

    def _exact(self, queries: Tensor, k: int, min_score: float) -> tuple[Tensor, Tensor]:
        rows = self._rows
        return seed_search(
            queries,
            rows.vectors,
            k,
            inv_norm=rows.inv_norm,
            active=rows.active,
            count=rows.count,
            min_score=min_score,
        )

    def _look(self, queries: Tensor, k: int, min_score: float, setting: Setting) -> tuple[Tensor, Tensor]:
        rows = self._rows
        assert self._cells is not None
        return region_search(
            queries,
            rows.vectors,
            k,
            self._cells,
            self._pending,
            inv_norm=rows.inv_norm,
            active=rows.active,
            probes=setting.probes,
            pool=max(LEAST_POOL, setting.pool * k),
            min_score=min_score,
        )
