"""The benchmark of packs runs; attaching does no work that grows with the pack."""

from __future__ import annotations

import json
from pathlib import Path

from aesg.benchmarks import pack_speed


def test_the_benchmark_runs(tmp_path: Path) -> None:
    assert pack_speed.main(["--short", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "pack_speed.json").read_text())
    handling = [case["milliseconds"] for case in record["cases"] if "format" in case]
    assert len(handling) == 4 and all(case["attach"] < 50 and case["detach"] < 50 for case in handling)
    assert [case["batch"] for case in record["cases"] if "batch" in case] == [1, 8, 1, 8]
