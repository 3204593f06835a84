"""Explainer tells what is there, agrees with retrieval, and changes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.tools import Explainer


def digest(directory: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.iterdir())}


def test_explain_names_edges_parents_and_events(grown):
    explainer = Explainer(grown)
    told = explainer.explain(1)
    assert (told["slot"], told["degree_out"], told["degree_in"]) == (0, 11, 0)
    assert told["out"][0] == {
        "id": 2, "kind": "similarity", "strength": pytest.approx(0.72),
        "weight": pytest.approx(0.9), "confidence": pytest.approx(0.8),
        "use_count": told["out"][0]["use_count"],
    }  # fmt: skip
    assert sum(edge["kind"] == "succession" for edge in told["out"]) == 9
    assert told["use_frequency"] > 0 and told["norm"] > 0
    assert [event["type"] for event in told["events"]] == ["CREATE"]
    assert explainer.explain(61)["parents"] == [2, 3, 4]
    assert explainer.explain(2)["children"] == [61]
    cosines = [near["cosine"] for near in told["nearest"]]
    assert cosines == sorted(cosines, reverse=True) and 1 not in [near["id"] for near in told["nearest"]]


@pytest.mark.parametrize("unknown", [60, 999, 0, -5, "a", None])
def test_explain_refuses_what_does_not_live(grown, unknown):
    with pytest.raises(AESGMemoryError, match="expected the id of a living concept"):
        Explainer(grown).explain(unknown)


def test_trace_agrees_with_retrieval_and_its_energies_add_up(grown):
    grown.set_mode("INFERENCE")
    grown.reset_state()
    query = grown.graph.get_node_vector(0)
    trace = Explainer(grown).trace(query)
    context = grown.retrieve(query)
    ids = grown.storage.nodes["id"][:]
    assert list(trace) == ids[context.indices[context.mask].numpy()].tolist()
    assert trace.energies == context.weights[context.mask].tolist()
    assert [[ids[slot] for slot in path] for path in context.paths] == trace.paths
    assert len(trace.hops) == grown.config.spreading_activation_steps + 1
    for number, hop in enumerate(trace.hops):
        for concept, (energy, source, sent) in hop.items():
            assert energy > sent - 1e-6 and sent > 0  # sums are in steps of 2^-24
            assert (source == concept) == (number == 0)
            assert number == 0 or any(source in earlier for earlier in trace.hops[:number])
    assert "seeds" in str(trace) and "hop 1" in str(trace) and "<-" in str(trace)


def test_trace_of_something_unknown_and_of_nonsense(grown):
    away = -grown.graph.gather(torch.arange(59)).sum(0)
    far = Explainer(grown).trace(away)
    assert "context: " in str(far)
    with pytest.raises(AESGNavigationError):
        Explainer(grown).trace(torch.full((16,), float("nan")))
    for nonsense in (torch.randn(2, 16), torch.randn(5), "vector", None):
        with pytest.raises(AESGMemoryError, match="expected"):
            Explainer(grown).trace(nonsense)


def test_trace_takes_arrays_and_lists(grown):
    query = grown.graph.get_node_vector(0)
    found = Explainer(grown).trace(query)
    assert len(found) > 0
    assert Explainer(grown).trace(query.numpy()) == found
    assert Explainer(grown).trace(query.tolist()) == found


def test_hubs_and_idle_concepts(grown):
    explainer = Explainer(grown)
    hubs = explainer.find_hubs(top_n=3)
    assert len(hubs) == 3 and hubs[0]["id"] == 1
    assert hubs[0]["degree"] == hubs[0]["degree_in"] + hubs[0]["degree_out"] == 11
    degrees = [hub["degree"] for hub in explainer.find_hubs(100)]
    assert degrees == sorted(degrees, reverse=True)
    use = grown.storage.nodes["use_frequency"][:]
    idle = explainer.find_dead_nodes()
    assert idle and 60 not in idle and all(use[concept - 1] == 0 for concept in idle)
    assert set(idle) < set(explainer.find_dead_nodes(use_threshold=1000))
    with pytest.raises(AESGMemoryError, match="top_n"):
        explainer.find_hubs(0)
    with pytest.raises(AESGMemoryError, match="use_threshold"):
        explainer.find_dead_nodes(-1)


def test_explaining_changes_nothing(grown):
    before, generation = digest(grown.directory), grown.storage.generation
    explainer = Explainer(grown)
    explainer.trace(grown.graph.get_node_vector(5))
    explainer.explain(5), explainer.find_hubs(), explainer.find_dead_nodes()
    grown.save()
    assert grown.storage.generation == generation and digest(grown.directory) == before


def test_an_empty_memory_has_nothing_to_say(make_memory):
    explainer = Explainer(make_memory())
    assert explainer.find_hubs() == [] and explainer.find_dead_nodes() == []
    assert list(explainer.trace(torch.randn(16))) == []


def test_ids_beyond_what_a_signed_number_holds(make_memory):
    memory = make_memory()
    large = 2**64 - 7
    memory.storage.add_node(large, torch.ones(16))
    explainer = Explainer(memory)
    assert explainer.explain(large)["id"] == large
    assert list(explainer.trace(torch.ones(16))) == [large]
    for wrong in (2**64, -1, 2**80):
        with pytest.raises(AESGMemoryError, match="expected the id"):
            explainer.explain(wrong)
