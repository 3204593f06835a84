"""What of a trainer goes into a checkpoint, and how it comes back: all of it, or nothing."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import math
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aesg import __version__
from aesg.data.sampling import loader_place
from aesg.exceptions import AESGError, AESGStorageError, AESGTrainingError
from aesg.storage.directory import inspect_directory
from aesg.trainer import checkpoint as files
from aesg.trainer.batches import BatchLoss
from aesg.trainer.random_state import random_state, set_random_state

if TYPE_CHECKING:
    from aesg.trainer.memory_part import MemoryPart
    from aesg.trainer.trainer import AESGTrainer

OLD_MEMORY = "aesg-3.0.0"  # as `inspect_directory` calls it
SHOWN = 5  # names in a message


@dataclasses.dataclass
class UnderWay:
    """The epoch under way: its loader, its loss so far, and the generators' states when it began."""

    loader: Any = None
    mean: BatchLoss | None = None
    random: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """What resuming needs: {"mean": (batches, sums...), "place", "epoch_random"}."""
        mean = (0, 0.0, 0.0) if self.mean is None else self.mean.state()
        place = None if self.loader is None else loader_place(self.loader, mean[0])
        return {"mean": mean, "place": place, "epoch_random": self.random if place is None else None}


def save(trainer: AESGTrainer, path: str | os.PathLike[str]) -> None:
    """Writes the checkpoint `path` of `trainer`."""
    config = getattr(trainer.memory, "config", None)
    resume = {
        "random": random_state(),
        "callbacks": [[type(each).__name__, each.state_dict()] for each in trainer.callbacks],
        "stepper": trainer.stepper.state_dict(),
        "epoch": trainer.under_way.state(),
    }
    _check_plain(resume, trainer)
    content = {
        files.WEIGHTS: trainer.model.state_dict(),
        files.OPTIMIZER: trainer.optimizer.state_dict(),
        files.CONFIG: {
            "aesg_version": __version__,
            "aesg_config": None if config is None else dataclasses.asdict(config),
            "trainer": {
                "batch_size": trainer.batch_size,
                "learning_rate": trainer.learning_rate,
                "device": str(trainer.device),
                "precision": trainer.stepper.precision,
                "gradient_accumulation": trainer.stepper.accumulation,
                "gradient_clip": trainer.stepper.clip,
                "seed": trainer.seed,
                "model": type(trainer.model).__name__,
                "criterion": type(trainer.criterion).__name__,
                "optimizer": type(trainer.optimizer).__name__,
            },
        },
        files.TRAINING: {
            "epoch": trainer.epoch,
            "global_step": trainer.global_step,
            "best_loss": trainer.best_loss if math.isfinite(trainer.best_loss) else None,
        },
        files.RESUME: resume,
    }
    files.write_checkpoint(path, content, trainer.memory)


def resume(trainer: AESGTrainer, path: str | os.PathLike[str]) -> None:
    """`load`, and what lets the next `fit` go on exactly."""
    state = load(trainer, path)
    if state is None:
        warnings.warn(
            f"'{path}' has no {files.RESUME}: going on from its epoch, but with other random numbers",
            stacklevel=3,
        )
        return
    set_random_state(state["random"])
    trainer.resumed = {**state["epoch"], "random": state["random"]}
    saved = list(state["callbacks"])
    for callback in trainer.callbacks:  # each takes the first left of its kind
        kind = type(callback).__name__
        found = next((each for each in saved if each[0] == kind), None)
        if found is not None:
            saved.remove(found)
            callback.load_state_dict(found[1])


