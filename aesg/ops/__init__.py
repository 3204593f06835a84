"""The custom ops: exact search, spreading, consolidation, novelty. One op a file; `reference` has the oracles."""

from aesg.ops.seed_search import seed_search

__all__ = ["seed_search"]
