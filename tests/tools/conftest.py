"""A small memory with all three kinds of edges, regions, and concepts that were used, idle and pruned."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def grown(make_memory):
    """60 facts in three clusters of like concepts (16 dimensions), chained by succession."""
    memory = make_memory("grown", novelty_birth_threshold=1, novelty_explanation_threshold=0.95)
    generator = torch.Generator().manual_seed(3)
    centres = torch.nn.functional.normalize(torch.randn(3, 16, generator=generator), dim=1)
    facts = centres.repeat_interleave(20, 0) + 0.12 * torch.randn(60, 16, generator=generator)
    memory.graph.add_concepts(facts)
    slots = list(range(60))
    memory.graph.add_edges(slots[:-1], slots[1:], [0.9] * 59, [0.8] * 59)
    memory.graph.add_edges([0] * 10, range(30, 40), [1.0] * 10, [0.5] * 10, kind=1)
    memory.cognitive_engine.create_abstract_concept([1, 2, 3])
    memory.retrieve(facts[:12])
    memory.update_topology()
    memory.forget(ids=[60])
    memory.save()
    return memory
