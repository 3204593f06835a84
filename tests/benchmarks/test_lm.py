"""`aesg bench lm`, small: the task is what it says, and every figure is made."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from aesg.benchmarks import lm
from aesg.benchmarks._mqar import SEPARATOR, Recall
from aesg.exceptions import AESGStorageError


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_what_is_asked_was_told_in_earlier_chunks_only(hops: int) -> None:
    task = Recall(streams=3, keys=5, values=4, hops=hops)
    chunks = list(task.episodes(2, torch.Generator().manual_seed(0)))
    assert [chunk.begins for chunk in chunks].count(True) == 2
    assert len(chunks) == 2 * 2 * (hops + 1)
    told: list[dict[int, int]] = [{} for _ in range(3)]
    asked = 0
    for chunk in chunks:
        for row, (tokens, targets) in enumerate(
            zip(chunk.tokens.tolist(), chunk.targets.tolist(), strict=True)
        ):
            assert max(tokens) < task.vocab
            for left, right, wanted in zip(tokens[::2], tokens[1::2], targets[::2], strict=True):
                if wanted < 0:
                    told[row][left] = right  # the last telling counts
                    continue
                assert right == SEPARATOR and 1 <= wanted <= 4
                for _ in range(hops):
                    left = told[row][left]
                assert left == wanted
                asked += 1
    assert asked == 2 * 3 * 2 * 5
    keys = [set(row) for row in told]
    assert not keys[0] & keys[1] and not keys[1] & keys[2]


def test_short_run(tmp_path) -> None:
    assert lm.main(["--short", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "lm.json").read_text())
    titles = [case["title"] for case in record["tasks"].values()]
    assert [title.split(",")[0] for title in titles] == 3 * list(lm.MODELS)
    for case in record["tasks"].values():
        figures = {name: figure["mean"] for name, figure in case["figures"].items()}
        assert figures.pop("concepts") > 0
        if "recall" in case["title"]:
            assert set(figures) == {"chance", "without memory", "memory", "shuffled contents"}
            assert all(0 <= figure <= 1 for figure in figures.values())
            continue
        if "random" in case["title"]:
            gain = figures["without memory"] - figures["memory frozen"]
            assert figures.pop("gain frozen") == pytest.approx(gain)
            read = {"without memory", "memory frozen", "shuffled contents, frozen", "reads switched off"}
            assert set(figures) == read
            assert all(5 < figure < 9 for figure in figures.values())
            continue
        for state in ("frozen", "online"):
            gain = figures["without memory"] - figures[f"memory {state}"]
            assert figures.pop(f"gain {state}") == pytest.approx(gain)
            gain = figures["abroad, without memory"] - figures[f"abroad, memory {state}"]
            assert figures.pop(f"gain abroad, {state}") == pytest.approx(gain)
        assert set(figures) == {
            "abroad, without memory",
            "abroad, memory frozen",
            "abroad, memory online",
            "without memory",
            "memory frozen",
            "memory online",
            "shuffled contents, frozen",
            "reads switched off",
        }
        assert all(5 < figure < 9 for figure in figures.values())  # bits a byte after three steps
        assert figures["memory frozen"] != figures["shuffled contents, frozen"]


def _raise(error: Exception) -> None:
    raise error


def test_a_case_replaces_the_one_of_its_kind_and_leaves_the_others(tmp_path, monkeypatch) -> None:
    few = ["--short", "--models", "AESGDecoderLM", "--out", str(tmp_path)]
    assert lm.main([*few, "--tasks", "recall"]) == 0
    former = json.loads((tmp_path / "lm.json").read_text())["tasks"]
    assert lm.main([*few, "--tasks", "files"]) == 0
    assert lm.main([*few, "--tasks", "files", "--seeds", "2"]) == 0
    tables = json.loads((tmp_path / "lm.json").read_text())["tasks"]
    assert list(tables) == ["AESGDecoderLM, recall over 1 step(s)", "AESGDecoderLM, files in order"]
    first, second = tables.values()
    assert former == {first["title"]: first}
    before = (tmp_path / "lm.json").read_bytes()
    monkeypatch.setattr(Path, "write_text", lambda *a, **k: _raise(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(AESGStorageError, match=r"lm\.json.*No space left"):
        lm.main([*few, "--tasks", "files"])
    assert (tmp_path / "lm.json").read_bytes() == before  # hours of work
    assert second["seeds"] == [0, 1] and len(second["figures"]["memory online"]["values"]) == 2


def test_shuffled_contents_are_another_rows(tmp_path) -> None:
    from aesg.memory.controller import AESGMemory

    with AESGMemory(tmp_path, lm.token_config(8)) as memory:
        memory.graph.add_concepts(torch.eye(8)[:3])
        memory.set_mode("INFERENCE")
        query = torch.eye(8)[:3]
        plain = memory.retrieve(query)
        with lm.shuffled_contents(memory):
            other = memory.retrieve(query)
        assert torch.equal(other.indices, plain.indices.roll(1, 0))
        assert torch.equal(memory.retrieve(query).indices[:, 0], torch.arange(3))
