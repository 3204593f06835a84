"""The custom ops, one a file: search, spreading, consolidation, novelty. `reference` has the oracles."""

from aesg.ops.consolidate import consolidate_
from aesg.ops.pool_novelty import pool_novelty_
from aesg.ops.seed_search import seed_search
from aesg.ops.spread_activation import spread_activation

__all__ = ["consolidate_", "pool_novelty_", "seed_search", "spread_activation"]
