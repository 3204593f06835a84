"""Memories written by every released format version open for ever, with the values they had."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from aesg.storage import AESGStorage
from tests.storage.golden import make

VERSIONS = sorted(path.name.split(".")[0] for path in make.HERE.glob("*.tar.xz"))
NEWEST = max(VERSIONS, key=int)


def unpack(version: str, folder: Path) -> None:
    with tarfile.open(make.HERE / f"{version}.tar.xz") as archive:
        archive.extractall(folder, filter="data")


def test_there_is_one_of_this_version(tmp_path):
    AESGStorage(tmp_path / "m", 2).close()
    meta = np.load(tmp_path / "m" / "meta.npy", allow_pickle=False)
    assert str(meta["version"].max()) == NEWEST


@pytest.mark.parametrize("name", ["closed", "crashed"])
@pytest.mark.parametrize("version", VERSIONS)
def test_golden_memories_open_with_their_values(version, name, tmp_path):
    unpack(version, tmp_path)
    expected = json.loads((make.HERE / f"{version}.json").read_text())[name]
    for read_only in (True, False, True):  # as it is, folded by a writer, and after that
        with AESGStorage(tmp_path / name, read_only=read_only) as storage:
            assert make.values(storage) == expected
            assert storage.verify() == []
    with AESGStorage(tmp_path / name) as storage:
        make.fill(storage, storage.node_count, 4)
    with AESGStorage(tmp_path / name) as storage:
        assert storage.node_count == len(expected["id"]) + 4 and storage.verify() == []


def test_what_is_written_now_has_the_bytes_of_the_newest_version(tmp_path):
    """A change of the format needs a new version, and a golden memory of its own."""
    unpack(NEWEST, tmp_path / "then")
    (tmp_path / "now").mkdir()
    make.make(tmp_path / "now")
    for then in sorted((tmp_path / "then").rglob("*.*")):
        now = tmp_path / "now" / then.relative_to(tmp_path / "then")
        assert now.read_bytes() == then.read_bytes(), then.name
