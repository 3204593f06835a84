"""Benchmarks on a device: the option, the peers there, ceilings, and every path that is another there.

There is no device here. A pretended one, "cpu:0", goes the same ways with host tensors: what is timed means
nothing, what is compared does. Tests marked `cuda` do it in earnest.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import types

import numpy as np
import pytest
import torch

from aesg._extension import has_cuda_kernels
from aesg.benchmarks import (
    _ceilings,
    _device,
    approximate,
    consolidate,
    insert,
    learn,
    pack_speed,
    retrieve,
    runs,
    seeds,
    spread,
    store,
    topology,
    train,
)
from aesg.benchmarks._device_peers import Dense, cupy_search, least_traffic, torch_search
from aesg.benchmarks._timing import time_in_turn
from aesg.exceptions import AESGConfigError
from aesg.graph.device_copy import DeviceCopy
from tests.pretended_cuda import needs_no_cuda, pretended_cuda

CEILINGS = {"read": 1e9, "copy": 1e9, "send": 1e9, "f32": 1e9, "tf32": 1e9, "bf16": 1e9}
there = torch.cuda.is_available() and has_cuda_kernels()
needs_cuda = pytest.mark.skipif(not there, reason="no CUDA device or kernels")


class HostEvent:
    """torch.cuda.Event on the host's clock."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: HostEvent) -> float:
        return 1e3 * (end.at - self.at)


@pytest.fixture
def pretended(monkeypatch):
    """A device's name whose tensors are the host's, and how often it was waited for."""
    waits = [0]
    monkeypatch.setattr(_device, "DEVICES", ("cpu", "cuda", "cpu:0"))
    monkeypatch.setattr(_device, "require_cuda", lambda: None)
    monkeypatch.setattr(_device, "is_there", lambda tensor: True)
    monkeypatch.setattr(_ceilings, "measure", lambda device: dict(CEILINGS))
    monkeypatch.setattr(torch.cuda, "Event", HostEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.__setitem__(0, waits[0] + 1))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 30))
    # CuPy and PyG where they are not, by the libraries whose interfaces they have.
    monkeypatch.setitem(sys.modules, "cupy", np)
    utils = types.SimpleNamespace(spmm=lambda edges, dense, reduce: edges @ dense)
    monkeypatch.setitem(sys.modules, "torch_geometric", types.SimpleNamespace(utils=utils))
    monkeypatch.setitem(sys.modules, "torch_geometric.utils", utils)
    threads = torch.get_num_threads()
    yield waits
    torch.set_num_threads(threads)


@pytest.fixture
def sparse(monkeypatch):
    sparse = pytest.importorskip("scipy.sparse")
    scipy = types.SimpleNamespace(sparse=sparse)
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(scipy=scipy))
    monkeypatch.setitem(sys.modules, "cupyx.scipy", scipy)


def cases(path):
    return json.loads(path.read_text())["cases"]


ON = ["--device", "cpu:0", "--threads", "1", "--roofline"]


