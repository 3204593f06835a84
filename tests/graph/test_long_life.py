"""Bounded size over a long life, and the same bits whoever computes them."""

from __future__ import annotations

import hashlib

import pytest
import torch


def file_bytes(memory):
    return {path.name: path.stat().st_size for path in memory.directory.glob("*.aesg")}


def test_a_million_births_keep_the_size_on_disk(make_memory):
    """100 rounds of 10,000 births into a memory of 10,000: slots and blocks are used again."""
    memory = make_memory(vector_dim=8, max_concepts=10_000, consolidation_epoch_interval=1)
    generator = torch.Generator().manual_seed(0)
    sizes, blocks = {}, {}
    for turn in range(100):
        slots = memory.graph.add_concepts(torch.randn(10_000, 8, generator=generator))
        memory.graph.add_edges(slots[:-1:8], slots[1::8], [1.0] * 1250, [0.9] * 1250)
        memory.update_topology()
        if turn in (4, 99):
            memory.compact()
            sizes[turn] = file_bytes(memory)
            blocks[turn] = memory.storage.core.counters.block_count
    stats = memory.stats()
    assert stats["births"] == 1_000_000 and stats["active"] == 10_000
    assert memory.storage.node_count <= 20_000
    assert blocks[99] <= blocks[4] + 1250
    for name in ("nodes.aesg", "edges.aesg", "journal.aesg"):
        assert sizes[99][name] == sizes[4][name], name
    assert sizes[99]["state.aesg"] < 1 << 16  # centres of regions among it
    assert memory.check() == [] and memory.storage.verify() == []


def test_a_full_memory_lets_newcomers_live_and_keeps_what_is_often_used(make_memory):
    memory = make_memory(max_concepts=20, survival_threshold_relevance=0.0)
    memory.graph.add_concepts(torch.randn(20, 16))
    memory.storage.nodes["relevance"][:20] = 0.01
    memory.storage.nodes["use_frequency"][:20] = torch.arange(20).mul(50).to(torch.uint32).numpy()
    fresh = memory.graph.add_concepts(torch.randn(5, 16))
    memory.update_topology()
    active = memory.storage.nodes["is_active"]
    assert active[fresh].all()
    assert active[:20].tolist() == [0] * 5 + [1] * 15


def grow(make_memory, name, threads):
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(3)
    memory = make_memory(
        name,
        max_concepts=3000,
        novelty_birth_threshold=1,
        consolidation_epoch_interval=4,
        region_detection_interval=6,
        coactivation_threshold_create=3,
        split_density_threshold=12,
        merge_similarity_threshold=0.8,
        novelty_explanation_threshold=0.85,
    )
    centres = torch.randn(300, 16, generator=generator)
    for _ in range(24):
        which = torch.randint(0, 300, (64, 4), generator=generator)
        memory.retrieve(centres[which] + 0.4 * torch.randn(64, 4, 16, generator=generator))
        memory.update_topology()
    memory.cognitive_engine.find_semantic_regions()
    stats = memory.stats()
    memory.close()
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in memory.directory.iterdir()
        if path.name != "LOCK"
    }
    return digests, stats


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_any_number_of_threads_gives_the_same_files(make_memory, threads):
    one, stats = grow(make_memory, "one", 1)
    four, _ = grow(make_memory, "four", 4)
    assert one == four
    for what in ("births", "merges", "splits", "edges"):
        assert stats[what] > 0, what


def test_a_million_edges_are_searched_for_duplicates_by_threads_alike(make_memory):
    """Enough concepts for several parts: the pairs found do not depend on how many there are."""
    found = []
    for threads in (1, 3):
        from aesg import _core

        memory = make_memory(f"by{threads}")
        generator = torch.Generator().manual_seed(1)
        n = 20_000
        vectors = torch.randn(n // 2, 16, generator=generator).repeat(2, 1)
        slots = memory.graph.add_concepts(vectors + 0.01 * torch.randn(n, 16, generator=generator))
        half = n // 2
        memory.graph.add_edges(slots[:half], slots[half:], [1.0] * half, [0.5] * half)
        merged = _core.merge_duplicates(memory.storage.core, 0.95, 0, threads)
        assert merged == half
        found.append(memory.storage.core.node_view().tobytes())
    assert found[0] == found[1]
