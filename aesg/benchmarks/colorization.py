"""Colouring grey pictures with a memory and without: `python -m aesg bench colorization`.

Both models have the same layers but for the memory, the same initial weights, steps and order of data. The
third figure, the memory's reads switched off after training, tells what the reading itself contributes. With
`--device cuda` models and memory are there; concepts are counted after every batch, for which the host waits.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from aesg.architectures.colorization import AESGColorizationNet
from aesg.architectures.image_model import IMAGE_SIZES
from aesg.benchmarks._colorization_report import report
from aesg.benchmarks._device import add_device, device_of
from aesg.benchmarks._measure import environment, interval
from aesg.benchmarks._pictures import Pictures, load_pictures
from aesg.benchmarks._strips import save_curves, save_png, strip
from aesg.exceptions import AESGConfigError, AESGStorageError
from aesg.tools.files import write_text
from aesg.tools.optional import require
from aesg.trainer import AESGTrainer, Callback
from aesg.trainer.batches import check_device

HELD_OUT_SHARE = 0.2
SAMPLES = 8
SHOWN = 4  # of them, in a joint report
GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
FILES = ("benchmark_report.md", "results.json", "curves.png", "samples")


@dataclass
class BenchmarkResult:
    """What one model reached; means over the seeds, whose single values stand in `seeds`."""

    model_name: str
    loss_per_epoch: list[float]
    psnr: float  # dB, held out
    ssim: float  # held out
    train_time_seconds: float
    concepts_created: int = 0
    concepts_merged: int = 0
    regions_activated: int = 0  # regions with a concept that was used
    memory_nodes: int = 0  # living concepts at the end
    seeds: list[dict[str, Any]] = field(default_factory=list)


class BaselineCNN(AESGColorizationNet):
    """`AESGColorizationNet.small()` without its memory: the same layers and the same initial weights."""

    def __init__(self) -> None:
        size = IMAGE_SIZES["small"]
        super().__init__(size.base_filters, size.num_blocks, None, size.bottleneck_size)


class ColorizationBenchmark:
    """Trains `AESGColorizationNet.small()` and `BaselineCNN` on the same pictures and compares them.

    dataset_name: see `aesg.benchmarks._pictures.load_pictures`; max_images of it, a fifth of them held out.
    seeds: independent repetitions, from 0 on; with two or more there are 95 % intervals. data_dir: where
    CIFAR-10 lies or goes. progress: bars on stderr; None shows them on a terminal. device: where both models
    and the memory are.

    Raises AESGConfigError for values that cannot work, AESGTrainingError for a device that is not there.
    """

    def __init__(
        self,
        dataset_name: str = "cifar10",
        max_images: int = 2000,
        image_size: int = 128,
        max_epochs: int = 3,
        output_dir: str | os.PathLike[str] = "./benchmark_results",
        *,
        seeds: int = 1,
        batch_size: int = 16,
        learning_rate: float = 1e-3,
        data_dir: str | None = None,
        progress: bool | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        least = {"max_images": 10, "image_size": 16, "max_epochs": 1, "seeds": 1, "batch_size": 1}
        given = {
            "max_images": max_images,
            "image_size": image_size,
            "max_epochs": max_epochs,
            "seeds": seeds,
            "batch_size": batch_size,
        }
        for name, value in given.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < least[name]:
                raise AESGConfigError(f"{name}: expected an integer >= {least[name]}, got {value!r}")
        if not (isinstance(learning_rate, int | float) and 0 < learning_rate < math.inf):
            raise AESGConfigError(f"learning_rate: expected a finite number > 0, got {learning_rate!r}")
        if not isinstance(output_dir, str | os.PathLike):
            raise AESGConfigError(f"output_dir: expected a path, got {output_dir!r}")
        self.dataset_name = dataset_name
        self.max_images = max_images
        self.image_size = image_size
        self.max_epochs = max_epochs
        self.output_dir = Path(output_dir)
        self.seeds = seeds
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.data_dir = data_dir
        self.progress = progress
        self.device = check_device(device)

    def run(self) -> dict[str, BenchmarkResult]:
        """Trains, measures and writes; {"aesg", "baseline"}.

        In `output_dir`: benchmark_report.md, results.json, curves.png (where matplotlib is installed) and
        samples/sample_000.png, ... (original | grey | AESG | baseline). They are put there when everything
        is done; after an error the directory is as it was.

        Raises AESGConfigError, AESGStorageError, AESGTrainingError for pictures that cannot be had, and
        AESGStorageError where nothing can be written, before any training.
        """
        require("PIL.Image", "images")
        target = self.output_dir.absolute()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not target.is_dir():
                raise AESGStorageError(f"output_dir: expected a directory, '{target}' is a file")
            staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise AESGStorageError(f"Failed to write '{target}': {error}") from error
        try:
            pictures = load_pictures(self.dataset_name, self.max_images, self.image_size, self.data_dir)
            runs = [self._one_seed(seed, pictures.pixels, staged) for seed in range(self.seeds)]
            results = {name: _joined(name, [run[name] for run in runs]) for name in ("aesg", "baseline")}
            self._write(staged, results, pictures, runs)
            _publish(staged, target)
        except OSError as error:
            raise AESGStorageError(f"Failed to write '{error.filename or target}': {error}") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return results

    def _one_seed(self, seed: int, pixels: Tensor, staged: Path) -> dict[str, Any]:
        """Both models, trained and measured on one split."""
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
        held_out = max(2, round(HELD_OUT_SHARE * len(pixels)))
        train, test = pixels[order[held_out:]], pixels[order[:held_out]]
        memory_dir = staged / f"memory-{seed}"
        torch.manual_seed(seed)
        model = AESGColorizationNet.small(storage_dir=memory_dir)
        torch.manual_seed(seed)
        baseline = BaselineCNN()
        outcome: dict[str, Any] = {
            "aesg": self._train(model, "AESG", seed, train, test),
            "baseline": self._train(baseline, "baseline", seed, train, test),
        }
        with model.reads_switched_off():
            unread = self._measure(model, test)
        outcome["aesg"] |= {f"{name}_reads_off": value for name, value in unread.items()}
        if seed == 0:
            outcome["strips"] = self._strips(model, baseline, test)
        memory = model.memory
        assert memory is not None
        memory.close()
        shutil.rmtree(memory_dir, ignore_errors=True)
        return outcome

    def _train(
        self, model: AESGColorizationNet, name: str, seed: int, train: Tensor, test: Tensor
    ) -> dict[str, Any]:
        loader = DataLoader(  # its own generator: the order is the same whatever else draws random numbers
            TensorDataset(train),
            self.batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
            collate_fn=_pairs,
        )
        growth = _Growth()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The model has no AESGMemory")  # on purpose
            trainer = AESGTrainer(
                model,
                criterion=nn.MSELoss(),
                callbacks=[growth],
                device=self.device,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                seed=seed,
            )
        began = time.perf_counter()
        losses = trainer.fit(loader, self.max_epochs, progress=self.progress)
        seconds = time.perf_counter() - began
        found = {
            "seed": seed,
            "loss_per_epoch": losses,
            "train_time_seconds": seconds,
            "losses": growth.losses,
            **self._measure(model, test),
        }
        memory = model.memory
        if memory is not None:
            stats, nodes = memory.stats(), memory.storage.nodes
            used = (nodes["is_active"][:] != 0) & (nodes["use_frequency"][:] > 0)
            regions = np.unique(nodes["region_id"][:][used])
            found |= {
                "concepts_created": stats["births"],
                "concepts_merged": stats["merges"],
                "regions_activated": int((regions > 0).sum()),
                "memory_nodes": stats["active"],
                "concepts": growth.concepts,
                "retrieval_seconds": stats["retrieval_seconds"],
            }
        return found

    def _measure(self, model: AESGColorizationNet, test: Tensor) -> dict[str, float]:
        """psnr and ssim of held-out pictures, the memory at rest."""
        from aesg.evaluation.meters import ImageMeter  # torchmetrics takes a second to import

        meter = ImageMeter()
        for chunk in test.split(self.batch_size):
            grey, colour = _pairs([(picture,) for picture in chunk])
            meter.update(self._coloured(model, grey), colour)
        found = meter.compute()
        return {"psnr": found["psnr"], "ssim": found["ssim"]}

    @torch.no_grad()
    def _coloured(self, model: AESGColorizationNet, grey: Tensor) -> Tensor:
        model.eval()
        with model.reading_only():
            if model.memory is not None:
                model.memory.reset_state()
            return model(grey.to(device_of(model))).cpu()

    def _strips(self, model: AESGColorizationNet, baseline: BaselineCNN, test: Tensor) -> list[np.ndarray]:
        grey, colour = _pairs([(picture,) for picture in test[:SAMPLES]])
        rows = zip(colour, grey, self._coloured(model, grey), self._coloured(baseline, grey), strict=True)
        return [strip(row) for row in rows]

    def _write(
        self,
        staged: Path,
        results: dict[str, BenchmarkResult],
        pictures: Pictures,
        runs: list[dict[str, Any]],
    ) -> None:
        settings = {
            "dataset_name": self.dataset_name,
            "dataset": pictures.source,
            "images": len(pictures.pixels),
            "held_out": max(2, round(HELD_OUT_SHARE * len(pictures.pixels))),
            "image_size": self.image_size,
            "max_epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "seeds": self.seeds,
            "device": str(self.device),
        }
        differences, machine = compare(results), environment(self.device)
        curves = True
        try:
            save_curves(
                staged / "curves.png",
                [run["aesg"]["losses"] for run in runs],
                [run["baseline"]["losses"] for run in runs],
                [run["aesg"]["concepts"] for run in runs],
            )
        except AESGConfigError:  # no matplotlib: the report says so
            curves = False
        (staged / "samples").mkdir()
        for number, pixels in enumerate(runs[0]["strips"]):
            save_png(staged / "samples" / f"sample_{number:03}.png", pixels)
        record = {
            "settings": settings,
            "environment": machine,
            "results": {name: asdict(result) for name, result in results.items()},
            "differences": differences,
        }
        (staged / "results.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (staged / "benchmark_report.md").write_text(
            report(settings, results, differences, machine, curves), encoding="utf-8"
        )


class _Growth(Callback):
    """Loss and living concepts after each batch."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.concepts: list[int] = []

    def on_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        self.losses.append(float(logs["loss"]))
        memory = logs["trainer"].memory
        if memory is not None:
            self.concepts.append(memory.storage.active_count)


