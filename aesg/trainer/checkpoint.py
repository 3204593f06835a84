"""Checkpoints: a directory written beside its place, synced, and renamed into it.

Files: model_weights.pt, optimizer_state.pt, config.json, training_state.json, resume_state.pt and memory/, a
committed copy of the memory's directory. The tensors are read with `weights_only=True`; nothing else is ever
unpickled. resume_state.pt holds the SHA-256 of the other files; the memory checks its own, but for the unused
places of its table of checksums, so that table's is there too.

An existing checkpoint of the same name moves to `<path>.former` first and is removed at the end. So at any
moment one whole checkpoint exists, under one of the two names, and reading finds it.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from aesg.exceptions import AESGStorageError

WEIGHTS, OPTIMIZER, RESUME = "model_weights.pt", "optimizer_state.pt", "resume_state.pt"
SUMS = "files"  # the key of the checksums in RESUME
CONFIG, TRAINING, MEMORY = "config.json", "training_state.json", "memory"
GUARDS = GUARD_META, GUARD_SUMS = f"{MEMORY}/meta.npy", f"{MEMORY}/checksums.aesg"


def write_checkpoint(path: str | os.PathLike[str], files: dict[str, Any], memory: Any | None) -> None:
    """Writes `files` (name -> object: `.pt` by torch.save, `.json` as JSON; among them RESUME, a dict) and a
    snapshot of `memory`.

    Raises AESGStorageError when it cannot; a checkpoint already there is then still there.
    """
    target = _checked(path)
    former = _former(target)
    beside = None
    try:
        if target.exists() and not _is_checkpoint(target) and (not target.is_dir() or any(target.iterdir())):
            raise AESGStorageError(f"Expected a checkpoint or nothing at '{target}', found something else")
        target.parent.mkdir(parents=True, exist_ok=True)
        # What a crash left of an earlier attempt.
        for leftover in target.parent.glob(f".{glob.escape(target.name)}.????????"):
            shutil.rmtree(leftover, ignore_errors=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        beside.chmod(0o755)
        sums = {}
        for name, content in files.items():
            if name != RESUME:
                _write_synced(beside / name, content)
                sums[name] = _sha256(beside / name)
        if memory is not None:
            memory.snapshot(str(beside / MEMORY))
            sums.update({name: _sha256(beside / name) for name in GUARDS if (beside / name).is_file()})
        _write_synced(beside / RESUME, {**files[RESUME], SUMS: sums})
        _sync(beside)
        if target.exists():
            if former.exists():
                shutil.rmtree(former)
            target.rename(former)
        beside.rename(target)
        _sync(target.parent)
        if former.exists():
            shutil.rmtree(former)
    except OSError as error:
        raise AESGStorageError(f"Failed to write checkpoint '{target}': {error}") from error
    finally:
        if beside is not None and beside.exists():
            shutil.rmtree(beside, ignore_errors=True)


def remove_checkpoint(path: str | os.PathLike[str]) -> None:
    """Removes a checkpoint, which stays whole until it is none any more; nothing there, nothing done."""
    target = _checked(path)
    if not _is_checkpoint(target):
        return
    try:
        going = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        target.rename(going / target.name)
        shutil.rmtree(going)
    except OSError as error:
        raise AESGStorageError(f"Failed to remove checkpoint '{target}': {error}") from error


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint `path` lies: there, or under its former name if a crash came between renames.

    Raises AESGStorageError when there is none.
    """
    target = _checked(path)
    for place in (target, _former(target)):
        if _is_checkpoint(place):
            return place
    what = "a directory without " + WEIGHTS if target.is_dir() else "a file" if target.exists() else "nothing"
    raise AESGStorageError(f"Expected a checkpoint directory at '{target}', found {what}")


def check_sums(place: Path, sums: Any) -> None:
    """AESGStorageError naming the first file of the checkpoint that is not what `sums` (name -> SHA-256)
    says; None, of a checkpoint that was written without, says nothing.
    """
    if sums is None:
        return
    if not isinstance(sums, dict) or not set(sums) <= {WEIGHTS, OPTIMIZER, CONFIG, TRAINING, *GUARDS}:
        raise AESGStorageError(f"Expected checksums of files in '{place / RESUME}', got {sums!r}")
    for name, expected in sums.items():
        if name == GUARD_META:
            continue  # only tells whether the memory was written to since: see below
        if name == GUARD_SUMS and not (
            (place / GUARD_META).is_file() and _sum_of(place / GUARD_META) == sums.get(GUARD_META)
        ):
            continue
        found = _sum_of(place / name)
        if found != expected:
            raise AESGStorageError(
                f"Checkpoint file '{place / name}' is damaged: expected SHA-256 {expected}, found {found}"
            )


def _sum_of(file: Path) -> str:
    try:
        return _sha256(file)
    except FileNotFoundError:
        raise AESGStorageError(f"Expected checkpoint file '{file}', found nothing") from None
    except OSError as error:
        raise AESGStorageError(f"Failed to read checkpoint file '{file}': {error}") from error


def read_tensors(file: Path, device: str = "cpu") -> Any:
    """The content of a `.pt` file of tensors and plain values. AESGStorageError names the file."""
    try:
        # torch.load does not look at the checksums that torch.save wrote.
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise AESGStorageError(f"Checkpoint file '{file}' is damaged: wrong checksum of '{damaged}'")
        return torch.load(file, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise AESGStorageError(f"Expected checkpoint file '{file}', found nothing") from None
    except AESGStorageError:
        raise
    except Exception as error:  # torch.load raises a dozen kinds for damaged files
        raise AESGStorageError(f"Failed to read checkpoint file '{file}': {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. AESGStorageError names the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AESGStorageError(f"Expected checkpoint file '{file}', found nothing") from None
    except (OSError, ValueError) as error:
        raise AESGStorageError(f"Failed to read checkpoint file '{file}': {error}") from error
    if not isinstance(content, dict):
        raise AESGStorageError(f"Expected a JSON object in '{file}', got {type(content).__name__}")
    return content


def _checked(path: Any) -> Path:
    """The absolute path of a directory that has a name; AESGStorageError for anything else.

    Symbolic links are followed: a checkpoint is renamed into its place, which would put it where the link is.
    """
    try:
        text = os.fspath(path)
    except TypeError:
        text = None
    if (
        not isinstance(text, str)
        or not text
        or "\0" in text
        or not (target := Path(os.path.realpath(text))).name
    ):
        raise AESGStorageError(f"Expected the path of a checkpoint directory, got {path!r}")
    return target


def _former(target: Path) -> Path:
    return target.with_name(target.name + ".former")


def _is_checkpoint(place: Path) -> bool:
    return (place / WEIGHTS).is_file()


def _write_synced(file: Path, content: Any) -> None:
    if file.suffix == ".json":
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    else:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # how torch tells of a full disk
            raise AESGStorageError(f"Failed to write checkpoint file '{file}': {error}") from error
    _sync(file)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
