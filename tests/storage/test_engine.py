"""AESGStorage: what was committed comes back, views stay, what is refused changes nothing."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from aesg import _core
from aesg.exceptions import AESGMemoryError, AESGStorageError
from aesg.storage import AESGStorage, inspect_directory

D = 16


def vectors(n: int, dim: int = D, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


@pytest.fixture
def storage(tmp_path):
    with AESGStorage(tmp_path / "m", D, clock=lambda: 1234.5) as opened:
        yield opened


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_creation_writes_the_documented_files_at_once(tmp_path):
    with AESGStorage(tmp_path / "deep" / "m", D):
        names = {path.name for path in (tmp_path / "deep" / "m").iterdir()}
    assert {"nodes.aesg", "edges.aesg", "meta.npy", "evolution.aesglog"} <= names


def test_meta_is_a_plain_npy(tmp_path):
    with AESGStorage(tmp_path / "m", D) as storage:
        storage.add_node(7, vectors(1)[0])
    meta = np.load(tmp_path / "m" / "meta.npy", allow_pickle=False)
    newest = meta[meta["epoch"].argmax()]
    assert (newest["vector_dim"], newest["node_count"], newest["next_id"], newest["generation"]) == (
        D,
        1,
        8,
        1,
    )


def test_reopening_finds_what_was_committed(tmp_path):
    rows = vectors(1500)
    with AESGStorage(tmp_path / "m", D) as storage:
        for i, row in enumerate(rows):
            storage.add_node(i + 1, row)
        storage.add_edge(0, 2, 0.5, 0.25)
        storage.nodes["relevance"][:3] = [0.25, 0.5, 0.75]
    with AESGStorage(tmp_path / "m") as storage:
        assert (storage.vector_dim, storage.node_count, storage.active_count, storage.edge_count) == (
            D,
            1500,
            1500,
            1,
        )
        assert storage.generation == 1
        assert (storage.nodes["vector"][:] == rows).all()
        assert storage.nodes["relevance"][:4].tolist() == [0.25, 0.5, 0.75, 1.0]
        assert storage.get_edges(0)["target_id"].tolist() == [2]
        assert storage.verify() == []


def test_close_without_commit_gives_up_what_was_not_committed(tmp_path):
    storage = AESGStorage(tmp_path / "m", D)
    storage.add_node(1, vectors(1)[0])
    storage.commit()
    storage.add_node(2, vectors(1)[0])
    storage.close(commit=False)
    with AESGStorage(tmp_path / "m") as storage:
        assert storage.node_count == 1


def test_an_error_inside_with_commits_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), AESGStorage(tmp_path / "m", D) as storage:
        storage.add_node(1, vectors(1)[0])
        raise ZeroDivisionError
    with AESGStorage(tmp_path / "m") as storage:
        assert storage.node_count == 0


def test_commit_without_changes_writes_nothing(storage, tmp_path):
    storage.add_node(1, vectors(1)[0])
    assert storage.commit() == 1
    before = contents(tmp_path / "m")
    assert storage.commit() == 1
    assert contents(tmp_path / "m") == before


def test_add_node_refuses_and_changes_nothing(storage):
    row = vectors(1)[0]
    storage.add_node(5, row)
    for node_id, vector, part in [
        (5, row, "taken"),
        (0, row, "1..2"),
        (6, row[:3], r"expected 16 numbers, got float32 of shape \(3,\)"),
        (6, np.full(D, np.nan), "NaN"),
    ]:
        with pytest.raises(AESGMemoryError, match=part):
            storage.add_node(node_id, vector)
    assert storage.node_count == 1
    assert storage.add_node(3, row) == 1  # a free id below the highest


def test_columns_are_the_buffer(storage):
    for i, row in enumerate(vectors(3)):
        storage.add_node(i + 1, row)
    column = storage.column("relevance")
    assert column.shape == (1, 1024) and column.dtype == torch.float32
    column[0, 1] = 0.125
    assert storage.nodes["relevance"][1] == 0.125
    storage.mark("relevance", [1])
    storage.commit()
    with AESGStorage(storage.directory, read_only=True) as reader:
        assert reader.nodes["relevance"][1] == 0.125
        assert reader.column("id")[0, :3].tolist() == [1, 2, 3]
    with pytest.raises(AESGMemoryError, match="expected one of vector"):
        storage.column("colour")
    with pytest.raises(AESGMemoryError, match=r"0\.\.2, got 3"):
        storage.mark("relevance", [3])


def test_mark_of_all_rows_commits_a_whole_column(storage):
    for i, row in enumerate(vectors(2000)):
        storage.add_node(i + 1, row)
    storage.commit()
    storage.column("age").fill_(7)
    storage.mark("age")
    storage.commit()
    with AESGStorage(storage.directory, read_only=True) as reader:
        assert (reader.nodes["age"][:] == 7).all()


def test_views_stay_valid_across_growth_and_close(storage):
    rows = vectors(3000)
    storage.add_node(1, rows[0])
    early, pointer = storage.column("vector"), storage.column("vector").data_ptr()
    raw = storage.core.node_view()
    for i, row in enumerate(rows[1:]):
        storage.add_node(i + 2, row)
    late = storage.column("vector")
    assert late.data_ptr() == pointer and late.shape == (3, 1024, D)
    assert (early[0].numpy() == rows[:1024]).all()
    storage.close()
    del storage
    assert (late.reshape(-1, D)[:3000].numpy() == rows).all()
    assert raw.size == _core.group_bytes(D)


def test_empty_store_has_empty_views(storage):
    assert storage.column("vector").shape == (0, 1024, D)
    assert storage.edge_blocks().targets.shape == (0, 1024, 7)
    assert storage.nodes["relevance"][:].shape == (0,)
    assert len(storage.edges[:]) == 0


def test_edge_blocks_are_the_buffer(storage):
    for i, row in enumerate(vectors(12)):
        storage.add_node(i + 1, row)
    for target in range(2, 12):
        storage.add_edge(0, target, target / 100)
    blocks = storage.edge_blocks()
    assert blocks.targets.shape == (1, 1024, 7) and blocks.targets.stride() == (163840 // 4, 16, 1)
    found, block = {}, int(blocks.first_block[0, 0])
    while block >= 0:
        found |= dict(
            zip(blocks.targets[0, block].tolist(), blocks.strengths[0, block].tolist(), strict=True)
        )
        block = int(blocks.next_block[0, block])
    found.pop(-1)
    assert found == {t - 1: np.float32(t / 100) for t in range(2, 12)}


def test_another_dim_is_refused_and_named(tmp_path):
    AESGStorage(tmp_path / "m", D).close()
    before = contents(tmp_path / "m")
    with pytest.raises(AESGStorageError, match="16 dimensions, asked for were 32"):
        AESGStorage(tmp_path / "m", 32)
    assert contents(tmp_path / "m") == before
    for bad in (0, -1, 8193, "16"):
        with pytest.raises(AESGStorageError, match=r"1\.\.8192"):
            AESGStorage(tmp_path / "n", bad)
    with pytest.raises(AESGStorageError, match="expected a vector_dim"):
        AESGStorage(tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_a_second_writer_is_refused_with_the_pid(storage):
    with pytest.raises(AESGStorageError, match=f"process {os.getpid()}"):
        AESGStorage(storage.directory)
    code = f"from aesg.storage import AESGStorage; AESGStorage({storage.directory!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and f"process {os.getpid()}" in done.stderr


def test_readers_beside_the_writer(storage):
    storage.add_node(1, vectors(1)[0])
    storage.commit()
    with AESGStorage(storage.directory, read_only=True) as reader:
        storage.add_node(2, vectors(1)[0])
        assert reader.refresh() is False and reader.node_count == 1
        storage.commit()
        assert reader.node_count == 1
        assert reader.refresh() is True and reader.node_count == 2
        for forbidden in (
            lambda: reader.add_node(3, vectors(1)[0]),
            reader.commit,
            lambda: reader.write_state({}),
            lambda: reader.nodes["age"].__setitem__(0, 1),
        ):
            with pytest.raises(AESGStorageError, match="reading only"):
                forbidden()


def test_two_directories_are_independent(tmp_path):
    with AESGStorage(tmp_path / "a", 4) as a, AESGStorage(tmp_path / "b", 8) as b:
        a.add_node(1, vectors(1, 4)[0])
        b.commit()
        assert (a.node_count, b.node_count, b.generation) == (1, 0, 0)


def test_a_closed_storage_refuses(storage):
    storage.close()
    storage.close()
    for forbidden in (storage.commit, lambda: storage.add_node(1, vectors(1)[0]), storage.refresh):
        with pytest.raises(AESGStorageError, match="was closed"):
            forbidden()


def test_a_pickle_in_meta_is_refused_and_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    (tmp_path / "m").mkdir()
    np.save(tmp_path / "m" / "meta.npy", np.array(Bomb(), dtype=object), allow_pickle=True)
    before = contents(tmp_path / "m")
    with pytest.raises(AESGStorageError, match=r"3\.0\.0; import it with: aesg import-v3"):
        AESGStorage(tmp_path / "m", D)
    (tmp_path / "m" / "meta.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(AESGStorageError, match="not a memory of ours"):
        AESGStorage(tmp_path / "m", D)
    assert not (tmp_path / "exploded").exists()
    assert contents(tmp_path / "m").keys() == before.keys()


def test_a_directory_of_version_3_is_named(tmp_path):
    fields = {"node_count": 0, "edge_count": 0, "vector_dim": D, "cap_nodes": 64, "cap_edges": 320}
    (tmp_path / "m").mkdir()
    np.save(tmp_path / "m" / "meta.npy", fields, allow_pickle=True)
    (tmp_path / "m" / "nodes.aesg").write_bytes(bytes(64 * (53 + 4 * D)))
    assert inspect_directory(tmp_path / "m")["kind"] == "aesg-3.0.0"
    with pytest.raises(AESGStorageError, match="aesg import-v3"):
        AESGStorage(tmp_path / "m")


def test_inspection(tmp_path):
    assert inspect_directory(tmp_path / "none") is None
    assert inspect_directory(tmp_path)["kind"] == "empty"
    with AESGStorage(tmp_path / "m", D) as storage:
        storage.add_node(1, vectors(1)[0])
    assert inspect_directory(tmp_path / "m") == {
        "kind": "ours", "vector_dim": D, "node_count": 1, "edge_count": 0, "generation": 1,
    }  # fmt: skip
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "edges.aesg").write_text("not edges")
    assert inspect_directory(tmp_path / "other")["kind"] == "foreign"
    with pytest.raises(AESGStorageError, match=r"edges.aesg is there without meta.npy"):
        AESGStorage(tmp_path / "other", D)


def test_an_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(AESGStorageError):
        AESGStorage(tmp_path / "file" / "m", D)
    if os.geteuid() == 0:
        return  # nothing is unwritable for root
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(AESGStorageError, match="Permission denied"):
        AESGStorage(tmp_path / "locked" / "m", D)


def test_a_full_disk_is_an_error_and_keeps_the_last_commit(tmp_path):
    code = f"""
        import resource, signal, numpy as np
        from aesg import _core
        from aesg.exceptions import AESGStorageError
        from aesg.storage import AESGStorage
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        storage = AESGStorage({str(tmp_path / "m")!r}, {D})
        storage.add_node(1, np.ones({D}))
        storage.commit()
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # no file may grow beyond
        _core.bear(storage.core, np.ones((5000, {D}), np.float32), 0)
        try:
            storage.commit()
        except AESGStorageError as error:
            print("refused:", error)
        storage.close(commit=False)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0 and "refused: cannot write" in done.stdout, done.stderr
    with AESGStorage(tmp_path / "m") as storage:
        assert storage.node_count == 1 and storage.verify() == []


