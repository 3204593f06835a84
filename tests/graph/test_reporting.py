"""`log_level`: what a memory tells through Python's logging."""

from __future__ import annotations

import logging

import pytest
import torch


def life(memory) -> None:
    """Opening, a birth, deaths, a sweep, a full memory, saving, closing."""
    memory.retrieve(torch.eye(16)[0])
    memory.graph.add_concepts(torch.randn(30, 16))
    memory.cognitive_engine.consolidate()
    memory.cognitive_engine.sweep()
    memory.set_mode("ONLINE")
    with pytest.warns(RuntimeWarning, match="max_concepts=10"):
        memory.cognitive_engine.create_sensory_concept(torch.ones(16))
    memory.save()
    memory.close()


EXPECTED = {
    "DEBUG": {"were born", "concepts died", "saved as generation"},
    "INFO": {"opened with", "mode ONLINE", "a sweep removed", "closed"},
    "WARNING": {"nothing new is born"},
    "ERROR": set(),
    "CRITICAL": set(),
}


@pytest.mark.parametrize("level", EXPECTED)
def test_a_memory_tells_from_its_level_upwards(make_memory, caplog, level):
    caplog.set_level(logging.DEBUG)
    life(make_memory(log_level=level, max_concepts=10))
    told = {
        (record.levelname, record.getMessage()) for record in caplog.records if record.name == "aesg.memory"
    }
    levels = list(EXPECTED)
    for other, words in EXPECTED.items():
        for phrase in words:
            found = any(name == other and phrase in text for name, text in told)
            assert found == (levels.index(other) >= levels.index(level)), (other, phrase)


def test_two_memories_have_their_own_levels(make_memory, caplog):
    caplog.set_level(logging.DEBUG)
    for name, level in (("quiet", "ERROR"), ("open", "INFO")):
        make_memory(name, log_level=level).close()
    texts = [record.getMessage() for record in caplog.records]
    assert any("open: closed" in text for text in texts) and not any("quiet" in text for text in texts)
