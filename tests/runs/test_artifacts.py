"""Artifacts: saved whole, stored once, found by label and metric, handed out as copies."""

import enum
import json
import math
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aesg.exceptions import AESGStorageError
from aesg.runs import Store
from tests.runs.helpers import objects, staged, tree


def test_a_file_is_copied_and_comes_back_with_its_name(run, tmp_path):
    source = tmp_path / "report.final.pdf"
    source.write_bytes(b"%PDF")
    art = run.artifacts().save_file(source, kind="report", labels={"exp": "A"}, metrics={"bleu": 31.2})
    assert (art.kind, art.labels, art.metrics) == ("report", {"exp": "A"}, {"bleu": 31.2})
    assert (art.name, art.suffix, art.size, art.pinned) == ("report.final.pdf", ".pdf", 4, False)
    assert source.read_bytes() == b"%PDF"
    source.write_bytes(b"changed")
    path = run.artifacts().as_local_file(art)
    assert os.path.basename(path) == "report.final.pdf"
    assert Path(path).read_bytes() == b"%PDF"


def test_a_copy_is_never_the_stored_bytes(run):
    art = run.artifacts().save_text("kept")
    first = run.artifacts().as_local_file(art)
    with open(first, "a") as file:
        file.write(" and spoilt")
    assert Path(run.artifacts().as_local_file(art)).read_text() == "kept"
    assert run.store.verify() == []


def test_objects_are_read_only_files_named_by_their_hash(run):
    art = run.artifacts().save_text("abc")
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert art.uri == f"cas://sha256/{sha}"
    path = run.store.root / "objects" / sha[:2] / sha[2:]
    assert path.read_bytes() == b"abc" and stat.S_IMODE(path.stat().st_mode) == 0o444


def test_equal_bytes_are_stored_once_and_every_save_is_its_own(run):
    arts = run.artifacts()
    first = arts.save_text("same", kind="a", labels={"n": 1})
    second = arts.save_text("same", kind="b", labels={"n": 2})
    assert first.uri == second.uri and first.artifact_id != second.artifact_id
    assert objects(run.store) == [first.uri.rpartition("/")[2]]
    arts.pin(first.artifact_id)
    assert [one.pinned for one in arts.list()] == [True, False]
    assert arts.get(second.artifact_id) == second


def test_json_has_sorted_keys_and_scalars_of_numpy_and_torch(run):
    arts = run.artifacts()
    one = arts.save_json({"b": np.float32(0.5), "a": [torch.tensor(3), np.int64(4)]})
    two = arts.save_json({"a": [3, 4], "b": 0.5})
    assert one.uri == two.uri and one.suffix == ".json"
    assert Path(arts.as_local_file(one)).read_text() == '{"a":[3,4],"b":0.5}'


def test_writer(run):
    with run.artifacts().writer(kind="plot", planned_ext=".png", metrics={"m": 1}) as w:
        assert w.write(b"\x89PNG") == 4 and w.write(memoryview(b"....")) == 4
        assert w.tell() == 8 and w.artifact is None
        assert run.artifacts().list() == []
    assert w.artifact.kind == "plot" and w.artifact.size == 8 and w.artifact.metrics == {"m": 1}
    assert run.artifacts().as_local_file(w.artifact).endswith(".png")


def test_torch_saves_into_a_writer(run):
    with run.artifacts().writer(kind="weights", planned_ext=".pt") as w:
        torch.save({"x": torch.arange(3)}, w)
    path = run.artifacts().as_local_file(w.artifact)
    assert torch.equal(torch.load(path, weights_only=True)["x"], torch.arange(3))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_writer_left_by_an_exception_leaves_nothing(run, error):
    before = tree(run.store.root / "objects")
    with pytest.raises(error), run.artifacts().writer(kind="plot") as w:
        w.write(b"half")
        assert len(staged(run.store)) == 1
        raise error
    assert run.artifacts().list() == [] and w.artifact is None
    assert staged(run.store) == [] and tree(run.store.root / "objects") == before
    with pytest.raises(AESGStorageError, match="with"):
        w.write(b"late")
    with pytest.raises(AESGStorageError, match="once"):
        w.__enter__()