def test_the_option_says_what_is_missing(monkeypatch):
    parser = argparse.ArgumentParser()
    _device.add_device(parser)
    assert parser.parse_args([]).device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AESGConfigError, match="no CUDA device"):
        parser.parse_args(["--device", "cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("aesg._extension.has_cuda_kernels", lambda: False)
    with pytest.raises(AESGConfigError, match="no CUDA kernels"):
        parser.parse_args(["--device", "cuda"])
    with pytest.raises(SystemExit):
        parser.parse_args(["--device", "tpu"])


@pytest.mark.parametrize("bench", [approximate, pack_speed, runs, store], ids=lambda b: b.__name__)
def test_who_has_nothing_there_says_so(bench, monkeypatch):
    monkeypatch.setattr(_device, "require_cuda", lambda: None)
    with pytest.raises(AESGConfigError, match="--device cuda: "):
        bench.main(["--device", "cuda"])


@pytest.mark.parametrize("bench", [consolidate, insert, learn, retrieve, seeds, spread, topology, train])
def test_the_others_ask_for_one(bench, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AESGConfigError, match="no CUDA device"):
        bench.main(["--device", "cuda"])


def test_time_on_a_device_is_that_between_events(pretended):
    took = time_in_turn({"a": lambda: time.sleep(0.004), "b": lambda: None}, 0.0, device="cpu:0")
    assert 0.004 <= took["a"].median < 0.1 and took["b"].median < 0.004
    assert pretended[0] >= 4  # around the runs that say how often to repeat


def test_seeds_there(pretended, tmp_path, capsys):
    out = tmp_path / "seeds.json"
    small = ["--n", "700", "--dim", "16", "--batch", "1,5", "--seconds", "0.01", "--json", str(out)]
    assert seeds.main([*ON, *small]) == 0
    first = cases(out)[0]
    ours, *peers = first["seconds"]
    assert ours == "aesg.seed_search" and "CuPy matmul + argpartition" in peers
    assert set(first["recall"]) == {"torch matmul + topk, bf16", "torch matmul + topk, tf32"} <= set(peers)
    assert 0.5 < first["recall"]["torch matmul + topk, bf16"] <= first["recall"]["torch matmul + topk, tf32"]
    assert {"read", "f32", "tf32", "bf16"} == set(first["roofline"]["of"])
    assert "recall@10" in capsys.readouterr().out


def test_spread_there(pretended, sparse, tmp_path):
    out = tmp_path / "spread.json"
    small = ["--n", "400", "--hops", "3", "--batch", "4", "--seconds", "0.01", "--json", str(out)]
    assert spread.main([*ON, *small]) == 0
    for case in cases(out):
        ours, *peers = case["seconds"]
        assert ours == "aesg.spread_activation, cpu:0" and "aesg.spread_activation, cpu" not in peers
        assert set(peers) == {f"{name}, another rule" for name in ("torch.sparse", "CuPy sparse", "PyG spmm")}


def test_retrieve_there(pretended, tmp_path, capsys):
    out = tmp_path / "retrieve.json"
    small = ["--n", "300", "--dim", "8", "--hops", "0,2", "--batch", "1,8", "--seconds", "0.02"]
    assert retrieve.main([*ON, *small, "--json", str(out)]) == 0
    found = cases(out)
    assert [(case["batch"], case["hops"]) for case in found] == [(1, 0), (1, 2), (8, 0), (8, 2)]
    for case in found:
        whole = case["seconds"]["aesg"]
        assert whole["p10"] <= whole["p50"] <= whole["p90"] <= whole["p99"] and whole["calls"] >= 20
        assert ("times 0 hops" in case) == (case["hops"] > 0)
        assert case["captured"].startswith("capture failed: ")
    assert found[1]["times 0 hops"] == (
        found[1]["seconds"]["aesg"]["p50"] / found[0]["seconds"]["aesg"]["p50"]
    )
    assert pretended[0] > 4 * 20, "calls were timed that nobody waited for"
    assert "capture failed" in capsys.readouterr().out


LEARN = ["--n", "300", "--batch", "1,8", "--seconds", "0.02"]


def of_learning(found, captured):
    assert [case["batch"] for case in found] == [1, 8]
    for case in found:
        assert set(case["seconds"]) == set(learn.KEPT) and case["seconds"]["learning"]["p99"] > 0
        assert case["ratio"] == case["seconds"]["learning"]["p50"] / case["seconds"]["not learning"]["p50"]
        assert set(case["host"]) == {*learn.KEPT, "an update"} and case["update"]["p50"] > 0
        born = case["births a second"]
        assert set(born) == {"until the device is done", "with the host's part"}
        assert case["births"] == case["batch"] * (1 + len(born["until the device is done"]))
        assert max(born["with the host's part"]) <= max(born["until the device is done"])
        assert captured(case.get("captured"))


def test_learn_there(pretended, tmp_path, capsys):
    out = tmp_path / "learn.json"
    assert learn.main([*ON, *LEARN, "--json", str(out)]) == 0
    of_learning(cases(out), lambda told: told.startswith("capture failed: "))
    assert pretended[0] > 2 * 20, "calls were timed that nobody waited for"
    assert "GB/s" in capsys.readouterr().out


@needs_no_cuda
def test_learning_ahead_of_the_host(pretended, tmp_path, monkeypatch):
    """With the device that tests of the memory pretend: it learns there, in graphs too; the host later."""
    out, ahead, there = tmp_path / "learn.json", [], learn.Host.take_in

    def take_in(host):
        assert host._memory.graph.copied.learning.in_step
        ahead.append(host._memory._state.awaited.changing)
        return there(host)

    monkeypatch.setattr(learn.Host, "take_in", take_in)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "pretended")
    monkeypatch.setattr(_device, "DEVICES", ("cuda:0",))  # torch would ask for the index
    with pretended_cuda():
        assert learn.main(["--device", "cuda:0", "--threads", "1", *LEARN, "--json", str(out)]) == 0
    of_learning(cases(out), lambda told: set(told) == {*learn.KEPT, "ratio"})
    assert sum(count > 0 for count in ahead) > 20 and max(ahead) >= 4
    for first in (0, len(ahead) - 2 * learn.ROUNDS):  # of calls, and in graphs: one learns and one does not
        turns = ahead[first : first + 2 * learn.ROUNDS]
        assert [count > 0 for count in turns] == [False, True] * learn.ROUNDS


@pytest.mark.parametrize("wrong", ["not found", "not born"])
def test_a_newborn_must_be_found_by_the_next_call(wrong, pretended, make_memory, monkeypatch):
    config = {"novelty_explanation_threshold": 0.9, "novelty_birth_threshold": 1, "max_concepts": 10**6}
    memory = make_memory(vector_dim=32, **config)
    memory.graph.add_concepts(learn.novel(50, 32, 999))
    options = argparse.Namespace(device="cpu:0", seconds=0.01, dim=32)
    case = {"n": 50, "batch": 4}
    learn._born(case, memory, options)
    assert case["births"] >= 20
    if wrong == "not found":  # it answers with others than it was asked for
        ask = memory.retrieve
        monkeypatch.setattr(
            memory, "retrieve", lambda rows, learn=True: ask(rows if learn else rows.roll(1, 0))
        )
    else:  # a second time they are known
        same = learn.novel(4, 32, 0)
        monkeypatch.setattr(learn, "novel", lambda rows, dim, seed: same)
    with pytest.raises(AssertionError, match="are not found" if wrong == "not found" else "births, one for"):
        learn._born(case, memory, options)


def test_a_life_that_differs_with_a_copy_is_told(tmp_path, monkeypatch):
    learn.check_same_life(tmp_path / "same", 32, "cpu")
    search = DeviceCopy.search
    monkeypatch.setattr(DeviceCopy, "search", lambda *given: [part.roll(1, 0) for part in search(*given)])
    with pytest.raises(AssertionError, match="call 0: other indices"):
        learn.check_same_life(tmp_path / "other", 32, "cpu")


def test_no_hops_are_no_hops(make_memory):
    memory = make_memory(vector_dim=8)
    slots = memory.graph.add_concepts(torch.eye(8))
    memory.graph.add_edges(slots[:1], slots[5:6], [1.0], [1.0])
    query = torch.eye(8)[:1]
    found = {}
    for hops in (0, 1):
        asked = retrieve.with_hops(memory.directory, memory.config, hops, "cpu")
        found[hops] = set(asked.retrieve(query).indices[0].tolist()) - {-1}
        asked.close()
    assert 5 not in found[0] and 5 in found[1]


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "stale"])
def test_a_captured_answer_must_follow_the_query(wrong, pretended, make_memory, monkeypatch):
    memory = make_memory(vector_dim=8, priming=0.0)
    memory.graph.add_concepts(torch.eye(8))
    memory.set_mode("INFERENCE")
    queries = torch.eye(8)

    def capture(run, query):
        stale = run(query)
        return _device.Captured((lambda asked: stale) if wrong else run, None)

    monkeypatch.setattr(retrieve, "capture", capture)
    options = argparse.Namespace(device="cpu:0", seconds=0.01)
    case = {"n": 8, "batch": 1, "hops": 3}
    if wrong:
        with pytest.raises(AssertionError, match="other members"):
            retrieve._captured(case, memory, queries, options)
    else:
        retrieve._captured(case, memory, queries, options)
        assert case["captured"]["p99"] > 0


