"""QueryMean: what all queries have in common, and likeness without it where it hides everything else.

The rule and its equations: docs/self_organisation.md, "Query health".
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesg import _core
from aesg.ops import project_out
from aesg.storage.engine import AESGStorage
from aesg.storage.nodes import GROUP

BLOCK = 512  # queries taken into the mean at once, so that it does not depend on how they came in calls
SPAN = 4096  # queries after which the mean has forgotten to 1/e
HYSTERESIS = 0.1  # a common part once removed stays removed until the resultant falls this far below
NEARLY_ONE = 0.9  # cosine that remainders of one pattern with little noise reach
# Share of a vector's length below which a remainder is rounding (csrc/base/project_out_math.h).
NOTHING_LEFT = 1e-6


def with_part(rests: Tensor, part: Tensor) -> Tensor:
    """Vectors [..., D] f32 and one [D] f64, added."""
    return (rests.double() + part).to(rests.dtype)


class QueryMean:
    """Running mean of the directions of the queries that were learnt from, and the direction u that likeness
    leaves out.

    Stored vectors stay as they came. Likeness is the cosine of q - (q.u) u and v - (v.u) u; the first is
    orthogonal to u, so its product with v itself is the same, and only the lengths of the second are kept
    beside the vectors. So u may move at any time: nothing stored depends on it.

    Between two changes of u (`take`) nothing else that answers or births depend on changes either: so a
    device that was told once learns ahead of the host.
    """

    def __init__(self, vector_dim: int) -> None:
        self.mean = np.zeros(vector_dim)  # [D] f64, of directions
        self.length = 0.0  # mean length of the queries
        self.seen = 0  # queries in both means
        self.common: Tensor | None = None  # [D] f64, length 1
        self.along = 0.0  # how long the part of the queries along it was when it was taken, on average
        self.version = 0  # counts `take`
        self._block = np.zeros((BLOCK, vector_dim), dtype=np.float32)  # the front: queries not yet taken in
        self._waiting = 0
        self._last: Tensor | None = None  # [BLOCK, D], the last block taken in
        self._lengths: Tensor  # [G, 1024] f32, `inverse_norms` of the groups as of `_stamps`
        self._stamps: np.ndarray  # [G] u64
        self._forget_lengths()

    @property
    def resultant(self) -> float:
        """Length of the running mean in [0, 1]: 1 when all queries pointed one way. 0 before the first
        block.
        """
        return float(np.sqrt((self.mean * self.mean).sum()))

    # -- measuring -----------------------------------------------------------------------------------------

    def note(self, rows: np.ndarray) -> bool:
        """Takes in queries [Q, D]; whether the means changed. A copy; arithmetic once every BLOCK queries."""
        start, count, changed = 0, rows.shape[0], False
        while start < count:
            taken = min(BLOCK - self._waiting, count - start)
            self._block[self._waiting : self._waiting + taken] = rows[start : start + taken]
            self._waiting += taken
            start += taken
            if self._waiting == BLOCK:
                self._take_in()
                changed = True
        return changed

    def settle(self, threshold: float, likeness: float) -> Tensor | None:
        """Decides from what was measured whether likeness leaves out a common part; returns it, [D] f64.

        It begins where the resultant reaches `threshold` (1: never) and what remains of the queries tells
        them apart (`_tells_apart`); it ends HYSTERESIS below. Meanwhile the direction follows the mean. Does
        not change anything by itself: see `take`.
        """
        resultant = self.resultant
        if self._last is None or threshold >= 1.0:
            return self.common if threshold < 1.0 else None
        bar = threshold if self.common is None else threshold - HYSTERESIS
        if resultant < bar:
            return None
        wanted = torch.from_numpy(self.mean / resultant)
        return wanted if self.common is not None or self._tells_apart(wanted, likeness) else None

    def take(self, common: Tensor | None) -> None:
        """Leaves out this direction from now on."""
        with torch.inference_mode(False):  # training goes through it, whatever it was settled under
            self.common = None if common is None else common.clone()
        self.along = 0.0 if common is None else self.length * self.resultant
        self.version += 1
        self._forget_lengths()

    def forget(self) -> None:
        """Begins the measure anew: a mean of a few queries would tell of each of them."""
        self.mean = np.zeros_like(self.mean)
        self.length, self.seen, self._waiting, self._last = 0.0, 0, 0, None
        self._block[:] = 0.0

    def _take_in(self) -> None:
        """The full block into the means: one of SPAN queries, of fewer the plain mean."""
        rows = self._block.astype(np.float64)
        lengths = np.sqrt((rows * rows).sum(axis=1))
        units = rows / np.where(lengths > 0, lengths, 1.0)[:, None]
        self.seen = min(self.seen + BLOCK, SPAN)
        share = BLOCK / self.seen
        self.mean += share * (units.mean(axis=0) - self.mean)
        self.length += share * (float(lengths.mean()) - self.length)
        self._last, self._waiting = torch.from_numpy(self._block.copy()), 0

    def _tells_apart(self, common: Tensor, likeness: float) -> bool:
        """Whether patterns recur in what remains of the last queries without `common`.

        One pattern asked again and again with noise has a large resultant too, but its remainders are noise,
        which is as often opposed as it is alike. Looked at is the half with the smallest remainders, around
        its own mean, so that a few other patterns beside one that prevails do not count for it. O(BLOCK^2 D).
        """
        assert self._last is not None
        rows = torch.nn.functional.normalize(self._last.double(), dim=1)
        rest = rows - (rows * common).sum(dim=1, keepdim=True) * common
        rest = rest[torch.argsort(rest.norm(dim=1), stable=True)[: BLOCK // 2]]
        rest = rest - rest.mean(dim=0)
        units = torch.nn.functional.normalize(rest[rest.norm(dim=1) > NOTHING_LEFT], dim=1)
        cosines = torch.triu(units @ units.T, diagonal=1)
        return any(
            int((cosines >= bar).sum()) >= 4 * (int((cosines <= -bar).sum()) + 1)
            for bar in (
                likeness,
                NEARLY_ONE,
            )  # a few patterns may be opposed to each other, but hardly as much
        )

    # -- leaving out ---------------------------------------------------------------------------------------

    def without(self, vectors: Tensor) -> Tensor:
        """Vectors [..., D] f32 without their common part, zero where nothing is left. Differentiable."""
        return vectors if self.common is None else project_out(vectors, self.common)

    @property
    def part(self) -> Tensor:
        """The common part [D] f64 that `restored` gives back. REQUIRES: there is one."""
        assert self.common is not None
        return self.along * self.common

    def restored(self, rests: Tensor) -> Tensor:
        """What `without` left [n, D], with as much of the common part as queries had."""
        return rests if self.common is None else with_part(rests, self.part)

    def inverse_norms(self, storage: AESGStorage) -> Tensor:
        """1 / length of every stored vector without its common part, [G, 1024] f32.

        Made anew for the row groups whose vectors changed since the last call. O(G), and O(1024 D) for each
        of those.
        """
        if self.common is None:
            return storage.column("inv_norm")
        groups = storage.column("vector")  # [G, 1024, D]
        stamps = np.zeros(groups.shape[0], dtype=np.uint64)
        marked = storage.core.vector_stamps
        stamps[: len(marked)] = marked
        known = len(self._stamps)
        if known != len(stamps):
            fresh = torch.zeros(len(stamps) - known, groups.shape[1])
            self._lengths = torch.cat([self._lengths, fresh]) if known else fresh
        changed = np.arange(len(stamps)) >= known
        changed[:known] = self._stamps != stamps[:known]
        for group in np.flatnonzero(changed):
            # As arrays: torch lets nobody write in place what was made under its inference_mode.
            self._lengths.numpy()[group] = self._lengths_of(groups[group]).numpy()
        self._stamps = stamps
        return self._lengths

    def inverse_norms_of(self, owner: object, vectors: Tensor, plain: Tensor) -> Tensor:
        """The same for vectors [N, D] that never change, [N] f32: `plain` while nothing is left out, else
        made once for the object that owns them.
        """
        if self.common is None:
            return plain
        if owner not in self._of_others:
            self._of_others[owner] = self._lengths_of(vectors)
        return self._of_others[owner]

    def _lengths_of(self, rows: Tensor) -> Tensor:
        assert self.common is not None
        return torch.from_numpy(_core.inverse_norms_without(self.common.numpy(), rows.numpy()))

    def _forget_lengths(self) -> None:
        self._lengths = torch.zeros(0, GROUP)
        self._stamps = np.zeros(0, dtype=np.uint64)
        self._of_others: weakref.WeakKeyDictionary[object, Tensor] = weakref.WeakKeyDictionary()

    # -- keeping -------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """What is committed: means and direction; at most BLOCK - 1 queries are still waiting."""
        return {
            "queries.mean": self.mean,
            "queries": {"length": self.length, "seen": self.seen, "along": self.along},
            **({} if self.common is None else {"queries.common": self.common.numpy()}),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        if "queries.mean" in state:
            self.mean = np.array(state["queries.mean"], dtype=np.float64)
            self.length, self.seen = float(state["queries"]["length"]), int(state["queries"]["seen"])
        common = state.get("queries.common")
        self.take(None if common is None else torch.from_numpy(np.array(common, dtype=np.float64)))
        if common is not None and "along" in state["queries"]:
            self.along = float(state["queries"]["along"])
