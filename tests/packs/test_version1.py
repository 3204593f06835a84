"""Version 1, both ways with aesg 3.0.0."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aesg.exceptions import AESGStorageError
from aesg.packs import deserialize_pack, read_pack, serialize_pack
from aesg.packs.version1 import to_records
from tests.packs.packmaker import FIXTURES, bytes_of, golden_v1, parse, sealed, some_columns


def test_a_file_of_3_0_0_reads_as_it_wrote_it() -> None:
    expected = json.loads((FIXTURES / "expected.json").read_text())["packs"]["all.aesgpack"]
    got = deserialize_pack(FIXTURES / "all.aesgpack")
    for key in ("name", "version", "vector_dim", "checksum"):
        assert got[key] == expected[key]
    assert got["nodes"]["id"].tolist() == expected["node_ids"]
    assert got["nodes"]["relevance"].tolist() == expected["relevance"]
    assert got["nodes"]["head_edge_idx"].tolist() == expected["head_edge_idx"]
    names = ("source_id", "target_id", "weight", "confidence", "next_edge_idx")
    rows = [list(row) for row in zip(*(got["edges"][name].tolist() for name in names), strict=True)]
    assert rows == expected["edges"]
    memory = {
        node["id"]: node
        for node in json.loads((FIXTURES / "expected.json").read_text())["memory_v3"]["nodes"]
    }
    for record in got["nodes"]:
        node = memory[int(record["id"])]
        assert record["vector"].tolist() == node["vector"]
        assert all(record[name] == node[name] for name in ("use_frequency", "age", "created_at", "region_id"))


def test_adjacency_is_rebuilt_from_ids_and_dangling_edges_are_said() -> None:
    pack = read_pack(FIXTURES / "all.aesgpack")
    ids = set(pack.nodes["id"].tolist())
    strongest: dict[tuple[int, int], float] = {}
    for edge in pack.edges:
        pair = (int(edge["source_id"]), int(edge["target_id"]))
        if set(pair) <= ids:
            strongest[pair] = max(strongest.get(pair, 0.0), float(edge["weight"] * edge["confidence"]))
    edges, numbers = pack.columns.edges(), pack.columns.fields["id"]
    found = {
        (int(numbers[s]), int(numbers[t])): float(x)
        for s, t, x in zip(edges.source, edges.target, edges.strength, strict=True)
    }
    assert found == strongest
    dangling = sum(int(edge["target_id"]) not in ids for edge in pack.edges)
    assert dangling > 0 and any(line.startswith(f"{dangling} dangling") for line in pack.findings)


def test_the_bytes_are_those_of_the_description(tmp_path: Path) -> None:
    data = golden_v1()
    pack = parse(data)
    assert pack.findings == () and pack.columns.edge_count == 3
    assert bytes_of(pack.columns, 1) == data
    serialize_pack("ignored", "1.0", 2, pack.nodes, pack.edges, tmp_path / "a.aesgpack")
    assert (tmp_path / "a.aesgpack").read_bytes() == data
    assert read_pack(tmp_path / "a.aesgpack").name == "a"


def test_written_chains_index_the_file_itself() -> None:
    columns = some_columns()
    nodes, edges = to_records(columns)
    seen = 0
    for node in nodes:
        at = int(node["head_edge_idx"])
        while at >= 0:
            assert edges[at]["source_id"] == node["id"]
            seen += 1
            at = int(edges[at]["next_edge_idx"])
    assert seen == len(edges)
    # One edge a pair, the strongest of its kinds.
    all_edges = columns.edges()
    pairs = {}
    for s, t, x in zip(all_edges.source, all_edges.target, all_edges.strength, strict=True):
        pairs[s, t] = max(pairs.get((s, t), 0), x)
    assert len(edges) == len(pairs) < len(all_edges)
    assert sorted((edges["weight"] * edges["confidence"]).tolist()) == sorted(map(float, pairs.values()))


def v1_with(**changes: object) -> bytes:
    """The golden file with fields of its records changed: 'n0.relevance' = 2.0, 'e1.weight' = nan."""
    pack = parse(golden_v1())
    tables = {"n": pack.nodes.copy(), "e": pack.edges.copy()}
    for where, value in changes.items():
        row, name = where.split("_", 1)
        tables[row[0]][name][int(row[1:])] = value
    return sealed(golden_v1()[:56] + tables["n"].tobytes() + tables["e"].tobytes())


@pytest.mark.parametrize(
    ("change", "finding", "edges"),
    [
        ({"e0_target_id": 99}, "1 dangling edges", 2),
        ({"e2_source_id": 99}, "1 dangling edges", 2),
        ({"e0_target_id": 10}, "1 edges from a concept to itself", 2),
        ({"e0_weight": np.nan}, "1 edges with a weight or confidence that is no number", 2),
        ({"e0_confidence": 7.0}, "1 edges with a weight or confidence outside [0, 1]", 3),
        ({"e0_weight": -np.inf}, "1 edges with a weight or confidence outside [0, 1]", 3),
        ({"e0_target_id": 30}, "1 edges of a pair that has a stronger one", 2),
        ({"n1_id": 10}, "1 concepts with the id of an earlier one", 1),
        ({"n1_relevance": np.nan}, "1 concepts with a relevance", 3),
    ],
)
def test_what_cannot_be_used_is_left_out_and_said(
    change: dict[str, object], finding: str, edges: int
) -> None:
    pack = parse(v1_with(**change))
    assert any(line.startswith(finding) for line in pack.findings), pack.findings
    assert pack.columns.edge_count == edges
    columns = pack.columns
    for values in (columns.weights, columns.confidences, columns.fields["relevance"]):
        assert np.isfinite(values).all() and (values >= 0).all()
    assert (columns.weights <= 1).all() and (columns.confidences <= 1).all()


def test_links_that_lead_nowhere_or_in_circles_do_not_matter() -> None:
    pack = parse(v1_with(e0_next_edge_idx=0, e1_next_edge_idx=10**12, n0_head_edge_idx=-(10**12)))
    assert pack.findings == () and pack.columns.edge_count == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_vector_that_is_not_finite_refuses_the_pack(value: float) -> None:
    with pytest.raises(AESGStorageError, match="finite values up to 1e\\+30, got others in concept 1"):
        parse(v1_with(n1_vector=(1.0, value)))


def test_dead_concepts_stay_dead() -> None:
    columns = parse(v1_with(n1_is_active=0)).columns
    assert columns.active.tolist() == [1, 0, 1]


def test_empty_pack(tmp_path: Path) -> None:
    pack = parse(golden_v1())
    serialize_pack("", "", 2, pack.nodes[:0], pack.edges[:0], tmp_path / "empty.aesgpack")
    empty = read_pack(tmp_path / "empty.aesgpack")
    assert len(empty) == 0 and empty.columns.edge_count == 0 and len(empty.tensors.vectors) == 0


@pytest.mark.skipif(
    "AESG_V3_PYTHON" not in os.environ, reason="AESG_V3_PYTHON names no python with aesg 3.0.0"
)
def test_an_unmodified_3_0_0_loads_ours(tmp_path: Path) -> None:
    """The released package reads what a memory of ours exports, value for value."""
    from aesg import AESGConfig, AESGMemory

    memory = AESGMemory(tmp_path / "m", AESGConfig(vector_dim=6))
    slots = memory.graph.add_concepts(np.random.default_rng(0).standard_normal((40, 6)))
    memory.graph.add_edges(slots[:-1], slots[1:], np.linspace(0, 1, 39), np.full(39, 0.5))
    memory.export_pack(tmp_path / "ours.aesgpack")
    memory.close()
    script = """if True:
        import json, sys
        import aesg
        from aesg import AESGConfig, AESGMemory
        from aesg.packs import deserialize_pack
        assert aesg.__version__ == "3.0.0"
        memory = AESGMemory(sys.argv[2], AESGConfig(vector_dim=6, max_concepts=100))
        pack = memory.load_pack(sys.argv[1])
        memory.attach_pack(pack, priority=70)
        print(json.dumps([pack.name, pack.checksum, pack.nodes.tobytes().hex(), pack.edges.tobytes().hex()]))
    """
    command = [os.environ["AESG_V3_PYTHON"], "-c", script, "ours.aesgpack", "theirs"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    out = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    name, checksum, nodes, edges = json.loads(out.stdout.splitlines()[-1])
    pack = read_pack(tmp_path / "ours.aesgpack")
    assert (name, checksum) == (pack.name, pack.checksum) and len(pack) == 40 and len(pack.edges) == 39
    assert (nodes, edges) == (pack.nodes.tobytes().hex(), pack.edges.tobytes().hex())


def test_a_pack_of_one_concept_lies_aligned() -> None:
    """A record lies anywhere in the file; the kernel reads floats."""
    pack = parse(golden_v1())
    data = b"".join([golden_v1()[:16], b"\0\0\0\1", b"\0\0\0\0", bytes(32), pack.nodes[:1].tobytes()])
    tensors = parse(sealed(data)).tensors
    assert tensors.vectors.data_ptr() % 4 == 0 and tensors.vectors.tolist() == [[1.0, 0.0]]