def test_directories(run, tmp_path):
    source = tmp_path / "model"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "a").write_bytes(b"same")
    (source / "deep" / "er" / "b").write_bytes(b"same")
    (source / os.fsdecode(b"not\xffutf8")).write_bytes(b"x")
    art = run.artifacts().save_dir(source, kind="checkpoint")
    assert art.uri.startswith("cas+dir://sha256/") and art.size == 9 and art.is_directory
    assert len(objects(run.store)) == 3  # two contents and the manifest
    path = run.artifacts().as_local_dir(art)
    assert os.path.basename(path) == "model"
    assert tree(Path(path)) == tree(source)
    assert run.artifacts().save_dir(path).uri == art.uri
    assert run.store.verify() == []


def test_an_unchanged_member_is_stored_once(run, tmp_path):
    source = tmp_path / "d"
    source.mkdir()
    (source / "large").write_bytes(bytes(100_000))
    (source / "small").write_bytes(b"1")
    run.artifacts().save_dir(source)
    (source / "small").write_bytes(b"2")
    run.artifacts().save_dir(source)
    assert len(objects(run.store)) == 2 + 1 + 2


def test_an_empty_directory_and_an_empty_file(run, tmp_path):
    (tmp_path / "none").mkdir()
    art = run.artifacts().save_dir(tmp_path / "none")
    assert os.listdir(run.artifacts().as_local_dir(art)) == []
    (tmp_path / "f").touch()
    assert os.path.getsize(run.artifacts().as_local_file(run.artifacts().save_file(tmp_path / "f"))) == 0


def test_handles_are_interchangeable(run):
    arts = run.artifacts()
    art = arts.save_text("x")
    for handle in (art, art.artifact_id, art.uri):
        assert Path(arts.as_local_file(handle)).read_text() == "x"
    assert arts.get("nobody") is None


def test_into_a_directory_of_the_callers(run, tmp_path):
    art = run.artifacts().save_text("x")
    path = run.artifacts().as_local_file(art, into=tmp_path)
    assert os.path.dirname(path) == str(tmp_path)
    with pytest.raises(AESGStorageError, match="expected nothing at"):
        run.artifacts().as_local_file(art, into=tmp_path)
    with pytest.raises(AESGStorageError, match="expected a directory at"):
        run.artifacts().as_local_file(art, into=tmp_path / "missing")


def test_copies_go_with_the_store(tmp_path):
    with Store(tmp_path / "s", sync=False) as store, store.run("r") as run:
        path = run.artifacts().as_local_file(run.artifacts().save_text("x"))
        assert os.path.exists(path)
    assert not os.path.exists(path)


# ------------------------------------------------------------------------------------------------ finding


def test_labels_compare_by_type_and_value(run):
    arts = run.artifacts()
    values = [1, 1.0, True, "1", None, "", 0, False, [1], {"a": 1}, 0.1 + 0.2, 2**70]
    saved = [arts.save_text("x", labels={"v": value}) for value in values]
    for art, value in zip(saved, values, strict=True):
        assert arts.search(labels={"v": value}) == [art]
        assert type(art.labels["v"]) is type(value)
    assert arts.search(labels={"v": 0.3}) == [] and arts.search(labels={"w": 1}) == []
    zero = arts.save_text("x", labels={"z": -0.0})
    assert arts.search(labels={"z": 0.0}) == [zero]


def test_search_wants_all_labels_and_gives_the_newest_first(run):
    arts = run.artifacts()
    a = arts.save_text("1", kind="report", labels={"exp": "A", "part": 1})
    b = arts.save_text("2", kind="report", labels={"exp": "A", "part": 2})
    c = arts.save_text("3", kind="other", labels={"exp": "A"})
    assert arts.search(kind="report", labels={"exp": "A"}) == [b, a]
    assert arts.search(labels={"exp": "A"}) == [c, b, a]
    assert arts.search(labels={"exp": "A", "part": 1}) == [a]
    assert arts.search(limit=2) == [c, b]
    assert arts.list() == [a, b, c]


def test_search_ranks_by_a_metric(run):
    arts = run.artifacts()
    made = [arts.save_text("x", kind="k", metrics={"m": m}, labels={"odd": m % 2 == 1}) for m in (3, 1, 2, 1)]
    arts.save_text("x", kind="k")  # has no metric
    a, b, c, d = made
    assert arts.search("k", metric="m") == [a, c, d, b]  # ties: the newest first
    assert arts.search("k", metric="m", mode="min") == [d, b, c, a]
    assert arts.search("k", metric="m", mode="min", limit=1) == [d]
    assert arts.search(metric="m", labels={"odd": False}) == [c]


