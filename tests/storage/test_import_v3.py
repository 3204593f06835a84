"""Memories of aesg 3.0.0 come over whole, their damage is said, and they stay as they are."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aesg import AESGMemory, cli
from aesg.exceptions import AESGStorageError
from aesg.storage import AESGStorage, EvolutionLogger, import_v3
from aesg.storage.nodes import node_dtype
from aesg.storage.v3_meta import read_meta
from aesg.storage.v3_records import EDGE_RECORD

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "aesg-3.0.0"
OLD = FIXTURE / "memory_v3"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())["memory_v3"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


def rewrite(path: Path, dtype: np.dtype, change: Callable[[np.ndarray], Any]) -> None:
    table = np.frombuffer(path.read_bytes(), dtype).copy()
    change(table)
    path.write_bytes(table.tobytes())


def nodes_of(old: Path, change: Callable[[np.ndarray], Any]) -> None:
    rewrite(old / "nodes.aesg", node_dtype(16), change)


def edges_of(old: Path, change: Callable[[np.ndarray], Any]) -> None:
    rewrite(old / "edges.aesg", EDGE_RECORD, change)


def digest(directory: Path) -> dict[str, tuple[str, int]]:
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in directory.iterdir()
    }


def test_everything_comes_over(old: Path, tmp_path: Path) -> None:
    before = digest(old)
    report = import_v3(old, tmp_path / "new")
    assert digest(old) == before
    assert (report.vector_dim, report.concepts, report.active, report.events) == (16, 40, 36, 50)
    with AESGStorage(tmp_path / "new", read_only=True) as storage:
        assert storage.verify() == []
        for slot, want in enumerate(EXPECTED["nodes"]):
            got = storage.nodes[slot]
            assert got["vector"].tolist() == want["vector"]
            for name in want.keys() - {"vector", "head_edge_idx"}:
                assert got[name] == want[name], name
        living = {node["id"] for node in EXPECTED["nodes"] if node["is_active"]}
        best: dict[tuple[int, int], tuple[float, ...]] = {}
        for edge in EXPECTED["edges"]:
            pair = (edge["source_id"], edge["target_id"])
            values = (edge["weight"], edge["confidence"], edge["use_count"])
            if (
                pair[0] in living
                and values[0] * values[1] > best.get(pair, (-1, 1))[0] * best.get(pair, (-1, 1))[1]
            ):
                best[pair] = values
        got_edges = {
            (int(e["source_id"]), int(e["target_id"])): (e["weight"], e["confidence"], e["use_count"])
            for e in storage.edges[:]
        }
        assert got_edges == best and report.edges == len(best)
        assert list(EvolutionLogger(storage).get_history()) == EXPECTED["events"]
    dead_sources = sum(edge["source_id"] not in living for edge in EXPECTED["edges"])
    assert f"{dead_sources} edges out of pruned concepts" in report.findings


def test_the_imported_memory_lives(old: Path, tmp_path: Path) -> None:
    import_v3(old, tmp_path / "new")
    with AESGMemory(tmp_path / "new") as memory:
        assert memory.check() == []
        vectors = memory.storage.nodes["vector"][:]
        import torch

        context = memory.retrieve(torch.from_numpy(vectors[:4].copy()))
        assert context.indices[:, 0].tolist() == [0, 1, 2, 3]
        memory.update_topology()
        slot = memory.cognitive_engine.create_sensory_concept(torch.ones(16))
        ids = memory.storage.nodes["id"][:]
        assert slot is not None and (ids == ids[slot]).sum() == 1
        assert memory.check() == []


def set_field(row: int, name: str, value: Any) -> Callable[[np.ndarray], None]:
    def change(table: np.ndarray) -> None:
        table[name][row] = value

    return change


def circle(table: np.ndarray) -> None:
    table["next_edge_idx"][0] = 1
    table["next_edge_idx"][1] = 0


@pytest.mark.parametrize(
    ("table", "change", "finding"),
    [
        ("edges", set_field(0, "target_id", 12345), "1 dangling edges"),
        ("edges", set_field(0, "source_id", 12345), "1 dangling edges"),
        ("edges", circle, "chains of edges that run in a circle"),
        ("edges", set_field(5, "next_edge_idx", 10**9), "1 chain links that lead outside"),
        ("nodes", set_field(3, "head_edge_idx", -(10**9)), "1 chain links that lead outside"),
        ("edges", set_field(0, "weight", np.nan), "1 edges with a weight that is no number"),
        ("edges", set_field(0, "confidence", 9.0), "1 edges with a weight or confidence outside"),
        ("nodes", set_field(2, "vector", np.nan), "1 concepts with NaN"),
        ("nodes", set_field(2, "vector", np.inf), "1 concepts with NaN"),
        ("nodes", set_field(2, "id", EXPECTED["nodes"][0]["id"]), "1 concepts whose id was taken"),
        ("nodes", set_field(2, "id", 0), "1 concepts whose id was taken or no id"),
        ("nodes", set_field(2, "id", 2**64 - 1), "1 concepts whose id was taken or no id"),
        ("nodes", set_field(2, "relevance", np.nan), "1 values of relevance"),
    ],
)
def test_damage_is_said_and_stood(
    old: Path, tmp_path: Path, table: str, change: Callable[[np.ndarray], None], finding: str
) -> None:
    (nodes_of if table == "nodes" else edges_of)(old, change)
    report = import_v3(old, tmp_path / "new")
    assert any(finding in line for line in report.findings), report.findings
    with AESGMemory(tmp_path / "new") as memory:
        assert memory.check() == [] and memory.storage.verify() == []
        assert report.edges == memory.storage.edge_count and report.concepts == memory.storage.node_count
        ids = memory.storage.nodes["id"][:]
        assert len(np.unique(ids)) == len(ids)


@pytest.mark.parametrize("cut", [1, 31, 33])
def test_a_torn_log_tail_is_said(old: Path, tmp_path: Path, cut: int) -> None:
    data = (old / "evolution.aesglog").read_bytes()
    (old / "evolution.aesglog").write_bytes(data[:-cut])
    report = import_v3(old, tmp_path / "new")
    assert report.events == (len(data) - cut) // 32
    assert f"evolution.aesglog: the last {(len(data) - cut) % 32} bytes are a torn event" in report.findings


def test_unknown_events_are_said(old: Path, tmp_path: Path) -> None:
    log = old / "evolution.aesglog"
    log.write_bytes(log.read_bytes() + struct.pack("<QB3xQQf", 1, 77, 2, 3, 0.5))
    report = import_v3(old, tmp_path / "new")
    assert report.events == 50 and "1 events of an unknown kind" in report.findings


@pytest.mark.parametrize("name", ["edges.aesg", "evolution.aesglog"])
def test_missing_files_are_said(old: Path, tmp_path: Path, name: str) -> None:
    (old / name).unlink()
    report = import_v3(old, tmp_path / "new")
    assert f"{name} is missing" in report.findings and report.concepts == 40


def test_files_shorter_than_their_counts(old: Path, tmp_path: Path) -> None:
    size = node_dtype(16).itemsize
    (old / "nodes.aesg").write_bytes((old / "nodes.aesg").read_bytes()[: 10 * size + 5])
    report = import_v3(old, tmp_path / "new")
    assert report.concepts == 10
    assert "nodes.aesg: 40 records expected, 10 are there" in report.findings
    assert "nodes.aesg: the last 5 bytes are no whole record" in report.findings


@pytest.mark.parametrize("meta", [None, b"", b"\x93NUMPY", "cut"])
def test_without_meta_the_dimension_must_be_told(old: Path, tmp_path: Path, meta: Any) -> None:
    path = old / "meta.npy"
    if meta is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200] if meta == "cut" else meta)
    with pytest.raises(AESGStorageError, match="give vector_dim to do without it"):
        import_v3(old, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    report = import_v3(old, tmp_path / "new", vector_dim=16)
    assert (report.concepts, report.active, report.events) == (40, 36, 50)
    assert any("rows in use were counted" in line for line in report.findings)


def npy_of(program: bytes) -> bytes:
    return (OLD / "meta.npy").read_bytes()[:128] + program


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


def test_a_pickle_in_meta_runs_nothing(old: Path, tmp_path: Path) -> None:
    import os

    marker = tmp_path / "was here"
    for call in ((os.mkdir, str(marker)), (eval, f"open({str(marker)!r}, 'w')"), (np.save, str(marker), 1)):
        (old / "meta.npy").write_bytes(npy_of(pickle.dumps(Evil(*call), protocol=4)))
        with pytest.raises(AESGStorageError, match="the name"):
            import_v3(old, tmp_path / "new")
    assert not marker.exists()


def deep_key() -> bytes:
    """A dict key that takes 2^60 steps to hash."""
    program = b"\x80\x04})"  # {} and ()
    return program + b"".join(b"\x94h%c\x86" % i for i in range(60)) + b"K\x01s."


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b".",
        b"\x80\x04.",
        b"\x80\x04N.",
        b"}K\x01K\x02s.",
        b"(.",
        b"t.",
        b"h\x05.",
        b"R.",
        b"b.",
        b"a.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BYTEARRAY8 of 2^63 - 1 bytes
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BINBYTES8
        b"\x8b\xff\xff\xff\x7f.",  # LONG4
        b"N" + b"\x85" * 60_000 + b".",  # nested 60,000 deep
        deep_key(),
        pickle.dumps({"node_count": 1}),
        pickle.dumps([1] * 5),
    ],
)
def test_hostile_programs_get_a_typed_error(program: bytes) -> None:
    with pytest.raises(AESGStorageError, match="meta"):
        read_meta(npy_of(program))


def test_every_byte_of_meta_may_be_anything() -> None:
    data = (OLD / "meta.npy").read_bytes()
    assert read_meta(data) == EXPECTED["meta"]
    for place in range(len(data)):
        for value in (0, 1, 0x2E, 0x63, 0x80, 0xFF, data[place] ^ 1):
            changed = bytearray(data)
            changed[place] = value
            try:
                read_meta(bytes(changed))
            except AESGStorageError:
                continue
    for length in range(len(data)):
        with pytest.raises(AESGStorageError):
            read_meta(data[:length])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("home", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_metas_of_every_numpy(protocol: int, home: str) -> None:
    array = np.empty((), dtype=object)
    array[()] = dict(EXPECTED["meta"], cap_edges=300_000)
    program = pickle.dumps(array, protocol=protocol)
    ours = b"numpy._core.multiarray"
    assert ours in program
    if home.encode() != ours:
        if protocol >= 4:
            at = program.index(ours)
            program = program[: at - 1] + bytes([len(home)]) + home.encode() + program[at + len(ours) :]
        else:
            program = program.replace(ours, home.encode())
    if protocol == 2:  # bytes are text that is encoded by a call there: not one of the three names
        with pytest.raises(AESGStorageError, match="the name '_codecs encode'"):
            read_meta(npy_of(program))
    else:
        assert read_meta(npy_of(program))["cap_edges"] == 300_000


@pytest.mark.parametrize(
    "counts",
    [
        {"node_count": -1},
        {"vector_dim": 0},
        {"vector_dim": 9000},
        {"cap_edges": 2**50},
        {"node_count": True},
        {"edge_count": "3"},
    ],
)
def test_counts_that_mean_nothing(counts: dict[str, Any]) -> None:
    array = np.empty((), dtype=object)
    array[()] = EXPECTED["meta"] | counts
    with pytest.raises(AESGStorageError, match=f"as {next(iter(counts))}|a vector_dim of"):
        read_meta(npy_of(pickle.dumps(array, protocol=4)))


def test_what_cannot_be_imported(old: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("x")
    for source, target, complaint in (
        (tmp_path / "nowhere", tmp_path / "new", "expected a directory of aesg 3.0.0"),
        (old, tmp_path / "full", "expected nothing there yet"),
        (old, old, "expected a place outside"),
        (old, old / "new", "expected a place outside"),
        (tmp_path / "full", tmp_path / "new", "meta.npy"),
    ):
        with pytest.raises(AESGStorageError, match=complaint):
            import_v3(source, target)
    with pytest.raises(AESGStorageError, match="it holds vector_dim 16, expected 8"):
        import_v3(old, tmp_path / "new", vector_dim=8)
    (old / "nodes.aesg").unlink()
    with pytest.raises(AESGStorageError, match="expected a file nodes"):
        import_v3(old, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_old_directory_says_what_it_is(old: Path) -> None:
    before = digest(old)
    with pytest.raises(AESGStorageError, match="aesg import-v3"):
        AESGMemory(old)
    assert digest(old) == before


def test_the_command(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import-v3", str(old), str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert out.endswith("40 concepts (36 living) of 16 dimensions, 55 edges, 50 events\n")
    assert "not usable: 5 edges out of pruned concepts" in out
    assert cli.main(["import-v3", str(old), str(tmp_path / "new")]) == 2
    assert "expected nothing there yet" in capsys.readouterr().err
