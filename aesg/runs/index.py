"""The SQLite index of a store: schema, connections, transactions.

WAL, so that readers and one writer do not wait for each other; writers queue for `BUSY_SECONDS`. A connection
belongs to one thread while it is used and goes back to a pool. SQLite's locks do not survive a fork, so all
connections are closed before one; parent and child open new ones.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from aesg.exceptions import AESGStorageError
from aesg.runs.disk import Disk

FILE = "index.sqlite"
APPLICATION_ID = 0x41455352  # "AESR"
VERSION = 1
BUSY_SECONDS = 60.0
LOOK_AGAIN = (0.01, 0.05, 0.2)  # seconds until the next look at what seems damaged
CHECKPOINT_PAGES = 8000  # 32 MB of log before it is folded in, which syncs twice

SCHEMA = """
CREATE TABLE runs(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  params TEXT NOT NULL,                -- JSON
  state TEXT NOT NULL CHECK(state IN ('running', 'finished', 'failed', 'killed')),
  started REAL NOT NULL,               -- unix seconds
  ended REAL,
  error TEXT
);
CREATE INDEX runs_by_name ON runs(name);
CREATE INDEX runs_running ON runs(run_id) WHERE state = 'running';

-- One row a save. Content is elsewhere and may be shared: sha names an object.
CREATE TABLE artifacts(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  artifact_id TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL REFERENCES runs(seq),
  graph TEXT NOT NULL,                 -- '' outside a graph
  node TEXT NOT NULL,                  -- '' outside a node
  kind TEXT NOT NULL,
  is_directory INTEGER NOT NULL,
  sha TEXT NOT NULL,
  size INTEGER NOT NULL,               -- bytes, of a directory those of its members
  name TEXT NOT NULL,                  -- file name of copies, '' for none
  suffix TEXT NOT NULL,
  labels TEXT NOT NULL,                -- JSON
  metrics TEXT NOT NULL,               -- JSON
  pinned INTEGER NOT NULL DEFAULT 0,
  created REAL NOT NULL
);
CREATE INDEX artifacts_by_run ON artifacts(run, kind);
CREATE INDEX artifacts_by_kind ON artifacts(kind);
CREATE INDEX artifacts_by_sha ON artifacts(sha);

CREATE TABLE labels(
  key TEXT NOT NULL,
  value TEXT NOT NULL,                 -- canonical JSON: equal for equal type and value
  artifact INTEGER NOT NULL REFERENCES artifacts(seq) ON DELETE CASCADE,
  PRIMARY KEY(key, value, artifact)
) WITHOUT ROWID;
CREATE INDEX labels_by_artifact ON labels(artifact);

CREATE TABLE metrics(
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  value REAL NOT NULL,
  artifact INTEGER NOT NULL REFERENCES artifacts(seq) ON DELETE CASCADE,
  run INTEGER NOT NULL,
  graph TEXT NOT NULL,
  node TEXT NOT NULL,
  PRIMARY KEY(artifact, name)
) WITHOUT ROWID;
CREATE INDEX metrics_of_all ON metrics(kind, name, value, artifact);
CREATE INDEX metrics_of_run ON metrics(run, kind, name, value, artifact, graph, node);

-- Which objects a stored directory is made of.
CREATE TABLE members(
  directory TEXT NOT NULL,
  sha TEXT NOT NULL,
  PRIMARY KEY(directory, sha)
) WITHOUT ROWID;

CREATE TABLE events(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id TEXT NOT NULL,
  run INTEGER NOT NULL REFERENCES runs(seq),
  graph TEXT NOT NULL,
  node TEXT NOT NULL,
  kind TEXT NOT NULL,
  ts REAL NOT NULL,
  topic TEXT,                          -- the tool of a tool result
  tags TEXT NOT NULL,                  -- JSON, as are inputs, outputs, metrics and data
  inputs TEXT,
  outputs TEXT,
  metrics TEXT,
  data TEXT,
  text TEXT
);
CREATE INDEX events_by_kind ON events(kind);
CREATE INDEX events_by_run ON events(run);
CREATE INDEX events_by_run_and_kind ON events(run, kind);
CREATE INDEX events_by_topic ON events(topic, run) WHERE topic IS NOT NULL;