def load(trainer: AESGTrainer, path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Puts `trainer` into the state of a checkpoint; returns what resume_state.pt holds, if it is there."""
    place = files.find_checkpoint(path)
    weights = files.read_tensors(place / files.WEIGHTS)
    epoch, step, best = _counters(place / files.TRAINING)
    directory = place / files.MEMORY
    kind = _memory_kind(directory) if trainer.memory is not None else None
    old = kind == OLD_MEMORY
    resume = _resume_state(trainer, place / files.RESUME)
    files.check_sums(place, None if resume is None else resume.get(files.SUMS))
    optimizer = files.read_tensors(place / files.OPTIMIZER)
    if old:
        weights, all_fit = fitting(trainer.model.state_dict(), weights, place / files.WEIGHTS)
    else:
        check_weights(trainer.model.state_dict(), weights, place / files.WEIGHTS)
        all_fit = True
    former = trainer.optimizer.state_dict()
    if all_fit:
        _load_optimizer(trainer.optimizer, optimizer, place / files.OPTIMIZER)
    try:
        if trainer.memory is not None:
            _restore_memory(trainer.memory_part, directory, old)
    except AESGError:
        trainer.optimizer.load_state_dict(former)
        raise
    trainer.model.load_state_dict(weights, strict=not old)
    trainer.epoch, trainer.global_step, trainer.best_loss = epoch, step, best
    trainer.under_way, trainer.resumed = UnderWay(), None
    if resume is not None:
        trainer.stepper.load_state_dict(resume["stepper"])
    return resume


def check_weights(expected: dict[str, Any], given: Any, file: os.PathLike[str]) -> None:
    """Raises AESGStorageError unless `given` has the names and shapes of `expected`."""
    if not isinstance(given, dict):
        raise AESGStorageError(f"Expected a state_dict in '{file}', got {type(given).__name__}")
    missing, unknown = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    if missing or unknown:
        raise AESGStorageError(
            f"'{file}' does not fit the model: missing {missing[:SHOWN]}, unknown {unknown[:SHOWN]}"
        )
    for name, value in expected.items():
        if isinstance(value, Tensor) and value.shape != getattr(given[name], "shape", None):
            raise AESGStorageError(
                f"'{file}' does not fit the model: {name}: expected {list(value.shape)}, "
                f"got {list(getattr(given[name], 'shape', []))}"
            )


def fitting(expected: dict[str, Any], given: Any, file: os.PathLike[str]) -> tuple[dict[str, Any], bool]:
    """Of `given` what fits, by name and shape, and whether it is all; a warning names the rest."""
    if not isinstance(given, dict):
        raise AESGStorageError(f"Expected a state_dict in '{file}', got {type(given).__name__}")
    good = {
        name: value
        for name, value in given.items()
        if name in expected and getattr(value, "shape", None) == getattr(expected[name], "shape", None)
    }
    left_out, missing = sorted(set(given) - set(good)), sorted(set(expected) - set(good))
    if left_out or missing:
        warnings.warn(
            f"'{file}' was written by aesg 3.0.0: {len(good)} of its {len(given)} weights fit the model. "
            f"Left out: {left_out[:SHOWN]}{' ...' if len(left_out) > SHOWN else ''}; as they were: "
            f"{missing[:SHOWN]}{' ...' if len(missing) > SHOWN else ''}. The optimizer begins anew",
            stacklevel=5,
        )
    return good, not (left_out or missing)


def _counters(file: Path) -> tuple[int, int, float]:
    training = files.read_json(file)
    try:
        best = training.get("best_loss")
        return (
            int(training["epoch"]),
            int(training["global_step"]),
            math.inf if best is None else float(best),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AESGStorageError(f"'{file}' lacks a good value for {error}") from error


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Any, file: Path) -> None:
    """AESGStorageError, and the optimizer as it was, for the state of another kind of optimizer.

    torch takes any whose parameters are as many, and the next step then misses what it reads.
    """
    former = optimizer.state_dict()
    name = type(optimizer).__name__
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AESGStorageError(f"'{file}' does not fit the optimizer {name}: {error}") from error
    needed = set(optimizer.defaults)
    missing = sorted(set().union(*(needed - set(group) for group in optimizer.param_groups)))
    if missing:
        optimizer.load_state_dict(former)
        raise AESGStorageError(f"'{file}' is of another optimizer than {name}: it has no {missing}")


def _memory_kind(directory: Path) -> str | None:
    if not directory.is_dir():
        raise AESGStorageError(f"Expected the memory of the checkpoint at '{directory}', found nothing")
    found = inspect_directory(directory)
    return None if found is None else found["kind"]


def _restore_memory(memory: MemoryPart, directory: Path, old: bool) -> None:
    if not old:
        memory.restore(str(directory))
        return
    try:
        import_v3 = importlib.import_module("aesg.storage.import_v3").import_v3
    except ImportError:
        raise AESGStorageError(
            f"Expected a memory of this version in '{directory}', got one of {OLD_MEMORY}"
        ) from None
    with tempfile.TemporaryDirectory(prefix="aesg-import-") as folder:
        report = import_v3(directory, Path(folder) / "memory")
        if report.findings:
            warnings.warn(f"Of '{directory}' could not be used: {'; '.join(report.findings)}", stacklevel=5)
        memory.restore(str(Path(folder) / "memory"))


def _resume_state(trainer: AESGTrainer, file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    state = files.read_tensors(file)
    parts = {"random": dict, "callbacks": list, "stepper": dict, "epoch": dict}
    for name, kind in parts.items():
        if not isinstance(state, dict) or not isinstance(state.get(name), kind):
            raise AESGStorageError(f"Expected '{name}' in checkpoint file '{file}', found none")
    trainer.stepper.check_state(state["stepper"], file)
    return state


def _check_plain(resume: dict[str, Any], trainer: AESGTrainer) -> None:
    """AESGTrainingError naming the callback whose state could not be read back without running code."""
    for callback, (_, state) in zip(trainer.callbacks, resume["callbacks"], strict=True):
        try:
            json.dumps(state)
            continue  # most states; much quicker than the way below
        except (TypeError, ValueError):
            pass
        content = io.BytesIO()
        try:
            torch.save(state, content)
            content.seek(0)
            torch.load(content, weights_only=True)
        except Exception as error:  # pickle and torch raise many kinds
            raise AESGTrainingError(
                f"Expected tensors and plain values from {type(callback).__name__}.state_dict(), got what "
                f"cannot be stored: {error}"
            ) from error
