"""What the colorization benchmark shows: strips of pictures, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aesg.tools.optional import require

GAP = 4  # white pixels between the pictures of a strip
AESG_COLOR, BASELINE_COLOR = "#2a6fdb", "#d9541e"


def strip(pictures: Sequence[Tensor]) -> np.ndarray:
    """Pictures [3 or 1, S, S] with values in [0, 1] side by side: [S, 4 S + 3 GAP, 3] u8 for four."""
    size = pictures[0].shape[1]
    white = np.full((size, GAP, 3), 255, dtype=np.uint8)
    parts: list[np.ndarray] = []
    for picture in pictures:
        values = (picture.clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1)
        parts += [values.permute(1, 2, 0).numpy(), white]
    return np.concatenate(parts[:-1], axis=1)


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Raises OSError, AESGConfigError without Pillow."""
    require("PIL.Image", "images").fromarray(pixels).save(path, format="PNG")


def save_curves(
    path: Path,
    aesg: Sequence[Sequence[float]],  # loss of each step, one list a seed
    baseline: Sequence[Sequence[float]],
    concepts: Sequence[Sequence[int]],
) -> None:
    """Loss of both models and growth of the memory over the steps, a thin line a seed, their mean bold.

    Raises OSError, AESGConfigError without matplotlib.
    """
    figure = require("matplotlib.figure", "plots").Figure(figsize=(11, 4), layout="constrained")
    losses, growth = figure.subplots(1, 2)
    for name, color, lines in (("AESG", AESG_COLOR, aesg), ("baseline", BASELINE_COLOR, baseline)):
        for line in lines:
            losses.plot(_smooth(line), color=color, linewidth=0.6, alpha=0.35)
        losses.plot(_smooth(np.mean(lines, axis=0)), color=color, linewidth=2, label=name)
    losses.set(xlabel="training step", ylabel="mean squared error", yscale="log", title="Loss in training")
    losses.legend(frameon=False)
    for line in concepts:
        growth.plot(line, color=AESG_COLOR, linewidth=0.6, alpha=0.35)
    growth.plot(np.mean(concepts, axis=0), color=AESG_COLOR, linewidth=2)
    growth.set(xlabel="training step", ylabel="living concepts", title="Growth of the memory")
    growth.set_ylim(bottom=0)
    for axes in (losses, growth):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(path, format="png", dpi=140)


def _smooth(line: Sequence[float] | np.ndarray) -> np.ndarray:
    """Running mean of a tenth of the steps: single batches differ more than models do."""
    values = np.asarray(line, dtype=np.float64)
    width = max(1, len(values) // 10)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - width)
    return (sums[end] - sums[start]) / (end - start)
