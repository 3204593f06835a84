"""`memory.check()` finds each invariant broken: a sound graph has no findings, one wrong number has."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def grown(make_memory):
    """Six concepts; slot 0 has a chain of two blocks, slot 5 is dead, a free slot lies behind it."""
    memory = make_memory(max_concepts=100)
    memory.graph.add_concepts(torch.randn(40, 16))
    memory.graph.add_edges([0] * 10, list(range(1, 11)), [1.0] * 10, [0.5] * 10)
    memory.graph.add_edges([1, 2], [2, 3], [1.0, 1.0], [0.5, 0.5])
    memory.forget(ids=memory.storage.nodes["id"][[39]])
    assert memory.check() == []
    return memory


def column(memory, name):
    return memory.storage.column(name).view(-1, *memory.storage.column(name).shape[2:])


def blocks(memory):
    return memory.storage.edge_blocks()


def chain(memory):
    first = int(column(memory, "first_block")[0])
    return first, int(blocks(memory).next_block.reshape(-1)[first])


def set_value(tensor, place, value):
    tensor[place] = value


WRONG = {
    "inv_norm does not fit": lambda m: set_value(column(m, "inv_norm"), 3, 0.5),
    "inv_norm does not fit the vector": lambda m: set_value(column(m, "vector"), (3, 0), float("nan")),
    "relevance out of range": lambda m: set_value(column(m, "relevance"), 3, float("nan")),
    "slot 3: relevance out of range": lambda m: set_value(column(m, "relevance"), 3, -0.1),
    "is not unique": lambda m: set_value(column(m, "id"), 3, column(m, "id")[4]),
    "id not below next_id": lambda m: set_value(column(m, "id"), 3, 10**6),
    "free but active": lambda m: set_value(column(m, "is_active"), 39, 1),
    "dead with edges": lambda m: set_value(column(m, "is_active"), 1, 0),
    "active_count is": lambda m: set_value(column(m, "is_active"), 20, 0),
    "the free list holds": lambda m: (
        set_value(column(m, "id"), 20, 0) or set_value(column(m, "is_active"), 20, 0)
    ),
    "is in two chains or a cycle": lambda m: set_value(blocks(m).next_block, (0, chain(m)[1]), chain(m)[0]),
    "chain leads to block": lambda m: set_value(blocks(m).next_block, (0, chain(m)[1]), 10**6),
    "edge_count is": lambda m: set_value(blocks(m).next_block, (0, chain(m)[0]), -1),
    "block of another source": lambda m: (
        set_value(column(m, "first_block"), 20, chain(m)[1])
        or set_value(blocks(m).next_block, (0, chain(m)[0]), -1)
    ),
    "which is not in use": lambda m: set_value(blocks(m).targets, (0, chain(m)[0], 0), 39),
    "edge to itself": lambda m: set_value(blocks(m).targets, (0, chain(m)[0], 0), 0),
    "two edges of a kind": lambda m: set_value(
        blocks(m).targets, (0, chain(m)[0], 0), blocks(m).targets[0, chain(m)[0], 1]
    ),
    "strength is not weight": lambda m: set_value(blocks(m).strengths, (0, chain(m)[0], 0), 0.1),
}


@pytest.mark.parametrize("words", WRONG)
def test_one_wrong_number_is_found(grown, words):
    WRONG[words](grown)
    findings = grown.check()
    assert any(words in finding for finding in findings), findings
