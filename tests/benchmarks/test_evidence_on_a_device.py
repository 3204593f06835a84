"""`--device` of the benchmarks that measure what a memory gives a model, on a device that is pretended: they
run, every model is asked there and nothing else, and the figures are those of the CPU.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from aesg import cli
from aesg.benchmarks import _budget, _device, _evidence, _long_life, _reopening, lm, packs
from aesg.exceptions import AESGConfigError
from aesg.graph.device_copy import DeviceCopy
from tests.pretended_cuda import DEVICE, Pretended, needs_no_cuda, pretended_cuda

NAMES = ("lm", "images", "colorization", "recall", "packs")
RUNS = {
    "lm": ["--tasks", "recall", "files", "--models", "AESGDecoderLM"],
    "images": ["--tasks", "tiles", "tiles_again", "one_shot"],
    "colorization": ["--dataset", "generated", "--seeds", "1"],
    "recall": ["--seeds", "1"],
    "packs": ["--seeds", "1"],
}
NEEDS = {"images": ("sklearn", "skimage"), "colorization": ("PIL",), "recall": ("sklearn",)}


@pytest.fixture
def small(monkeypatch) -> Iterator[None]:
    """Sizes below those of --short: every operation passes through Python here. One thread, so that sums are
    cut alike."""
    monkeypatch.setattr(_budget, "EPOCHS", 1)
    monkeypatch.setattr(_budget, "PASSES", 1)
    monkeypatch.setattr(_long_life, "BATCH", 2048)
    monkeypatch.setattr(_reopening, "in_a_process", _reopening.main)  # another would have no such device
    monkeypatch.setattr(lm, "SHORT_FILES", lm.SHORT_FILES | {"held_out": 500, "abroad": 500})
    monkeypatch.setattr(packs, "SHORT", packs.Sizes(steps=6, streams=2, chunk=16, grown_on=300, held_out=100))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pretended(monkeypatch) -> list[int]:
    """`--device cuda:0` is the pretended one. How many searches it answered."""
    monkeypatch.setattr(_device, "DEVICES", ("cpu", str(DEVICE)))  # torch would ask for the index of "cuda"
    monkeypatch.setattr(_device, "require_cuda", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "pretended")
    searches, search = [0], DeviceCopy.search

    def counted(*given):
        searches[0] += 1
        return search(*given)

    monkeypatch.setattr(DeviceCopy, "search", counted)
    return searches


def measured(name, folder, device, arguments):
    """The figures by task, the environment, and where the leaves of models were asked."""
    places: set[torch.device] = set()

    def note(module: nn.Module, given: tuple) -> None:
        if given and isinstance(given[0], torch.Tensor) and not list(module.children()):
            places.add(DEVICE if isinstance(given[0], Pretended) else given[0].device)

    handle = register_module_forward_pre_hook(note)
    try:
        importlib.import_module(f"aesg.benchmarks.{name}").main(
            ["--short", "--device", device, "--out", str(folder), *arguments]
        )
    finally:
        handle.remove()
    record = json.loads((folder / f"{name}.json").read_text())
    tables = record.get("tasks", {name: record})
    figures = {
        f"{title.removesuffix(f', on {DEVICE}')}: {figure}": row["values"]
        for title, table in tables.items()
        for figure, row in table["figures"].items()
    }
    return figures, record, places


@needs_no_cuda
@pytest.mark.parametrize("name", NAMES)
def test_the_figures_are_those_of_the_cpu(name, small, pretended, tmp_path) -> None:
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    wanted, record, places = measured(name, tmp_path / "cpu", "cpu", RUNS[name])
    assert record["environment"]["device"] == "cpu" and "gpu" not in record["environment"]
    assert places == {torch.device("cpu")} and pretended[0] == 0
    with pretended_cuda():
        got, record, places = measured(name, tmp_path / "cuda", str(DEVICE), RUNS[name])
    assert record["environment"]["device"] == str(DEVICE) and record["environment"]["gpu"] == "pretended"
    assert places == {DEVICE} and pretended[0] > 0
    assert list(got) == list(wanted)
    for figure, values in got.items():
        assert values == pytest.approx(wanted[figure], rel=1e-6, abs=1e-6), figure
    assert any(value != 0 for values in got.values() for value in values)


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_without_a_device_it_says_so(name, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["bench", name, "--device", "cuda", "--out", str(tmp_path)]) == cli.USAGE_ERROR
    assert "torch sees no CUDA device" in capsys.readouterr().err
    with pytest.raises(AESGConfigError, match="no CUDA device"):
        importlib.import_module(f"aesg.benchmarks.{name}").main(["--device", "cuda", "--out", str(tmp_path)])


def test_all_passes_the_device_on(pretended, tmp_path, monkeypatch) -> None:
    given = []
    monkeypatch.setattr(_evidence, "main", lambda name, arguments: given.append(arguments) or 0)
    main = importlib.import_module("aesg.benchmarks.all").main
    assert main(["--out", str(tmp_path), "--device", str(DEVICE)]) == main(["--out", str(tmp_path)]) == 0
    assert given == [["--out", str(tmp_path), "--device", str(DEVICE)], ["--out", str(tmp_path)]]


def test_tables_of_a_device_stand_beside_those_of_the_cpu(small, pretended, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(lm, "recall_of", lambda *_: {"memory": 1.0})
    few = ["--short", "--tasks", "recall", "--models", "AESGDecoderLM", "--out", str(tmp_path), "--device"]
    assert lm.main([*few, "cpu"]) == lm.main([*few, str(DEVICE)]) == 0
    tables = json.loads((tmp_path / "lm.json").read_text())["tasks"]
    assert [(title, table["options"]["device"]) for title, table in tables.items()] == [
        ("AESGDecoderLM, recall over 1 step(s)", "cpu"),
        (f"AESGDecoderLM, recall over 1 step(s), on {DEVICE}", str(DEVICE)),
    ]