def test_a_forked_child_cannot_write(storage):
    storage.add_node(1, vectors(1)[0])
    child = os.fork()
    if child == 0:
        try:
            storage.commit()
            os._exit(1)
        except AESGStorageError as error:
            os._exit(0 if "fork" in str(error) else 2)
    assert os.waitpid(child, 0)[1] == 0
    assert storage.commit() == 1


def test_kill_9_loses_no_acknowledged_commit(tmp_path):
    code = f"""
        import sys, numpy as np
        from aesg.storage import AESGStorage
        with AESGStorage({str(tmp_path / "m")!r}, {D}) as storage:
            while True:
                i = storage.node_count
                storage.add_node(i + 1, np.full({D}, i + 1, np.float32))
                storage.write_state({{"count": i + 1, "array": np.arange(i)}})
                storage.commit()
                print(i + 1, flush=True)
    """
    acknowledged = 0
    for cycle in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
        )
        for line in child.stdout:
            acknowledged = int(line)
            if acknowledged >= 40 * (cycle + 1):
                child.send_signal(signal.SIGKILL)
                break
        acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
        child.wait()
        with AESGStorage(tmp_path / "m") as storage:
            count = storage.node_count
            assert acknowledged <= count <= acknowledged + 1
            assert storage.nodes["vector"][:][:, 0].tolist() == list(range(1, count + 1))
            assert storage.read_state()["count"] == count
            assert storage.verify() == []


