"""The colorization benchmark compares like with like, names its pictures, and leaves nothing half written."""

from __future__ import annotations

import errno
import json
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image

from aesg import AESGColorizationNet, cli
from aesg.benchmarks import _pictures, colorization
from aesg.benchmarks._colorization_report import sentence
from aesg.benchmarks._pictures import load_pictures
from aesg.benchmarks._strips import GAP, strip
from aesg.benchmarks.colorization import BaselineCNN, ColorizationBenchmark, compare
from aesg.exceptions import AESGConfigError, AESGStorageError, AESGTrainingError


@pytest.fixture
def folder(tmp_path):
    """Twelve small pictures and a text."""
    random = np.random.default_rng(0)
    place = tmp_path / "pictures"
    (place / "more").mkdir(parents=True)
    for number in range(12):
        pixels = random.integers(0, 256, (20 + number, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / ("more" if number % 2 else ".") / f"{number:02}.png")
    (place / "notes.txt").write_text("no picture")
    return place


def benchmark(folder, out, **options):
    return ColorizationBenchmark(f"folder:{folder}", 12, 16, 1, out, **{"batch_size": 4, **options})


def test_it_writes_what_it_says(folder, tmp_path):
    out = tmp_path / "results"
    results = benchmark(folder, out, seeds=2).run()
    assert set(results) == {"aesg", "baseline"}
    aesg, baseline = results["aesg"], results["baseline"]
    assert np.isfinite([aesg.psnr, aesg.ssim, baseline.psnr, baseline.ssim]).all()
    assert len(aesg.loss_per_epoch) == 1 and aesg.memory_nodes >= 1 and baseline.memory_nodes == 0
    assert aesg.psnr == pytest.approx(np.mean([run["psnr"] for run in aesg.seeds]))
    report = (out / "benchmark_report.md").read_text()
    assert f"'{folder}', 12 of its 12 pictures" in report and "no difference is shown" in report
    assert "folder:" in json.loads((out / "results.json").read_text())["settings"]["dataset_name"]
    samples = sorted((out / "samples").iterdir())
    assert [p.name for p in samples] == ["sample_000.png", "sample_001.png"]
    assert Image.open(samples[0]).size == (4 * 16 + 3 * GAP, 16)
    assert {p.name for p in out.iterdir()} <= set(colorization.FILES)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_models_differ_by_the_memory_alone(tmp_path, monkeypatch, folder):
    torch.manual_seed(5)
    model = AESGColorizationNet.small(storage_dir=tmp_path / "memory")
    torch.manual_seed(5)
    plain = BaselineCNN().state_dict()
    own = model.state_dict()
    assert set(own) - set(plain) == {name for name in own if "reader" in name or "memory." in name}
    assert all(torch.equal(own[name], plain[name]) for name in plain)
    model.memory.close()

    seen = []
    pairs = colorization._pairs
    monkeypatch.setattr(colorization, "_pairs", lambda samples: seen.append(samples) or pairs(samples))
    benchmark(folder, tmp_path / "out").run()
    batches = [torch.stack([s for (s,) in samples]) for samples in seen]
    half = (len(batches) - 2) // 2  # training and measuring of both, then reads off and the strips
    first, second = batches[:half], batches[half : 2 * half]
    assert half >= 3 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_strip_is_original_grey_aesg_baseline(folder):
    colours = [torch.full((3, 8, 8), value) for value in (1.0, 0.5, 0.25)]
    pixels = strip([colours[0], torch.zeros(1, 8, 8), colours[1], colours[2]])
    assert pixels.shape == (8, 4 * 8 + 3 * GAP, 3)
    step = 8 + GAP
    assert [int(pixels[0, place * step, 0]) for place in range(4)] == [255, 0, 128, 64]


@pytest.mark.parametrize(
    ("values", "words"),
    [([0.5, 0.6, 0.55], "a difference, better"), ([-0.5, -0.6, -0.55], "a difference, worse"),
     ([0.5, -0.6, 0.1], "no difference is shown"), ([0.5], "cannot tell")],
)  # fmt: skip
def test_the_sentence_says_whether_there_is_a_difference(values, words):
    runs = [{"psnr": v, "ssim": v, "psnr_reads_off": 0.0, "ssim_reads_off": 0.0} for v in values]
    zeros = [{"psnr": 0.0, "ssim": 0.0} for _ in values]
    results = {
        "aesg": colorization.BenchmarkResult("a", [], 0, 0, 0, seeds=runs),
        "baseline": colorization.BenchmarkResult("b", [], 0, 0, 0, seeds=zeros),
    }
    found = compare(results)
    assert words in sentence("psnr_less_baseline", found["psnr_less_baseline"])
    assert words in sentence("ssim_less_reads_off", found["ssim_less_reads_off"])


@pytest.mark.parametrize("fails", ["missing folder", "empty folder", "too few", "broken", "unreadable"])
def test_bad_pictures_are_named_and_nothing_is_written(folder, tmp_path, fails, monkeypatch):
    named, error = folder, AESGStorageError
    if fails == "missing folder":
        named = folder = tmp_path / "nowhere"
    elif fails in ("empty folder", "too few"):
        error = AESGTrainingError
        for path in sorted(folder.rglob("*.png"))[: 12 if fails == "empty folder" else 3]:
            path.unlink()
    elif fails == "broken":
        named = folder / "04.png"
        named.write_bytes(named.read_bytes()[:60])
    else:
        named = folder / "more" / "05.png"
        monkeypatch.setattr(_pictures, "_pillow", lambda: _Refusing(named))
    with pytest.raises(error, match=str(named)):
        benchmark(folder, tmp_path / "out").run()
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


class _Refusing:
    """Pillow that may not read one file."""

    def __init__(self, path):
        self.path = path

    def __getattr__(self, name):
        return getattr(Image, name)

    def open(self, path):
        if path == self.path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return Image.open(path)


def test_a_full_disk_leaves_the_former_results(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    benchmark(folder, out).run()
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def full(path, pixels):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(colorization, "save_png", full)
    with pytest.raises(AESGStorageError, match=r"sample_000\.png.*No space left"):
        benchmark(folder, out).run()
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_values_that_cannot_work_are_refused(tmp_path):
    for options in (
        {"max_images": 3},
        {"image_size": 8},
        {"max_epochs": 0},
        {"seeds": 0},
        {"batch_size": True},
        {"learning_rate": "fast"},
    ):
        with pytest.raises(AESGConfigError, match=next(iter(options))):
            ColorizationBenchmark(output_dir=tmp_path / "out", **options)
    for name in ("mnist", "folder:", 10):
        with pytest.raises(AESGConfigError, match="dataset_name"):
            ColorizationBenchmark(name, output_dir=tmp_path / "out").run()
    with pytest.raises(AESGConfigError, match="output_dir: expected a path, got None"):
        ColorizationBenchmark(output_dir=None)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(AESGStorageError, match="is a file"):
        ColorizationBenchmark("generated", output_dir=tmp_path / "file").run()
    monkey = {"PIL.Image": sys.modules["PIL.Image"]}
    sys.modules["PIL.Image"] = None
    try:
        with pytest.raises(AESGConfigError, match=r"aesg\[images\]"):
            ColorizationBenchmark("generated", output_dir=tmp_path / "out").run()
    finally:
        sys.modules.update(monkey)
    assert not (tmp_path / "out").exists()


def test_no_dataset_goes_under_anothers_name(monkeypatch):
    def absent(root):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(_pictures, "_torchvision_cifar10", absent)
    assert "CIFAR-10 could not be had: operator" in load_pictures("cifar10", 12, 16).source
    monkeypatch.setattr(_pictures, "PACKAGES", (("no_such_package", "data"),))
    found = load_pictures("cifar10", 12, 16)
    assert "GENERATED" in found.source and "could not be had" in found.source
    assert found.pixels.shape == (12, 3, 16, 16) and found.pixels.dtype == torch.uint8
    monkeypatch.setattr(
        _pictures, "_torchvision_cifar10", lambda root: np.zeros((50, 32, 32, 3), dtype=np.uint8)
    )
    assert load_pictures("cifar10", 12, 16).source.startswith("CIFAR-10, 12 pictures")


def test_bundled_tiles_do_not_overlap():
    pytest.importorskip("skimage")
    found = load_pictures("bundled", 40, 16)
    assert found.pixels.shape == (40, 3, 16, 16) and "scikit-image" in found.source
    picture = np.arange(70 * 100 * 3).reshape(70, 100, 3)
    tiles = np.concatenate([tile.reshape(-1) for tile in _pictures._tiles(picture, 32)])
    assert len(tiles) == 2 * 3 * 32 * 32 * 3 and len(np.unique(tiles)) == len(tiles)


def test_the_command_writes_evidence(tmp_path, folder, capsys):
    assert (
        cli.main(
            ["bench", "colorization", "--short", "--dataset", f"folder:{folder}", "--out", str(tmp_path)]
        )
        == 0
    )
    record = json.loads((tmp_path / "colorization.json").read_text())
    assert len(record["tasks"]["psnr"]["figures"]["with memory"]["values"]) == 2
    assert all((tmp_path / picture).is_file() for picture in record["pictures"])
