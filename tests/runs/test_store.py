"""Stores and runs: states, opening, moving, threads, processes, forks."""

import multiprocessing
import os
import pickle
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aesg.exceptions import AESGStorageError
from aesg.runs import Run, Store, index
from aesg.runs.disk import Disk
from tests.runs.helpers import tree

ROOT = Path(__file__).resolve().parents[2]


def python(code, *arguments):
    """A new process with `code`."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=env, stdout=subprocess.PIPE, text=True
    )


def test_states(store):
    with store.run("good", params={"lr": 1e-3, "nested": [1, None]}) as run:
        assert run.info().state == "running" and run.info().ended is None
    info = run.info()
    assert (info.name, info.state, info.params) == ("good", "finished", {"lr": 1e-3, "nested": [1, None]})
    assert info.seconds >= 0 and info.error is None
    for error, state in [
        (ValueError("it broke"), "failed"),
        (KeyboardInterrupt(), "killed"),
        (SystemExit(3), "failed"),
        (SystemExit(0), "finished"),
    ]:
        with pytest.raises(type(error)), store.run("bad") as run:
            raise error
        assert run.info().state == state
    assert store.runs(state="failed")[-1].error == "ValueError: it broke"
    assert [info.state for info in store.runs()] == ["finished", "failed", "killed", "failed", "finished"]
    assert len(store.runs(name="bad")) == 4 and len(store.runs(limit=2)) == 2
    assert os.listdir(store.root / "running") == []


@pytest.mark.parametrize("error", ["", "\ud800", b"x", 3])
def test_a_run_cannot_end_with_what_is_no_text(store, error):
    run = store.run("r")
    with pytest.raises(AESGStorageError, match="error"):
        run.finish("failed", error)
    assert run.info().state == "running"


def test_a_run_ends_once_and_can_be_added_to(store):
    run = store.run("r")
    run.finish("failed")
    run.finish("finished")
    assert run.info().state == "failed"
    run.artifacts().save_text("afterthought")
    again = store.open_run(run.run_id)
    assert len(again.artifacts().list()) == 1
    again.finish("killed")
    assert again.info().state == "failed"
    with pytest.raises(AESGStorageError, match="running"), again:
        pass


def test_a_run_whose_process_is_gone_was_killed(tmp_path):
    code = """if True:
        import os, sys
        from aesg.runs import Store
        run = Store(sys.argv[1], sync=False).run("r")
        print(run.info().state, flush=True)
        sys.stdin.read()"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"running\n"
    with Store(tmp_path / "s") as store:
        assert store.runs()[0].state == "running"
        process.kill()
        process.communicate()
        assert store.runs()[0].state == "killed"
        assert store.runs()[0].error == "its process is gone"
    assert os.listdir(tmp_path / "s" / "running") == []


def test_bad_arguments(store):
    for call in [
        lambda: store.run("r", params=[1]),
        lambda: store.run("r", params={"x": object()}),
        lambda: store.runs(state="done"),
        lambda: store.runs(limit=0),
        lambda: store.open_run("nobody"),
        lambda: store.run("r").finish("running"),
        lambda: Store(None),
        lambda: Store("a\0b"),
    ]:
        with pytest.raises(AESGStorageError):
            call()
    assert store.get_run("nobody") is None
    assert [info.name for info in store.runs()] == ["r"]


def test_the_folder_can_be_moved(tmp_path):
    with Store(tmp_path / "here", sync=False) as store, store.run("r") as run:
        art = run.artifacts().save_text("x", kind="k", metrics={"m": 1})
    shutil.move(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "there" / "staging")
    with Store(tmp_path / "there", create=False) as store:
        assert store.artifacts().best("k", "m") == art and store.verify() == []
        assert Path(store.artifacts().as_local_file(art.uri)).read_text() == "x"
    with pytest.raises(AESGStorageError, match="found none"):
        Store(tmp_path / "here", create=False)
    assert not (tmp_path / "here").exists()


def foreign_database(path, application=0, version=0):
    with sqlite3.connect(path) as connection:
        connection.executescript(
            f"PRAGMA application_id={application}; PRAGMA user_version={version}; CREATE TABLE x(y)"
        )
    connection.close()


@pytest.mark.parametrize(
    "what",
    [
        "file",
        "folder",
        "text",
        "foreign",
        "newer",
        "older",
        "tables",
        "cut",
        "empty",
        "link",
        "folder/index",
        "objects",
        "running",
    ],
)
def test_what_is_not_ours_is_refused_and_untouched(tmp_path, what):
    root = tmp_path / "s"
    if what == "file":
        root.write_text("x")
    else:
        root.mkdir()
        file = root / index.FILE
        if what == "folder":
            (root / "photo.jpg").write_text("x")
        elif what == "text":
            file.write_text("x" * 5000)
        elif what == "empty":
            file.touch()
        elif what == "folder/index":
            file.mkdir()
        elif what == "link":
            file.symlink_to("nowhere")
        elif what == "cut":
            Store(root).close()
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        elif what in ("objects", "running"):  # a store that lost its index, or somebody's folder
            (root / what).mkdir()
            (root / what / "ab").write_text("x")
        else:
            ours = index.APPLICATION_ID
            numbers = {"foreign": (1, 1), "newer": (ours, 2), "older": (ours, 0), "tables": (ours, 1)}
            foreign_database(file, *numbers[what])
    before = tree(tmp_path)
    with pytest.raises(AESGStorageError, match=r"[Ee]xpected|Failed to open"):
        Store(root)
    assert tree(tmp_path) == before


