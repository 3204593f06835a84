"""`aesg bench recall`, small: every task runs, its figures are reached, its controls fail where they must."""

from __future__ import annotations

import json
import math

import pytest
import torch

from aesg.benchmarks import recall
from aesg.benchmarks._measure import interval


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("recall")
    tasks = ["facts", "noisy_facts", "latest", "long_life"]
    code = recall.main(["--short", "--seeds", "2", "--out", str(out), "--tasks", *tasks])
    return code, json.loads((out / "recall.json").read_text())


def test_a_broken_off_run_goes_on(results, tmp_path, monkeypatch):
    _, record = results
    (tmp_path / "recall.json").write_text(json.dumps(record))
    monkeypatch.setattr(recall, "measure", lambda *_: pytest.fail("measured again"))
    arguments = ["--short", "--out", str(tmp_path), "--tasks", "facts"]
    assert recall.main([*arguments, "--seeds", "2"]) == 0
    assert "| 1 hops | 1.0000 | 0.0000 | >= 0.95, reached |" in (tmp_path / "recall.md").read_text()
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        recall.main([*arguments, "--seeds", "2", "--first-seed", "5"])


def mean(record, task, figure):
    return record["tasks"][task]["figures"][figure]["mean"]


def test_every_aim_is_reached(results):
    code, record = results
    missed = [
        (task, name, row["mean"])
        for task, found in record["tasks"].items()
        for name, row in found["figures"].items()
        if not row.get("reached", True)
    ]
    assert code == 0 and missed == []


def test_the_graph_knows_what_the_controls_cannot(results):
    _, record = results
    for task in ("facts", "noisy_facts"):
        for hops in (1, 2, 3):
            for control in ("nearest neighbours", "shuffled contents"):
                assert mean(record, task, f"{hops} hops, {control}") < 0.4
            assert mean(record, task, f"{hops} hops, exact dictionary") == 1.0


def test_the_record_says_where_it_was_measured(results):
    _, record = results
    assert {"torch", "cores", "threads"} <= set(record["environment"])
    assert record["short"] and record["seeds"] == [0, 1]


def test_answers_are_the_same_bits_in_another_process(tmp_path):
    figures = recall.tasks(short=True)["processes"].run(tmp_path / "memory", 0)
    assert figures["same bits"] == 1.0 and figures["right after reopening, 2 hops"] == 1.0


def test_digits_at_a_budget(tmp_path):
    pytest.importorskip("sklearn")
    from aesg.benchmarks._budget import CONFIG, _memory_answers, load_digits

    x, y, x_test, y_test = load_digits(0)
    order = [torch.nonzero((y == 2 * task) | (y == 2 * task + 1))[:, 0] for task in range(5)]
    answers, most = _memory_answers(tmp_path / "memory", x, y, order, x_test)
    assert most <= CONFIG.max_concepts == 100
    assert (answers == y_test).float().mean() > 0.94  # nearest mean reaches 0.90


def test_intervals():
    assert interval([1.0, 1.0, 1.0]) == (1.0, 0.0)
    middle, half = interval([0.0, 1.0])
    assert middle == 0.5 and half == pytest.approx(12.706 * 0.5)
    assert interval([2.0]) == (2.0, math.inf)
