"""The report shows every figure with its interval and control, is one file, and hides nothing that missed."""

from __future__ import annotations

import json
import math
import re
import sys
import types

import pytest

from aesg import cli
from aesg.benchmarks import _evidence
from aesg.benchmarks._report import as_html, as_markdown, interval_plot, number, read_part
from aesg.exceptions import AESGStorageError

PART = {
    "environment": {"torch": "2.13", "cores": 2},
    "seeds": [0, 1, 2],
    "short": False,
    "tasks": {
        "one": {
            "title": "recall <of> facts",
            "seconds": 1.0,
            "figures": {
                "with memory": {
                    "mean": 0.9, "half_width_95": 0.05, "values": [0.88, 0.9, 0.92], "aim": ">= 0.95",
                    "reached": False,
                },
                "control": {"mean": 0.1, "half_width_95": 0.02, "values": [0.1, 0.1, 0.1]},
                "difference": {"mean": 0.8, "half_width_95": 0.05, "values": [0.8] * 3,
                               "is_a_difference": True},
            },
        }
    },
}  # fmt: skip


def fake(monkeypatch, name, written, code=0):
    """A benchmark module that writes what it is told."""

    def main(argv):
        out = argv[argv.index("--out") + 1]
        if written is not None:
            with open(f"{out}/{name}.json", "w") as file:
                file.write(written if isinstance(written, str) else json.dumps(written))
        return code

    module = types.ModuleType(f"aesg.benchmarks.{name}")
    module.main = main
    monkeypatch.setitem(sys.modules, f"aesg.benchmarks.{name}", module)


def test_markdown_and_page_hold_every_figure(tmp_path):
    text, page = (
        as_markdown({"recall": PART}, "the command"),
        as_html({"recall": PART}, "the command", tmp_path),
    )
    assert "| with memory | 0.9 | 0.85 to 0.95 | 3 | >= 0.95 MISSED |" in text
    assert "1 figures have an aim; 1 of them missed it." in text and "`the command`" in text
    assert "0.85 to 0.95" in page and "MISSED" in page and "recall &lt;of&gt; facts" in page
    assert "torch 2.13" in text and "torch 2.13" in page
    assert not re.search(r"https?://|<script|\bsrc=\"(?!data:)|<link", page)


def test_a_table_stands_beside_the_options_of_its_run(tmp_path):
    task = PART["tasks"]["one"] | {
        "options": {"tasks": ["a", "b"], "first_seed": 3, "seeds": None, "short": True}
    }
    part = PART | {"tasks": {"one": task}}
    assert "\n`--tasks a b --first-seed 3 --short`\n" in as_markdown({"recall": part}, "the command")
    page = as_html({"recall": part}, "the command", tmp_path)
    assert "<code>--tasks a b --first-seed 3 --short</code>" in page


def test_the_plot_shows_seeds_and_leaves_differences_out():
    svg = interval_plot(PART["tasks"]["one"])
    assert svg.count('class="one"') == 6 and svg.count('class="mean"') == 2 and "difference" not in svg
    spans = re.findall(r'class="ci" x1="([\d.]+)" x2="([\d.]+)"', svg)
    assert float(spans[0][1]) - float(spans[0][0]) == pytest.approx(
        2.5 * (float(spans[1][1]) - float(spans[1][0])), rel=0.02
    )
    unlike = {"figures": {"a": PART["tasks"]["one"]["figures"]["control"],
                          "n": {"mean": 9000.0, "half_width_95": 1.0, "values": [9000.0]}}}  # fmt: skip
    assert interval_plot(unlike) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12345, "0.1235"), (2.5, "2.5"), (26.71833, "26.72"), (123456.7, "123,457"),
     (0.00001234, "1.234e-05"), (-0.5, "-0.5"), (math.nan, "nan")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_bench_with_out_writes_a_report_and_keeps_the_exit_code(tmp_path, monkeypatch, capsys):
    fake(monkeypatch, "recall", PART, code=1)
    assert cli.main(["bench", "recall", "--seeds", "3", "--out", str(tmp_path / "new")]) == 1
    assert (tmp_path / "new" / "report.html").is_file() and (tmp_path / "new" / "report.md").is_file()
    kept = json.loads((tmp_path / "new" / "recall.json").read_text())
    assert kept["command"].startswith("python -m aesg bench recall --seeds 3 --out")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["recall.json", "report.html", "report.md"]


def test_all_joins_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(_evidence, "there", lambda: ["recall", "colorization"])
    fake(monkeypatch, "recall", PART)
    fake(monkeypatch, "colorization", {"speed": {"queries": 7.5}, "environment": {}})  # of another shape
    assert cli.main(["bench", "all", "--short", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert text.index("## recall") < text.index("## colorization") and "| speed.queries | 7.5 |" in text


def test_there_names_only_what_exists():
    assert {"recall", "colorization"} <= set(_evidence.there()) <= set(_evidence.NAMES)
    assert set(cli.EVIDENCE) == set(_evidence.NAMES)


@pytest.mark.parametrize("written", [None, "[]", "{", '"x"'])
def test_what_a_benchmark_did_not_write_is_named(tmp_path, monkeypatch, written):
    fake(monkeypatch, "recall", written)
    with pytest.raises(AESGStorageError, match=r"recall\.json"):
        _evidence.main("recall", ["--out", str(tmp_path)])
    assert not (tmp_path / "report.md").exists()


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    fake(monkeypatch, "recall", PART)
    ran = []
    sys.modules["aesg.benchmarks.recall"].main = ran.append
    with pytest.raises(AESGStorageError, match="file"):
        _evidence.main("recall", ["--out", str(tmp_path / "file")])
    assert ran == []


def test_read_part_takes_the_written_shape(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(PART))
    assert read_part(tmp_path / "a.json") == PART


def test_one_untitled_table_is_taken_too(tmp_path):
    rows = PART["tasks"]["one"]["figures"]
    (tmp_path / "packs.json").write_text(json.dumps({"figures": rows, "environment": {}}))
    part = read_part(tmp_path / "packs.json")
    assert part["tasks"]["figures"]["figures"] == rows and part["tasks"]["figures"]["title"] == "packs"
    assert part["seeds"] == [0, 1, 2]


def test_reuse_runs_nothing_again(tmp_path, monkeypatch):
    fake(monkeypatch, "recall", PART)
    assert cli.main(["bench", "recall", "--out", str(tmp_path)]) == 0
    sys.modules["aesg.benchmarks.recall"].main = None  # to call it would fail
    (tmp_path / "report.md").unlink()
    assert cli.main(["bench", "all", "--reuse", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "`python -m aesg bench recall --out" in text and "--reuse" in text and "## packs" not in text
    with pytest.raises(AESGStorageError, match="expected what earlier runs left there, found nothing"):
        _evidence.main("all", ["--reuse", "--out", str(tmp_path / "empty")])
