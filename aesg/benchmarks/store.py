"""The store beside SQLite (WAL, synchronous=FULL) and LMDB: `python -m aesg bench store`.

All three keep the same concepts on the same disk: id, vector and the small fields. Changes and commits are
timed in turn, and beside them the sync of one page, the disk's share. Compared is what a user waits for: both
together.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from aesg.benchmarks._device import add_device
from aesg.benchmarks._timing import machine, write_json
from aesg.storage import AESGStorage, EvolutionLogger

RECORD_TAIL = 52  # bytes of a concept's small fields


class Contestant(Protocol):
    """A store of vectors [N, D] whose rows are changed and committed."""

    def change(self, rows: np.ndarray, vectors: np.ndarray) -> None: ...
    def commit(self) -> None: ...
    def close(self) -> None: ...


class Ours:
    def __init__(self, folder: Path, vectors: np.ndarray) -> None:
        self.storage = AESGStorage(folder, vectors.shape[1])
        from aesg import _core

        _core.bear(self.storage.core, vectors, 1, 1.0, 0.5, False, None)
        self.storage.commit()

    def change(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        self.storage.update(rows, vector=vectors, relevance=0.5, use_frequency=7)

    def commit(self) -> None:
        self.storage.commit()

    def close(self) -> None:
        self.storage.close()


class SQLite:
    UPDATE = "UPDATE c SET vector=?, inv=?, modified=?, relevance=?, use=7 WHERE id=?"

    def __init__(self, folder: Path, vectors: np.ndarray) -> None:
        folder.mkdir()
        self.db = sqlite3.connect(folder / "m.db", isolation_level=None)
        for setting in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-400000"):
            self.db.execute(f"PRAGMA {setting}")
        self.db.execute(
            "CREATE TABLE c "
            "(id INTEGER PRIMARY KEY, vector BLOB, inv REAL, modified INT, relevance REAL, use INT, rest)"
        )
        self.db.execute("BEGIN")
        self.db.executemany(
            "INSERT INTO c VALUES (?, ?, 1, 1, 1, 0, zeroblob(28))",
            ((i, vector.tobytes()) for i, vector in enumerate(vectors)),
        )
        self.db.execute("COMMIT")

    def change(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        now = int(time.time())
        self.db.execute("BEGIN")
        if len(rows) == 1:
            self.db.execute(self.UPDATE, (vectors[0].tobytes(), 1.0, now, 0.5, int(rows[0])))
            return
        self.db.executemany(
            self.UPDATE,
            ((v.tobytes(), 1.0, now, 0.5, row) for row, v in zip(rows.tolist(), vectors, strict=True)),
        )

    def commit(self) -> None:
        self.db.execute("COMMIT")

    def close(self) -> None:
        self.db.close()


class LMDB:
    def __init__(self, folder: Path, vectors: np.ndarray) -> None:
        import lmdb

        self.env = lmdb.open(str(folder), map_size=1 << 34)
        self.tail = bytes(RECORD_TAIL)
        records = ((self.key(i), v.tobytes() + self.tail) for i, v in enumerate(vectors))
        with self.env.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(records, append=True)
        self.txn: Any = None

    @staticmethod
    def key(row: int) -> bytes:
        return row.to_bytes(8, "big")

    def change(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        self.txn = self.env.begin(write=True)
        if len(rows) == 1:
            self.txn.put(self.key(int(rows[0])), vectors[0].tobytes() + self.tail)
            return
        with self.txn.cursor() as cursor:
            cursor.putmulti(
                [(self.key(r), v.tobytes() + self.tail) for r, v in zip(rows.tolist(), vectors, strict=True)]
            )

    def commit(self) -> None:
        self.txn.commit()

    def close(self) -> None:
        self.env.close()


def contestants() -> dict[str, Callable[[Path, np.ndarray], Contestant]]:
    """Ours first, then every peer that is there."""
    found: dict[str, Callable[[Path, np.ndarray], Contestant]] = {"aesg": Ours, "SQLite": SQLite}
    try:
        import lmdb  # noqa: F401

        found["LMDB"] = LMDB
    except ImportError:
        print("lmdb is not installed: left out (pip install lmdb)")
    return found


def commits(folder: Path, n: int, dim: int, rounds: int) -> list[dict[str, Any]]:
    """Durable commits of 1, 256 and 4096 changed concepts, scattered and neighbours."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    stores = {name: make(folder / name, vectors) for name, make in contestants().items()}
    scratch = os.open(folder / "sync", os.O_RDWR | os.O_CREAT)
    os.write(scratch, bytes(1 << 20))
    os.fsync(scratch)
    cases = []
    for changed in (1, 256, 4096):
        if changed > n:
            continue
        for pattern in ("scattered", "neighbours") if changed > 1 else ("scattered",):
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in (*stores, "sync alone")}
            for _ in range(rounds if changed > 1 else 3 * rounds):
                first = int(rng.integers(0, n - changed + 1))
                rows = (
                    rng.choice(n, changed, replace=False)
                    if pattern == "scattered"
                    else np.arange(changed) + first
                )
                new = rng.standard_normal((changed, dim), dtype=np.float32)
                for name, store in stores.items():
                    start = time.perf_counter()
                    store.change(rows, new)
                    between = time.perf_counter()
                    store.commit()
                    times[name].append((between - start, time.perf_counter() - between))
                start = time.perf_counter()
                os.pwrite(scratch, bytes(4096), 4096)
                os.fdatasync(scratch)
                times["sync alone"].append((0.0, time.perf_counter() - start))
            print(f"\ncommit of {changed} of {n} concepts, D={dim}, {pattern} [ms, medians]")
            case: dict[str, Any] = {"commit": changed, "pattern": pattern, "n": n, "dim": dim}
            for name, pairs in times.items():
                both = statistics.median(a + b for a, b in pairs)
                alone = statistics.median(b for _, b in pairs)
                case[name] = {"change_and_commit": both, "commit": alone, "runs": len(pairs)}
                ours = case["aesg"]["change_and_commit"]
                print(
                    f"  {name:12} {1e3 * both:9.3f}   commit {1e3 * alone:9.3f}   x ours {both / ours:6.2f}"
                )
            cases.append(case)
    for store in stores.values():
        store.close()
    os.close(scratch)
    return cases