def test_a_concept_takes_less_than_150_bytes_on_disk(tmp_path):
    n = 100_000
    with AESGStorage(tmp_path / "m", D) as storage:
        _core.bear(storage.core, vectors(n), 0, log=False)
        storage.commit()
    used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "m").iterdir())
    assert used / n < 150


def test_snapshot_and_restore(storage, tmp_path):
    for i, row in enumerate(vectors(20)):
        storage.add_node(i + 1, row)
    storage.write_state({"a": 1})
    storage.commit()
    storage.snapshot(tmp_path / "copy")
    with pytest.raises(AESGStorageError, match="already holds something"):
        storage.snapshot(tmp_path / "copy")
    storage.nodes["relevance"][:] = 0.0
    storage.write_state({"a": 2})
    storage.commit()
    storage.restore(tmp_path / "copy")
    assert (storage.nodes["relevance"][:] == 1).all() and storage.read_state() == {"a": 1}
    with AESGStorage(tmp_path / "copy") as copy:
        assert copy.node_count == 20 and copy.verify() == []
    AESGStorage(tmp_path / "other", 4).close()
    with pytest.raises(AESGStorageError, match="dimensions"):
        storage.restore(tmp_path / "other")


def test_before_read_is_called_by_host_side_reads_and_not_from_within(storage):
    calls = []

    def hook():
        calls.append(storage.node_count)  # reads inside the hook do not call it again

    storage.before_read = hook
    for read in (
        lambda: storage.node_count,
        lambda: storage.edge_count,
        lambda: storage.nodes["age"][:],
        lambda: storage.edges[:],
    ):
        before = len(calls)
        read()
        assert len(calls) > before
    before = len(calls)
    storage.column("age"), storage.edge_blocks(), storage.core.node_count
    assert len(calls) == before


