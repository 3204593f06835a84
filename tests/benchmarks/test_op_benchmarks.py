"""The benchmarks of the ops run, write what they promise, and refuse contestants that disagree."""

import json

import pytest
import torch

from aesg.benchmarks import approximate, consolidate, insert, retrieve, seeds, spread
from aesg.benchmarks._timing import time_in_turn

QUICK = ["--seconds", "0.01", "--threads", "1"]


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_seeds(tmp_path):
    path = tmp_path / "seeds.json"
    assert seeds.main([*QUICK, "--n", "500", "--dim", "8", "--batch", "1,3", "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert [case["batch"] for case in record["cases"]] == [1, 3]
    assert record["cases"][0]["seconds"]["aesg.seed_search"]["median"] > 0
    assert record["machine"]["torch"] == torch.__version__


def test_spread(tmp_path):
    path = tmp_path / "spread.json"
    assert spread.main([*QUICK, "--n", "400", "--hops", "3", "--batch", "2", "--json", str(path)]) == 0
    assert {case["graph"] for case in json.loads(path.read_text())["cases"]} == {"random", "power-law"}


@pytest.mark.parametrize("bench", [approximate, consolidate, insert, retrieve])
def test_the_others(bench, tmp_path):
    path = tmp_path / "out.json"
    small = {
        approximate: ["--n", "2000", "--dim", "16", "--batch", "4", "--peers", "", "--seconds", "0.01"],
        consolidate: ["--n", "300", "--seconds", "0.01"],
        insert: ["--n", "500", "--dim", "8", "--rows", "256", "--rounds", "1"],
        retrieve: ["--n", "300", "--dim", "8", "--hops", "1,2", "--seconds", "0.01"],
    }
    assert bench.main([*small[bench], "--threads", "1", "--json", str(path)]) == 0
    cases = json.loads(path.read_text())["cases"]
    numbers = [case.get("seconds") or case["births a second"] for case in cases]
    assert numbers and all("aesg" in next(iter(contestants)) for contestants in numbers)


def test_disagreement_is_refused():
    scores, indices = torch.tensor([[0.9, 0.5]]), torch.tensor([[3, 4]])
    good = {"a": lambda: (scores, indices), "b": lambda: (scores.clone(), indices.clone())}
    seeds.check_equal(good)
    spread.check_equal(good)
    wrong_score = {**good, "b": lambda: (scores + 1e-3, indices)}
    wrong_index = {**good, "b": lambda: (scores, indices.flip(1))}
    with pytest.raises(AssertionError):
        seeds.check_equal(wrong_score)
    with pytest.raises(AssertionError):
        seeds.check_equal(wrong_index)
    with pytest.raises(AssertionError):
        spread.check_equal(wrong_index)


def test_contestants_are_timed_in_turn():
    order = []
    timings = time_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0.0, least=3)
    assert timings["a"].runs == timings["b"].runs == 3
    assert order.index("b") < len(order) - 1 - order[::-1].index("a"), "all runs of a came before b"