-- The named outputs of tool results, and the objects they point to.
CREATE TABLE outputs(
  name TEXT NOT NULL,
  run INTEGER NOT NULL,
  event INTEGER NOT NULL REFERENCES events(seq),
  place INTEGER NOT NULL,              -- in the event's list
  sha TEXT,
  PRIMARY KEY(name, run, event, place)
) WITHOUT ROWID;
CREATE INDEX outputs_of_all ON outputs(name, event);
CREATE INDEX outputs_by_sha ON outputs(sha) WHERE sha IS NOT NULL;
"""

TABLES = {"runs", "artifacts", "labels", "metrics", "members", "events", "outputs"}

# Set while an asynchronous caller may still go away: a transaction then ends without its commit.
abandoned: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("abandoned", default=None)


class Abandoned(Exception):
    """The caller was cancelled before the commit."""


class Index:
    """The database in `root`, made there by `create`. `connect` opens it and is what tests replace.

    sync=False: no transaction is durable against a power cut.
    """

    def __init__(
        self,
        root: Path,
        connect: Callable[[Path], sqlite3.Connection] | None = None,
        sync: bool = True,
    ) -> None:
        self.path = root / FILE
        self._sync = sync
        self._connect = connect or open_database
        self._changed = threading.Condition(threading.Lock())
        self._idle: list[sqlite3.Connection] = []
        self._used = 0
        self._forking = False
        self.closed = False
        _indexes.add(self)

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed at the end, or undone by any exception.

        durable: it also survives a power cut. Else it survives whatever happens to this process, and the next
        durable one makes it safe.
        """
        with self._connection() as connection:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable and self._sync else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            event = abandoned.get()
            if event is not None and event.is_set():
                raise Abandoned
            connection.execute("COMMIT")

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of one query."""
        with self._connection() as connection:
            return connection.execute(sql, values).fetchall()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            while self._idle:
                self._idle.pop().close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection of this thread's own; an exception inside closes it, which undoes its work."""
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            if self.closed:
                raise AESGStorageError(f"The store in '{self.path.parent}' was closed")
            self._used += 1
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = self._connect(self.path)
            yield connection
        except BaseException as error:
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.rollback()
                connection.close()
                connection = None
            if isinstance(error, (sqlite3.Error, OverflowError)):
                raise AESGStorageError(f"'{self.path}': {error}") from error
            if isinstance(error, OSError):
                raise AESGStorageError(f"Failed to write below '{self.path.parent}': {error}") from error
            raise
        finally:
            with self._changed:
                self._used -= 1
                if connection is not None:
                    if self.closed:
                        connection.close()
                    else:
                        self._idle.append(connection)
                self._changed.notify_all()

    # -- fork ----------------------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._changed.acquire()
        self._forking = True  # nobody begins anew while this waits for those who are at it
        self._changed.wait_for(lambda: self._used == 0, timeout=BUSY_SECONDS)
        while self._idle:
            self._idle.pop().close()

    def _after_fork(self) -> None:
        self._forking = False
        self._changed.notify_all()
        self._changed.release()


_indexes: weakref.WeakSet[Index] = weakref.WeakSet()
_forking: list[Index] = []


def _before_fork() -> None:
    _forking.extend(_indexes)
    for index in _forking:
        index._before_fork()


def _after_fork() -> None:
    while _forking:
        _forking.pop()._after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def open_database(path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """A connection without Python's own ideas of transactions."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    except BaseException:
        connection.close()
        raise
    return connection


def create(root: Path, disk: Disk) -> None:
    """Makes the database in `root` unless somebody else does first: built beside it whole, then linked."""
    beside = root / "staging" / f"{uuid.uuid4().hex}.sqlite"
    try:
        with contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as connection:
            connection.executescript(
                f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; "
                f"BEGIN; {SCHEMA} COMMIT; PRAGMA journal_mode = WAL;"
            )
        with contextlib.suppress(FileExistsError):
            disk.link(beside, root / FILE)
        disk.sync_directory(root)
    except (sqlite3.Error, OSError) as error:
        raise AESGStorageError(f"Failed to make '{root / FILE}': {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _look(path: Path) -> tuple[int, int, set[str]]:
    """Application id, schema version and names of tables, as they lie in the file."""
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return (
            application,
            version,
            {name for (name,) in connection.execute("SELECT name FROM sqlite_master")},
        )


def check_header(path: Path) -> None:
    """Raises AESGStorageError unless `path` is a database of ours and of this version; writes nothing.

    Asked through SQLite, as an immutable file: opening and closing the file by hand would drop the locks of
    this process's other connections. Without locks a look may fall into another process's checkpoint and see
    damage that is none, so damage is believed when it stays.
    """
    for pause in (*LOOK_AGAIN, None):
        try:
            application, version, tables = _look(path)
            break
        except sqlite3.Error as error:
            if pause is None:
                raise AESGStorageError(f"Expected an index of aesg.runs at '{path}': {error}") from error
            time.sleep(pause)
    if application != APPLICATION_ID:
        raise AESGStorageError(
            f"Expected an index of aesg.runs at '{path}', found a database of another program "
            f"(application id {application:#x})"
        )
    if version != VERSION:
        raise AESGStorageError(f"'{path}': expected schema version {VERSION}, found {version}")
    if missing := sorted(TABLES - tables):
        raise AESGStorageError(f"'{path}': expected the tables of an index, found none of {missing}")