def test_what_cannot_be_captured_says_why(monkeypatch):
    assert "not on a CUDA device" in _device.capture(lambda query: query, torch.ones(1)).failed
    monkeypatch.setattr(_device, "is_there", lambda tensor: True)

    class Stream:
        def __init__(self) -> None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    captured = _device.capture(lambda query: query, torch.ones(1))
    assert captured.replay is None
    assert captured.failed == (
        "capture failed: RuntimeError: operation not permitted when stream is capturing"
    )


@pytest.mark.parametrize("bench", [consolidate, insert])
def test_columns_and_births_there(bench, pretended, tmp_path, capsys):
    out = tmp_path / "out.json"
    small = {
        consolidate: ["--n", "300", "--seconds", "0.01"],
        insert: ["--n", "500", "--dim", "8", "--rows", "1e3", "--rounds", "1", "--at-a-time", "64,256"],
    }
    assert bench.main([*ON, *small[bench], "--json", str(out)]) == 0
    if bench is consolidate:
        assert set(cases(out)[0]["seconds"]) == {"aesg.consolidate_", "torch"}
    else:
        assert [case["at a time"] for case in cases(out)] == [64, 256]
        assert all("send" in case["roofline"]["of"] for case in cases(out))
        assert "found by the next search: 16 of 16 batches" in capsys.readouterr().out
    assert pretended[0] > 0


