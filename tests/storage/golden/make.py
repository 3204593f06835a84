"""Makes the golden memories of the current format: `python -m tests.storage.golden.make VERSION`.

`closed` was closed, `crashed` holds commits that only the journal has, over ones that were folded. Archive and
values are made once a format version and kept for ever.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from aesg.storage import AESGStorage, EvolutionLogger

HERE = Path(__file__).parent
D = 3
COLUMNS = (
    *("id", "vector", "created_at", "modified_at", "use_frequency"),
    *("relevance", "age", "stability", "region_id", "is_active"),
)


def fill(storage: AESGStorage, first: int, count: int) -> None:
    """Some of everything that a memory can hold."""
    logger = EvolutionLogger(storage)
    for i in range(first, first + count):
        storage.add_node(10 * i + 1, np.array([i, -0.5, 0.25 * i], np.float32))
        logger.log_event("CREATE", 10 * i + 1, 0, 0.5 * i)
    for i in range(first, first + count - 1):
        storage.add_edge(i, 10 * (i + 1) + 1, 0.75, 0.5)
        storage.add_edge(i + 1, 10 * i + 1, 0.25)
    storage.nodes["relevance"][first] = 0.375
    storage.nodes["use_frequency"][first:] = first + 7
    storage.nodes["region_id"][first] = 3
    storage.write_state({"count": first + count, "name": "golden é", "array": np.arange(5, dtype=np.int32)})


def make(folder: Path) -> None:
    """The two memories in `folder`."""
    with AESGStorage(folder / "closed", D, clock=lambda: 1.7e9) as storage:
        fill(storage, 0, 12)
    with AESGStorage(folder / "open", D, clock=lambda: 1.7e9) as storage:
        fill(storage, 0, 6)
        storage.commit()
        storage.core.fold()
        for first in (6, 9):
            fill(storage, first, 3)
            storage.commit()
        shutil.copytree(folder / "open", folder / "crashed")
    shutil.rmtree(folder / "open")
    for name in ("closed", "crashed"):
        (folder / name / "LOCK").write_bytes(b"")  # held the pid
        journal = folder / name / "journal.aesg"  # its zeros behind the last record mean nothing
        journal.write_bytes(journal.read_bytes().rstrip(b"\0").ljust(4096, b"\0") + bytes(64))


def values(storage: AESGStorage) -> dict[str, Any]:
    """All a reader can see, as JSON."""
    found: dict[str, Any] = {name: storage.nodes[name][:].tolist() for name in COLUMNS}
    names = ("source_id", "target_id", "weight", "confidence", "use_count", "target", "kind")
    found["edges"] = [
        [edge[name].item() for name in names]
        for slot in range(storage.node_count)
        for edge in storage.get_edges(slot)
    ]
    found["events"] = [list(event.values()) for event in EvolutionLogger(storage).get_history()]
    found["state"] = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in storage.read_state().items()
    }
    found["generation"] = storage.generation
    return found


def main(version: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder)
        expected = {}
        with tarfile.open(HERE / f"{version}.tar.xz", "w:xz") as archive:
            for name in ("closed", "crashed"):
                archive.add(folder / name, name)
                with AESGStorage(folder / name, read_only=True) as storage:
                    expected[name] = values(storage)
        (HERE / f"{version}.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
