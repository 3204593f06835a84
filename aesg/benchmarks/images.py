"""What a memory gives models of pictures: `python -m aesg bench images`.

Every table has the model with its memory, with the contexts of other pictures (shuffled contents), and the
same model with `memory=None`, of equal layers, weights, steps and data, over seeds; differences are taken
within a seed. Pictures: scikit-learn's digits (16 x 16), and tiles of the photographs that come with
scikit-image.

* whole training: reconstruction (AESGCNNAutoencoder) and classes (AESGCNNClassifier; of a tile: which
  photograph it is of). The memory notes what it likes; it is not told classes.
* few shots: the encoder has learnt five digits and is frozen; of the other five it sees 1 or 5 each. Both
  models train their last layer on these; the memory, empty until then, is told them too (`teach`). Asked
  among five.
* two classes at a time: five tasks, none ever seen again; all weights, or the last layer alone on an encoder
  frozen after the first task. The memory is told the pictures at the end of their task, and nothing else.
  Asked among all ten, all pictures and those of the first two.

Two that keep examples too stand beside the last two: the nearest class mean of the plain model's features,
all of them of the final encoder, and the nearest of the pictures themselves, with no model at all.
With --out, tasks that images.json holds already for the same seeds are not measured again. With `--device
cuda` models and memories are there; the nearest are looked for on the host.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aesg.architectures.cnn_autoencoder import AESGCNNAutoencoder
from aesg.architectures.cnn_classifier import LABEL_WEIGHT, AESGCNNClassifier
from aesg.architectures.image_model import ImageModel
from aesg.benchmarks._budget import load_digits
from aesg.benchmarks._device import add_device
from aesg.benchmarks._measure import environment, interval
from aesg.benchmarks._pictures import labelled_tiles
from aesg.benchmarks.lm import shuffled_contents
from aesg.benchmarks.recall import measured_before
from aesg.config import AESGConfig
from aesg.memory.controller import AESGMemory
from aesg.tools.files import write_text

FILTERS, BLOCKS, DIM = 16, 2, 64
DIGIT_SIZE, TILE_SIZE = 16, 32
BATCH, RATE = 64, 2e-3
WITH, SHUFFLED, WITHOUT = "memory", "shuffled contents", "without memory"
NEAREST = "nearest class mean"
PIXELS = "nearest picture told, by pixels"
Figures = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """How long is trained, and where."""

    epochs: int = 8
    head_steps: int = 100  # of the last layer on few shots
    tiles: int = 1200
    device: str = "cpu"


SHORT = Sizes(epochs=1, head_steps=5, tiles=80)


@dataclass(frozen=True)
class Data:
    """Pictures [n, 3, Y, X] in [0, 1] and their classes."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    @property
    def classes(self) -> int:
        return int(torch.cat((self.y, self.y_test)).max()) + 1

    def of(self, wanted: Sequence[int]) -> Data:
        """Only these classes, under the same numbers."""
        keep, keep_test = (torch.isin(y, torch.tensor(wanted)) for y in (self.y, self.y_test))
        return Data(self.x[keep], self.y[keep], self.x_test[keep_test], self.y_test[keep_test])


def digits(seed: int) -> Data:
    x, y, x_test, y_test = load_digits(seed)
    # In no order: beside a row stands one of any class, whose context is the shuffled one.
    order = torch.randperm(len(x_test), generator=torch.Generator().manual_seed(seed))
    return Data(_as_pictures(x), y, _as_pictures(x_test[order]), y_test[order])


def _as_pictures(rows: Tensor) -> Tensor:
    """8 x 8 digits of any length as [n, 3, 16, 16], the brightest point 1."""
    rows = rows / rows.amax(dim=1, keepdim=True)
    pictures = rows.reshape(-1, 1, 8, 8)
    return F.interpolate(pictures, DIGIT_SIZE, mode="bilinear").expand(-1, 3, -1, -1).contiguous()


