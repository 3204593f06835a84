"""Colour pictures for the colorization benchmark: where they come from is part of what is returned."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from aesg.exceptions import AESGConfigError, AESGStorageError, AESGTrainingError
from aesg.tools.optional import require

MIN_PICTURES = 10  # fewer cannot be split into a training and a held-out part that mean anything
EXPECTED = "dataset_name: expected 'cifar10', 'bundled', 'generated' or 'folder:PATH'"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
TILE_EDGES = (128, 96, 64, 48, 32)  # the largest that gives enough tiles is taken
PACKAGES = (("skimage", "data"), ("sklearn", "datasets/images"))
# Drawn ones, and the second of a stereo pair, which would put the same scene on both sides of the split.
NOT_PICTURES = {
    "chessboard_RGB",
    "color",
    "logo",
    "no_time_for_that_tiny",
    "motorcycle_right",
    "multipage_rgb",
}


class Pictures(NamedTuple):
    """RGB pictures of one size, and in words what they are."""

    pixels: Tensor  # [N, 3, S, S] u8
    source: str


def load_pictures(name: str, count: int, size: int, data_dir: str | None = None) -> Pictures:
    """At most `count` pictures of `size` x `size` pixels.

    name: "cifar10" (through torchvision, from `data_dir` or downloaded; where that cannot be had, "bundled"
    takes its place, and `source` says so), "folder:PATH" (every picture below PATH, in the order of its
    names), "bundled" (colour pictures that come with scikit-image and scikit-learn, cut into tiles that do
    not overlap; where neither is installed, "generated"), "generated" (discs on gradients, their colours
    given by their shades).

    Raises AESGConfigError for another name and without Pillow, AESGStorageError naming a folder or a picture
    that cannot be read, AESGTrainingError for fewer than 10 pictures.
    """
    if not isinstance(name, str) or name == "folder:":  # which would be wherever one happens to be
        raise AESGConfigError(f"{EXPECTED}, got {name!r}")
    if name.startswith("folder:"):
        return _enough(_from_folder(Path(name.removeprefix("folder:")), count, size))
    if name == "cifar10":
        return _enough(_cifar10(count, size, data_dir))
    if name == "bundled":
        return _enough(_bundled(count, size))
    if name == "generated":
        return _enough(_generated(count, size))
    raise AESGConfigError(f"{EXPECTED}, got {name!r}")


def _enough(found: Pictures) -> Pictures:
    if len(found.pixels) < MIN_PICTURES:
        raise AESGTrainingError(
            f"Expected at least {MIN_PICTURES} pictures, got {len(found.pixels)} from {found.source}"
        )
    return found


def _cifar10(count: int, size: int, data_dir: str | None) -> Pictures:
    root = data_dir or os.path.join(os.path.expanduser("~"), ".cache", "aesg", "cifar10")
    try:
        data = _torchvision_cifar10(root)
    except (ImportError, RuntimeError, OSError) as error:  # absent, broken beside this torch, or no network
        instead = _bundled(count, size)
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        return instead._replace(source=f"{instead.source} (CIFAR-10 could not be had: {reason})")
    pixels = [_resized(_pillow().fromarray(picture), size) for picture in data[:count]]
    return Pictures(_stacked(pixels, size), f"CIFAR-10, {len(pixels):,} pictures of its training set")


def _torchvision_cifar10(root: str) -> np.ndarray:
    """Its training pictures [50000, 32, 32, 3] u8. Raises ImportError, RuntimeError or OSError."""
    from torchvision.datasets import CIFAR10

    try:
        return CIFAR10(root, train=True, download=False).data
    except RuntimeError:  # not there yet
        return CIFAR10(root, train=True, download=True).data


def _from_folder(folder: Path, count: int, size: int) -> Pictures:
    if not folder.is_dir():
        raise AESGStorageError(f"Expected a folder of pictures, got '{folder}'")
    try:
        paths = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
        )
    except OSError as error:
        raise AESGStorageError(f"'{folder}' cannot be read: {error}") from error
    if not paths:
        raise AESGTrainingError(
            f"Expected pictures ({', '.join(sorted(SUFFIXES))}) in '{folder}', found none"
        )
    chosen = [paths[at] for at in _even(len(paths), count)]
    pixels = _stacked([_resized(_read(path), size) for path in chosen], size)
    return Pictures(pixels, f"'{folder}', {len(chosen):,} of its {len(paths):,} pictures")


def _bundled(count: int, size: int) -> Pictures:
    """Tiles go to neither side twice: no two share a pixel, though they may be of one picture."""
    pictures = [(path, np.asarray(_read(path))) for path in _bundled_paths()]
    pictures = [(path, p) for path, p in pictures if _is_coloured(p)]
    if not pictures:
        return _generated(count, size)
    for edge in TILE_EDGES:
        # Tiles without colour, as of the night sky, have nothing to be coloured.
        tiles = [tile for _, picture in pictures for tile in _tiles(picture, edge) if _is_coloured(tile)]
        if len(tiles) >= count:
            break
    chosen = [tiles[at] for at in _even(len(tiles), count)]
    pixels = [_resized(_pillow().fromarray(tile), size) for tile in chosen]
    names = ", ".join(path.stem for path, _ in pictures)
    return Pictures(
        _stacked(pixels, size),
        f"{len(pixels):,} coloured tiles of {edge} x {edge} pixels, none overlapping, of {len(pictures)} "
        f"pictures that come with scikit-image and scikit-learn ({names})",
    )


def labelled_tiles(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Tiles of the bundled photographs [n, 3, size, size] u8, and the number of the photograph [n] i64.

    At most `count`, of no photograph more than twice as many as of the one with the fewest, none overlapping.
    Raises AESGTrainingError where fewer than 10 tiles or only one photograph can be had.
    """
    of_each = []
    for path in _bundled_paths():
        picture = np.asarray(_read(path))
        tiles = list(_tiles(picture, 2 * size)) if _is_coloured(picture) else []
        if len(tiles) >= MIN_PICTURES:
            of_each.append(tiles)
    if len(of_each) < 2:
        raise AESGTrainingError(f"Expected the photographs of {PACKAGES[0][0]}, found {len(of_each)}")
    share = min(2 * min(map(len, of_each)), count // len(of_each))
    pixels, labels = [], []
    for label, tiles in enumerate(of_each):
        chosen = [tiles[at] for at in _even(len(tiles), share)]
        pixels += [_resized(_pillow().fromarray(tile), size) for tile in chosen]
        labels += [label] * len(chosen)
    return _stacked(pixels, size), torch.tensor(labels)


def _bundled_paths() -> Iterator[Path]:
    for package, inside in PACKAGES:
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec is not None else []:
            for path in sorted((Path(root) / inside).glob("*")):
                if path.suffix.lower() in SUFFIXES and path.stem not in NOT_PICTURES:
                    yield path


def _is_coloured(picture: np.ndarray) -> bool:
    return bool((picture.max(axis=2).astype(int) - picture.min(axis=2) > 16).mean() > 0.05)


def _tiles(picture: np.ndarray, edge: int) -> Iterator[np.ndarray]:
    for top in range(0, picture.shape[0] - edge + 1, edge):
        for left in range(0, picture.shape[1] - edge + 1, edge):
            yield np.ascontiguousarray(picture[top : top + edge, left : left + edge])


def _generated(count: int, size: int) -> Pictures:
    """Three discs on a gradient each. A colour follows from its shade, so grey tells it in principle."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(0, 1, size)
    up, across = axis[:, None], axis[None]
    pixels = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for picture in pixels:
        angle, *_ = (torch.rand(1, generator=generator) * 6.2832).tolist()
        shade = 0.5 + 0.35 * (
            torch.cos(torch.tensor(angle)) * across + torch.sin(torch.tensor(angle)) * up - 0.5
        )
        for _ in range(3):
            y, x, radius, value = torch.rand(4, generator=generator).tolist()
            inside = (up - y) ** 2 + (across - x) ** 2 < (0.08 + 0.2 * radius) ** 2
            shade = torch.where(inside, 0.1 + 0.8 * value, shade)
        colours = torch.stack(
            [0.5 + 0.5 * torch.sin(6.2832 * (shade + phase)) for phase in (0.0, 0.33, 0.67)]
        )
        picture.copy_(((0.45 * colours + 0.55 * shade) * 255).clamp(0, 255).to(torch.uint8))
    return Pictures(pixels, f"{count:,} GENERATED pictures (discs on gradients): no photographs were at hand")


def _pillow() -> Any:
    return require("PIL.Image", "images")


def _read(path: Path) -> Any:
    """An RGB picture, upright. Raises AESGStorageError naming the file for whatever is wrong with it."""
    image, ops = _pillow(), require("PIL.ImageOps", "images")
    try:
        with image.open(path) as opened:
            return ops.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, image.DecompressionBombError) as error:
        raise AESGStorageError(f"'{path}' cannot be read as a picture: {error}") from error


def _resized(picture: Any, size: int) -> Tensor:
    """The middle square of a picture, [3, size, size] u8."""
    edge = min(picture.size)
    left, top = ((length - edge) // 2 for length in picture.size)
    square = picture.resize(
        (size, size), _pillow().Resampling.LANCZOS, box=(left, top, left + edge, top + edge)
    )
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _stacked(pictures: list[Tensor], size: int) -> Tensor:
    return torch.stack(pictures) if pictures else torch.empty(0, 3, size, size, dtype=torch.uint8)


def _even(there: int, wanted: int) -> list[int]:
    """At most `wanted` of 0..there-1, evenly spread."""
    if there <= wanted:
        return list(range(there))
    return np.linspace(0, there - 1, wanted).round().astype(int).tolist()
