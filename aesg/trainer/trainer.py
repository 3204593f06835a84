"""AESGTrainer: trains the weights of a model by backpropagation and the graph of its memory by use."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aesg.data import ListDataset, StreamBatch, adapt_data
from aesg.data.sampling import go_to_place
from aesg.exceptions import AESGTrainingError
from aesg.nn.evaluating import evaluating
from aesg.trainer import persistence
from aesg.trainer.batches import BatchLoss, check_device, move, split_batch
from aesg.trainer.callbacks import Callback, Logs
from aesg.trainer.callbacks.base import check_whole
from aesg.trainer.memory_part import MemoryPart, find_memory
from aesg.trainer.options import (
    check_callbacks,
    check_criterion,
    check_model,
    check_optimizer,
    check_rate,
    check_seed,
)
from aesg.trainer.progress import ProgressBar
from aesg.trainer.random_state import random_state, seed_all, set_random_state
from aesg.trainer.stepping import Stepper
from aesg.validation import Validator


class _Whole(int):
    """A documented default that can be told from the same number given."""


class _Real(float):
    """As `_Whole`."""


_BATCH_SIZE, _LEARNING_RATE = _Whole(32), _Real(1e-3)


class AESGTrainer:
    """Trains, evaluates and persists any nn.Module; one that holds an AESGMemory is trained together with it.

    optimizer: default Adam(lr=learning_rate). criterion: default CrossEntropyLoss; logits [B, T, V] with
    integer targets [B, T] are flattened for it. batch_size: for lists and Datasets, which are wrapped in a
    DataLoader. batch_size and learning_rate that are not given are those of the memory's config. Without a
    memory the trainer warns once and trains the weights alone.

    precision, gradient_accumulation (batches a step), gradient_clip (norm), scheduler, scheduler_interval:
    see `aesg.trainer.stepping`. seed: of all generators, when the first `fit` begins. allow_nan: goes on
    after a loss that is NaN or infinite, instead of stopping with an error.

    Raises AESGTrainingError for a device, precision or option that cannot work.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        criterion: Any = None,
        callbacks: Sequence[Callback] | None = None,
        device: str | torch.device = "cpu",
        batch_size: int = _BATCH_SIZE,
        learning_rate: float = _LEARNING_RATE,
        *,
        precision: str = "32",
        gradient_accumulation: int = 1,
        gradient_clip: float | None = None,
        scheduler: Any = None,
        scheduler_interval: str = "epoch",
        seed: int | None = None,
        allow_nan: bool = False,
    ) -> None:
        check_model(model), check_optimizer(optimizer), check_criterion(criterion)
        self.callbacks = check_callbacks(callbacks)
        self.memory = find_memory(model)
        config = getattr(self.memory, "config", None)
        if batch_size is _BATCH_SIZE:
            batch_size = getattr(config, "batch_size", batch_size)
        if learning_rate is _LEARNING_RATE:
            learning_rate = getattr(config, "learning_rate", learning_rate)
        self.batch_size = check_whole("batch_size", batch_size, 1)
        self.learning_rate = check_rate(learning_rate)
        self.seed = None if seed is None else check_seed(seed)
        self.device = check_device(device)
        self.model = model.to(self.device)
        self.memory_part = MemoryPart(self.memory)
        if self.memory is None:
            warnings.warn("The model has no AESGMemory: training its weights only", stacklevel=2)
        self.optimizer = _default_optimizer(model, self.learning_rate) if optimizer is None else optimizer
        self.stepper = Stepper(
            model,
            self.optimizer,
            self.device,
            precision,
            gradient_accumulation,
            gradient_clip,
            scheduler,
            scheduler_interval,
        )
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self.allow_nan = allow_nan
        self.epoch = 0  # epochs completed
        self.global_step = 0  # batches trained on
        self.best_loss = math.inf  # least average training loss of an epoch
        self.under_way = persistence.UnderWay()  # the epoch that is being trained
        self.resumed: dict[str, Any] | None = None  # where the next `fit` goes on

    # ---------------------------------------------------------------- training

    def fit(
        self,
        train_data: Any,
        epochs: int = 1,
        *,
        validation_data: Any = None,
        metrics: bool = False,
        stateful: bool = False,
        autosave_every: int | None = None,
        progress: bool | None = None,
        memory_mode: str = "TRAIN",
    ) -> list[float]:
        """Trains for `epochs` more epochs and returns the average loss of each.

        Every batch: streams of the memory reset, forward, backward, optimizer step, `update_topology()`.
        Every epoch: validation, `memory.save()`, callbacks. The memory is in `memory_mode`, and in its former
        one after an exception. After `resume` the epoch that was interrupted is the first of `epochs`, and
        all random generators go on where they were.

        stateful: streams go on from batch to batch. A loader that yields StreamBatch says itself which begin.
        validation_data: evaluated after each epoch, its metrics in `logs` as `val_*`; with `metrics`, also
        those of `Evaluator`.
        autosave_every: commits the memory every so many batches as well.
        progress: a bar on stderr; None shows it when stderr is a terminal.

        Raises AESGTrainingError for empty or malformed data, and for a loss that is NaN or does not fit. The
        batch of a forward pass or loss that failed leaves nothing in the memory of a model that `asks_once`
        (all of aesg's); what the memory of another model bore in it stays.
        """
        check_whole("epochs", epochs, 0)
        if autosave_every is not None:
            check_whole("autosave_every", autosave_every, 1)
        Validator.validate_memory_mode(memory_mode)
        loader = adapt_data(train_data, self.batch_size, shuffle=True)
        held_out = None if validation_data is None else adapt_data(validation_data, self.batch_size)
        if self.seed is not None and self.global_step == 0 and self.resumed is None:
            seed_all(self.seed)
        if self.resumed is None:
            self.stepper.drop()
        logs: Logs = {"trainer": self}
        losses: list[float] = []
        try:
            with self.memory_part.training(memory_mode):
                self._call("on_train_start", logs=logs)
                for _ in range(epochs):
                    if logs.get("stop_training"):
                        break
                    losses.append(self._train_epoch(loader, logs, stateful, autosave_every, progress))
                    self._end_epoch(logs, held_out, metrics)
                self._call("on_train_end", logs=logs)
        except BaseException as error:
            self._report(error, logs)
            raise
        return losses

    def _train_epoch(
        self, loader: Iterable[Any], logs: Logs, stateful: bool, autosave_every: int | None, progress: Any
    ) -> float:
        mean = BatchLoss(self.criterion)
        batches = self._begin_epoch(loader, mean, logs)
        self.model.train()
        self.memory_part.restart_statistics()
        began, first = time.perf_counter(), mean.batches
        with ProgressBar(loader, f"epoch {self.epoch + 1}", progress, self.memory, first) as bar:
            for index, batch in enumerate(batches, first):
                started = time.perf_counter()
                logs["batch"] = index
                self._call("on_batch_start", index, logs=logs)
                inputs, targets = split_batch(batch)
                self._begin_streams(batch, stateful)
                with self.memory_part.learning_if_all_goes_well(self.model):
                    with self.stepper.autocast():
                        loss, weight = mean(*self._outputs(inputs, targets))
                    value = self._checked(float(loss.detach()), index)
                self.stepper.backward(loss, weight)
                self.memory_part.update_topology()
                self.global_step += 1
                if autosave_every is not None and self.global_step % autosave_every == 0:
                    self.memory_part.save()
                mean.add(value, weight)
                logs["loss"], logs["counted"] = value, weight
                logs["topology_seconds"] = self.memory_part.seconds
                logs["step_seconds"] = time.perf_counter() - started
                bar.update(value, weight)
                self._call("on_batch_end", index, logs=logs)
                if logs.get("stop_training"):
                    break
        if mean.batches == 0:
            raise AESGTrainingError("Empty dataset provided. Training requires at least one sample.")
        self.stepper.flush()
        logs["loss"] = mean.average()
        logs["step_seconds"] = (time.perf_counter() - began) / max(1, mean.batches - first)
        return mean.average()

    def _begin_epoch(self, loader: Iterable[Any], mean: BatchLoss, logs: Logs) -> Iterator[Any]:
        """The batches of this epoch, those that are left of it when it was resumed."""
        logs["epoch"] = self.epoch
        resumed, self.resumed = self.resumed, None
        done = 0 if resumed is None else resumed["mean"][0]
        if resumed is not None and done == 0:
            set_random_state(resumed["random"])
        if done == 0:
            self._call("on_epoch_start", self.epoch, logs=logs)
        if resumed is not None and resumed["place"] is not None:
            go_to_place(loader, resumed["place"])
        begin = random_state()
        if resumed is None or done == 0:
            batches = iter(loader)
        else:
            mean.load_state(tuple(resumed["mean"]))
            begin = resumed["epoch_random"]
            if resumed["place"] is None:  # draws what was drawn, to find the same batches
                set_random_state(begin)
            batches = iter(loader)
            if resumed["place"] is None:
                for _ in range(done):
                    if next(batches, None) is None:
                        raise AESGTrainingError(
                            f"Expected the data of the interrupted run, of which {done} batches were done; "
                            "got fewer"
                        )
            set_random_state(resumed["random"])
        self.under_way = persistence.UnderWay(loader, mean, begin)
        return batches

    def _end_epoch(self, logs: Logs, held_out: Any, metrics: bool) -> None:
        logs.update(self.memory_part.statistics())
        if held_out is not None:
            found = self.evaluate(held_out, metrics=metrics)
            logs.update({f"val_{name}": value for name, value in found.items()})
        self.stepper.end_epoch(logs["val_loss"] if held_out is not None else logs["loss"])
        self.epoch += 1
        self.best_loss = min(self.best_loss, logs["loss"])  # NaN is no minimum
        self.memory_part.save()
        self.under_way = persistence.UnderWay(self.under_way.loader)
        self._call("on_epoch_end", self.epoch - 1, logs=logs)

    def _begin_streams(self, batch: Any, stateful: bool) -> None:
        if isinstance(batch, StreamBatch):
            beginning = batch.begins.nonzero()[:, 0].tolist()
            if beginning:
                self.memory_part.begin(beginning)
        elif not stateful:
            self.memory_part.begin()

    # ---------------------------------------------------------------- evaluation

    @torch.no_grad()
    def evaluate(
        self,
        test_data: Any,
        *,
        metrics: bool = False,
        decode: Callable[[list[int]], str] | None = None,
        stateful: bool = False,
        progress: bool | None = False,
    ) -> dict[str, float]:
        """{"loss": average over everything the loss counts}, in eval mode, the memory in mode INFERENCE.

        Modes and streams of the memory are what they were afterwards, also after an exception. Streams begin
        as in `fit`.

        metrics: adds those of `Evaluator` for the model's domain, gathered batch by batch. Texts are compared
        as what `decode` makes of token ids; without it each id is a word.

        Raises AESGTrainingError for empty or malformed data, and with `metrics` for a model of no known
        domain.
        """
        loader = adapt_data(test_data, self.batch_size)
        meter = None
        if metrics:
            from aesg.evaluation import OutputMeter  # torchmetrics takes a second to import

            meter = OutputMeter.of(self.model, decode, getattr(self.criterion, "ignore_index", -100))
        mean = BatchLoss(self.criterion)
        with self._evaluation(), ProgressBar(loader, "evaluate", progress, None) as bar:
            for batch in loader:
                inputs, targets = split_batch(batch)
                self._begin_streams(batch, stateful)
                with self.stepper.autocast():
                    outputs, targets = self._outputs(inputs, targets)
                    loss, weight = mean(outputs, targets)
                mean.add(float(loss), weight)
                if meter is not None:
                    meter.update(outputs, targets)
                bar.update(float(loss), weight)
        if mean.batches == 0:
            raise AESGTrainingError("Empty dataset provided. Evaluation requires at least one sample.")
        return {"loss": mean.average(), **({} if meter is None else meter.compute())}

    @torch.no_grad()
    def predict(self, input_data: Any) -> Any:
        """The model's output for an input tensor; for data, of pairs or of inputs, the outputs joined.

        In eval mode, the memory in mode INFERENCE; both are what they were afterwards.
        """
        with self._evaluation(), self.stepper.autocast():
            if isinstance(input_data, Tensor):
                return self.model(input_data.to(self.device))
            if isinstance(input_data, (list, tuple)) and all(isinstance(each, Tensor) for each in input_data):
                input_data = ListDataset(input_data)
            outputs = []
            for batch in adapt_data(input_data, self.batch_size):
                self._begin_streams(batch, stateful=False)
                inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
                outputs.append(self.model(move(inputs, self.device)))
            if not all(isinstance(output, Tensor) for output in outputs):
                raise AESGTrainingError(
                    f"Expected outputs that are tensors to join, got {type(outputs[0]).__name__}; predict "
                    "such a model's batches one by one"
                )
            if len({output.shape[1:] for output in outputs}) > 1:
                raise AESGTrainingError(
                    f"Expected outputs of one shape, got {sorted({tuple(o.shape[1:]) for o in outputs})}; "
                    "predict such batches one by one"
                )
            return torch.cat(outputs)

    # ---------------------------------------------------------------- persistence

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a checkpoint directory (`aesg.trainer.checkpoint`), replacing one already there.

        Raises AESGStorageError when it cannot; a checkpoint already there is then still there.
        """
        persistence.save(self, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Puts weights, optimizer, schedule, counters and the live memory into the state that `save` wrote.

        Everything is read and compared with the model before anything changes. Raises AESGStorageError that
        names the file for a checkpoint that is missing, damaged, or of another model. Of checkpoints of aesg
        3.0.0 the memory is imported and the weights that fit are taken; a warning names those that do not.
        """
        persistence.load(self, path)

    def resume(self, path: str | os.PathLike[str]) -> int:
        """`load`, also of random generators, callbacks and the place in the data; the epoch to go on from.

        With the same data, the next `fit` goes on with the batch that would have come next. A loader or
        sampler with a `state_dict` is told where; of others the batches that were done are drawn again and
        passed over.
        """
        persistence.resume(self, path)
        return self.epoch

    # ---------------------------------------------------------------- small parts

    def _outputs(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """The model's outputs for a batch, and the targets to compare them with.

        A model that says `takes_target` is given the targets too (teacher forcing).
        """
        inputs, targets = move(inputs, self.device), move(targets, self.device)
        if getattr(self.model, "takes_target", False):
            return self.model(inputs, targets), targets
        return self.model(inputs), targets

    def _checked(self, value: float, batch: int) -> float:
        if math.isfinite(value) or self.allow_nan:
            return value
        raise AESGTrainingError(
            f"Expected a finite loss, got {value} at batch {batch} of epoch {self.epoch}; a smaller "
            "learning_rate or gradient_clip may help; allow_nan=True goes on regardless"
        )

    def _call(self, hook: str, *arguments: Any, logs: Logs) -> None:
        for callback in sorted(self.callbacks, key=lambda each: getattr(each, "last", False)):
            getattr(callback, hook)(*arguments, logs)

    def _report(self, error: BaseException, logs: Logs) -> None:
        """Tells every callback of an error that is about to be raised again; theirs do not hide it."""
        for callback in self.callbacks:
            try:
                callback.on_exception(error, logs)
            except Exception as another:
                warnings.warn(f"{type(callback).__name__}.on_exception failed: {another!r}", stacklevel=2)

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        with evaluating(self.model), self.memory_part.inference():
            yield


def _default_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    if not parameters:
        raise AESGTrainingError("Expected a model with parameters to train, got one without")
    return torch.optim.Adam(parameters, lr=learning_rate)
