"""absorb, merge and diff; export's choices; the command line."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from aesg import AESGMemory, cli
from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.graph.pruning import PRUNING_WAIT
from aesg.packs import read_pack
from aesg.packs.absorb import first_alike
from aesg.packs.combine import diff_packs, merge_packs
from aesg.packs.export import write_columns
from aesg.storage.nodes import blocks
from tests.packs.packmaker import FIXTURES, bytes_of, some_columns

Make = Callable[..., AESGMemory]
DIM = 16


def axes(memory: AESGMemory, wanted: list[int]) -> np.ndarray:
    """Concepts along some axes, each with an edge to the next."""
    slots = memory.graph.add_concepts(torch.eye(DIM)[wanted])
    memory.graph.add_edges(slots[:-1], slots[1:], np.full(len(slots) - 1, 0.8), np.full(len(slots) - 1, 0.5))
    return slots


@pytest.mark.parametrize("version", [1, 2])
def test_absorbing_adds_what_is_new_and_joins_what_is_known(
    make_memory: Make, tmp_path: Path, version: int
) -> None:
    home, other = make_memory("home", vector_dim=DIM), make_memory("other", vector_dim=DIM)
    axes(home, [0, 1, 2])
    slots = axes(other, [1, 2, 3, 4])
    other.storage.nodes["use_frequency"][slots] = np.array([5, 6, 7, 8], np.uint32)
    other.storage.nodes["relevance"][slots] = [0.25, 0.5, 0.75, 0.125]
    other.export_pack(tmp_path / "p.aesgpack", format_version=version)
    pack = home.load_pack(tmp_path / "p.aesgpack")
    ids = set(home.storage.nodes["id"][:].tolist())
    done = home.absorb(pack)
    assert (done.born, done.merged, done.edges) == (2, 2, 2)  # 1->2 was there as strong
    assert done.slots.tolist() == [1, 2, 3, 4]
    assert home.storage.active_count == 5 and home.storage.edge_count == 4
    assert home.storage.nodes["use_frequency"][:].tolist() == [0, 5, 6, 7, 8]
    assert home.storage.nodes["relevance"][:].tolist() == [1.0, 1.0, 1.0, 0.75, 0.125]
    assert ids < set(home.storage.nodes["id"][:].tolist()) and home.check() == []
    assert [e["type"] for e in home.logger.get_history()].count("CREATE") == 5
    again = home.absorb(pack)
    assert (again.born, again.edges) == (0, 0) and home.storage.edge_count == 4


def test_near_duplicates_of_one_pack_become_one(make_memory: Make, tmp_path: Path) -> None:
    other, home = make_memory("other", vector_dim=DIM), make_memory("home", vector_dim=DIM)
    base = torch.eye(DIM)[:2].repeat_interleave(3, dim=0)
    base[1, 5] = base[4, 5] = 0.1  # cosine 0.995
    base[2, 6] = 1.0  # cosine 0.7: another thing
    other.graph.add_concepts(base)
    other.export_pack(tmp_path / "p.aesgpack")
    done = home.absorb(home.load_pack(tmp_path / "p.aesgpack"))
    assert (done.born, done.merged) == (3, 3) and done.slots.tolist() == [0, 0, 1, 2, 2, 2]
    strict = make_memory("strict", vector_dim=DIM).absorb(
        read_pack(tmp_path / "p.aesgpack"), similarity=0.999
    )
    assert (strict.born, strict.merged) == (5, 1)


def test_first_alike_only_follows_rows_that_stay() -> None:
    """A chain a ~ b ~ c with a unlike c: b joins a, c stays."""
    angles = np.array([0.0, 0.3, 0.6, 0.65])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert first_alike(vectors, 0.95).tolist() == [0, 0, 2, 2]


def test_absorbing_across_chunks(make_memory: Make, tmp_path: Path) -> None:
    other, home = make_memory("other", vector_dim=DIM), make_memory("home", vector_dim=DIM)
    vectors = torch.randn(1500, DIM)
    other.graph.add_concepts(torch.cat([vectors, vectors]))
    other.export_pack(tmp_path / "p.aesgpack")
    done = home.absorb(home.load_pack(tmp_path / "p.aesgpack"), similarity=0.9999)
    assert (done.born, done.merged) == (1500, 1500)
    assert np.array_equal(done.slots[:1500], done.slots[1500:])


def test_the_stronger_edge_stays(make_memory: Make, tmp_path: Path) -> None:
    home, other = make_memory("home", vector_dim=DIM), make_memory("other", vector_dim=DIM)
    for memory, weights in ((home, [0.9, 0.2]), (other, [0.3, 0.6])):
        slots = memory.graph.add_concepts(torch.eye(DIM)[:3])
        memory.graph.add_edges(slots[:2], slots[1:], weights, [1.0, 1.0])
    other.export_pack(tmp_path / "p.aesgpack")
    home.absorb(home.load_pack(tmp_path / "p.aesgpack"))
    assert np.allclose([home.storage.get_edges(i)["weight"][0] for i in (0, 1)], [0.9, 0.6])


def test_absorbing_is_refused_before_anything_changed(make_memory: Make, tmp_path: Path) -> None:
    home = make_memory("home", vector_dim=DIM)
    (tmp_path / "x.aesgpack").write_bytes(bytes_of(some_columns(dim=4), 1))
    with pytest.raises(AESGStorageError, match="mismatch"):
        home.absorb(read_pack(tmp_path / "x.aesgpack"))
    (tmp_path / "y.aesgpack").write_bytes(bytes_of(some_columns(dim=DIM), 1))
    pack = home.load_pack(tmp_path / "y.aesgpack")
    with pytest.raises(AESGMemoryError, match="similarity in"):
        home.absorb(pack, similarity=2.0)
    home.set_mode("INFERENCE")
    with pytest.raises(AESGMemoryError, match="absorb: not possible in INFERENCE"):
        home.absorb(pack)
    assert home.storage.node_count == 0


def test_export_takes_what_was_asked_for(make_memory: Make, tmp_path: Path) -> None:
    memory = make_memory("m", vector_dim=DIM)
    slots = axes(memory, [0, 1, 2, 3, 4, 5])
    memory.storage.nodes["relevance"][slots] = [0.1, 0.5, 0.9, 0.5, 0.2, 0.9]
    memory.storage.nodes["region_id"][slots] = np.array([1, 1, 1, 2, 2, 2], np.uint32)
    ids = memory.storage.nodes["id"][:]
    memory.forget([int(ids[1])])

    def exported(**conditions: object) -> tuple[list[int], int]:
        memory.export_pack(tmp_path / "deep" / "er" / "p.aesgpack", **conditions)  # type: ignore[arg-type]
        pack = read_pack(tmp_path / "deep" / "er" / "p.aesgpack")
        assert pack.findings == ()
        return [int(np.flatnonzero(ids == i)[0]) for i in pack.nodes["id"]], pack.columns.edge_count

    assert exported() == ([0, 2, 3, 4, 5], 3)
    assert exported(min_relevance=0.5) == ([2, 3, 5], 1)
    assert exported(region_id=2) == ([3, 4, 5], 2)
    assert exported(region_id=2, min_relevance=0.9) == ([5], 0)
    assert exported(ids=[int(ids[0]), int(ids[2])]) == ([0, 2], 0)
    assert exported(region_id=77) == ([], 0)
    with pytest.raises(AESGMemoryError, match="no living concept has id"):
        memory.export_pack(tmp_path / "no.aesgpack", ids=[int(ids[1])])
    assert not (tmp_path / "no.aesgpack").exists()
    memory.set_mode("INFERENCE")
    assert exported() == ([0, 2, 3, 4, 5], 3)
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["p.aesgpack"]


def test_export_where_nothing_can_be_written(make_memory: Make, tmp_path: Path) -> None:
    memory = make_memory("m", vector_dim=DIM)
    (tmp_path / "file").write_text("here")
    with pytest.raises(AESGStorageError, match="Failed to write pack file"):
        memory.export_pack(tmp_path / "file" / "p.aesgpack")
    (tmp_path / "there").mkdir()
    with pytest.raises(AESGStorageError, match="Failed to write pack file"):
        memory.export_pack(tmp_path / "there")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".aesgpack-")] == []


def test_export_spares_devices_and_pipes(make_memory: Make, tmp_path: Path) -> None:
    memory = make_memory("m", vector_dim=DIM)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(AESGStorageError, match=f"{name}': expected a regular file or none"):
            memory.export_pack(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and (tmp_path / "link").is_symlink()
    with pytest.raises(AESGStorageError, match="null byte"):
        memory.export_pack(f"{tmp_path}/a\0b")
    with pytest.raises(AESGStorageError, match="expected a path, got None"):
        memory.export_pack(None)  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == []
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    "given", [{"region_id": "2"}, {"region_id": 1.5}, {"min_relevance": math.nan}, {"min_relevance": -1}]
)
def test_conditions_that_mean_nothing_are_refused(
    make_memory: Make, tmp_path: Path, given: dict[str, object]
) -> None:
    memory = make_memory("m", vector_dim=DIM)
    with pytest.raises(AESGMemoryError, match=f"{next(iter(given))}: expected"):
        memory.export_pack(tmp_path / "p.aesgpack", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "p.aesgpack").exists()


def test_exported_edges_keep_kind_and_use_in_version_2(make_memory: Make, tmp_path: Path) -> None:
    memory = make_memory("m", vector_dim=DIM)
    slots = memory.graph.add_concepts(torch.eye(DIM)[:3])
    for kind in range(3):
        memory.graph.add_edges(slots[:2], slots[1:], [0.5, 0.25 * (kind + 1)], [0.5, 1.0], kind=kind)
    memory.export_pack(tmp_path / "p.aesgpack", format_version=2, embedding="model-7")
    pack = memory.load_pack(tmp_path / "p.aesgpack")
    edges = pack.columns.edges()
    assert sorted(zip(edges.source.tolist(), edges.kind.tolist(), strict=True)) == [
        (s, k) for s in (0, 1) for k in range(3)
    ]
    assert (
        pack.metadata["edge_statistics"]["by_kind"] == [2, 2, 2] and pack.metadata["embedding"] == "model-7"
    )


def test_merging_packs(tmp_path: Path, make_memory: Make) -> None:
    for name, wanted in (("a", [0, 1, 2]), ("b", [2, 3, 1])):
        memory = make_memory(name, vector_dim=DIM)
        axes(memory, wanted)
        memory.export_pack(tmp_path / f"{name}.aesgpack")
    a, b = (read_pack(tmp_path / f"{name}.aesgpack") for name in "ab")
    merged = merge_packs(a, b, 0.95)
    assert (len(merged.columns), merged.shared, merged.renumbered) == (4, 2, 1)
    assert torch.equal(torch.from_numpy(merged.columns.vectors), torch.eye(DIM)[:4])
    edges = merged.columns.edges()
    assert sorted(zip(edges.source.tolist(), edges.target.tolist(), strict=True)) == [
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 1),
    ]
    assert len(set(merged.columns.fields["id"].tolist())) == 4
    alone = merge_packs(a, a, 0.95)
    write_columns(alone.columns, tmp_path / "aa.aesgpack", created_at=0)
    assert diff_packs(a, read_pack(tmp_path / "aa.aesgpack")).same
    with pytest.raises(AESGStorageError, match="mismatch"):
        (tmp_path / "x.aesgpack").write_bytes(bytes_of(some_columns(), 1))
        merge_packs(a, read_pack(tmp_path / "x.aesgpack"), 0.95)
    for similarity in (0.0, 1.1, math.nan):
        with pytest.raises(AESGMemoryError, match=r"similarity: expected a number in \(0, 1\]"):
            merge_packs(a, b, similarity)


def test_differences_are_found(tmp_path: Path) -> None:
    columns = some_columns()
    (tmp_path / "a.aesgpack").write_bytes(bytes_of(columns, 2))
    columns.vectors[0, 0] += 1
    columns.fields["relevance"][1] = 0.5
    columns.fields["id"][2] = 1000
    columns.use_counts[0, 0] += 1
    (tmp_path / "b.aesgpack").write_bytes(bytes_of(columns, 2))
    found = diff_packs(read_pack(tmp_path / "a.aesgpack"), read_pack(tmp_path / "b.aesgpack"))
    assert (found.moved.tolist(), found.changed.tolist()) == ([7], [14])
    assert (found.only_a.tolist(), found.only_b.tolist()) == ([21], [1000])
    assert found.edges_changed == 1 and found.edges_only_a == found.edges_only_b > 0
    a = read_pack(tmp_path / "a.aesgpack")
    assert diff_packs(a, a).same


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixture = str(FIXTURES / "all.aesgpack")
    assert cli.main(["pack", "info", fixture]) == 0
    out = capsys.readouterr().out
    assert "concepts:       36\n" in out and "4 dangling edges" in out
    assert cli.main(["pack", "info", "--json", fixture]) == 0
    assert json.loads(capsys.readouterr().out)["checksum"] == read_pack(fixture).checksum
    assert cli.main(["pack", "verify", fixture]) == 1
    assert "usable in part" in capsys.readouterr().out
    merged = str(tmp_path / "m.aesgpack")
    assert cli.main(["pack", "merge", fixture, fixture, "-o", merged, "--format", "2", "--name", "both"]) == 0
    assert "36 concepts, 51 edges: 36 of B are in A" in capsys.readouterr().out
    assert read_pack(merged).metadata["provenance"]["merged"][0]["name"] == "all"
    assert cli.main(["pack", "verify", merged]) == 0
    assert "both: format 2, 36 concepts of 16 dimensions, 51 edges, sound" in capsys.readouterr().out
    assert cli.main(["pack", "diff", fixture, merged]) == 0
    assert cli.main(["pack", "diff", fixture, fixture]) == 0
    assert capsys.readouterr().out.count("the packs hold the same") == 2
    (tmp_path / "bad.aesgpack").write_bytes(b"x" * 100)
    assert cli.main(["pack", "verify", str(tmp_path / "bad.aesgpack")]) == 2
    assert "Invalid magic bytes" in capsys.readouterr().err
    (tmp_path / "p.aesgpack").write_bytes(bytes_of(some_columns(), 2, description="a\x1b[31mb"))
    assert cli.main(["pack", "info", str(tmp_path / "p.aesgpack")]) == 0
    assert "a?[31mb" in capsys.readouterr().out


def test_absorbed_concepts_are_given_time_to_show_use(make_memory: Make, tmp_path: Path) -> None:
    other = make_memory("other", vector_dim=DIM)
    slots = axes(other, [0, 1])
    other.storage.nodes["relevance"][slots] = 0.001
    other.export_pack(tmp_path / "p.aesgpack")
    home = make_memory("home", vector_dim=DIM, prune_min_age=1)
    home.absorb(home.load_pack(tmp_path / "p.aesgpack"))
    for _ in range(PRUNING_WAIT):
        home.update_topology()
    assert home.storage.active_count == 2
    home.update_topology()
    home.update_topology()
    assert home.storage.active_count == 0


def uses_of_edges(memory: AESGMemory) -> dict[tuple[int, int], int]:
    found = {}
    for slot in range(memory.storage.node_count):
        for edge in memory.storage.get_edges(slot):
            found[slot, int(edge["target"])] = int(edge["use_count"])
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_absorbed_edges_bring_their_uses(make_memory: Make, tmp_path: Path, version: int) -> None:
    home, other = make_memory("home", vector_dim=DIM), make_memory("other", vector_dim=DIM)
    axes(home, [0, 1, 2])
    axes(other, [1, 2, 3, 4])
    _, cold = blocks(other.storage)
    filled = cold.reshape(-1)[: other.storage.core.counters.block_count]
    filled["use_count"] = np.arange(1, filled["use_count"].size + 1).reshape(-1, 7)
    other.storage.core.mark_blocks(np.arange(len(filled)), hot=False, cold=True)
    told = {(a + 1, b + 1): uses for (a, b), uses in uses_of_edges(other).items()}  # axis i is slot i - 1
    assert told and all(uses > 0 for uses in told.values())
    other.export_pack(tmp_path / "p.aesgpack", format_version=version)
    pack = home.load_pack(tmp_path / "p.aesgpack")
    before = uses_of_edges(home)
    for times in (1, 2):
        home.absorb(pack)
        after = uses_of_edges(home)
        assert after == {
            pair: before.get(pair, 0) + times * told.get(pair, 0) for pair in before.keys() | told.keys()
        }