def test_births_that_are_not_found_are_counted():
    found = [torch.tensor([[3, 4]]), torch.tensor([[9, 1]]), torch.tensor([[5, -1]])]
    assert insert.missed([3, 1, 5], found) == 0
    assert insert.missed([3, 2, 6], found) == 2
    assert insert.missed([], []) == 0


def test_consolidation_must_agree(monkeypatch):
    consolidate.check_equal(200)
    monkeypatch.setattr(consolidate, "torch_consolidate", lambda *columns: columns[-1].bool())
    with pytest.raises(AssertionError, match="torch and"):
        consolidate.check_equal(200)


def test_models_and_topology_there(pretended, tmp_path):
    arguments = [*ON, "--short", "--models", "AESGTransformer", "--out", str(tmp_path)]
    assert train.main(arguments) == 0
    assert pretended[0] >= 2 * 2 * 2, "two models, two kinds of run, each once to warm up"
    for case in cases(tmp_path / "train.json"):
        plain = case["results"]["plain"]
        assert plain["low_ms"] <= plain["ms"] <= plain["high_ms"]
        assert case["roofline"]["flop"] > 1e5  # the products alone
    before = pretended[0]
    topology.main(["--device", "cpu:0", "--short", "--updates", "10", "--out", str(tmp_path)])
    assert pretended[0] >= before + 20


def test_products_with_dense_energies_agree_with_each_other(pretended, sparse):
    graph = spread.make_graph(300, 6, True)
    slots, energies = torch.randint(0, 300, (5, 4)), 0.4 + 0.6 * torch.rand(5, 4)
    dense = Dense(graph[:3], slots, energies, 3, 10, spread.DECAY, spread.SOURCE_FLOOR)
    whole = dense.torch_sparse()()
    for peer in (dense.cupy(), dense.pyg()):
        torch.testing.assert_close(peer()[0], whole[0])
    # In pieces: the same.
    torch.cuda.mem_get_info = lambda device: (2 * 2 * 4 * 6 * 300, 0)  # the fixture brings the old one back
    pieces = Dense(graph[:3], slots, energies, 3, 10, spread.DECAY, spread.SOURCE_FLOOR)
    assert [len(part[0]) for part in pieces.parts] == [2, 2, 1]
    torch.testing.assert_close(pieces.torch_sparse()()[0], whole[0])
    # Near the op's own answer: the rule differs by transfers below the floor, so ours is never more.
    ours = spread.contestants(graph, slots, energies, 3, 10, "cpu")["aesg.spread_activation, cpu"]()[0]
    assert bool((ours <= whole[0] + 1e-6).all()) and float((whole[0] - ours).mean()) < 0.3


def test_search_in_pieces_is_the_same(pretended, monkeypatch):
    queries, vectors = torch.randn(5, 8), torch.randn(100, 8)
    whole = torch_search(queries, vectors, 3)()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 2 * 2 * 4 * 100, 0))
    pieces = torch_search(queries, vectors, 3)()
    torch.testing.assert_close(pieces[0], whole[0])
    assert torch.equal(pieces[1], whole[1])
    by_cupy = cupy_search(queries, vectors, 3)()
    torch.testing.assert_close(by_cupy[0], whole[0])
    assert torch.equal(by_cupy[1], whole[1])


def test_a_peer_that_fails_is_left_out(capsys):
    def broken():
        raise RuntimeError("out of memory\nand more")

    assert _device.tried("A", lambda: broken) is None
    assert _device.tried("B", lambda: None) is None

    def missing():
        import no_such_library  # noqa: F401

    assert _device.tried("C", missing) is None
    assert _device.tried("D", lambda: lambda: 3)() == 3
    told = capsys.readouterr().out
    assert "A: failed, left out (RuntimeError: out of memory)" in told and "C: not installed" in told