def compare(results: dict[str, BenchmarkResult]) -> dict[str, dict[str, Any]]:
    """With memory less without, and less its reads switched off, seed by seed: mean and 95 % interval."""
    aesg, baseline = results["aesg"].seeds, results["baseline"].seeds
    found = {}
    for metric in ("psnr", "ssim"):
        for name, others in (
            ("baseline", [run[metric] for run in baseline]),
            ("reads_off", [run[f"{metric}_reads_off"] for run in aesg]),
        ):
            values = [run[metric] - other for run, other in zip(aesg, others, strict=True)]
            mean, half = interval(values)
            found[f"{metric}_less_{name}"] = {
                "mean": mean,
                "half_width_95": half if math.isfinite(half) else None,
                "values": values,
                "is_a_difference": bool(abs(mean) > half),
            }
    return found


def _pairs(samples: list[tuple[Tensor]]) -> tuple[Tensor, Tensor]:
    """(grey [B, 1, S, S], colour [B, 3, S, S]), f32 in [0, 1], of u8 pictures."""
    colour = torch.stack([picture for (picture,) in samples]).float() / 255
    weights = torch.tensor(GREY).view(1, 3, 1, 1)
    return (colour * weights).sum(dim=1, keepdim=True), colour


def _joined(name: str, runs: list[dict[str, Any]]) -> BenchmarkResult:
    def mean(key: str) -> float:
        return float(np.mean([run.get(key, 0) for run in runs]))

    return BenchmarkResult(
        {"aesg": "AESGColorizationNet.small", "baseline": "BaselineCNN"}[name],
        np.mean([run["loss_per_epoch"] for run in runs], axis=0).tolist(),
        mean("psnr"),
        mean("ssim"),
        mean("train_time_seconds"),
        round(mean("concepts_created")),
        round(mean("concepts_merged")),
        round(mean("regions_activated")),
        round(mean("memory_nodes")),
        runs,
    )


