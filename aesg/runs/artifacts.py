"""Artifacts of a run: durable files, directories, texts and JSON, found again by label and metric."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aesg.exceptions import AESGStorageError
from aesg.runs import checks
from aesg.runs.objects import Manifest, Stage, Staged, parse_uri
from aesg.runs.records import ARTIFACT_COLUMNS, ARTIFACT_TABLES, Artifact, artifact_of
from aesg.runs.writer import ArtifactWriter

if TYPE_CHECKING:
    from aesg.runs.store import Store

Metrics = Mapping[str, float] | None
Labels = Mapping[str, Any] | None


class Place(NamedTuple):
    """Where something is saved or recorded: a run, and a graph and node in it ('' for none)."""

    run: int  # the run's row
    run_id: str
    graph: str = ""
    node: str = ""


class Description(NamedTuple):
    """What is known of an artifact besides its content; checked."""

    kind: str
    labels: dict[str, Any]
    metrics: dict[str, float]
    name: str = ""
    suffix: str = ""


def describe(kind: Any, labels: Any, metrics: Any, name: str = "", suffix: str = "") -> Description:
    """Raises AESGStorageError for what cannot be a description."""
    return Description(
        checks.check_name(kind, "kind"),
        checks.check_labels(labels),
        checks.check_metrics(metrics),
        name and checks.check_name(name, "file name"),
        suffix,
    )


class Artifacts:
    """The artifacts of a place (a run, or a graph or node in it); without a place, those of the whole store.

    Every save copies, is durable when it returns, and makes an artifact of its own, whatever content it
    shares. Whatever cannot be saved or asked raises AESGStorageError, and nothing was written then.
    scope: "run", "graph", "node" limit to this run, graph, node; where there is no such graph or node they
    equal the next wider. "all" is the store.
    """

    def __init__(self, store: Store, place: Place | None) -> None:
        self.store = store
        self._place = place

    # -- saving --------------------------------------------------------------------------------------------

    def save_file(
        self,
        path: str | os.PathLike[str],
        kind: str = "file",
        labels: Labels = None,
        metrics: Metrics = None,
    ) -> Artifact:
        """Saves a copy of a regular file. Symlinks are refused."""
        source = checks.check_path(path, "path")
        name = os.path.basename(source)
        suffix = os.path.splitext(name)[1]
        description = describe(kind, labels, metrics, name, suffix)
        with self.store.objects.stage() as stage:
            return self._commit(stage, stage.add_file(source), description)

    def save_dir(
        self,
        path: str | os.PathLike[str],
        kind: str = "directory",
        labels: Labels = None,
        metrics: Metrics = None,
    ) -> Artifact:
        """Saves a copy of a directory as a manifest of its members, each stored once however often it occurs.

        Symlinks and special files anywhere in it are refused; empty directories are kept, permissions are
        not.
        """
        source = checks.check_path(path, "path")
        description = describe(kind, labels, metrics, os.path.basename(os.path.abspath(source)))
        linked = os.path.islink(os.path.normpath(source))  # "link/" would be followed
        if linked or not os.path.isdir(source):
            what = "a symlink" if linked else "a file" if os.path.exists(source) else "nothing"
            raise AESGStorageError(f"path: expected a directory at '{source}', found {what}")
        if self.store.root.resolve().is_relative_to(Path(source).resolve()):
            raise AESGStorageError(f"path: expected a directory that does not hold the store, got '{source}'")
        with self.store.objects.stage() as stage:
            try:
                staged, manifest, size = stage.add_directory(source)
            except OSError as error:
                raise AESGStorageError(f"Failed to read '{source}': {error}") from error
            return self._commit(stage, staged, description, manifest, size)

    def save_text(
        self, text: str, kind: str = "text", labels: Labels = None, metrics: Metrics = None
    ) -> Artifact:
        """Saves a text as UTF-8."""
        if not isinstance(text, str):
            raise AESGStorageError(f"text: expected a string, got {type(text).__name__}")
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise AESGStorageError(f"text: expected what UTF-8 can hold: {error}") from None
        return self._save_bytes(data, describe(kind, labels, metrics, suffix=".txt"))

    def save_json(
        self, value: Any, kind: str = "json", labels: Labels = None, metrics: Metrics = None
    ) -> Artifact:
        """Saves a value as JSON with sorted keys, so that equal values are stored once. NaN is refused."""
        data = checks.encode(value, "value").encode()
        return self._save_bytes(data, describe(kind, labels, metrics, suffix=".json"))

    def writer(
        self, kind: str, planned_ext: str | None = None, labels: Labels = None, metrics: Metrics = None
    ) -> ArtifactWriter:
        """`with writer(...) as w: w.write(...)`: saved at the end as `w.artifact`, or not at all."""
        suffix = checks.check_suffix(planned_ext, "planned_ext")
        description = describe(kind, labels, metrics, suffix=suffix)
        self._required_place()
        return ArtifactWriter(
            self.store.objects, lambda stage, staged: self._commit(stage, staged, description)
        )

    def pin(self, artifact_id: str, pinned: bool = True) -> Artifact:
        """Keeps an artifact from every `gc`; `pinned=False` lets it go again."""
        identity = checks.check_text(artifact_id, "artifact_id")
        with self.store.index.write() as connection:
            changed = connection.execute(
                "UPDATE artifacts SET pinned = ? WHERE artifact_id = ?", (bool(pinned), identity)
            )
            if changed.rowcount != 1:
                raise AESGStorageError(f"artifact_id: expected one of this store, got {identity!r}")
        found = self.get(identity)
        assert found is not None
        return found

    # -- finding -------------------------------------------------------------------------------------------

    def get(self, artifact_id: str) -> Artifact | None:
        """The artifact of this identity, wherever in the store; None when there is none."""
        found = self._select("a.artifact_id = ?", [checks.check_text(artifact_id, "artifact_id")])
        return found[0] if found else None

    def list(self, scope: str | None = None) -> list[Artifact]:
        """All artifacts of a scope (default: the run; of a store: all), in the order in which they were
        saved.
        """
        where, values = self._scope(scope, "a")
        return self._select(where, values, "ORDER BY a.seq")

    def search(
        self,
        kind: str | None = None,
        labels: Labels = None,
        metric: str | None = None,
        mode: str = "max",
        scope: str | None = None,
        limit: int | None = None,
    ) -> list_[Artifact]:
        """Artifacts of this kind that have all these labels, of equal type and value; at most `limit`.

        With a metric: those that have it, the best first; else the newest first. Ties: the newest first.
        """
        checks.check_choice(mode, checks.MODES, "mode")
        at_most = -1 if limit is None else checks.check_limit(limit)
        table = "a" if metric is None else "m"
        where, values = self._scope(scope, table)
        if kind is not None:
            where += f" AND {table}.kind = ?"
            values.append(checks.check_name(kind, "kind"))
        if metric is not None:
            where += " AND m.name = ?"
            values.append(checks.check_text(metric, "metric"))
        column = "a.seq" if metric is None else "m.artifact"
        for key, value in checks.check_labels(labels).items():
            where += f" AND {column} IN (SELECT artifact FROM labels WHERE key = ? AND value = ?)"
            values += [key, checks.label_key(value)]
        if metric is None:
            return self._select(where, values, f"ORDER BY a.seq DESC LIMIT {at_most}")
        direction = "DESC" if mode == "max" else "ASC"
        order = f"ORDER BY m.value {direction}, m.artifact DESC LIMIT {at_most}"
        ranked = f"(SELECT m.artifact, m.value FROM metrics m WHERE {where} {order}) m"
        rows = self.store.index.read(
            f"SELECT {ARTIFACT_COLUMNS} FROM {ranked} JOIN artifacts a ON a.seq = m.artifact "
            f"JOIN runs r ON r.seq = a.run ORDER BY m.value {direction}, m.artifact DESC",
            values,
        )
        return [artifact_of(row) for row in rows]

    def best(
        self,
        kind: str,
        metric: str,
        mode: str = "max",
        scope: str | None = None,
        labels: Labels = None,
    ) -> Artifact | None:
        """The artifact of this kind with the greatest (mode "min": least) metric, of equals the newest, or
        None.

        O(log n) without labels.
        """
        checks.check_name(kind, "kind")
        checks.check_text(metric, "metric")
        found = self.search(kind, labels, metric, mode, scope, limit=1)
        return found[0] if found else None

    # -- getting -------------------------------------------------------------------------------------------

    def as_local_file(self, artifact: Artifact | str, into: str | os.PathLike[str] | None = None) -> str:
        """The path of a writable copy, checked against its hash, with the suffix of what was saved.

        artifact: an Artifact, its artifact_id or a uri. into: a directory for the copy; else it lies in a
        temporary one that goes with the store object. Every call makes a new copy.
        """
        found, target = self._target(artifact, False, into)
        self.store.objects.copy(parse_checked(found), target, f"artifact {found.artifact_id}")
        return str(target)

    def as_local_dir(self, artifact: Artifact | str, into: str | os.PathLike[str] | None = None) -> str:
        """The path of a writable copy of a saved directory; as `as_local_file`."""
        found, target = self._target(artifact, True, into)
        self.store.objects.copy_directory(parse_checked(found), target, f"artifact {found.artifact_id}")
        return str(target)

    # -- small parts ---------------------------------------------------------------------------------------

    def _save_bytes(self, data: bytes, description: Description) -> Artifact:
        with self.store.objects.stage() as stage:
            return self._commit(stage, stage.add_bytes(data), description)

    def _required_place(self) -> Place:
        if self._place is None:
            raise AESGStorageError("Expected a run to save into, this is the view of a whole store")
        return self._place

    def _commit(
        self,
        stage: Stage,
        content: Staged,
        description: Description,
        manifest: Manifest | None = None,
        size: int | None = None,
    ) -> Artifact:
        """The durable point: places the objects and makes the artifact known, in one transaction."""
        place = self._required_place()
        kind, labels, metrics, name, suffix = description
        identity, created = uuid.uuid4().hex, float(self.store.clock())
        labels_json, metrics_json = checks.encode(labels, "labels"), checks.encode(metrics, "metrics")
        size = content.size if size is None else size
        with self.store.index.write() as connection:
            stage.place()
            row = connection.execute(
                "INSERT INTO artifacts(artifact_id, run, graph, node, kind, is_directory, sha, size, name, "
                "suffix, labels, metrics, created) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (identity, place.run, place.graph, place.node, kind, manifest is not None, content.sha, size,
                 name, suffix, labels_json, metrics_json, created),
            ).lastrowid  # fmt: skip
            connection.executemany(
                "INSERT INTO labels VALUES(?, ?, ?)",
                [(key, checks.label_key(value), row) for key, value in labels.items()],
            )
            connection.executemany(
                "INSERT INTO metrics VALUES(?, ?, ?, ?, ?, ?, ?)",
                [(kind, key, float(value), row, place.run, place.graph, place.node)
                 for key, value in metrics.items()],
            )  # fmt: skip
            if manifest is not None:
                connection.executemany(
                    "INSERT OR IGNORE INTO members VALUES(?, ?)",
                    [(content.sha, sha) for sha, _ in manifest.files.values()],
                )
        row_of = (identity, content.sha, kind, labels_json, metrics_json, 0, name, suffix, size)
        return artifact_of((*row_of, manifest is not None, place.run_id, place.graph, place.node, created))

    def _scope(self, scope: str | None, table: str) -> tuple[str, list_[Any]]:
        return scope_filter(self._place, scope, table)

    def _select(self, where: str, values: list_[Any], tail: str = "") -> list_[Artifact]:
        sql = f"SELECT {ARTIFACT_COLUMNS} FROM {ARTIFACT_TABLES} WHERE {where} {tail}"
        return [artifact_of(row) for row in self.store.index.read(sql, values)]

    def _target(
        self, artifact: Artifact | str, directory: bool, into: str | os.PathLike[str] | None
    ) -> tuple[Artifact, Path]:
        found = self._resolve(artifact)
        if found.is_directory != directory:
            is_one, verb = (
                ("a directory", "as_local_dir") if found.is_directory else ("a file", "as_local_file")
            )
            raise AESGStorageError(f"artifact {found.artifact_id} is {is_one}: {verb} takes it")
        name = checks.check_name(found.name or found.artifact_id[:12] + found.suffix, "file name")
        if into is None:
            return found, self.store.temporary_directory() / name
        parent = Path(checks.check_path(into, "into"))
        if not parent.is_dir() or (parent / name).exists():
            what = f"nothing at '{parent / name}'" if parent.is_dir() else f"a directory at '{parent}'"
            raise AESGStorageError(f"into: expected {what}")
        return found, parent / name

    def _resolve(self, artifact: Artifact | str) -> Artifact:
        if isinstance(artifact, Artifact):
            return artifact
        text = checks.check_text(artifact, "artifact")
        uri = parse_uri(text)
        if uri is None:
            found = self.get(text)
        else:  # of several saves of these bytes the newest, for its name
            rows = self._select("a.sha = ? AND a.is_directory = ?", list(uri), "ORDER BY a.seq DESC LIMIT 1")
            found = rows[0] if rows else None
        if found is None:
            raise AESGStorageError(f"artifact: expected one of this store, its id or uri, got {text!r}")
        return found


list_ = list  # inside the class `list` is the verb


def parse_checked(artifact: Artifact) -> str:
    parsed = parse_uri(artifact.uri)
    if parsed is None:
        raise AESGStorageError(f"uri: expected one of this store, got {artifact.uri!r}")
    return parsed[0]


def scope_filter(place: Place | None, scope: str | None, table: str) -> tuple[str, list[Any]]:
    """(condition on `table`, its values) for a scope as seen from a place."""
    if scope is None:
        scope = "all" if place is None else "run"
    checks.check_choice(scope, checks.SCOPES, "scope")
    if scope == "all":
        return "1", []
    if place is None:
        raise AESGStorageError(f"scope: expected 'all' outside a run, got {scope!r}")
    where = f"{table}.run = ?"
    values: list[Any] = [place.run]
    if place.graph and scope in ("graph", "node"):
        where += f" AND {table}.graph = ?"
        values.append(place.graph)
    if place.node and scope == "node":
        where += f" AND {table}.node = ?"
        values.append(place.node)
    return where, values
