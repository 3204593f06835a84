"""Kills processes that save, at random moments, and looks at what they left.

`python -m tests.runs.crash 1000`. A child reports what was acknowledged through a pipe; after kill -9 all of
it must be there, whole, and the store must open, verify and take more. Every so often a new store begins, so
that its making is hit as well.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from aesg.runs import Store

FRESH_EVERY = 50  # cycles
VERIFY_EVERY = 5


def child(root: Path, cycle: int, report: int) -> None:
    """Saves until it is killed."""
    source = root.parent / "source"
    with Store(root, sync=False) as store:
        run = store.run(f"cycle {cycle}")
        arts, mem = run.artifacts(), run.memory()
        for step in range(1_000_000):
            text = f"{cycle}.{step}"
            art = arts.save_text(text, kind="text", labels={"text": text}, metrics={"step": step})
            os.write(report, f"{art.artifact_id} {text}\n".encode())
            directory = arts.save_dir(source, kind="directory")
            with arts.writer("stream") as w:
                w.write(text.encode() * 1000)
            mem.record_tool_result("t", outputs=[{"name": "last", "kind": "uri", "value": w.artifact.uri}])
            os.write(report, f"{directory.artifact_id} -\n".encode())
            if step % 4 == 3:
                store.gc(min_age=0, dry_run=False)


def cycle(root: Path, number: int, moment: float) -> int:
    """One child, killed after `moment` seconds; returns how many saves it had acknowledged."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(receive)
            child(root, number, send)
        finally:
            os._exit(1)  # it is to be killed, not to end
    os.close(send)
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status):
        raise AssertionError(f"cycle {number}: the child ended by itself")
    with open(receive, encoding="utf-8") as file:
        acknowledged = [line.split() for line in file.read().splitlines()]
    with Store(root, sync=False) as store:
        artifacts = store.artifacts()
        for identity, text in acknowledged:
            found = artifacts.get(identity)
            assert found is not None, f"cycle {number}: lost {identity}"
            if text != "-":
                assert store.objects.read(found.uri.rpartition("/")[2], "text") == text.encode()
        assert all(info.state == "killed" for info in store.runs())
        if number % VERIFY_EVERY == 0:
            assert store.verify() == [], store.verify()
            store.gc(min_age=0, dry_run=False)
            assert os.listdir(store.objects.staging) == []
    return len(acknowledged)


def main(cycles: int, seed: int = 0, longest: float = 0.25) -> int:
    """Runs the cycles; raises AssertionError at the first that finds something wrong."""
    chance = random.Random(seed)
    scratch = Path(tempfile.mkdtemp(prefix="aesg-crash-"))
    saves = 0
    try:
        (scratch / "source").mkdir()
        for name in ("a", "b"):
            (scratch / "source" / name).write_text(name * 5000)
        for number in range(cycles):
            root = scratch / f"store{number // FRESH_EVERY}"
            saves += cycle(root, number, chance.uniform(0, longest) ** 2 / longest)
            if number % FRESH_EVERY == FRESH_EVERY - 1:
                shutil.rmtree(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{cycles} kills, {saves} acknowledged saves, all found")
    return saves


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
