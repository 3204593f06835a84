"""The page and its charts: self-contained, escaped, with what was recorded in it."""

import math
import os
import re
from html.parser import HTMLParser

import pytest

from aesg.exceptions import AESGStorageError
from aesg.runs.chart import line_chart, ticks
from aesg.runs.page import curves, write_page


class Checker(HTMLParser):
    """Tags must nest; addresses are collected."""

    VOID = frozenset({"meta", "br", "line", "circle", "path"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_page(store, tmp_path):
    evil = '<script>alert("1")</script>&'
    with pytest.raises(ValueError), store.run("first", params={"lr": 1e-3, "note": evil}) as run:
        for step in range(5):
            run.memory().record(
                "epoch", data={"epoch": step + 1}, metrics={"loss": 1 / (step + 1), "nan": math.nan}
            )
        art = run.artifacts().save_text("x", kind="checkpoint", labels={"<b>": evil}, metrics={"loss": 0.25})
        run.artifacts().pin(art.artifact_id)
        raise ValueError(evil)
    with store.run("second") as run:
        run.memory().record("epoch", data={"epoch": 1}, metrics={"loss": 0.5})
    page = write_page(store, tmp_path / "runs.html")
    text = page.read_text("utf-8")
    found = Checker(text)
    assert found.addresses == [] and "script" not in found.tags and "url(" not in text
    assert found.tags.count("svg") == 1  # nothing finite in the other
    assert found.tags.count("circle") == 6
    for expected in (
        "first",
        "second",
        "lr",
        "0.001",
        evil,
        "failed",
        "finished",
        art.artifact_id[:12],
        "<b>",
    ):
        assert expected in found.text
    write_page(store, tmp_path / "runs.html", store.runs(name="second"))
    assert "first" not in page.read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.html", "store"]


def test_an_empty_store_and_a_bad_place(store, tmp_path):
    assert "none yet" in write_page(store, tmp_path / "a.html").read_text()
    with pytest.raises(AESGStorageError, match="Failed to write"):
        write_page(store, tmp_path / "missing" / "a.html")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AESGStorageError, match="pipe': expected a regular file or none"):
        write_page(store, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_curves_take_step_then_epoch_then_place(run):
    mem = run.memory()
    mem.record("a", data={"step": 7, "epoch": 1}, metrics={"m": 1})
    mem.record("a", data={"epoch": 9}, metrics={"m": 2})
    mem.record("a", data={"epoch": "x"}, metrics={"m": 3})
    mem.record("b", metrics={"m": 4})
    mem.record("b")
    assert curves(mem.recent()) == {"m": [(7, 1), (9, 2), (2, 3), (0, 4)]}
    long = [mem.record("c", metrics={"n": n}) for n in range(1500)]
    points = curves(long)["n"]
    assert len(points) == 1000 and points[0] == (0, 0) and points[-1] == (1499, 1499)


def test_a_gap_interrupts_a_line():
    svg = line_chart("t", {"a": [(0, 1), (1, 2), (2, math.nan), (3, 4), (4, math.inf), (5, 1)]})
    (path,) = re.findall(r'<path d="([^"]*)"', svg)
    assert re.sub(r"[\d. ]+", "", path) == "MLMM"
    assert line_chart("t", {"a": [(0, math.nan), (1, 1e308)]}) == "" == line_chart("t", {})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 10], [0, 2, 4, 6, 8, 10]),
        ([1, 1], [0.5, 0.7, 0.9, 1.1, 1.3, 1.5]),
        ([0.013, 0.041], [0.01, 0.02, 0.03, 0.04, 0.05]),
    ],
)
def test_ticks_are_round(values, expected):
    found = ticks(values)
    assert found[0] <= min(values) and found[-1] >= max(values)
    if values != [1, 1]:
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    "values", [[0, 0], [-9e299, 9e299], [1e-320, 2e-320], [5e-324, 0], [1, 1 + 2e-16], [1e300]]
)
def test_ticks_at_the_ends_of_arithmetic(values):
    assert 2 <= len(ticks(values)) < 20 and all(map(math.isfinite, ticks(values)))
    assert "nan" not in line_chart("t", {"a": [(value, value) for value in values]})
