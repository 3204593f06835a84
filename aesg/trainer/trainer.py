"""AESGTrainer: trains the weights of a model by backpropagation and the graph of its memory by use."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aesg.data import StreamBatch, adapt_data
from aesg.exceptions import AESGError, AESGStorageError, AESGTrainingError
from aesg.trainer import checkpoint as files
from aesg.trainer.batches import BatchLoss, check_device, move, split_batch
from aesg.trainer.callbacks import Callback
from aesg.trainer.progress import ProgressBar
from aesg.trainer.random_state import random_state, set_random_state


class AESGTrainer:
    """Trains, evaluates and persists any nn.Module; one that holds an AESGMemory is trained together with it.

    optimizer: default Adam(lr=learning_rate). criterion: default CrossEntropyLoss; logits [B, T, V] with
    integer targets [B, T] are flattened for it. batch_size: for lists and Datasets, which are wrapped in a
    DataLoader. Without a memory the trainer warns once and trains the weights alone.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        criterion: Any = None,
        callbacks: Sequence[Callback] | None = None,
        device: str = "cpu",
        batch_size: int = 32,
        learning_rate: float = 1e-3,
    ) -> None:
        self.device = check_device(device)
        self.model = model.to(self.device)
        self.memory = find_memory(model)
        if self.memory is None:
            warnings.warn("The model has no AESGMemory: training its weights only", stacklevel=2)
        self.optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=learning_rate)
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self.callbacks = list(callbacks or [])
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.epoch = 0  # epochs completed
        self.global_step = 0  # batches trained on
        self.best_loss = math.inf  # least average training loss of an epoch

    # ---------------------------------------------------------------- training

    def fit(
        self,
        train_data: Any,
        epochs: int = 1,
        *,
        validation_data: Any = None,
        stateful: bool = False,
        autosave_every: int | None = None,
        progress: bool | None = None,
    ) -> list[float]:
        """Trains for `epochs` more epochs and returns the average loss of each.

        Every batch: streams of the memory reset, forward, backward, optimizer step, `update_topology()`.
        Every epoch: callbacks, `memory.save()`. The memory is in mode TRAIN, and in its former one after an
        exception.

        stateful: streams go on from batch to batch. A loader that yields StreamBatch says itself which begin.
        validation_data: evaluated after each epoch, its metrics in `logs` as `val_*`.
        autosave_every: commits the memory every so many batches as well.
        progress: a bar on stderr; None shows it when stderr is a terminal.

        Raises AESGTrainingError for empty or malformed data, and for a loss that is NaN or does not fit.
        """
        if epochs < 0 or (autosave_every is not None and autosave_every < 1):
            raise AESGTrainingError(
                f"Expected epochs >= 0 and autosave_every >= 1, got {epochs}, {autosave_every}"
            )
        loader = adapt_data(train_data, self.batch_size, shuffle=True)
        logs: dict[str, Any] = {"trainer": self}
        losses: list[float] = []
        try:
            with self._memory_mode("TRAIN", restore=False):
                self._call("on_train_start", logs=logs)
                for _ in range(epochs):
                    if logs.get("stop_training"):
                        break
                    losses.append(self._train_epoch(loader, logs, stateful, autosave_every, progress))
                    if validation_data is not None:
                        metrics = self.evaluate(validation_data, progress=progress)
                        logs.update({f"val_{name}": value for name, value in metrics.items()})
                    self.epoch += 1
                    self.best_loss = min(self.best_loss, losses[-1])
                    if self.memory is not None:
                        self.memory.save()
                    self._call("on_epoch_end", self.epoch - 1, logs=logs)
                self._call("on_train_end", logs=logs)
        except BaseException as error:
            self._call("on_exception", error, logs=logs)
            raise
        return losses

    def _train_epoch(
        self,
        loader: Iterable[Any],
        logs: dict[str, Any],
        stateful: bool,
        autosave_every: int | None,
        progress: Any,
    ) -> float:
        logs["epoch"] = self.epoch
        self._call("on_epoch_start", self.epoch, logs=logs)
        self.model.train()
        mean = BatchLoss(self.criterion)
        with ProgressBar(loader, f"epoch {self.epoch + 1}", progress, self.memory) as bar:
            for index, batch in enumerate(loader):
                logs["batch"] = index
                self._call("on_batch_start", index, logs=logs)
                inputs, targets = split_batch(batch)
                self._begin_streams(batch, stateful)
                loss, weight = mean(*self._outputs(inputs, targets))
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise AESGTrainingError(
                        f"Expected a finite loss, got {value} at batch {index} of epoch {self.epoch}; "
                        "a smaller learning_rate or clipped gradients may help"
                    )
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                if self.memory is not None:
                    self.memory.update_topology()
                    if autosave_every is not None and (self.global_step + 1) % autosave_every == 0:
                        self.memory.save()
                self.global_step += 1
                mean.add(value, weight)
                logs["loss"], logs["counted"] = value, weight
                bar.update(value, weight)
                self._call("on_batch_end", index, logs=logs)
                if logs.get("stop_training"):
                    break
        if mean.batches == 0:
            raise AESGTrainingError("Empty dataset provided. Training requires at least one sample.")
        logs["loss"] = mean.average()
        return mean.average()

    def _begin_streams(self, batch: Any, stateful: bool) -> None:
        if self.memory is None:
            return
        if isinstance(batch, StreamBatch):
            beginning = batch.begins.nonzero()[:, 0].tolist()
            if beginning:
                self.memory.reset_state(beginning)
        elif not stateful:
            self.memory.reset_state()

    # ---------------------------------------------------------------- evaluation

    @torch.no_grad()
    def evaluate(
        self, test_data: Any, *, stateful: bool = False, progress: bool | None = False
    ) -> dict[str, float]:
        """{"loss": average over everything the loss counts}, in eval mode, the memory in mode INFERENCE.

        Both modes are what they were afterwards, also after an exception. Streams begin as in `fit`.
        """
        loader = adapt_data(test_data, self.batch_size)
        mean = BatchLoss(self.criterion)
        with self._eval(), ProgressBar(loader, "evaluate", progress, None) as bar:
            if self.memory is not None:
                self.memory.reset_state()
            for batch in loader:
                inputs, targets = split_batch(batch)
                self._begin_streams(batch, stateful)
                loss, weight = mean(*self._outputs(inputs, targets))
                mean.add(float(loss), weight)
                bar.update(float(loss), weight)
            if self.memory is not None:
                self.memory.reset_state()
        if mean.batches == 0:
            raise AESGTrainingError("Empty dataset provided. Evaluation requires at least one sample.")
        return {"loss": mean.average()}

    @torch.no_grad()
    def predict(self, input_data: Any) -> Any:
        """The model's output for an input tensor; for data, of pairs or inputs, the outputs joined.

        In eval mode, the memory in mode INFERENCE; both are what they were afterwards.
        """
        with self._eval():
            if isinstance(input_data, Tensor):
                if self.memory is not None:
                    self.memory.reset_state()
                return self.model(input_data.to(self.device))
            outputs = []
            for batch in adapt_data(input_data, self.batch_size):
                self._begin_streams(batch, stateful=False)
                inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
                outputs.append(self.model(move(inputs, self.device)))
            return torch.cat(outputs)

    # ---------------------------------------------------------------- persistence

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a checkpoint directory (`aesg.trainer.checkpoint`), replacing one already there."""
        config = getattr(self.memory, "config", None)
        content = {
            files.WEIGHTS: self.model.state_dict(),
            files.OPTIMIZER: self.optimizer.state_dict(),
            files.CONFIG: {
                "aesg_config": None if config is None else dataclasses.asdict(config),
                "trainer": {
                    "batch_size": self.batch_size,
                    "learning_rate": self.learning_rate,
                    "device": str(self.device),
                    "model": type(self.model).__name__,
                    "criterion": type(self.criterion).__name__,
                    "optimizer": type(self.optimizer).__name__,
                },
            },
            files.TRAINING: {
                "epoch": self.epoch,
                "global_step": self.global_step,
                "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            },
            files.RESUME: {
                "random": random_state(),
                "callbacks": [callback.state_dict() for callback in self.callbacks],
            },
        }
        files.write_checkpoint(path, content, self.memory)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Puts weights, optimizer, counters and the live memory into the state that `save(path)` wrote.

        Everything is read and compared with the model before anything changes. Raises AESGStorageError that
        names the file for a checkpoint that is missing, damaged, or of another model.
        """
        self._load(path)

    def resume(self, path: str | os.PathLike[str]) -> int:
        """`load`, also of random generators and callbacks; returns the epoch to go on from."""
        state = self._load(path)
        if state is not None:
            set_random_state(state["random"])
            for callback, saved in zip(self.callbacks, state["callbacks"], strict=False):
                callback.load_state_dict(saved)
        return self.epoch

    def _load(self, path: str | os.PathLike[str]) -> dict[str, Any] | None:
        place = files.find_checkpoint(path)
        weights = files.read_tensors(place / files.WEIGHTS)
        optimizer = files.read_tensors(place / files.OPTIMIZER)
        training = files.read_json(place / files.TRAINING)
        resume = files.read_tensors(place / files.RESUME) if (place / files.RESUME).exists() else None
        try:
            epoch, step = int(training["epoch"]), int(training["global_step"])
            best = training.get("best_loss")
            best = math.inf if best is None else float(best)
        except (KeyError, TypeError, ValueError) as error:
            raise AESGStorageError(f"'{place / files.TRAINING}' lacks a good value for {error}") from error
        check_weights(self.model.state_dict(), weights, place / files.WEIGHTS)
        memory_directory = place / files.MEMORY
        if self.memory is not None and not memory_directory.is_dir():
            raise AESGStorageError(
                f"Expected the memory of the checkpoint at '{memory_directory}', found nothing"
            )
        former = self.optimizer.state_dict()
        try:
            self.optimizer.load_state_dict(optimizer)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AESGStorageError(
                f"'{place / files.OPTIMIZER}' does not fit the optimizer: {error}"
            ) from error
        try:
            if self.memory is not None:
                self.memory.restore(str(memory_directory))
        except AESGError:
            self.optimizer.load_state_dict(former)
            raise
        self.model.load_state_dict(weights)
        self.epoch, self.global_step, self.best_loss = epoch, step, best
        return resume

    # ---------------------------------------------------------------- small parts

    def _outputs(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """The model's outputs for a batch, and the targets to compare them with.

        A model that says `takes_target` is given the targets too (teacher forcing).
        """
        inputs, targets = move(inputs, self.device), move(targets, self.device)
        if getattr(self.model, "takes_target", False):
            return self.model(inputs, targets), targets
        return self.model(inputs), targets

    def _call(self, hook: str, *arguments: Any, logs: dict[str, Any]) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(*arguments, logs)

    @contextmanager
    def _memory_mode(self, name: str, restore: bool = True) -> Iterator[None]:
        """Sets the memory's mode; `restore=False` puts the former one back after an exception only."""
        if self.memory is None:
            yield
            return
        former = getattr(self.memory.mode, "value", self.memory.mode)
        self.memory.set_mode(name)
        try:
            yield
        except BaseException:
            self.memory.set_mode(former)
            raise
        if restore:
            self.memory.set_mode(former)

    @contextmanager
    def _eval(self) -> Iterator[None]:
        training = self.model.training
        self.model.eval()
        try:
            with self._memory_mode("INFERENCE"):
                yield
        finally:
            self.model.train(training)


def find_memory(model: nn.Module) -> Any | None:
    """The model's memory: its attribute `memory`, else the first child module that is one, else None."""

    def is_memory(part: Any) -> bool:
        return all(hasattr(part, name) for name in ("retrieve", "update_topology", "reset_state", "set_mode"))

    own = getattr(model, "memory", None)
    if own is not None and is_memory(own):
        return own
    return next((part for part in model.modules() if part is not model and is_memory(part)), None)


def check_weights(expected: dict[str, Any], given: Any, file: os.PathLike[str]) -> None:
    """Raises AESGStorageError unless `given` has the names and shapes of `expected`."""
    if not isinstance(given, dict):
        raise AESGStorageError(f"Expected a state_dict in '{file}', got {type(given).__name__}")
    missing, unknown = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    if missing or unknown:
        raise AESGStorageError(
            f"'{file}' does not fit the model: missing {missing[:5]}, unknown {unknown[:5]}"
        )
    for name, value in expected.items():
        if isinstance(value, Tensor) and value.shape != getattr(given[name], "shape", None):
            raise AESGStorageError(
                f"'{file}' does not fit the model: {name}: expected {list(value.shape)}, "
                f"got {list(getattr(given[name], 'shape', []))}"
            )
