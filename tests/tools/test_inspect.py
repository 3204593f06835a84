"""`aesg inspect` tells the truth, changes nothing, works beside a writer, and its page needs no network."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aesg import cli
from aesg.storage.engine import AESGStorage
from aesg.tools.columns import read_columns
from aesg.tools.inspect_page import render, sample
from aesg.tools.layout import place
from aesg.tools.look import evolution, look, open_for_looking


def state_of(directory):
    """Names, bytes and times of all files, and the time of the directory."""
    files = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()}
    return files, directory.stat().st_mtime_ns


def test_the_report_counts_what_is_there(grown, capsys):
    assert cli.main(["inspect", str(grown.directory)]) == 0
    text = capsys.readouterr().out
    assert "60 living (1 abstract)" in text and "16 dimensions" in text and "mode TRAIN" in text
    similarity = sum(
        (grown.storage.get_edges(slot)["kind"] == 0).sum() for slot in range(grown.storage.node_count)
    )
    assert f"{similarity} similarity" in text
    assert "hubs        concept 1 " in text and "PRUNE       concept 60" in text
    assert re.search(r"health +sound", text) and "nodes.aesg" in text
    assert max(map(len, text.splitlines())) <= 120


def test_facts_agree_with_the_memory(grown, capsys):
    assert cli.main(["inspect", str(grown.directory), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    stats, nodes = grown.stats(), grown.storage.nodes
    assert facts["concepts"]["living"] == stats["active"] and facts["edges"]["all"] == stats["edges"]
    assert facts["concepts"]["dead"] + facts["concepts"]["free"] == stats["concepts"] - stats["active"] == 1
    assert facts["concepts"]["candidates"] == stats["candidates"]
    living = nodes["is_active"][:] != 0
    assert facts["concepts"]["never_used"] == int((nodes["use_frequency"][:][living] == 0).sum())
    assert sum(facts["histograms"]["age"]["counts"]) == 60
    assert facts["events"]["total"] == len(grown.logger.get_history())


def test_nothing_changes_and_a_writer_elsewhere_does_not_matter(grown, tmp_path):
    grown.retrieve(grown.graph.get_node_vector(4))  # pending in the writer, which holds its lock
    before = state_of(grown.directory)
    command = [
        sys.executable,
        "-m",
        "aesg",
        "inspect",
        str(grown.directory),
        "--html",
        str(tmp_path / "p.html"),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert state_of(grown.directory) == before
    grown.save()  # and the writer goes on
    os.chmod(grown.directory, 0o555)
    try:
        before = state_of(grown.directory)
        assert subprocess.run(command, capture_output=True).returncode == 0
        assert state_of(grown.directory) == before
    finally:
        os.chmod(grown.directory, 0o755)


def test_damage_is_found_and_told(grown, tmp_path, capsys):
    grown.compact()
    copy = tmp_path / "copy"
    shutil.copytree(grown.directory, copy)
    raw = bytearray((copy / "nodes.aesg").read_bytes())
    raw[4096 + 100] ^= 1
    (copy / "nodes.aesg").write_bytes(raw)
    assert cli.main(["inspect", str(copy)]) == 1
    text = capsys.readouterr().out
    assert "findings" in text and "sound" not in text
    assert cli.main(["inspect", str(copy), "--quick"]) == 0
    assert "not checked" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["missing", "empty", "foreign"])
def test_what_is_no_memory_is_refused_and_left_alone(tmp_path, what, capsys):
    place_ = tmp_path / "place"
    if what != "missing":
        place_.mkdir()
    if what == "foreign":
        (place_ / "notes.txt").write_text("mine")
    assert cli.main(["inspect", str(place_), "--html", str(tmp_path / "page.html")]) == 2
    assert f"{place_}" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
    assert place_.exists() == (what != "missing")
    assert what == "missing" or len(list(place_.iterdir())) == (what == "foreign")


def test_an_empty_memory_is_shown(make_memory, tmp_path, capsys):
    memory = make_memory("none")
    memory.save()
    page = tmp_path / "page.html"
    assert cli.main(["inspect", str(memory.directory)]) == 0
    assert "0 living" in capsys.readouterr().out
    assert cli.main(["inspect", str(memory.directory), "--html", str(page)]) == 0
    assert page.stat().st_size > 10_000


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_needs_no_network_and_says_its_share(grown, tmp_path):
    with open_for_looking(grown.directory) as storage:
        page = render(storage, look(storage), 25)
    outside = [
        url for url in re.findall(r"https?://[^\s\"'<>]+", page) if url != "http://www.w3.org/2000/svg"
    ]
    assert outside == [] and "default-src 'none'" in page
    assert not re.search(r"<(?:link|img|iframe)\b|\bsrc=|@import|fetch\(|XMLHttp", page)
    graph = data_of(page)["graph"]
    assert graph["concepts"] == 60 and graph["hubs"] == 2
    assert "/*" not in page.split("</style>")[0].split("<style>")[1]


def test_names_cannot_break_out_of_the_page(make_memory, tmp_path):
    memory = make_memory("</script><script>alert(1)</script>".replace("/", "_"))
    memory.save()
    with AESGStorage(memory.directory, read_only=True) as storage:
        facts = look(storage)
        facts["packs"] = [{"name": "</script><b>", "path": "<!--", "priority": 1}]
        page = render(storage, facts, 10)
    assert page.count("</script>") == 2 and "<!--" not in page


def test_a_page_that_cannot_be_written_leaves_nothing(grown, tmp_path):
    (tmp_path / "file").write_text("kept")
    assert cli.main(["inspect", str(grown.directory), "--html", str(tmp_path / "file" / "page.html")]) == 2
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["file"]


def test_a_page_never_takes_the_place_of_a_device_or_a_pipe(grown, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert cli.main(["inspect", str(grown.directory), "--html", str(tmp_path / "pipe")]) == 2
    assert "pipe': expected a regular file or none" in capsys.readouterr().err
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_the_sample_keeps_hubs_and_is_even(grown):
    columns = read_columns(grown.storage)
    rows = sample(columns, 20)
    assert len(rows) == 20 and 0 in rows and (np.diff(rows) > 0).all()
    assert np.diff(rows).max() <= 6  # no part of the life of the memory is left out
    assert len(sample(columns, 60)) == 60


def test_the_evolution_ends_at_what_lives(grown):
    told = evolution(grown.storage)
    for axis in told["by"].values():
        assert axis["living"][-1] == grown.storage.active_count
        assert np.sum(axis["counts"]) == len(grown.logger.get_history())


def test_evolution_counts_splits_and_merges(make_memory):
    memory = make_memory(split_density_threshold=8)
    random = np.random.default_rng(0)
    centre = random.standard_normal(16)
    vectors = np.concatenate([[centre], centre + random.standard_normal((12, 16))]).astype(np.float32)
    slots = memory.graph.add_concepts(vectors)
    memory.graph.add_edges([slots[0]] * 12, slots[1:], [0.9] * 12, [0.5] * 12)
    assert memory.cognitive_engine.split_concept(int(slots[0])) is not None
    memory.cognitive_engine.merge_concepts(int(slots[3]), int(slots[4]))
    told = evolution(memory.storage)
    assert told["by"]["event"]["living"][-1] == memory.storage.active_count == 13
    assert told["by"]["event"]["living"][0] in (0, 1)


def test_places_are_finite_apart_and_repeatable():
    random = np.random.default_rng(1)
    vectors = random.standard_normal((300, 20)).astype(np.float32)
    vectors[7] = 0
    regions = random.integers(0, 6, 300)
    at = place(vectors, regions)
    assert np.isfinite(at).all() and np.abs(at).max() <= 1 + 1e-9
    assert (at == place(vectors, regions)).all()
    centres = np.array([at[regions == r].mean(axis=0) for r in range(6)])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)[np.triu_indices(6, 1)].min()
    within = np.mean([at[regions == r].std() for r in range(6)])
    assert apart > within
    same = place(np.ones((5, 3), np.float32), np.zeros(5, int))
    assert np.isfinite(same).all() and place(np.zeros((0, 3), np.float32), np.zeros(0, int)).shape == (0, 2)
    assert place(random.standard_normal((9, 700)).astype(np.float32), np.arange(9)).shape == (9, 2)


BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


def browse(page, tmp_path, *options):
    return subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=3000",
            f"--user-data-dir={tmp_path / 'profile'}",
            *options,
            f"file://{page}#search=1&theme=dark",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


USER = f"<script>{(Path(__file__).parent / 'user.js').read_text()}</script>"  # what a user does


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_page_runs_in_a_browser(grown, tmp_path):
    page = tmp_path / "page.html"
    with open_for_looking(grown.directory) as storage:
        page.write_text(render(storage, look(storage), 1000))
    run = browse(page, tmp_path, "--dump-dom")
    assert 'data-theme="dark"' in run.stdout
    assert "Drawn: all <b>60</b> concepts" in run.stdout
    assert "<h2>Concept 1</h2>" in run.stdout  # found by its id, with its details
    assert run.stdout.count("<rect") > 20

    page.write_text(page.read_text().replace("</body>", USER + "</body>"))
    told = re.search(r'data-tried="(.*?)"', browse(page, tmp_path, "--dump-dom").stdout)
    assert told is not None, "the page's program failed"
    tried = json.loads(html.unescape(told[1]))
    assert tried["zoomed"] > 1.3 and tried["dragged"] == 40
    assert re.fullmatch(r"Concept \d+", tried["clicked"])
    assert tried["found"] == 1 and tried["cleared"] and tried["theme"] == "light"
    assert tried["colours"] > 20  # it is drawn


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_first_picture_is_not_blank(grown, tmp_path):
    image = pytest.importorskip("PIL.Image")
    page = tmp_path / "page.html"
    with open_for_looking(grown.directory) as storage:
        page.write_text(render(storage, look(storage), 1000))
    browse(page, tmp_path, f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1200,900")
    middle = image.open(tmp_path / "shot.png").convert("RGB").crop((60, 160, 700, 700))
    assert len(middle.getcolors(1_000_000)) > 50
