"""`aesg bench images`, small: every figure is made, from the data and models it names."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("skimage")

from aesg.benchmarks import images
from aesg.benchmarks._pictures import labelled_tiles


def test_short_run(tmp_path) -> None:
    assert images.main(["--short", "--seeds", "1", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "images.json").read_text())
    assert list(record["tasks"]) == list(images.TASKS)
    for name, task in record["tasks"].items():
        figures = task["figures"]
        assert {images.WITH, images.WITHOUT, images.SHUFFLED} <= set(figures)
        gain = figures[images.WITH]["mean"] - figures[images.WITHOUT]["mean"]
        if images.TASKS[name].error:
            gain = -gain
        assert figures[f"gain over {images.WITHOUT}"]["mean"] == pytest.approx(gain)


def test_the_pair_differs_in_nothing_but_the_memory(tmp_path) -> None:
    pair = images.Pair(images.AESGCNNClassifier, 3, tmp_path, num_classes=10)
    with_memory, without = pair.models[images.WITH].state_dict(), pair.models[images.WITHOUT].state_dict()
    assert all(torch.equal(with_memory[name], value) for name, value in without.items())
    assert {name.split(".")[0] for name in set(with_memory) - set(without)} <= {"memory", "bottleneck"}


def test_no_test_picture_is_trained_on() -> None:
    for data in (images.digits(1), images.tiles(1, 200)):
        shown = {picture.numpy().tobytes() for picture in data.x}
        assert sum(picture.numpy().tobytes() in shown for picture in data.x_test) <= 1  # two digits are equal
        assert data.x.min() >= 0 and data.x.max() <= 1
        assert set(data.y_test.tolist()) <= set(data.y.tolist())


def test_tiles_of_no_photograph_rule() -> None:
    pixels, labels = labelled_tiles(300, 32)
    counts = labels.bincount()
    assert pixels.shape == (len(labels), 3, 32, 32) and pixels.dtype == torch.uint8
    assert len(counts) > 1 and counts.max() <= 2 * counts.min()
