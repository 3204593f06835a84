"""The custom ops, one a file: search, search in cells, spreading, contexts, reading, consolidation, novelty,
streams.

`reference` has the oracles, `reference_learning` those of the ops that learn.
"""

from aesg.ops.activate_context import Activated, Primed, activate_context, replay_energies
from aesg.ops.bear import Nodes, bear_
from aesg.ops.coactivate import coactivate_
from aesg.ops.consolidate import consolidate_
from aesg.ops.count_use import count_use_
from aesg.ops.edges import COUNTERS, Edges
from aesg.ops.follow import follow_
from aesg.ops.keep_primary import keep_primary_
from aesg.ops.note_succession import note_succession_
from aesg.ops.pack_rows import pack_rows
from aesg.ops.pool_novelty import pool_novelty_
from aesg.ops.project_out import project_out, project_out_inv_norm_
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
    "Nodes",
    "Primed",
    "activate_context",
    "bear_",
    "coactivate_",
    "consolidate_",
    "count_use_",
    "follow_",
    "keep_primary_",
    "make_cells",
    "note_succession_",
    "pack_rows",
    "pool_novelty_",
    "project_out",
    "project_out_inv_norm_",
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
