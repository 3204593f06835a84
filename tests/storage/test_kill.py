"""kill -9 at random moments of a process that works through the Python face, $AESG_KILL_CYCLES times."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest

from aesg.exceptions import AESGStorageError
from aesg.storage import AESGStorage, EvolutionLogger

D = 16


def work(directory, acknowledge) -> None:
    """Grows by batches; the small state and the log say how many concepts there are. Never returns."""
    while True:
        with AESGStorage(directory, D) as storage:
            for _ in range(8):
                first = storage.node_count
                for i in range(first, first + 1 + first % 7):
                    storage.add_node(i + 1, np.full(D, i + 1, np.float32))
                count = storage.node_count
                storage.nodes["relevance"][:] = count / 2**20
                storage.write_state({"count": count, "array": np.arange(count % 50)})
                EvolutionLogger(storage).log_event("CREATE", count)
                storage.commit()
                os.write(acknowledge, count.to_bytes(8, "little"))


def test_nothing_acknowledged_is_lost(tmp_path, capsys):
    cycles = int(os.environ.get("AESG_KILL_CYCLES", "20"))
    draw = random.Random(5)
    directory, commits, acknowledged = tmp_path / "m", 0, 0
    for _ in range(cycles):
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(told)
                work(directory, tell)
            finally:
                os._exit(1)
        os.close(tell)
        time.sleep(draw.uniform(0.001, 0.06))
        os.kill(child, signal.SIGKILL)
        with os.fdopen(told, "rb") as pipe:
            counts = np.frombuffer(pipe.read(), "<u8")
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child failed by itself"
        commits += len(counts)
        acknowledged = max([acknowledged, *counts.tolist()])
        with AESGStorage(directory, D) as storage:
            count = storage.node_count
            assert acknowledged <= count <= acknowledged + 7
            acknowledged = count
            assert storage.nodes["vector"][:][:, 0].tolist() == list(range(1, count + 1))
            assert storage.read_state().get("count", 0) == count
            assert (storage.nodes["relevance"][:] == np.float32(count / 2**20)).all()
            assert storage.verify() == []
    with capsys.disabled():
        print(f"\n{cycles} kills of a Python process, {commits} commits acknowledged, 0 lost")
    if cycles >= 20:
        assert commits > 0


@pytest.mark.parametrize("what", ["directory", "file", "foreign", "folder"])
def test_restoring_refuses_symlinks_and_foreign_names(tmp_path, what):
    with AESGStorage(tmp_path / "from", D) as source:
        source.add_node(1, np.ones(D, np.float32))
    wanted = tmp_path / "from"
    if what == "directory":
        wanted = tmp_path / "link"
        wanted.symlink_to(tmp_path / "from")
    elif what == "file":
        (wanted / "state.aesg").rename(tmp_path / "elsewhere")
        (wanted / "state.aesg").symlink_to(tmp_path / "elsewhere")
    elif what == "foreign":
        (wanted / "run.sh").write_text("echo")
    else:
        (wanted / "more").mkdir()
    with AESGStorage(tmp_path / "m", D) as storage:
        with pytest.raises(AESGStorageError, match=r"symbolic link|plain file|files of a memory"):
            storage.restore(wanted)
        assert storage.node_count == 0 and storage.generation == 0