def _publish(staged: Path, target: Path) -> None:
    """Moves what is finished into place; of an earlier run nothing stays."""
    target.mkdir(exist_ok=True)
    shutil.rmtree(target / "samples", ignore_errors=True)
    (target / "curves.png").unlink(missing_ok=True)
    for name in FILES:
        if (staged / name).exists():
            os.replace(staged / name, target / name)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its report, writes `colorization.json` and the files below --out. Returns
    0."""
    parser = argparse.ArgumentParser(prog="aesg bench colorization", description=__doc__)
    parser.add_argument("--dataset", default="cifar10", help="cifar10, bundled, generated or folder:PATH")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128, help="edge of the pictures in pixels")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=None, help="default 5 (--short: 2)")
    add_device(parser)
    parser.add_argument("--short", action="store_true", help="small, for tests")
    parser.add_argument("--out", type=Path, default=None, help="directory for the results")
    options = parser.parse_args(argv)
    if options.short:
        options.images, options.size, options.epochs = 40, 32, 1
    seeds = options.seeds if options.seeds is not None else 2 if options.short else 5
    out = options.out or Path("./benchmark_results")
    benchmark = ColorizationBenchmark(
        options.dataset,
        options.images,
        options.size,
        options.epochs,
        out / "colorization",
        seeds=seeds,
        device=options.device,
    )
    began = time.perf_counter()
    results = benchmark.run()
    record = json.loads((out / "colorization" / "results.json").read_text("utf-8"))
    figures = {metric: _figures(results, record["differences"], metric) for metric in ("psnr", "ssim")}
    seconds = time.perf_counter() - began
    titles = {"psnr": "PSNR of held-out pictures, dB", "ssim": "SSIM of held-out pictures"}
    evidence = {
        "environment": record["environment"],
        "seeds": list(range(seeds)),
        "short": options.short,
        "about": f"Colouring {record['settings']['dataset']}, {options.size} x {options.size} pixels, "
        f"{options.epochs} epochs",
        "tasks": {
            metric: {"title": titles[metric], "seconds": seconds / 2, "figures": figures[metric]}
            for metric in titles
        },
        "pictures": [
            f"colorization/{name}"
            for name in ("curves.png", *(f"samples/sample_{number:03}.png" for number in range(SHOWN)))
            if (out / "colorization" / name).is_file()
        ],
    }
    write_text(out / "colorization.json", json.dumps(evidence, indent=2) + "\n")
    print((out / "colorization" / "benchmark_report.md").read_text("utf-8"))
    return 0


def _figures(
    results: dict[str, BenchmarkResult], differences: dict[str, dict[str, Any]], metric: str
) -> dict[str, dict[str, Any]]:
    rows = {
        "with memory": [run[metric] for run in results["aesg"].seeds],
        "without (baseline)": [run[metric] for run in results["baseline"].seeds],
        "with memory, its reads switched off": [run[f"{metric}_reads_off"] for run in results["aesg"].seeds],
    }
    figures: dict[str, dict[str, Any]] = {}
    for name, values in rows.items():
        mean, half = interval(values)
        figures[name] = {
            "mean": mean,
            "half_width_95": half if math.isfinite(half) else None,
            "values": values,
        }
    figures["difference to the baseline"] = differences[f"{metric}_less_baseline"]
    figures["difference to reads switched off"] = differences[f"{metric}_less_reads_off"]
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