def test_best(run):
    arts = run.artifacts()
    assert arts.best("checkpoint", "val_acc") is None
    low = arts.save_text("1", kind="checkpoint", metrics={"val_acc": 0.5})
    high = arts.save_text("2", kind="checkpoint", metrics={"val_acc": 0.9})
    arts.save_text("3", kind="other", metrics={"val_acc": 1.0})
    assert arts.best(kind="checkpoint", metric="val_acc", mode="max", scope="run") == high
    assert arts.best(kind="checkpoint", metric="val_acc", mode="min") == low
    tie = arts.save_text("4", kind="checkpoint", metrics={"val_acc": 0.9})
    assert arts.best("checkpoint", "val_acc") == tie
    assert arts.best("checkpoint", "loss") is None


def test_scopes(store):
    with store.run("one") as one, store.run("two") as two:
        plain = one.artifacts().save_text("1", kind="k", metrics={"m": 1})
        other = two.artifacts().save_text("2", kind="k", metrics={"m": 9})
        left = one.node("left", graph="g")
        right = one.node("right", graph="g")
        loose = one.node("loose")
        in_left = left.artifacts().save_text("3", kind="k", metrics={"m": 3})
        in_right = right.artifacts().save_text("4", kind="k", metrics={"m": 4})
        in_loose = loose.artifacts().save_text("5", kind="k", metrics={"m": 5})
    whole = [plain, in_left, in_right, in_loose]
    assert one.artifacts().list(scope="run") == whole == one.artifacts().list("node")
    assert one.artifacts().list("graph") == whole
    assert left.artifacts().list("run") == whole
    assert left.artifacts().list("graph") == [in_left, in_right]
    assert left.artifacts().list("node") == [in_left]
    assert loose.artifacts().list("graph") == whole and loose.artifacts().list("node") == [in_loose]
    assert left.artifacts().list("all") == [plain, other, in_left, in_right, in_loose]
    assert store.artifacts().list() == left.artifacts().list("all")
    assert left.artifacts().best("k", "m", scope="node") == in_left
    assert left.artifacts().best("k", "m", scope="graph") == in_right
    assert left.artifacts().best("k", "m", scope="run") == in_loose
    assert left.artifacts().best("k", "m", scope="all") == other
    assert (in_left.graph, in_left.node, plain.graph) == ("g", "left", None)


def test_best_takes_an_index_and_no_sort(run):
    plan = run.store.index.read(
        "EXPLAIN QUERY PLAN SELECT artifact FROM metrics m WHERE m.run = 1 AND m.kind = 'k' AND m.name = 'm' "
        "ORDER BY m.value DESC, m.artifact DESC LIMIT 1"
    )
    assert "metrics_of_run" in str(plan) and "TEMP B-TREE" not in str(plan)


# ------------------------------------------------------------------------------------------------ bad input

BAD_NAMES = ["", "..", ".", "a/b", "../x", "a\\b", "a\nb", "a\0b", "x" * 201, "\ud800", 7, None]


def refused(run, call, match=""):
    """Raises AESGStorageError and writes nothing."""
    before = tree(run.store.root)
    with pytest.raises(AESGStorageError, match=match):
        call(run.artifacts())
    after = tree(run.store.root)
    assert {k: v for k, v in after.items() if "index" not in k} == {
        k: v for k, v in before.items() if "index" not in k
    }
    assert run.artifacts().list() == []


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_no_names(run, name):
    refused(run, lambda arts: arts.save_text("x", kind=name), "kind")
    refused(run, lambda arts: arts.writer(kind=name), "kind")
    for make in (run.node, run.store.run):
        with pytest.raises(AESGStorageError):
            make(name)


@pytest.mark.parametrize("ext", ["png", "./../x", "./x", ".a/b", ".\0", ".", "." + "x" * 40, 3])
def test_endings_that_are_none(run, ext):
    refused(run, lambda arts: arts.writer("plot", planned_ext=ext), "planned_ext")


