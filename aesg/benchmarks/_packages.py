"""The Python standard library as two halves, by package: what is home and what is away."""

from __future__ import annotations

import hashlib
import random
import sysconfig
from pathlib import Path
from typing import NamedTuple

from aesg.exceptions import AESGTrainingError

# Not the library's own, its tests (which quote it), and files that hold tables rather than code.
LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idle_test",
    "encodings",
    "pydoc_data",
}
HELD_OUT_SHARE = 0.1


class Half(NamedTuple):
    """Texts as bytes, whole files on one side or the other."""

    packages: list[str]
    train: list[bytes]
    held_out: list[bytes]


def halves(seed: int, root: Path | None = None) -> tuple[Half, Half]:
    """(home, away): top-level packages in an order drawn from `seed`, each given to the smaller half.

    Within a package a file is held out when the hash of its path falls into the lowest tenth. Raises
    AESGTrainingError where either half has no file on either side.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    packages: dict[str, dict[str, bytes]] = {}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if LEFT_OUT & set(name.parts) or path.is_symlink():
            continue
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if len(text) >= 2 and b"\0" not in text:
            packages.setdefault(name.parts[0], {})[name.as_posix()] = text
    names = sorted(packages)
    random.Random(seed).shuffle(names)
    sides: tuple[list[str], list[str]] = ([], [])
    sizes = [0, 0]
    for name in names:
        side = 0 if sizes[0] <= sizes[1] else 1
        sides[side].append(name)
        sizes[side] += sum(map(len, packages[name].values()))
    home, away = (_half(side, packages, seed) for side in sides)
    for half in (home, away):
        if not half.train or not half.held_out:
            raise AESGTrainingError(
                f"Expected packages with files to train on and to hold out below '{root}'"
            )
    return home, away


def _half(names: list[str], packages: dict[str, dict[str, bytes]], seed: int) -> Half:
    texts = [item for name in names for item in packages[name].items()]
    random.Random(seed).shuffle(texts)
    return Half(
        sorted(names),
        [text for name, text in texts if not _held_out(name)],
        [text for name, text in texts if _held_out(name)],
    )


def _held_out(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48 < HELD_OUT_SHARE
