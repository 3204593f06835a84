"""`aesg bench packs`, small: every figure is made, and a detached pack leaves no trace."""

from __future__ import annotations

import json

from aesg.benchmarks import packs


def test_short_run(tmp_path) -> None:
    assert packs.main(["--short", "--seeds", "1", "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "packs.json").read_text())["figures"]
    assert figures["detached equals before"]["mean"] == 1.0
    assert figures["pack concepts"]["mean"] > 100 and figures["pack edges"]["mean"] > 100
    for name, (without, with_it) in packs.DIFFERENCES.items():
        assert figures[name]["mean"] == figures[without]["mean"] - figures[with_it]["mean"]
    # Not the same figure under many names.
    away = {row["mean"] for name, row in figures.items() if name.startswith("away")}
    assert len(away) >= 4