def test_paths(run, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dirlink").symlink_to(tmp_path / "dir")
    os.mkfifo(tmp_path / "pipe")
    for path, match in [
        ("missing", "No such file"),
        ("link", "found a symlink"),
        ("dir", "save_dir"),
        ("pipe", "a special file"),
    ]:
        refused(run, lambda arts, path=path: arts.save_file(tmp_path / path), match)
    for path, match in [
        ("missing", "nothing"),
        ("file", "a file"),
        ("dirlink", "a symlink"),
        ("dirlink/", "a symlink"),
    ]:
        refused(run, lambda arts, path=path: arts.save_dir(f"{tmp_path}/{path}"), match)
    refused(run, lambda arts: arts.save_file("a\0b"), "path")
    refused(run, lambda arts: arts.save_file(b"bytes"), "path")
    refused(run, lambda arts: arts.save_file(None), "path")
    refused(run, lambda arts: arts.save_dir(tmp_path), "does not hold the store")


@pytest.mark.parametrize("deep", [False, True])
def test_a_symlink_anywhere_in_a_directory(run, tmp_path, deep):
    source = tmp_path / "d"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("x")
    ((source / "sub" if deep else source) / "z").symlink_to("/etc")
    refused(run, lambda arts: arts.save_dir(source), "a symlink")


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def circle():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [math.inf],
        {1: 2},
        {"a": {None: 1}},
        object(),
        {1, 2},
        b"x",
        circle(),
        np.zeros(2),
        1j,
        pytest.param(10**5000, id="long"),
        nested(101),
        nested(950),
        nested(5000),
    ],
)
def test_values_json_cannot_hold(run, value):
    refused(run, lambda arts: arts.save_json(value), "value")
    refused(run, lambda arts: arts.save_text("x", labels={"l": value}), "labels")


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        "1",
        None,
        True,
        1j,
        10**400,
        pytest.param(10**5000, id="long"),
        [1],
        np.nan,
        np.zeros(3),
    ],
)
def test_metrics_that_cannot_rank(run, value):
    refused(run, lambda arts: arts.save_text("x", metrics={"m": value}), "metrics 'm'")


def test_other_bad_arguments(run):
    refused(run, lambda arts: arts.save_text(b"bytes"), "text")
    refused(run, lambda arts: arts.save_text("\ud800"), "UTF-8")
    refused(run, lambda arts: arts.save_text("x", labels=["a"]), "labels")
    refused(run, lambda arts: arts.save_text("x", labels={3: 1}), "key")
    refused(run, lambda arts: arts.save_text("x", metrics={"": 1}), "metrics name")
    refused(run, lambda arts: arts.search(mode="best"), "max, min")
    refused(run, lambda arts: arts.search(scope="world"), "run, graph, node, all")
    refused(run, lambda arts: arts.best("k", "m", mode=None), "mode")
    refused(run, lambda arts: arts.list(scope="RUN"), "scope")
    refused(run, lambda arts: arts.best(None, "m"), "kind")
    refused(run, lambda arts: arts.best("k", None), "metric")
    for limit in (0, -1, 1.5, True, "3"):
        refused(run, lambda arts, limit=limit: arts.search(limit=limit), "limit")
    refused(run, lambda arts: arts.pin("nobody"), "artifact_id")
    refused(run, lambda arts: arts.get(None), "artifact_id")
    refused(run, lambda arts: arts.as_local_file("nobody"), "nobody")
    refused(run, lambda arts: arts.as_local_file("cas://sha256/../../etc/passwd"), "64 hexadecimal")
    refused(run, lambda arts: arts.as_local_file("cas://sha256/" + "0" * 64), "expected one of this store")


class Kind(str, enum.Enum):
    PLOT = "plot"


def test_members_of_a_str_enum_count_as_their_values(run):
    plot = Kind.PLOT
    art = run.artifacts().save_text("x", kind=plot, labels={plot: plot}, metrics={plot: 1})
    assert (art.kind, art.labels, art.metrics) == ("plot", {"plot": "plot"}, {"plot": 1})
    for kind in (Kind.PLOT, "plot"):
        assert run.artifacts().search(kind, {kind: kind}) == [art]
        assert run.artifacts().best(kind, kind) == art
    event = run.memory().record(Kind.PLOT, tags=[Kind.PLOT])
    named = [{"name": Kind.PLOT, "kind": Kind.PLOT, "value": Kind.PLOT}]
    result = run.memory().record_tool_result(Kind.PLOT, outputs=named)
    assert (event.kind, event.tags, result.topic) == ("plot", ["plot"], "plot")
    for kind in (Kind.PLOT, "plot"):
        assert run.memory().recent([kind]) == [event]
        assert run.memory().recent_tool_results(kind) == [result]
        assert run.memory().last_by_name(kind) == {"name": "plot", "kind": "plot", "value": "plot"}