OPEN = """
import sys, time
def rss():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) / 1024
{imports}
before = rss()
start = time.perf_counter()
{opens}
print(time.perf_counter() - start, rss() - before)
"""


def opening(folder: Path) -> dict[str, Any]:
    """Seconds and MiB of opening what `bulk` left, in a process of its own; the best of five."""
    code = OPEN.format(
        imports="from aesg.storage import AESGStorage", opens=f"store = AESGStorage({str(folder)!r})"
    )
    runs = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        runs.append(tuple(map(float, done.stdout.split())))
    seconds, mib = min(r[0] for r in runs), max(r[1] for r in runs)
    print(f"\nopening: {1e3 * seconds:.2f} ms, the best of {len(runs)}; {mib:.1f} MiB more resident")
    return {"opening": seconds, "all": [r[0] for r in runs], "resident_mib": mib}


def bulk(folder: Path, n: int, dim: int, rounds: int) -> dict[str, Any]:
    """add_concepts of n and the commit, against writing as many bytes in sequence; the last memory stays."""
    from aesg import AESGConfig
    from aesg.memory.controller import AESGMemory

    vectors = torch.randn(n, dim)
    ours, disk, held = [], [], 0
    for _ in range(rounds):
        shutil.rmtree(folder, ignore_errors=True)
        memory = AESGMemory(folder, AESGConfig(vector_dim=dim))
        start = time.perf_counter()
        memory.graph.add_concepts(vectors)
        memory.save()
        ours.append(time.perf_counter() - start)
        held = sum(path.stat().st_size for path in folder.iterdir())
        memory.close()
        disk.append(sequential(folder.parent / "sequential", held))
    share = statistics.median(disk) / statistics.median(ours)
    print(f"\nbulk insertion of {n}, D={dim}: {statistics.median(ours):.3f} s, {held / 2**20:.0f} MiB")
    print(f"  writing and syncing as many bytes: {statistics.median(disk):.3f} s, {100 * share:.0f} % of it")
    return {"bulk": n, "dim": dim, "seconds": ours, "sequential_write": disk, "bytes": held, "share": share}


def sequential(path: Path, size: int) -> float:
    block = np.random.default_rng(0).bytes(4 << 20)
    start = time.perf_counter()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for at in range(0, size, len(block)):
        os.write(file, block[: size - at])
    os.fdatasync(file)
    os.close(file)
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def log_reading(folder: Path, events: int = 100_000, rounds: int = 7) -> dict[str, Any]:
    """Seconds of reading the history as an array, from a log just opened, checksums included."""
    with AESGStorage(folder, 16) as storage:
        for i in range(events):
            storage.core.append_event(i, i % 6, i, 0, 1.0)
    times = []
    for _ in range(rounds):
        with AESGStorage(folder, read_only=True) as storage:
            start = time.perf_counter()
            array = EvolutionLogger(storage).get_history().array
            times.append(time.perf_counter() - start)
            assert len(array) == events
    seconds = statistics.median(times)
    print(f"\nreading {events} events as an array: {1e3 * seconds:.2f} ms, median of {rounds}")
    return {"log_reading": seconds, "events": events, "all": times}


def size_on_disk(folder: Path, n: int, dim: int = 16) -> dict[str, Any]:
    with Ours(folder, np.ones((n, dim), np.float32)).storage:
        pass
    each = sum(path.stat().st_blocks * 512 for path in folder.iterdir()) / n
    print(f"\non disk at D={dim}, no edges: {each:.1f} bytes a concept")
    return {"bytes_a_concept": each, "dim": dim, "n": n}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all and prints a table each. Returns 0."""
    parser = argparse.ArgumentParser(prog="aesg bench store", description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="concepts under the commits")
    parser.add_argument("--bulk", type=int, default=1_000_000, help="concepts inserted and opened")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--directory", default=None, help="disk to measure (default: the temporary one)")
    parser.add_argument("--short", action="store_true", help="small sizes, for tests")
    parser.add_argument("--out", default=None, help="folder for store.json")
    add_device(parser, nothing="it times files")
    options = parser.parse_args(argv)
    if options.short:
        options.n, options.bulk, options.rounds = 5000, 20_000, 3
    print(f"store, {machine()}")
    with tempfile.TemporaryDirectory(prefix="aesg-bench-", dir=options.directory) as scratch:
        folder = Path(scratch)
        cases = commits(folder, options.n, options.dim, options.rounds)
        cases.append(bulk(folder / "bulk", options.bulk, options.dim, 1 if options.short else 7))
        cases.append(opening(folder / "bulk"))
        cases.append(log_reading(folder / "log"))
        cases.append(size_on_disk(folder / "size", options.n))
    if options.out is not None:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        write_json(str(Path(options.out) / "store.json"), "store", options, cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
