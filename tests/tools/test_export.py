"""Exported graphs hold exactly what lives in the memory, as networkx reads them."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from aesg.exceptions import AESGConfigError, AESGStorageError
from aesg.tools import EvolutionTracker, Exporter


def edges_of(memory):
    """(source id, target id, kind, strength) of every edge, one slot after the other: another way to it."""
    names = ("similarity", "succession", "abstraction")
    return sorted(
        (int(e["source_id"]), int(e["target_id"]), names[e["kind"]], round(float(e["weight"]), 6))
        for slot in range(memory.storage.node_count)
        for e in memory.storage.get_edges(slot)
        if memory.graph.is_active(slot) and memory.graph.is_active(int(e["target"]))
    )


def test_networkx_graph_is_the_memory(grown):
    graph = Exporter(grown).to_networkx()
    assert graph.number_of_nodes() == grown.storage.active_count == 60
    found = sorted((s, t, k, round(d["weight"], 6)) for s, t, k, d in graph.edges(keys=True, data=True))
    assert found == edges_of(grown)
    assert graph.nodes[1]["use_frequency"] == grown.storage.nodes["use_frequency"][0]
    assert 60 not in graph


@pytest.mark.parametrize("kind", ["gml", "graphml"])
def test_files_are_read_by_networkx(grown, tmp_path, kind):
    networkx = pytest.importorskip("networkx")
    path = tmp_path / "new" / f"graph.{kind}"
    getattr(Exporter(grown), f"export_{kind}")(path)
    read = getattr(networkx, f"read_{kind}")(path)
    assert read.is_directed() and read.number_of_nodes() == 60
    edges = (
        read.edges(keys=True, data=True)
        if read.is_multigraph()
        else ((s, t, "", data) for s, t, data in read.edges(data=True))
    )
    found = sorted((int(s), int(t), d.get("kind", key), round(d["weight"], 6)) for s, t, key, d in edges)
    assert found == edges_of(grown)
    node = read.nodes["1"]
    assert node["relevance"] == pytest.approx(float(grown.storage.nodes["relevance"][0]), abs=1e-8)
    assert node["region"] == grown.storage.nodes["region_id"][0]
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


def test_csr_is_the_same_graph(grown):
    csr = Exporter(grown).to_csr()
    rows = np.repeat(np.arange(len(csr.ids)), np.diff(csr.indptr))
    found = sorted(zip(csr.ids[rows].tolist(), csr.ids[csr.indices].tolist(), strict=True))
    assert found == [edge[:2] for edge in edges_of(grown)]
    assert csr.data.max() <= 1 and (np.diff(csr.indices)[np.diff(rows) == 0] >= 0).all()


def test_pictures_are_drawn(grown, tmp_path):
    pytest.importorskip("matplotlib")
    figure = Exporter(grown).visualize(tmp_path / "graph.png")
    assert "60 of 60 concepts" in figure.axes[0].get_title()
    EvolutionTracker(grown.logger).plot_event_distribution(tmp_path / "events.svg")
    assert (tmp_path / "graph.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (tmp_path / "events.svg").read_bytes()


def test_an_empty_memory_is_exported_and_drawn(make_memory, tmp_path):
    networkx = pytest.importorskip("networkx")
    memory = make_memory()
    Exporter(memory).export_gml(tmp_path / "none.gml")
    assert networkx.read_gml(tmp_path / "none.gml").number_of_nodes() == 0
    assert Exporter(memory).to_csr().indptr.tolist() == [0]
    assert "0 of 0" in Exporter(memory).visualize().axes[0].get_title()
    EvolutionTracker(memory.logger).plot_event_distribution()


def test_what_is_missing_or_cannot_be_written_is_named(grown, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.collections", None)
    for draw in (Exporter(grown).visualize, EvolutionTracker(grown.logger).plot_event_distribution):
        with pytest.raises(AESGConfigError, match=r"matplotlib.*aesg\[plots\]"):
            draw()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(AESGStorageError, match=r"file/graph\.gml"):
        Exporter(grown).export_gml(tmp_path / "file" / "graph.gml")
    assert (tmp_path / "file").read_text() == "kept"
    monkeypatch.undo()
    for draw in (Exporter(grown).visualize, EvolutionTracker(grown.logger).plot_event_distribution):
        with pytest.raises(AESGStorageError, match=r"graph\.nope.*not supported"):
            draw(tmp_path / "graph.nope")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]


def test_the_tracker_counts_and_prints(grown, capsys):
    tracker = EvolutionTracker(grown.logger)
    told = tracker.summary()
    history = grown.logger.get_history()
    assert told["total"] == len(history) and sum(told["counts"].values()) == told["total"]
    assert told["abstract"] == 1 and told["first"] <= told["last"]
    assert told["net_growth"] == grown.storage.active_count
    tracker.print_abstract_creations()
    assert "concept 61 above 3 concepts, the first 2" in capsys.readouterr().out
    assert EvolutionTracker(grown.logger).summary()["counts"]["PRUNE"] == 1


def test_a_hundred_thousand_concepts_in_seconds(make_memory, tmp_path):
    from aesg.tools import Explainer

    memory = make_memory("large")
    random = np.random.default_rng(0)
    slots = memory.graph.add_concepts(random.standard_normal((100_000, 16), dtype=np.float32))
    sources, targets = random.choice(slots, (2, 300_000))
    good = sources != targets
    memory.graph.add_edges(sources[good], targets[good], np.ones(good.sum()), np.full(good.sum(), 0.5))
    began = time.process_time()
    Exporter(memory).export_graphml(tmp_path / "large.graphml")
    Exporter(memory).to_csr()
    explainer = Explainer(memory)
    explainer.explain(explainer.find_hubs(1)[0]["id"])
    explainer.find_dead_nodes()
    explainer.trace(memory.graph.get_node_vector(7))
    assert time.process_time() - began < 15