def mapped_bytes(file: Path, field: str) -> int:
    """Sum of a field of /proc/self/smaps over the mappings of a file."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            inside = line.endswith(str(file))
        elif inside and line.startswith(field + ":"):
            total += int(line.split()[1]) << 10
    return total


def test_a_writer_keeps_no_private_copy_of_what_is_on_disk(tmp_path):
    n = 40_000
    rows = np.ones((n, 64), np.float32)
    file = tmp_path / "m" / "nodes.aesg"
    with AESGStorage(tmp_path / "m", 64) as storage:
        _core.bear(storage.core, rows, 1, 1.0, 0.5, False, None)
        assert mapped_bytes(file, "Size") == 4096
        storage.commit()  # in bulk: straight into the file
        assert mapped_bytes(file, "Size") == file.stat().st_size
        for name in ("relevance", "vector"):
            storage.column(name)[:] = 0.25
            storage.mark(name)
        assert mapped_bytes(file, "Private_Dirty") > 10_000_000
        storage.commit()  # through the journal
        assert mapped_bytes(file, "Private_Dirty") > 10_000_000
        storage.core.fold()
        assert mapped_bytes(file, "Private_Dirty") < 1_000_000  # rows behind the last: written, never marked
        assert (storage.nodes["vector"][:] == 0.25).all() and (storage.nodes["relevance"][:] == 0.25).all()
        storage.column("relevance")[0, 0] = 0.5  # and can still be written
        storage.mark("relevance", [0])
    with AESGStorage(tmp_path / "m") as storage:
        assert storage.nodes["relevance"][:2].tolist() == [0.5, 0.25]


def test_compact_says_so_when_a_reader_is_there(storage, tmp_path):
    storage.add_node(1, vectors(1)[0])
    storage.commit()
    with (
        AESGStorage(tmp_path / "m", read_only=True),
        pytest.raises(AESGStorageError, match="while a reader has it open"),
    ):
        storage.compact()
    storage.compact()
    assert (tmp_path / "m" / "journal.aesg").stat().st_size == 4096


def test_the_benchmark_runs(tmp_path, capsys):
    from aesg.benchmarks import store

    assert store.main(["--short", "--out", str(tmp_path / "out"), "--directory", str(tmp_path)]) == 0
    cases = json.loads((tmp_path / "out" / "store.json").read_text())["cases"]
    assert {case.get("commit") for case in cases} >= {1, 256, 4096}
    assert "SQLite" in capsys.readouterr().out
