"""Collecting what nothing refers to, and checking that everything is as it was saved."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aesg.exceptions import AESGStorageError
from aesg.runs import checks
from aesg.runs.disk import try_remove_tree
from aesg.runs.objects import Manifest, typed

if TYPE_CHECKING:
    from aesg.runs.store import Store

MIN_AGE = 3600.0  # seconds
FOR_EVER = 1e12

# What stays: content of artifacts and of uris that tool results name, and the members of stored directories.
ROOTS = "SELECT sha FROM artifacts UNION SELECT sha FROM outputs WHERE sha IS NOT NULL"
REFERENCED = f"{ROOTS} UNION SELECT sha FROM members WHERE directory IN ({ROOTS})"


@dataclass
class GcReport:
    """What `gc` removed, or would remove."""

    dry_run: bool
    artifacts: list[str] = field(default_factory=list)  # artifact_ids
    objects: list[str] = field(default_factory=list)  # SHA-256
    bytes: int = 0  # of the objects
    staging: list[str] = field(default_factory=list)  # left by dead processes


def collect(
    store: Store,
    keep_best: tuple[str, str, int] | None,
    keep_last: int | None,
    kind: str,
    min_age: float,
    dry_run: bool,
) -> GcReport:
    """See `Store.gc`. The artifacts go in a first transaction, the objects that are free then in a second: a
    crash in between leaves objects nobody knows, never an artifact without its content.
    """
    checks.check_name(kind, "kind")
    if isinstance(min_age, bool) or not isinstance(min_age, (int, float)) or not 0 <= min_age <= FOR_EVER:
        raise AESGStorageError(f"min_age: expected seconds from 0 to {FOR_EVER:g}, got {min_age!r}")
    kept = _kept(keep_best, keep_last)
    report = GcReport(dry_run)
    if kept is not None:
        report.artifacts = _doomed(store, kept, kind, min_age)
    before = time.time() - min_age
    candidates = []
    for sha, path in store.objects.all():
        with contextlib.suppress(FileNotFoundError):  # somebody else collects at the same time
            if len(sha) == 64 and path.stat().st_mtime < before:
                candidates.append(sha)
    if dry_run:
        report.objects, report.bytes = _would_be_free(store, candidates, report.artifacts)
    else:
        drop(store, report.artifacts)
        report.objects, report.bytes = free(store, candidates)
    report.staging = _sweep_staging(store, before, dry_run)
    return report


def drop(store: Store, artifact_ids: Sequence[str]) -> None:
    """Forgets artifacts; their content stays until it is collected."""
    if artifact_ids:
        with store.index.write() as connection:
            _delete(connection, artifact_ids)


def free(store: Store, candidates: Iterable[str]) -> tuple[list[str], int]:
    """Removes those of the objects that nothing refers to: (their hashes, their bytes).

    Inside a transaction, so that no save can refer to one of them at the same time.
    """
    freed: list[str] = []
    size = 0
    with store.index.write() as connection:
        referenced = {sha for (sha,) in connection.execute(REFERENCED)}
        connection.execute(f"DELETE FROM members WHERE directory NOT IN ({ROOTS})")
        for sha in candidates:
            if sha in referenced:
                continue
            path = store.objects.path(sha)
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
                store.disk.remove(path)
                freed.append(sha)
    return freed, size


def contents(store: Store, artifact_ids: Iterable[str]) -> list[str]:
    """The objects these artifacts are made of."""
    found: set[str] = set()
    for identity in artifact_ids:
        for (sha,) in store.index.read("SELECT sha FROM artifacts WHERE artifact_id = ?", [identity]):
            found.add(sha)
            found.update(
                member for (member,) in store.index.read("SELECT sha FROM members WHERE directory = ?", [sha])
            )
    return sorted(found)


def verify(store: Store) -> list[str]:
    """See `Store.verify`."""
    findings = [f"index: {line}" for (line,) in store.index.read("PRAGMA integrity_check") if line != "ok"]
    for table, row, parent, _ in store.index.read("PRAGMA foreign_key_check"):
        findings.append(f"index: {table} row {row} refers to a row of {parent} that is not there")
    # Before the objects are listed: what is saved meanwhile is then on disk without a row, never the reverse.
    rows = store.index.read("SELECT artifact_id, sha, is_directory, size FROM artifacts")
    on_disk = dict(store.objects.all())
    for sha, path in on_disk.items():
        if not path.exists() and not path.is_symlink():
            continue  # somebody collected it meanwhile, or it is missed below
        if len(sha) != 64 or not path.is_file() or path.is_symlink():
            findings.append(f"objects: '{path.relative_to(store.root)}' is no object")
        elif (wrong := store.objects.check(sha)) is not None and path.exists():
            findings.append(wrong)
    for identity, sha, is_directory, size in rows:
        wrong_here = _check_artifact(store, f"artifact {identity}", sha, is_directory, size, on_disk)
        # An artifact that was dropped meanwhile, and its content with it, is none that is damaged.
        if wrong_here and store.index.read("SELECT 1 FROM artifacts WHERE artifact_id = ?", [identity]):
            findings += wrong_here
    return findings


def _check_artifact(
    store: Store, what: str, sha: str, is_directory: bool, size: int, on_disk: dict[str, Path]
) -> list[str]:
    if sha not in on_disk or not on_disk[sha].exists():
        return [f"{what}: its content {sha} is missing"]
    if is_directory:
        return _check_directory(store, what, sha, size, on_disk)
    with typed(f"read {what}"):
        found = on_disk[sha].stat().st_size
    return [] if found == size else [f"{what}: expected {size} bytes, found {found}"]


def _check_directory(store: Store, what: str, sha: str, size: int, on_disk: dict[str, Path]) -> list[str]:
    try:
        manifest = Manifest.from_bytes(store.objects.read(sha, what))
    except AESGStorageError as error:
        return [f"{what}: {error.message}"]
    findings = [
        f"{what}: its member {name!r} is missing, {member}"
        for name, (member, _) in manifest.files.items()
        if member not in on_disk
    ]
    if size != sum(bytes_ for _, bytes_ in manifest.files.values()):
        findings.append(f"{what}: expected members of {size} bytes, its manifest has others")
    known = {member for (member,) in store.index.read("SELECT sha FROM members WHERE directory = ?", [sha])}
    if known != {member for member, _ in manifest.files.values()}:
        findings.append(f"{what}: the index knows other members than its manifest")
    return findings


Kept = tuple[str | None, str, int, int]  # metric, mode, how many of the best, how many of the last


def _kept(keep_best: Any, keep_last: Any) -> Kept | None:
    if keep_best is None and keep_last is None:
        return None
    metric, mode, best = None, "max", 0
    if keep_best is not None:
        if not isinstance(keep_best, (tuple, list)) or len(keep_best) != 3:
            raise AESGStorageError(f"keep_best: expected (metric, mode, n), got {keep_best!r}")
        metric = checks.check_text(keep_best[0], "keep_best metric")
        mode = checks.check_choice(keep_best[1], checks.MODES, "keep_best mode")
        best = checks.check_limit(keep_best[2], "keep_best n")
    last = 0 if keep_last is None else checks.check_limit(keep_last, "keep_last")
    return metric, mode, best, last


def _doomed(store: Store, kept: Kept, kind: str, min_age: float) -> list[str]:
    metric, mode, best, last = kept
    direction = "DESC" if mode == "max" else "ASC"
    rows = store.index.read(
        f"""
        SELECT artifact_id FROM (
          SELECT a.artifact_id, a.seq, a.pinned, a.created, a.sha, r.state,
                 row_number() OVER (PARTITION BY a.run ORDER BY a.seq DESC) AS newest,
                 row_number() OVER (PARTITION BY a.run
                                    ORDER BY m.value IS NULL, m.value {direction}, a.seq DESC) AS best,
                 m.value
          FROM artifacts a JOIN runs r ON r.seq = a.run
          LEFT JOIN metrics m ON m.artifact = a.seq AND m.name = ?
          WHERE a.kind = ?)
        WHERE newest > ? AND (best > ? OR value IS NULL) AND NOT pinned AND state != 'running' AND created < ?
          AND sha NOT IN (SELECT sha FROM outputs WHERE sha IS NOT NULL)
        ORDER BY seq""",
        [metric, kind, last, best, float(store.clock()) - min_age],
    )
    return [identity for (identity,) in rows]


def _delete(connection: sqlite3.Connection, artifact_ids: Iterable[str]) -> None:
    """Labels and metrics go with them. What is pinned or named by a tool result by now stays."""
    connection.executemany(
        "DELETE FROM artifacts WHERE artifact_id = ? AND NOT pinned "
        "AND sha NOT IN (SELECT sha FROM outputs WHERE sha IS NOT NULL)",
        [(identity,) for identity in artifact_ids],
    )


def _would_be_free(store: Store, candidates: list[str], doomed: list[str]) -> tuple[list[str], int]:
    left = "SELECT sha FROM artifacts WHERE artifact_id NOT IN (SELECT value FROM json_each(?)) \
             UNION SELECT sha FROM outputs WHERE sha IS NOT NULL"
    given = json.dumps(doomed)
    referenced = {
        sha
        for (sha,) in store.index.read(
            f"{left} UNION SELECT sha FROM members WHERE directory IN ({left})", [given, given]
        )
    }
    sizes = {}
    for sha in candidates:
        if sha not in referenced:
            with contextlib.suppress(FileNotFoundError):  # as in `collect`
                sizes[sha] = store.objects.path(sha).stat().st_size
    return list(sizes), sum(sizes.values())


def _sweep_staging(store: Store, before: float, dry_run: bool) -> list[str]:
    found = []
    with typed("list unfinished saves"):
        paths = sorted(store.objects.staging.iterdir())
    for path in paths:
        lock = None
        try:
            if path.stat().st_mtime >= before or (lock := store.disk.lock(path)) is None:
                continue  # young, or somebody is saving
            if not dry_run:
                if path.is_dir():
                    try_remove_tree(store.disk, path)
                else:
                    store.disk.remove(path)
            found.append(path.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise AESGStorageError(f"Failed to clear '{path}': {error}") from error
        finally:
            if lock is not None:
                os.close(lock)
    return found
