"""`aesg bench topology` runs, small, and meets every kind of update."""

from __future__ import annotations

import json

from aesg.benchmarks import topology


def test_every_kind_of_update_is_measured(tmp_path, capsys):
    topology.main(["--short", "--updates", "50", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "topology.json").read_text())
    times = {due: len(row["wall_ms"]) for due, row in record["updates"].items()}
    assert times == {"no sweep": 45, "sweep, every edge new": 1, "sweep": 3, "sweep and regions": 1}
    assert all(row["median_ms"] > 0 for row in record["updates"].values())
    assert "2,000 concepts, " in capsys.readouterr().out
