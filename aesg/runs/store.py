"""Store: a folder of runs, their artifacts and their events."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from aesg.exceptions import AESGStorageError
from aesg.runs import checks, index, upkeep
from aesg.runs.artifacts import Artifacts, Place
from aesg.runs.disk import Disk, UnsyncedDisk
from aesg.runs.memory import EventMemory
from aesg.runs.objects import Objects
from aesg.runs.records import RUN_COLUMNS, RunInfo, run_of
from aesg.runs.run import Run

FOLDERS = ("objects", "staging", "running")
STATES = ("running", "finished", "failed", "killed")


class Store:
    """Runs below `root`: index.sqlite, objects/ (content by SHA-256), staging/ (what is being saved),
    running/.

    Made when there is nothing or an empty folder (`create=False`: AESGStorageError then). The folder can be
    moved while nobody has it open. Threads share a Store; processes open their own, forked ones go on with
    theirs; nobody waits for longer than another's transaction. `clock` gives unix seconds. `disk` and
    `connect` are the seams at which tests make calls fail.

    sync: what was saved survives a power cut, at the price of three syncs a save. False: it survives the
    death of the process, and a power cut once the system has written it.

    Raises AESGStorageError for a folder or database of something else or of a newer version; nothing is
    written.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        create: bool = True,
        sync: bool = True,
        clock: Callable[[], float] = time.time,
        disk: Disk | None = None,
        connect: Callable[[Path], sqlite3.Connection] | None = None,
    ) -> None:
        self.root = Path(checks.check_path(root, "root")).absolute()
        self.clock = clock
        self.sync = sync
        self.disk = disk or (Disk() if sync else UnsyncedDisk())
        self._open(create)
        self.index = index.Index(self.root, connect, sync)
        self.objects = Objects(self.root, self.disk)
        self._temporary: Path | None = None

    # -- runs ----------------------------------------------------------------------------------------------

    def run(self, name: str, params: Mapping[str, Any] | None = None) -> Run:
        """Begins a run; use it in a `with` block, which ends it. `params` is JSON."""
        checks.check_name(name, "name")
        if params is not None and not isinstance(params, Mapping):
            raise AESGStorageError(f"params: expected a mapping, got {type(params).__name__}")
        text = checks.encode(dict(params or {}), "params", nan=True)
        run_id = uuid.uuid4().hex[:16]
        lock_file = self.root / "running" / run_id
        lock = None
        try:
            os.close(self.disk.create(lock_file))
            lock = self.disk.lock(lock_file)
            with self.index.write() as connection:
                row = connection.execute(
                    "INSERT INTO runs(run_id, name, params, state, started) VALUES(?, ?, ?, 'running', ?)",
                    (run_id, name, text, float(self.clock())),
                ).lastrowid
        except BaseException as error:
            if lock is not None:
                os.close(lock)
            with contextlib.suppress(OSError):
                lock_file.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise AESGStorageError(f"Failed to begin a run in '{self.root}': {error}") from error
            raise
        assert row is not None
        return Run(self, Place(row, run_id), lock, lock_file)

    def open_run(self, run_id: str) -> Run:
        """A run that is there, to read and to add to, from any process; its state stays as it is."""
        rows = self.index.read("SELECT seq FROM runs WHERE run_id = ?", [checks.check_text(run_id, "run_id")])
        if not rows:
            raise AESGStorageError(f"run_id: expected a run of '{self.root}', got {run_id!r}")
        return Run(self, Place(rows[0][0], run_id))

    def get_run(self, run_id: str) -> RunInfo | None:
        """The description of a run, None when there is none."""
        self._bury_the_dead()
        rows = self.index.read(
            f"SELECT {RUN_COLUMNS} FROM runs WHERE run_id = ?", [checks.check_text(run_id, "run_id")]
        )
        return run_of(rows[0]) if rows else None

    def runs(
        self, name: str | None = None, state: str | None = None, limit: int | None = None
    ) -> list[RunInfo]:
        """Runs, the newest first. A run whose process is gone is "killed" from here on."""
        where, values = "1", []
        if name is not None:
            where += " AND name = ?"
            values.append(checks.check_name(name, "name"))
        if state is not None:
            where += " AND state = ?"
            values.append(checks.check_choice(state, STATES, "state"))
        at_most = -1 if limit is None else checks.check_limit(limit)
        self._bury_the_dead()
        sql = f"SELECT {RUN_COLUMNS} FROM runs WHERE {where} ORDER BY seq DESC LIMIT {at_most}"
        return [run_of(row) for row in self.index.read(sql, values)]

    def artifacts(self) -> Artifacts:
        """The artifacts of all runs, to find and pin; saving needs a run."""
        return Artifacts(self, None)

    def memory(self) -> EventMemory:
        """The events of all runs, to recall; recording needs a run."""
        return EventMemory(self, None)

    # -- upkeep --------------------------------------------------------------------------------------------

    def gc(
        self,
        *,
        keep_best: tuple[str, str, int] | None = None,
        keep_last: int | None = None,
        kind: str = "checkpoint",
        min_age: float = upkeep.MIN_AGE,
        dry_run: bool = True,
    ) -> upkeep.GcReport:
        """Removes what nothing refers to: objects, and what dead processes left in staging/.

        keep_last n, keep_best (metric, mode, n): also the artifacts of this kind that are neither among the n
        newest nor the n best of their run. Pinned ones stay, those of running runs, those whose uri a tool
        result names, and all that is younger than `min_age` seconds. dry_run only reports.
        """
        self._bury_the_dead()
        return upkeep.collect(self, keep_best, keep_last, kind, min_age, dry_run)

    def verify(self) -> list[str]:
        """Hashes every object and checks the index; findings, one line each, none when all is well."""
        return upkeep.verify(self)

    # -- life ----------------------------------------------------------------------------------------------

    def temporary_directory(self) -> Path:
        """A new directory for a copy; all of them go with this object or with the process."""
        try:
            if self._temporary is None:
                self._temporary = Path(tempfile.mkdtemp(prefix="aesg-runs-"))
                weakref.finalize(self, _remove, self._temporary, os.getpid())
            return Path(tempfile.mkdtemp(dir=self._temporary))
        except OSError as error:
            raise AESGStorageError(f"Failed to make a temporary directory: {error}") from error

    def close(self) -> None:
        """Closes the connections; what is asked afterwards raises. Closing twice does nothing."""
        self.index.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.root, self.sync)

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def _open(self, create: bool) -> None:
        file = self.root / index.FILE
        try:
            if not file.exists():
                foreign = self._foreign()
                if foreign and not file.exists():  # or somebody made a store meanwhile
                    found = ", ".join(foreign[:5])
                    raise AESGStorageError(
                        f"Expected a store or an empty folder at '{self.root}', found {found}"
                    )
                if not create:
                    raise AESGStorageError(f"Expected a store at '{self.root}', found none")
                self.root.mkdir(parents=True, exist_ok=True)
                for name in FOLDERS:
                    (self.root / name).mkdir(exist_ok=True)
                index.create(self.root, self.disk)
            index.check_header(file)
            for name in FOLDERS:  # an archive may have left out empty ones
                (self.root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise AESGStorageError(f"Failed to open a store at '{self.root}': {error}") from error

    def _foreign(self) -> list[str]:
        """What lies below the root besides the beginnings of a store. Objects that no index knows are a store
        that lost it: a new one would collect them.
        """
        if not self.root.exists():
            return []
        there = sorted(os.listdir(self.root))
        full = [
            name for name in there if name in ("objects", "running") and any((self.root / name).iterdir())
        ]
        return sorted(set(there) - set(FOLDERS)) + full

    def _bury_the_dead(self) -> None:
        """Runs that are "running" and whose lock nobody holds: their process ended without a word."""
        for (run_id,) in self.index.read("SELECT run_id FROM runs WHERE state = 'running'"):
            file = self.root / "running" / run_id
            lock = None
            try:
                if file.exists() and (lock := self.disk.lock(file)) is None:
                    continue
                with self.index.write() as connection:
                    connection.execute(
                        "UPDATE runs SET state = 'killed', error = 'its process is gone' "
                        "WHERE run_id = ? AND state = 'running'",
                        (run_id,),
                    )
                file.unlink(missing_ok=True)
            except FileNotFoundError:
                continue  # it ended meanwhile
            except OSError as error:
                raise AESGStorageError(f"Failed to look after '{file}': {error}") from error
            finally:
                if lock is not None:
                    os.close(lock)


def _reopened(root: Path, sync: bool) -> Store:
    """What a pickled store becomes: another handle on the folder, which is there."""
    return Store(root, create=False, sync=sync)


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # not at the end of a forked child
        shutil.rmtree(path, ignore_errors=True)