def test_least_traffic_counts_what_fires():
    # 0 -> 1 -> 2, and 8 edges of 3 that nobody reaches.
    offsets = np.array([0, 1, 2, 2, 10, 10])
    target = np.array([1, 2, *[4] * 8], dtype=np.int32)
    strength = np.ones(10, dtype=np.float32)
    floors = (0.1, 0.05)

    def of(slots, hops, energy=1.0):
        seeds, energies = np.array([slots]), np.full((1, len(slots)), energy)
        return least_traffic((offsets, target, strength), seeds, energies, hops, 0.8, floors)

    assert of([0], 1) == (12 + 64, 3)
    assert of([0], 2) == (2 * (12 + 64), 6)
    assert of([0], 3) == (2 * (12 + 64) + 12, 6)  # 2 fires too, and has no edges
    assert of([3], 1) == (12 + 128, 24)
    assert of([0], 2, energy=0.05) == (0, 0)


def test_ceilings_and_shares(monkeypatch):
    monkeypatch.setattr(_ceilings, "READ_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(_ceilings, "EDGE", {"cpu": 64})
    monkeypatch.setattr(_ceilings, "SECONDS", 0.01)
    found = _ceilings.measure("cpu")
    assert set(found) == {"read", "copy", "f32"} and all(rate > 1e7 for rate in found.values())
    used = _ceilings.roofline(100.0, 50.0, 2.0, {"read": 500.0, "copy": 1.0, "f32": 50.0})
    assert used["of"] == {"read": 0.1, "f32": 0.5}
    assert _ceilings.told(used) == "at least 0.0 GB/s, 0.0 GFLOP/s: 10.0 % of read, 50.0 % of f32"
    assert "of" not in _ceilings.roofline(1.0, 1.0, 1.0, None)
    assert set(_ceilings.roofline(8.0, 0.0, 1.0, found | {"send": 4.0}, "send")["of"]) == {"send"}


@pytest.mark.cuda
@needs_cuda
def test_on_a_real_device(tmp_path):
    out = tmp_path / "out.json"
    small = ["--n", "3000", "--batch", "1,33", "--seconds", "0.05", "--json", str(out)]
    assert seeds.main(["--device", "cuda", "--dim", "64", *small]) == 0
    assert spread.main(["--device", "cuda", "--hops", "4", *small]) == 0
    assert retrieve.main(["--device", "cuda", "--hops", "0,4", *small]) == 0
    assert all("captured" in case for case in cases(out))
    assert learn.main(["--device", "cuda", *small]) == 0
    assert all("ratio" in case["captured"] for case in cases(out))


@pytest.mark.cuda
@needs_cuda
def test_a_call_is_captured_or_says_why_not():
    query = torch.ones(3, device="cuda")
    captured = _device.capture(lambda asked: 2 * asked, query)
    assert captured.failed is None
    assert captured.replay(5 * query).tolist() == [10.0] * 3
    waits = _device.capture(lambda asked: asked.sum().item(), query)
    assert waits.replay is None and "capture failed" in waits.failed
    assert (query + 1).tolist() == [2.0] * 3, "the device is not what it was"


@pytest.mark.parametrize("bench", [consolidate, insert, learn, retrieve, seeds, spread])
def test_what_ends_a_run_leaves_the_cases_there_were(bench, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    small = {
        consolidate: ["--n", "100,200", "--seconds", "0.01"],
        insert: ["--n", "200", "--dim", "8", "--rows", "64", "--rounds", "1", "--at-a-time", "16,32"],
        learn: ["--n", "200", "--batch", "1,2", "--seconds", "0.02"],
        retrieve: ["--n", "200", "--dim", "8", "--hops", "1,2", "--seconds", "0.02"],
        seeds: ["--n", "200", "--dim", "8", "--batch", "1,2", "--seconds", "0.01"],
        spread: ["--n", "200", "--hops", "1,2", "--batch", "2", "--graph", "random", "--seconds", "0.01"],
    }

    class Enough(Exception):
        pass

    def once(*arguments, done=True):
        write(*arguments, done=done)
        raise Enough

    write = bench.write_json
    monkeypatch.setattr(bench, "write_json", once)
    threads = torch.get_num_threads()
    with pytest.raises(Enough):
        bench.main([*small[bench], "--threads", "1", "--json", str(out)])
    torch.set_num_threads(threads)
    assert len(cases(out)) == 1
