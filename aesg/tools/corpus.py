"""Text for demo and benchmarks: files of a directory, split into what is trained on and what is held out."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

from aesg.exceptions import AESGTrainingError

HELD_OUT_SHARE = 0.1
ENOUGH_FILES = 40  # with fewer, files are cut into pieces, so that both sides get some
PIECE_BYTES = 16_384
MIN_BYTES = 20_000
MAX_BYTES = 64_000_000
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}


class Corpus(NamedTuple):
    """Texts as bytes, whole files on one side or the other."""

    train: list[bytes]
    held_out: list[bytes]
    source: str


def load_corpus(directory: str | None, max_bytes: int = MAX_BYTES) -> Corpus:
    """The text files below `directory` (None: the Python standard library's own sources).

    A file is held out when the SHA-256 of its path below the directory falls into the lowest tenth, so the
    split is the same on every machine; texts are in the order of the hash's rest. Files with a NUL byte are
    no text. At most `max_bytes` are read. Raises AESGTrainingError when there is too little.
    """
    root = Path(sysconfig.get_paths()["stdlib"] if directory is None else directory)
    if not root.is_dir():
        raise AESGTrainingError(f"Expected a directory of text files, got '{root}'")
    texts = _read(root, "*.py" if directory is None else "*", max_bytes)
    total = sum(map(len, texts.values()))
    if total < MIN_BYTES:
        raise AESGTrainingError(
            f"Expected at least {MIN_BYTES:,} bytes of text below '{root}', got {total:,}"
        )
    if len(texts) < ENOUGH_FILES:
        texts = {
            f"{name}:{start}": text[start : start + PIECE_BYTES]
            for name, text in texts.items()
            for start in range(0, len(text), PIECE_BYTES)
        }
    ordered = sorted(texts, key=_order)
    held_out = {name for name in ordered if _place(name) < HELD_OUT_SHARE} or {ordered[0]}
    return Corpus(
        train=[texts[name] for name in ordered if name not in held_out],
        held_out=[texts[name] for name in ordered if name in held_out],
        source="the Python standard library" if directory is None else str(root),
    )


def load_halves() -> tuple[Corpus, Corpus]:
    """The standard library's sources in two halves that share no package: (home, away).

    A top-level package or module lies in the half that the SHA-256 of its name says. Inside a half, files are
    held out and ordered as by `load_corpus`. The library's own tests are left out: they are one package,
    larger than all others together.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = _read(root, "*.py", leave_out={"test", "tests", "idle_test"})
    halves = []
    for side, name in enumerate(("home", "away")):
        ordered = sorted(
            (path for path in texts if (_place(_package(path)) >= 0.5) == bool(side)), key=_order
        )
        held_out = {path for path in ordered if _place(path) < HELD_OUT_SHARE} or {ordered[0]}
        halves.append(
            Corpus(
                train=[texts[path] for path in ordered if path not in held_out],
                held_out=[texts[path] for path in ordered if path in held_out],
                source=f"the Python standard library, {name} half of its packages",
            )
        )
    return halves[0], halves[1]


def _package(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def _read(
    root: Path, pattern: str, max_bytes: int = MAX_BYTES, leave_out: Set[str] = frozenset()
) -> dict[str, bytes]:
    """Text files by their path below `root`, in the order of `_order`, at most `max_bytes` of them."""
    leave_out = LEFT_OUT | leave_out
    paths = [path for path in root.rglob(pattern) if not leave_out & set(path.relative_to(root).parts)]
    texts: dict[str, bytes] = {}
    total = 0
    for path in sorted(paths, key=lambda path: _order(path.relative_to(root).as_posix())):
        if total >= max_bytes:
            break
        if path.is_symlink() or not path.is_file():
            continue
        try:
            text = path.read_bytes()[: max_bytes - total]
        except OSError:
            continue
        if len(text) >= 2 and b"\0" not in text:
            texts[path.relative_to(root).as_posix()] = text
            total += len(text)
    return texts


def openings(texts: list[bytes], limit: int, each: int) -> list[bytes]:
    """The first `each` bytes of texts in order, until `limit` bytes are reached; the last is cut to fit."""
    taken: list[bytes] = []
    for text in texts:
        if limit < 2:
            break
        taken.append(text[: min(each, limit)])
        limit -= len(taken[-1])
    return taken


def _place(name: str) -> float:
    """Where the name's hash falls in [0, 1): decides the side."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def _order(name: str) -> bytes:
    """The rest of the hash: an order that says nothing about the side."""
    return hashlib.sha256(name.encode()).digest()[6:]
