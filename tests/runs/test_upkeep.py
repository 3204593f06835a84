"""gc removes what nothing refers to and no more; verify finds what is wrong."""

import os
from pathlib import Path

import pytest

from aesg.exceptions import AESGStorageError
from aesg.runs import Store, upkeep
from tests.runs.helpers import grow_old, objects, staged


@pytest.fixture
def finished(tmp_path, clock):
    """A store with a run of five checkpoints, val_loss 5, 1, 4, 2, 3, and two days later."""
    with Store(tmp_path / "s", clock=clock, sync=False) as store:
        with store.run("r") as run:
            for number, loss in enumerate([5, 1, 4, 2, 3]):
                run.artifacts().save_text(f"c{number}", kind="checkpoint", metrics={"val_loss": loss})
            run.artifacts().save_text("report", kind="report")
        clock.now += 2 * 86400
        grow_old(store)
        yield store


def losses(store):
    return [art.metrics["val_loss"] for art in store.artifacts().list() if art.kind == "checkpoint"]


def test_nothing_goes_that_is_referred_to(finished):
    assert finished.gc(dry_run=False).objects == [] and len(objects(finished)) == 6


def test_keep_last_and_keep_best(finished):
    report = finished.gc(keep_last=2)
    assert report.dry_run and len(report.artifacts) == len(report.objects) == 3 and report.bytes == 6
    assert len(losses(finished)) == 5 and len(objects(finished)) == 6
    finished.gc(keep_last=1, keep_best=("val_loss", "min", 2), dry_run=False)
    assert losses(finished) == [1, 2, 3]
    assert len(objects(finished)) == 4 and finished.verify() == []
    finished.gc(keep_best=("val_loss", "max", 1), dry_run=False)
    assert losses(finished) == [3]
    assert len(finished.artifacts().search("report")) == 1


def test_pinned_young_referred_and_running_stay(finished, clock):
    arts = finished.artifacts()
    pinned, named, *_ = arts.list()
    arts.pin(pinned.artifact_id)
    with finished.run("second") as second:
        second.memory().record_tool_result("t", outputs=[{"name": "u", "kind": "uri", "value": named.uri}])
        second.artifacts().save_text("young", kind="checkpoint", metrics={"val_loss": 0})
        second.artifacts().save_text("younger", kind="checkpoint", metrics={"val_loss": 9})
        clock.now += 7200
        assert len(finished.gc(keep_last=1).artifacts) == 2  # the second run is running
        clock.now -= 7200
    finished.gc(keep_last=1, dry_run=False)
    assert losses(finished) == [5, 1, 3, 0, 9]
    arts.pin(pinned.artifact_id, pinned=False)
    clock.now += 7200
    finished.gc(keep_last=1, min_age=0, dry_run=False)
    assert losses(finished) == [1, 3, 9]


def test_shared_content_stays_until_the_last_save_of_it_goes(finished, clock):
    with finished.run("r2") as run:
        run.artifacts().save_text("c0", kind="report")
    finished.gc(keep_last=1, dry_run=False)
    assert Path(finished.artifacts().as_local_file(finished.artifacts().list()[-1])).read_text() == "c0"
    assert finished.verify() == []


def test_members_go_with_their_last_directory(store, tmp_path):
    with store.run("r") as run:
        for number in range(3):
            (tmp_path / "d").mkdir(exist_ok=True)
            (tmp_path / "d" / "same").write_text("same")
            (tmp_path / "d" / "new").write_text(str(number))
            run.artifacts().save_dir(tmp_path / "d", kind="checkpoint")
    assert len(objects(store)) == 1 + 3 + 3
    grow_old(store)
    store.gc(keep_last=1, min_age=0, dry_run=False)
    assert len(objects(store)) == 3 and store.verify() == []
    assert Path(store.artifacts().as_local_dir(store.artifacts().list()[0]) + "/same").read_text() == "same"


def test_dry_run_says_what_the_real_one_does(finished):
    expected = finished.gc(keep_last=2)
    done = finished.gc(keep_last=2, dry_run=False)
    assert (done.artifacts, done.objects, done.bytes) == (
        expected.artifacts,
        expected.objects,
        expected.bytes,
    )


