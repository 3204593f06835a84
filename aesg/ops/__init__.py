"""The custom ops, one a file: search, search in cells, spreading, contexts, reading, consolidation, novelty,
streams.

`reference` has the oracles.
"""

from aesg.ops.activate_context import Activated, Primed, activate_context, replay_energies
from aesg.ops.consolidate import consolidate_
from aesg.ops.edges import COUNTERS, Edges
from aesg.ops.follow import follow_
from aesg.ops.keep_primary import keep_primary_
from aesg.ops.pool_novelty import pool_novelty_
from aesg.ops.read_members import read_members
from aesg.ops.region_search import Cells, make_cells, region_add_, region_remove_, region_search, with_room
from aesg.ops.retire import retire_
from aesg.ops.seed_search import seed_search
from aesg.ops.spread_activation import spread_activation

__all__ = [
    "COUNTERS",
    "Activated",
    "Cells",
    "Edges",
    "Primed",
    "activate_context",
    "consolidate_",
    "follow_",
    "keep_primary_",
    "make_cells",
    "pool_novelty_",
    "read_members",
    "region_add_",
    "region_remove_",
    "region_search",
    "replay_energies",
    "retire_",
    "seed_search",
    "spread_activation",
    "with_room",
]
