"""The benchmark of models runs, measures what it says, and writes what it measured."""

from __future__ import annotations

import json

import torch

from aesg.benchmarks.train import fill, loop_over_cells, main, make_model, make_work


def test_short_run_writes_every_case(tmp_path) -> None:
    models = "AESGGRUText,AESGTransformer,AESGColorizationNet"
    threads = torch.get_num_threads()
    try:
        assert main(["--short", "--models", models, "--out", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    record = json.loads((tmp_path / "train.json").read_text())
    assert record["benchmark"] == "train" and record["machine"]["torch"] == torch.__version__
    assert [(case["model"], case["what"]) for case in record["cases"]] == [
        (name, what) for name in models.split(",") for what in ("forward", "training step")
    ]
    for case in record["cases"]:
        assert {"plain", "50 concepts"} <= case["results"].keys()
        assert all(result["ms"] > 0 for result in case["results"].values())
        with_memory = case["results"]["50 concepts"]
        if case["what"] == "training step":
            assert 0 < with_memory["topology_ms"] < with_memory["step_ms"]
            ratio = with_memory["topology_ms"] / with_memory["step_ms"]
            assert abs(with_memory["topology_share"] - ratio) < 1e-9
        assert "topology_ms" not in case["results"]["plain"]


def test_contestants_do_the_same_work(tmp_path) -> None:
    """The cell loop computes what the fused kernel does; the memory is asked what it knows."""
    work = make_work("AESGGRUText", 2, 5, 16, 30)
    plain = make_model("AESGGRUText", "small", 30, None)
    looped = loop_over_cells(make_model("AESGGRUText", "small", 30, None))
    torch.testing.assert_close(plain(*work.inputs), looped(*work.inputs), rtol=1e-4, atol=1e-5)
    model = make_model("AESGGRUText", "small", 30, str(tmp_path / "m"))
    fill(model, work, 40)
    assert model.memory.storage.active_count == 40 and model.memory.storage.edge_count > 100
    model(*work.inputs)
    stats = model.memory.stats()  # half of the queries are those of `fill`, which found an empty memory
    assert 2 * stats["mean_explanation"] > 0.8
    model.memory.close()