def test_unknown_objects_and_unfinished_saves_go_when_they_are_old(store):
    stray = store.objects.path("ab" + "0" * 62)
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("stray")
    dead = store.objects.staging / "dead"
    dead.mkdir()
    (dead / "1").write_text("half")
    with store.run("r") as run, run.artifacts().writer("k") as w:
        w.write(b"alive")
        report = store.gc(dry_run=False)
        assert report.objects == [] and report.staging == []  # young
        for path in (stray, dead, *store.objects.staging.iterdir()):
            os.utime(path, (0, 0))
        report = store.gc(dry_run=False)
        assert report.objects == ["ab" + "0" * 62] and report.staging == ["dead"]
        assert len(staged(store)) == 1  # somebody is at it
    assert w.artifact.size == 5 and staged(store) == []


def test_a_save_of_what_gc_is_about_to_take_wins(store):
    """The object is there when the save looks first, and gone when it has the lock."""
    with store.run("r") as run:
        gone = run.artifacts().save_text("x", kind="checkpoint")
        with store.objects.stage() as stage:
            content = stage.add_bytes(b"x")
            upkeep.drop(store, [gone.artifact_id])
            assert upkeep.free(store, [content.sha])[0] == [content.sha]
            with store.index.write():
                stage.place()
        assert objects(store) == [content.sha]


def test_a_dry_run_beside_somebody_who_collects(store, monkeypatch):
    """The object is there when it is listed, and gone when its size is asked for."""
    stray = store.objects.path("ab" + "0" * 62)
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("stray")
    os.utime(stray, (0, 0))
    first = upkeep._would_be_free
    monkeypatch.setattr(upkeep, "_would_be_free", lambda *given: (stray.unlink(), first(*given))[1])
    report = store.gc()
    assert (report.objects, report.bytes) == ([], 0)


def test_verify_beside_somebody_who_collects(finished, monkeypatch):
    """All that is dropped and collected after the artifacts were listed is no damage."""
    listed = finished.objects.all
    left = [art.artifact_id for art in finished.artifacts().list()]

    def all_then_collect():
        found = list(listed())
        while left:
            upkeep.drop(finished, [left.pop()])
        upkeep.free(finished, [sha for sha, _ in found])
        return found

    monkeypatch.setattr(finished.objects, "all", all_then_collect)
    assert finished.verify() == [] and objects(finished) == []


def test_a_folder_that_was_moved_away_is_an_error_of_ours(tmp_path):
    with Store(tmp_path / "s", sync=False) as store, store.run("r") as run:
        art = run.artifacts().save_text("x")
        os.rename(tmp_path / "s", tmp_path / "t")
        asked = [store.gc, store.verify, lambda: run.artifacts().save_text("y")]
        for ask in [*asked, lambda: run.artifacts().as_local_file(art)]:
            with pytest.raises(AESGStorageError, match="No such file"):
                ask()
    with Store(tmp_path / "t") as store:
        assert store.verify() == [] and len(store.artifacts().list()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"keep_last": 0},
        {"keep_last": -1},
        {"keep_last": 1.5},
        {"keep_best": 3},
        {"keep_best": ("val_loss", "least", 3)},
        {"keep_best": ("val_loss", "min", 0)},
        {"keep_best": ("", "min", 1)},
        {"kind": "../x"},
        {"min_age": -1},
        {"min_age": float("nan")},
        {"min_age": "old"},
        {"min_age": float("inf")},
        {"min_age": 10**400},
    ],
)
def test_bad_arguments(finished, arguments):
    with pytest.raises(AESGStorageError):
        finished.gc(dry_run=False, **arguments)
    assert len(losses(finished)) == 5


def test_verify_finds(finished, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "member").write_text("m")
    with finished.run("r") as run:
        directory = run.artifacts().save_dir(tmp_path / "d")
    sha = directory.uri.rpartition("/")[2]
    assert finished.verify() == []
    with finished.index.write() as connection:
        connection.execute("UPDATE artifacts SET size = 7 WHERE kind = 'report'")
        connection.execute("DELETE FROM members WHERE directory = ?", (sha,))
    (finished.objects.directory / "notes.txt").write_text("x")
    member = finished.objects.path("62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a")
    member.unlink()
    findings = "\n".join(finished.verify())
    for expected in ("is no object", "expected 7 bytes, found 6", "'member' is missing", "other members"):
        assert expected in findings
    assert len(finished.verify()) == 4
