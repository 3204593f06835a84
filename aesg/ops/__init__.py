"""The custom ops, one a file: search, search in regions, spreading, consolidation, novelty.

`reference` has the oracles.
"""

from aesg.ops.consolidate import consolidate_
from aesg.ops.pool_novelty import pool_novelty_
from aesg.ops.region_search import Cells, make_cells, region_add_, region_remove_, region_search, with_room
from aesg.ops.seed_search import seed_search
from aesg.ops.spread_activation import spread_activation

__all__ = [
    "Cells",
    "consolidate_",
    "make_cells",
    "pool_novelty_",
    "region_add_",
    "region_remove_",
    "region_search",
    "seed_search",
    "spread_activation",
    "with_room",
]