def test_an_unfinished_making_is_finished(tmp_path):
    (tmp_path / "s" / "staging").mkdir(parents=True)
    (tmp_path / "s" / "staging" / "left.sqlite").touch()
    with Store(tmp_path / "s", sync=False) as store, store.run("r") as run:
        run.artifacts().save_text("x")
        assert store.verify() == []


def test_a_closed_store_says_so(tmp_path):
    store = Store(tmp_path / "s", sync=False)
    run = store.run("r")
    store.close()
    store.close()
    for call in [lambda: run.artifacts().save_text("x"), lambda: run.memory().record("k"), store.runs]:
        with pytest.raises(AESGStorageError, match="was closed"):
            call()
    assert os.listdir(tmp_path / "s" / "staging") == []
    with Store(tmp_path / "s") as again:  # its lock is still held by the run object
        assert again.runs()[0].state == "running"


def test_threads_share_a_store(run):
    def work(number):
        for step in range(10):
            run.artifacts().save_text(f"{step}", labels={"thread": number}, metrics={"m": step})
            run.memory().record("k", data=[number, step])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(run.artifacts().list()) == 60 and len(run.memory().recent(limit=100)) == 60
    for number in range(6):
        steps = [s for n, s in run.memory().recent_data(limit=100) if n == number]
        assert steps == list(range(10))
    assert run.store.verify() == [] and len(list(run.store.objects.all())) == 10


def test_processes_make_and_share_a_store(tmp_path):
    code = """if True:
        import sys
        from aesg.runs import Store
        with Store(sys.argv[1], sync=False) as store, store.run(sys.argv[2]) as run:
            for step in range(15):
                run.artifacts().save_text(f"{step}", kind="k", metrics={"m": step})
                run.memory().record("k", data=step)"""
    processes = [python(code, tmp_path / "s", f"r{number}") for number in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    with Store(tmp_path / "s") as store:
        assert sorted(info.name for info in store.runs(state="finished")) == ["r0", "r1", "r2", "r3"]
        assert len(store.artifacts().list()) == 60 and store.verify() == []
        assert len(list(store.objects.all())) == 15


def test_a_forked_child_goes_on_and_leaves_the_parents_run_alone(run):
    run.artifacts().save_text("before")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run.artifacts().save_text("child", kind="k")
            run.memory().record("child")
            run.finish("failed")  # not the child's to end
            code = 0
        finally:
            os._exit(code)
    run.artifacts().save_text("parent", kind="k")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(run.artifacts().search("k")) == 2 and len(run.memory().recent(["child"])) == 1
    assert run.info().state == "running" and run.store.verify() == []


def test_forks_amid_the_work_of_other_threads(run):
    """No lock of SQLite and none of ours is taken along into the child."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            run.memory().record("k")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    run.artifacts().save_text("child", kind="child")
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(run.artifacts().search("child")) == 5 and run.store.verify() == []


def add(run: Run, number: int) -> None:
    run.artifacts().save_text(f"{number}", kind="spawned")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_run_goes_to_worker_processes(run, method):
    context = multiprocessing.get_context(method)
    worker = context.Process(target=add, args=(run, 1))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0 and len(run.artifacts().search("spawned")) == 1


def test_a_pickled_run_is_another_handle(run):
    copy = pickle.loads(pickle.dumps(run))
    assert copy.run_id == run.run_id and copy.store is not run.store
    copy.artifacts().save_text("x")
    copy.finish("failed")
    assert run.info().state == "running" and len(run.artifacts().list()) == 1


def write_until_it_is_full(root):
    """What a process can save and record when no file may grow beyond 300 kB."""
    with Store(root, sync=False) as store, store.run("r") as run:
        kept = run.artifacts().save_text("kept")
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        with pytest.raises(AESGStorageError, match="File too large"):
            run.artifacts().save_text("x" * 10**6)
        recorded = 0
        with pytest.raises(AESGStorageError):
            for _ in range(1000):
                run.memory().record("k", data="x" * 2000)
                recorded += 1
        assert 0 < recorded == len(run.memory().recent(limit=1000)) < 1000
        assert os.listdir(store.objects.staging) == [] and store.verify() == []
        assert Path(run.artifacts().as_local_file(kept)).read_text() == "kept"


def test_a_full_disk_loses_nothing_that_was_kept(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=write_until_it_is_full, args=(tmp_path / "s",))
    child.start()
    child.join()
    with Store(tmp_path / "s") as store, store.run("next") as run:
        assert store.verify() == [] and len(store.artifacts().list()) == 1
        assert run.artifacts().save_text("x" * 10**6).size == 10**6


@pytest.mark.parametrize("sync", [True, False])
def test_a_pickled_store_syncs_as_it_did(tmp_path, sync):
    again = pickle.loads(pickle.dumps(Store(tmp_path / "s", sync=sync)))
    assert (again.sync, again.index._sync, type(again.disk) is Disk) == (sync, sync, sync)
    gone = pickle.dumps(again)
    shutil.rmtree(tmp_path / "s")
    with pytest.raises(AESGStorageError, match="found none"):
        pickle.loads(gone)
    assert not (tmp_path / "s").exists()


def test_importing_runs_is_light():
    code = (
        "import aesg.runs, aesg.tools.runs, sys; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    assert python(code).communicate()[0].strip() == "[]"


def test_what_looks_damaged_for_a_moment_is_looked_at_again(tmp_path, monkeypatch):
    """Another process's checkpoint can show half of itself to a look without locks."""
    Store(tmp_path / "s").close()
    looks = []

    def torn(path):
        looks.append(path)
        if len(looks) < 3:
            raise sqlite3.DatabaseError("database disk image is malformed")
        return real(path)

    real = index._look
    monkeypatch.setattr(index, "_look", torn)
    Store(tmp_path / "s").close()
    assert len(looks) == 3