def tiles(seed: int, count: int) -> Data:
    pixels, labels = labelled_tiles(count, TILE_SIZE)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    x, y = pixels[order].float() / 255, labels[order]
    cut = len(x) // 4
    return Data(x[cut:], y[cut:], x[:cut], y[:cut])


class Pair:
    """The same model with a memory and without, of equal weights, on one device; pictures come there as
    they are shown.
    """

    def __init__(
        self, kind: type[ImageModel], seed: int, directory: Path, device: str = "cpu", **further: Any
    ) -> None:
        self.seed, self.device = seed, device
        self.memory = AESGMemory(directory, AESGConfig(vector_dim=DIM), device)
        self.models: dict[str, Any] = {}
        for name, memory in ((WITH, self.memory), (WITHOUT, None)):
            torch.manual_seed(seed)
            model = kind(FILTERS, BLOCKS, memory, DIGIT_SIZE >> BLOCKS, **further)
            self.models[name] = model.to(device)

    def train(self, data: Data, steps: int, *, head_only: bool = False, notes: bool = True) -> None:
        """Both models, the same pictures in the same order; notes: whether the memory learns from them."""
        self.memory.set_mode("TRAIN" if notes else "INFERENCE")
        for model in self.models.values():
            generator = torch.Generator().manual_seed(self.seed)
            model.train(not head_only)
            model.label_weight = 0.0
            parameters = (model.output_proj if head_only else model).parameters()
            optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
            for _ in range(steps):
                rows = torch.randperm(len(data.x), generator=generator)[:BATCH]
                loss = _loss(model, data.x[rows].to(self.device), data.y[rows].to(self.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if model.memory is not None and notes:
                    model.memory.reset_state()
                    model.memory.update_topology()
            model.label_weight = LABEL_WEIGHT
        self.memory.set_mode("TRAIN")

    def shown(self, model: Any, x: Tensor) -> Tensor:
        """What the model makes of pictures, on the host."""
        return model(x.to(self.device)).cpu()

    def teach(self, data: Data) -> None:
        """Tells the memory which classes the training pictures show."""
        self.models[WITH].teach(data.x.to(self.device), data.y)

    def measured(self, score: Callable[[Any], float]) -> Figures:
        """`score` of the three, the memory only read."""
        self.memory.reset_state()
        self.memory.set_mode("INFERENCE")
        with torch.no_grad():
            for model in self.models.values():
                model.eval()
            found = {WITH: score(self.models[WITH]), WITHOUT: score(self.models[WITHOUT])}
            with shuffled_contents(self.memory):
                found[SHUFFLED] = score(self.models[WITH])
        self.memory.set_mode("TRAIN")
        return found

    def told_apart(self, data: Data) -> Figures:
        """Accuracy among the classes that `data` trains on."""
        there = data.y.unique()

        def score(model: Any) -> float:
            return _accuracy(self.shown(model, data.x_test)[:, there], torch.searchsorted(there, data.y_test))

        return self.measured(score)

    def nearest_mean(self, data: Data) -> float:
        """Of what the plain model's encoder makes of the pictures."""
        model = self.models[WITHOUT].eval()
        with torch.no_grad():
            there = sorted(set(data.y.tolist()))
            features, asked = (
                model.encode(x.to(self.device))[0].mean(dim=(2, 3)).cpu() for x in (data.x, data.x_test)
            )
            means = torch.stack([features[data.y == label].mean(dim=0) for label in there])
            return _accuracy(-torch.cdist(asked, means), torch.searchsorted(torch.tensor(there), data.y_test))


def nearest_picture(data: Data) -> float:
    """Of pictures less their mean, by cosine."""
    told, asked = (
        F.normalize(x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True)) for x in (data.x, data.x_test)
    )
    return float((data.y[(asked @ told.T).argmax(dim=1)] == data.y_test).float().mean())


def _loss(model: Any, x: Tensor, y: Tensor) -> Tensor:
    out = model(x)
    return F.mse_loss(out, x) if isinstance(model, AESGCNNAutoencoder) else F.cross_entropy(out, y)


def _accuracy(logits: Tensor, wanted: Tensor) -> float:
    return float((logits.argmax(dim=1) == wanted).float().mean())


def reconstruction(data: Data, seed: int, sizes: Sizes, directory: Path) -> Figures:
    """Mean squared error of held-out pictures, in thousandths."""
    pair = Pair(AESGCNNAutoencoder, seed, directory, sizes.device)
    pair.train(data, sizes.epochs * len(data.x) // BATCH)
    found = pair.measured(lambda model: 1000 * float(F.mse_loss(pair.shown(model, data.x_test), data.x_test)))
    return found | {"concepts": float(pair.memory.stats()["active"])}


def classes(data: Data, seed: int, sizes: Sizes, directory: Path) -> Figures:
    """Accuracy on held-out pictures, before and after the memory was told the training pictures."""
    pair = Pair(AESGCNNClassifier, seed, directory, sizes.device, num_classes=data.classes)
    pair.train(data, sizes.epochs * len(data.x) // BATCH)
    found = pair.told_apart(data)
    found["concepts"] = float(pair.memory.stats()["active"])
    pair.teach(data)
    return found | {"memory, told the classes": pair.told_apart(data)[WITH]}


def few_shots(shots: int, seed: int, sizes: Sizes, directory: Path) -> Figures:
    """Accuracy among five digits of which the frozen encoder saw `shots` each."""
    data = digits(seed)
    known, new = data.of(range(5)), data.of(range(5, 10))
    pair = Pair(AESGCNNClassifier, seed, directory, sizes.device, num_classes=10)
    pair.train(known, sizes.epochs * len(known.x) // BATCH, notes=False)
    rows = torch.cat([(new.y == label).nonzero()[:shots, 0] for label in range(5, 10)])
    few = Data(new.x[rows], new.y[rows], new.x_test, new.y_test)
    pair.teach(few)
    pair.train(few, sizes.head_steps, head_only=True, notes=False)
    return pair.told_apart(few) | {NEAREST: pair.nearest_mean(few), PIXELS: nearest_picture(few)}


def two_at_a_time(frozen: bool, seed: int, sizes: Sizes, directory: Path) -> Figures:
    """Accuracy on all digits after five tasks, and on those of the first task."""
    data = digits(seed)
    pair = Pair(AESGCNNClassifier, seed, directory, sizes.device, num_classes=10)
    for task in range(5):
        part = data.of((2 * task, 2 * task + 1))
        steps = sizes.epochs * len(part.x) // BATCH
        pair.train(part, steps, head_only=frozen and task > 0, notes=False)
        pair.teach(part)
    first = data.of((0, 1))
    asked = replace(data, x_test=first.x_test, y_test=first.y_test)
    left = {f"first two, {name}": value for name, value in pair.told_apart(asked).items()}
    return pair.told_apart(data) | {NEAREST: pair.nearest_mean(data), PIXELS: nearest_picture(data)} | left


@dataclass(frozen=True)
class Task:
    """One table. `run(seed, sizes, directory)` measures one seed; more is better unless `error`."""

    title: str
    run: Callable[[int, Sizes, Path], Figures]
    error: bool = False


TASKS = {
    "digits": Task(
        "digits: accuracy of AESGCNNClassifier, trained on all ten at once",
        lambda seed, sizes, directory: classes(digits(seed), seed, sizes, directory),
    ),
    "tiles": Task(
        "tiles of photographs: accuracy of AESGCNNClassifier on which photograph a tile is of",
        lambda seed, sizes, directory: classes(tiles(seed, sizes.tiles), seed, sizes, directory),
    ),
    "digits_again": Task(
        "digits: squared error of AESGCNNAutoencoder, in thousandths",
        lambda seed, sizes, directory: reconstruction(digits(seed), seed, sizes, directory),
        error=True,
    ),
    "tiles_again": Task(
        "tiles of photographs: squared error of AESGCNNAutoencoder, in thousandths",
        lambda seed, sizes, directory: reconstruction(tiles(seed, sizes.tiles), seed, sizes, directory),
        error=True,
    ),
    "one_shot": Task(
        "five new digits from one example each, encoder frozen: accuracy",
        lambda seed, sizes, directory: few_shots(1, seed, sizes, directory),
    ),
    "five_shots": Task(
        "five new digits from five examples each, encoder frozen: accuracy",
        lambda seed, sizes, directory: few_shots(5, seed, sizes, directory),
    ),
    "incremental": Task(
        "two digits at a time, all weights trained: accuracy on all ten at the end",
        lambda seed, sizes, directory: two_at_a_time(False, seed, sizes, directory),
    ),
    "incremental_frozen": Task(
        "two digits at a time, encoder frozen after the first two: accuracy on all ten at the end",
        lambda seed, sizes, directory: two_at_a_time(True, seed, sizes, directory),
    ),
}


def measure(task: Task, seeds: Sequence[int], sizes: Sizes) -> dict[str, dict[str, Any]]:
    """Mean, interval and single values of every figure, and what the memory gains within a seed."""
    runs: list[Figures] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="aesg-images-") as directory:
            runs.append(task.run(seed, sizes, Path(directory) / "memory"))
    found = {name: [run[name] for run in runs] for name in runs[0]}
    sign = -1 if task.error else 1
    for name in (WITHOUT, SHUFFLED, NEAREST, PIXELS):
        if name in found:
            found[f"gain over {name}"] = [sign * (run[WITH] - run[name]) for run in runs]
    rows = {}
    for name, values in found.items():
        mean, half = interval(values)
        rows[name] = {"mean": mean, "half_width_95": half, "values": values}
    return rows


def verdict(rows: dict[str, dict[str, Any]]) -> str:
    """Whether the memory made a difference, in one sentence."""
    gain = rows[f"gain over {WITHOUT}"]
    mean, half = gain["mean"], gain["half_width_95"]
    if abs(mean) <= half:
        return f"No difference that these seeds can tell: {mean:+.4f}, interval {half:.4f}."
    return f"The memory {'gains' if mean > 0 else 'costs'} {abs(mean):.4f} +- {half:.4f}."


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, writes `images.json` below --out."""
    parser = argparse.ArgumentParser(prog="aesg bench images", description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="tiny sizes, for tests")
    parser.add_argument("--seeds", type=int, default=None, help="how many, default 5 (--short: 1)")
    parser.add_argument("--first-seed", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    add_device(parser)
    parser.add_argument("--out", type=Path, default=None, help="directory for images.json")
    options = parser.parse_args(argv)
    sizes = replace(SHORT if options.short else Sizes(), device=options.device)
    count = options.seeds or (1 if options.short else 5)
    seeds = list(range(options.first_seed, options.first_seed + count))
    record: dict[str, Any] = {
        "environment": environment(options.device),
        "seeds": seeds,
        "short": options.short,
    }
    path = None if options.out is None else options.out / "images.json"
    record["tasks"] = {} if path is None else measured_before(path, record)
    for name in options.tasks:
        task, began = TASKS[name], time.perf_counter()
        if name not in record["tasks"]:
            rows = measure(task, seeds, sizes)
            seconds = time.perf_counter() - began
            title = f"{task.title}. {verdict(rows)}"
            record["tasks"][name] = {"title": title, "seconds": seconds, "figures": rows}
        done = record["tasks"][name]
        print(f"\n{name}: {done['title']} ({count} seeds, {done['seconds']:.0f} s)", flush=True)
        for figure, row in done["figures"].items():
            print(f"  {figure:42} {row['mean']:10.4f} +- {row['half_width_95']:.4f}", flush=True)
        if path is not None:
            write_text(path, json.dumps(record, indent=2) + "\n")
    if path is not None:
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