def test_what_is_nested_is_read_from_any_stack(run):
    run.memory().record("deep", data=nested(100))
    run.artifacts().save_json(nested(100), labels={"deep": nested(98)})

    def below(frames):
        return below(frames - 1) if frames else (run.memory().recent(), run.artifacts().list())

    events, arts = below(sys.getrecursionlimit() - 400)
    assert events[0].data == nested(100) and arts[0].labels == {"deep": nested(98)}


def test_saving_needs_a_run_and_scopes_need_one(store):
    with pytest.raises(AESGStorageError, match="Expected a run"):
        store.artifacts().save_text("x")
    with pytest.raises(AESGStorageError, match="Expected a run"):
        store.artifacts().writer("k")
    with pytest.raises(AESGStorageError, match="'all' outside a run"):
        store.artifacts().list(scope="run")
    assert objects(store) == [] and staged(store) == []


def test_files_and_directories_are_not_mixed_up(run, tmp_path):
    (tmp_path / "d").mkdir()
    directory = run.artifacts().save_dir(tmp_path / "d")
    with pytest.raises(AESGStorageError, match="is a directory: as_local_dir"):
        run.artifacts().as_local_file(directory)
    with pytest.raises(AESGStorageError, match="is a file: as_local_file"):
        run.artifacts().as_local_dir(run.artifacts().save_text("x"))


# ------------------------------------------------------------------------------------------------ damage


def damage(store, art, content):
    path = store.objects.path(art.uri.rpartition("/")[2])
    path.chmod(0o644)
    path.write_bytes(content)


def test_damage_is_found_and_not_handed_out(run, tmp_path):
    art = run.artifacts().save_text("abc")
    damage(run.store, art, b"abd")
    with pytest.raises(AESGStorageError, match="damaged"):
        run.artifacts().as_local_file(art, into=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert len(run.store.verify()) == 1
    damage(run.store, art, b"")
    run.artifacts().save_text("abc")  # one that was cut short is made whole by the next save
    assert run.store.verify() == []
    run.store.objects.path(art.uri.rpartition("/")[2]).unlink()
    assert len(run.store.verify()) == 2 and "missing" in run.store.verify()[0]


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../b", "", "a//b", "./a"])
def test_a_forged_manifest_does_not_escape(run, tmp_path, name):
    inner = run.artifacts().save_text("x").uri.rpartition("/")[2]
    forged = {
        "format": "aesg-directory",
        "version": 1,
        "empty": [],
        "files": {name: {"sha256": inner, "size": 1}},
    }
    art = run.artifacts().save_json(forged)
    with pytest.raises(AESGStorageError, match="inside its directory"):
        run.artifacts().as_local_dir(
            replace(art, is_directory=True, uri=art.uri.replace("cas:", "cas+dir:"), name="d"), into=tmp_path
        )
    assert not (tmp_path / "d").exists()


def test_manifests_of_something_else(run):
    art = run.artifacts().save_text("{}")
    with pytest.raises(AESGStorageError, match="manifest"):
        run.artifacts().as_local_dir(replace(art, is_directory=True, uri=art.uri.replace("cas:", "cas+dir:")))


def test_a_large_file_in_pieces(run, tmp_path):
    data = os.urandom(3 * 2**20 + 17)
    (tmp_path / "big.bin").write_bytes(data)
    art = run.artifacts().save_file(tmp_path / "big.bin")
    assert Path(run.artifacts().as_local_file(art)).read_bytes() == data
    assert json.loads(json.dumps(art.labels)) == {}


def test_a_writer_takes_memory_that_is_not_in_one_piece(store):
    with store.run("r") as run, run.artifacts().writer("k") as w:
        w.write(memoryview(b"abcdefgh")[::2])
    assert store.objects.read(w.artifact.uri[-64:], "it") == b"aceg"
