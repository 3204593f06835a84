"""Large packs are searched through cells, with the recall the memory asks for, the same in every process."""

import copy
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from aesg.config import AESGConfig
from aesg.graph.coarse import CoarseIndex
from aesg.graph.query_mean import QueryMean
from aesg.memory.controller import AESGMemory
from aesg.packs import read_pack
from aesg.packs.graph import PackGraph
from aesg.packs.pack import PackRows

CONFIG = AESGConfig(vector_dim=16, approximate_search_from=1000, priming=0.0)


def clustered(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(40, 16, generator=torch.Generator().manual_seed(99))
    noise = 0.4 * torch.randn(rows, 16, generator=generator)
    return centers[torch.randint(0, 40, (rows,), generator=generator)] + noise


@pytest.fixture(params=[1, 2])
def path(request, tmp_path):
    with AESGMemory(tmp_path / "other", CONFIG) as memory:
        slots = memory.graph.add_concepts(clustered(4000, 0))
        memory.graph.add_edges(slots[:-1], slots[1:], torch.full((3999,), 0.9), torch.full((3999,), 0.9))
        memory.export_pack(tmp_path / "p.aesgpack", format_version=request.param)
    return tmp_path / "p.aesgpack"


def test_the_recall_asked_for_is_reached(path):
    queries = clustered(200, 1)
    for target in (0.5, 0.95, 0.99):
        pack = read_pack(path)
        graph = PackGraph(pack, replace(CONFIG, recall_target=target))
        exact, _ = graph.search(queries, 10, -1.0)
        scores, slots = graph.seek(queries, 10, -1.0)
        stats = pack.coarse.stats()
        assert stats["search"] == "approximate" and stats["search_recall"] >= target
        assert float(((scores >= exact[:, -1:]) & (slots >= 0)).float().mean()) >= target - 0.03


def test_a_target_of_one_few_concepts_and_a_common_part_are_searched_exactly(path):
    queries = clustered(20, 3)
    mean = QueryMean(16)
    mean.take(torch.nn.functional.normalize(torch.ones(16, dtype=torch.float64), dim=0))
    for config, health in (
        (replace(CONFIG, recall_target=1.0), None),
        (replace(CONFIG, approximate_search_from=4001), None),
        (CONFIG, mean),
    ):
        pack = read_pack(path)
        graph = PackGraph(pack, config, health)
        exact, seek = graph.search(queries, 10, 0.1), graph.seek(queries, 10, 0.1)
        assert torch.equal(exact[0], seek[0]) and torch.equal(exact[1], seek[1])
        assert pack.coarse.stats()["search"] == "exact"


def test_threads_that_share_a_pack_make_its_cells_once(path):
    queries, targets = clustered(40, 9), [0.5, 0.95, 0.5, 0.95]
    for _ in range(5):
        alone = [
            PackGraph(read_pack(path), replace(CONFIG, recall_target=t)).seek(queries, 10, -1.0)
            for t in targets[:2]
        ]
        pack, found = read_pack(path), {}

        def ask(place, target, pack=pack, found=found):
            graph = PackGraph(pack, replace(CONFIG, recall_target=target))
            found[place] = [graph.seek(queries, 10, -1.0) for _ in range(3)]

        threads = [threading.Thread(target=ask, args=given) for given in enumerate(targets)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for place, answers in found.items():
            for scores, slots in answers:
                assert torch.equal(scores, alone[place % 2][0]) and torch.equal(slots, alone[place % 2][1])
        assert len(found) == 4
        copy.deepcopy(pack.coarse)


def test_memories_of_two_targets_do_not_measure_anew_for_each_other(path, monkeypatch):
    measured, tuned = [], CoarseIndex._tuned
    monkeypatch.setattr(
        CoarseIndex, "_tuned", lambda index, target: measured.append(target) or tuned(index, target)
    )
    pack, queries = read_pack(path), clustered(5, 11)
    for target in (0.5, 0.99, 0.5, 0.99):
        PackGraph(pack, replace(CONFIG, recall_target=target)).seek(queries, 10, -1.0)
    assert measured == [0.5, 0.99]


def test_answers_with_packs_do_not_follow_the_default_dtype(path, tmp_path):
    asked, answers = clustered(6, 12), []
    for name, dtype in (("a", torch.float32), ("b", torch.float64)):
        with AESGMemory(tmp_path / name, CONFIG) as memory:
            memory.graph.add_concepts(clustered(50, 13))
            memory.set_mode("INFERENCE")
            memory.attach_pack(read_pack(path))
            torch.set_default_dtype(dtype)
            try:
                answers.append(memory.retrieve(asked))
            finally:
                torch.set_default_dtype(torch.float32)
    assert answers[1].vectors.dtype == torch.float32
    for field in ("vectors", "weights", "indices", "explanation"):
        assert torch.equal(getattr(answers[0], field), getattr(answers[1], field))


def test_packs_of_which_most_concepts_are_inactive():
    vectors = clustered(5000, 8)
    columns = SimpleNamespace(
        vectors=vectors, inv_norm=1 / vectors.norm(dim=1), active=torch.zeros(5000, dtype=torch.uint8)
    )
    columns.active[::5] = 1
    index = CoarseIndex(PackRows(columns), ask=False)
    _, slots = index.search(vectors[:20], 10, -1.0, 0.95)
    assert index.stats()["search"] == "approximate" and bool((slots % 5 == 0).all())


def test_what_was_asked_before_does_not_show(path, tmp_path):
    """Cells and their probes depend on the pack alone: so do the bits, whoever used it before."""
    asked = clustered(30, 5)
    used, fresh = read_pack(path), read_pack(path)
    for query in torch.randn(100, 16, generator=torch.Generator().manual_seed(7)):
        PackGraph(used, CONFIG).seek(query[None], 10, -1.0)
    answers = []
    for name, pack in (("a", used), ("b", fresh)):
        with AESGMemory(tmp_path / name, CONFIG) as memory:
            memory.graph.add_concepts(clustered(2000, 6))
            memory.set_mode("INFERENCE")
            alone = memory.retrieve(asked)
            memory.attach_pack(pack)
            answers.append(memory.retrieve(asked))
            assert bool((answers[-1].origins == 1).any())
            memory.detach_pack(pack.name)
            again = memory.retrieve(asked)
            for field in ("vectors", "weights", "indices", "explanation"):
                assert torch.equal(getattr(again, field), getattr(alone, field))
    for field in ("vectors", "weights", "indices", "explanation"):
        assert torch.equal(getattr(answers[0], field), getattr(answers[1], field))
