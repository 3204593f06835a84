"""The packs benchmark: two halves that share no package, and bits at home that come back unchanged."""

from __future__ import annotations

import argparse
import json

import pytest

from aesg.benchmarks import packs
from aesg.benchmarks._packages import halves
from aesg.exceptions import AESGTrainingError


@pytest.fixture
def library(tmp_path):
    """Eight packages of thirty files, and what is left out."""
    root = tmp_path / "library"
    for package in "abcdefgh":
        (root / package).mkdir(parents=True)
        for number in range(30):
            (root / package / f"{number}.py").write_text(f"# {package} {number}\n" + "x = 1\n" * 20)
    (root / "test").mkdir()
    (root / "test" / "quotes.py").write_text("never")
    (root / "table.py").write_bytes(b"\0\0\0")
    return root


def test_halves_share_no_package_and_no_file(library):
    home, away = halves(0, library)
    assert sorted(home.packages + away.packages) == list("abcdefgh")
    assert abs(len(home.packages) - len(away.packages)) <= 1
    texts = [*home.train, *home.held_out, *away.train, *away.held_out]
    assert len(texts) == len(set(texts)) == 240 and b"never" not in texts
    assert 0 < len(home.held_out) < len(home.train) / 4
    for text in [*home.train, *home.held_out]:
        assert text.split()[1].decode() in home.packages
    assert halves(0, library) == (home, away) and halves(1, library)[0].packages != home.packages


def test_a_library_that_is_too_small_is_refused(tmp_path):
    (tmp_path / "one.py").write_text("x = 1\n")
    with pytest.raises(AESGTrainingError, match=str(tmp_path)):
        halves(0, tmp_path)


def test_home_is_unchanged_after_detaching_and_the_pack_is_read(library, tmp_path, monkeypatch):
    whole = halves
    monkeypatch.setattr(packs, "halves", lambda seed: whole(seed, library))
    options = argparse.Namespace(steps=4, grow=4, streams=4, chunk=16, held_out=400)
    found = packs.measure(tmp_path, 0, options)
    assert found["home"]["difference after detaching"] == 0.0
    assert found["pack"]["concepts"] > 0
    away = found["away"]
    assert away["with the pack"] != away["without it"] != away["no memory is read"]
    assert away["difference, pack less none"] == away["with the pack"] - away["without it"]


@pytest.mark.parametrize(("change", "code"), [(0.0, 0), (1e-9, 1)])
def test_a_change_at_home_is_an_error(tmp_path, monkeypatch, change, code, capsys):
    figures = {
        "away": {"with the pack": 2.0},
        "home": {"difference after detaching": change},
        "pack": {"bytes": 1.0},
    }
    monkeypatch.setattr(packs, "measure", lambda *_: figures)
    assert packs.main(["--seeds", "3", "--out", str(tmp_path)]) == code
    row = json.loads((tmp_path / "packs.json").read_text())["tasks"]["home"]["figures"][
        "difference after detaching"
    ]
    assert row["reached"] is (code == 0) and len(row["values"]) == 3
    assert ("MISSED" in capsys.readouterr().out) is (code == 1)
