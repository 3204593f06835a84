"""Precision, accumulation, clipping, schedules, seeds, NaN, validation, and what stands in the logs."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from aesg.data import StreamLoader
from aesg.exceptions import AESGTrainingError
from aesg.trainer import AESGTrainer, Callback
from tests.trainer.test_trainer import V, language_model, pairs, plain_trainer


def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


DATA = TensorDataset(torch.randn(10, 3, generator=torch.Generator().manual_seed(1)), torch.arange(10) % 2)


def after(**options):
    model = linear()
    batches = torch.utils.data.DataLoader(DATA, batch_size=options.pop("size"))
    trainer = plain_trainer(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5), **options)
    trainer.fit(batches, epochs=1)
    return model.weight.detach().clone()


def test_accumulated_batches_equal_one_of_them_all_whatever_their_sizes():
    assert torch.allclose(after(size=10), after(size=4, gradient_accumulation=3), atol=1e-6)
    assert torch.allclose(after(size=10), after(size=4, gradient_accumulation=9), atol=1e-6)  # what is left
    assert not torch.allclose(after(size=10), after(size=4), atol=1e-3)


def test_clipping_bounds_the_step():
    step = (after(size=10, gradient_clip=1e-3) - linear().weight).norm()
    assert 0 < step <= 0.5 * 1e-3 * 1.001


def rates(interval, scheduler, epochs=2):
    class Look(Callback):
        def __init__(self):
            self.seen = []

        def on_batch_start(self, batch, logs):
            self.seen.append(logs["trainer"].optimizer.param_groups[0]["lr"])

    look, model = Look(), linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    made = scheduler(optimizer)
    trainer = plain_trainer(
        model,
        optimizer=optimizer,
        scheduler=made,
        scheduler_interval=interval,
        batch_size=5,
        callbacks=[look],
    )
    trainer.fit(DATA, epochs=epochs)
    return look.seen


def test_schedules():
    def halving(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    assert rates("epoch", halving) == [1, 1, 0.5, 0.5]
    assert rates("step", halving) == [1, 0.5, 0.25, 0.125]
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau

    def never_better(optimizer):  # the first epoch is better than none, and no other than the first
        return plateau(optimizer, patience=0, threshold=10.0, threshold_mode="abs", factor=0.5)

    assert rates("epoch", never_better, epochs=3) == [1, 1, 1, 1, 0.5, 0.5]


def test_bf16_mixed_trains():
    trainer = AESGTrainer(language_model(), precision="bf16-mixed", learning_rate=1e-2)
    losses = trainer.fit(pairs(), epochs=8)
    assert losses[-1] < 0.8 * losses[0]
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    seen = []
    trainer.model.register_forward_hook(lambda *a: seen.append(torch.is_autocast_enabled("cpu")))
    trainer.evaluate(pairs())
    assert seen == [True]


def test_a_seed_repeats_a_run():
    def run(seed):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        torch.manual_seed(torch.seed())  # whatever came before
        return plain_trainer(model, seed=seed, batch_size=3).fit(DATA, epochs=2)

    assert run(5) == run(5) != run(6)


def test_iterable_data_and_its_validation():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(pairs())

    class Look(Callback):
        def on_epoch_end(self, epoch, logs):
            self.logs = dict(logs)

    look = Look()
    trainer = AESGTrainer(language_model(), callbacks=[look], batch_size=3)
    trainer.fit(Stream(), epochs=1, validation_data=pairs(2), metrics=True)
    assert trainer.global_step == 3
    assert {"val_loss", "val_bleu", "val_rouge", "val_accuracy", "val_perplexity"} <= look.logs.keys()
    assert look.logs["val_perplexity"] == pytest.approx(math.exp(look.logs["val_loss"]), rel=1e-4)


def test_metrics_of_an_evaluation():
    trainer = AESGTrainer(language_model())
    found = trainer.evaluate(pairs(), metrics=True, decode=lambda ids: "".join(chr(97 + i) for i in ids))
    assert found.keys() == {"loss", "bleu", "rouge", "accuracy", "perplexity"}
    assert trainer.evaluate(pairs()).keys() == {"loss"}
    with pytest.raises(AESGTrainingError, match="got Linear"):
        plain_trainer(linear()).evaluate(DATA, metrics=True)


def test_the_real_memory_s_figures_are_in_the_logs(make_memory):
    from aesg.architectures import AESGDecoderLM

    class Look(Callback):
        def __init__(self):
            self.batches, self.epochs = [], []

        def on_batch_end(self, batch, logs):
            self.batches.append((logs["topology_seconds"], logs["step_seconds"]))

        def on_epoch_end(self, epoch, logs):
            self.epochs.append(dict(logs))

    look = Look()
    memory = make_memory(novelty_birth_threshold=1)
    AESGTrainer(AESGDecoderLM(V, 32, 1, memory), callbacks=[look], batch_size=4).fit(pairs(), 2)
    assert all(0 < topology < step for topology, step in look.batches)
    last = look.epochs[-1]
    assert last["concepts"] == memory.storage.node_count > 0
    assert last["births"] == memory.stats()["births"]
    assert 0 < last["topology_seconds"] < last["step_seconds"]
    assert 0 < last["mean_relevance"] <= 1
    assert -1 <= last["mean_explanation"] <= 1


def test_streams_outlive_a_validation(make_memory):
    from aesg.architectures import AESGDecoderLM

    memory = make_memory(novelty_birth_threshold=1)
    trainer = AESGTrainer(AESGDecoderLM(V, 32, 1, memory))
    trainer.fit(StreamLoader([torch.arange(30) % V] * 2, 2, 8), epochs=1)
    before = memory.active_state.to_state()
    assert max(before["last_seed"]) >= 0
    trainer.evaluate(pairs())
    assert memory.active_state.to_state() == before


def test_nan_goes_on_when_told_to():
    trainer = AESGTrainer(language_model(), criterion=lambda out, y: out.sum() * float("nan"), allow_nan=True)
    assert math.isnan(trainer.fit(pairs(), epochs=1)[0])
    assert trainer.best_loss == math.inf


def test_another_memory_mode():
    model = language_model()
    AESGTrainer(model).fit(pairs(), epochs=1, memory_mode="FINETUNE")
    assert model.memory.mode.value == "FINETUNE"


def test_predict_of_inputs():
    trainer = plain_trainer(linear())
    x = [torch.randn(3) for _ in range(5)]
    assert torch.equal(trainer.predict(x), trainer.predict(torch.stack(x)))


def test_a_failing_on_exception_hides_nothing():
    class Fails(Callback):
        def on_exception(self, error, logs):
            raise RuntimeError("also this")

    trainer = AESGTrainer(language_model(), callbacks=[Fails()])
    bad = [(torch.zeros(3, dtype=torch.long), torch.zeros(2, dtype=torch.long))]
    with pytest.warns(UserWarning, match="also this"), pytest.raises(AESGTrainingError, match="criterion"):
        trainer.fit(bad, epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, r"\['32', '32-true', 'bf16-mixed'\], got 'fp8'"),
        ({"gradient_accumulation": 0}, "gradient_accumulation must be >= 1, got 0"),
        ({"gradient_clip": -1.0}, "gradient_clip must be"),
        ({"scheduler": "cosine"}, "scheduler.*got str"),
        ({"scheduler_interval": "hour"}, r"\['epoch', 'step'\], got 'hour'"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"batch_size": "32"}, "batch_size must be an integer >= 1, got '32'"),
        ({"batch_size": True}, "batch_size must be an integer"),
        ({"batch_size": 1.5}, "batch_size must be an integer"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number >= 0, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be"),
        ({"learning_rate": -1e-3}, "learning_rate must be"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a finite number >= 0, got '1e-3'"),
        ({"gradient_accumulation": 2.0}, "gradient_accumulation must be an integer"),
        ({"gradient_clip": "1"}, "gradient_clip must be a finite number > 0, got '1'"),
        ({"gradient_clip": math.nan}, "gradient_clip must be"),
        ({"precision": ["32"]}, "Expected a precision"),
        ({"seed": "now"}, "seed must be an integer >= 0, got 'now'"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"seed": 2**64}, r"seed must be < 2\*\*64, got 18446744073709551616"),
        ({"optimizer": torch.optim.Adam}, "Optimizer of the model's parameters, got the class Adam"),
        ({"optimizer": "adam"}, "Optimizer of the model's parameters, got str"),
        ({"criterion": nn.MSELoss}, "got the class MSELoss"),
        ({"criterion": "mse"}, "Expected a criterion to call .* got 'mse'"),
        ({"callbacks": Callback()}, "Expected a list of callbacks, got Callback"),
        ({"callbacks": [Callback]}, "Expected callbacks derived from aesg.Callback, got the class Callback"),
        ({"callbacks": [print]}, "Expected callbacks derived from aesg.Callback"),
    ],
)
def test_options_that_cannot_work(options, message):
    model = language_model()
    with pytest.raises(AESGTrainingError, match=message):
        AESGTrainer(model, **options)
    assert model.memory.calls == []


@pytest.mark.parametrize("model", [None, "gpt", nn.Linear, torch.zeros(3)])
def test_what_is_no_model(model):
    with pytest.raises(AESGTrainingError, match=r"Expected an nn\.Module to train, got"):
        AESGTrainer(model)


@pytest.mark.parametrize("options", [{"epochs": 1.0}, {"epochs": True}, {"epochs": -1}, {"epochs": "2"},
                                     {"autosave_every": 0}, {"autosave_every": "often"}])  # fmt: skip
def test_options_of_fit_that_cannot_work(options):
    model = language_model()
    with pytest.raises(AESGTrainingError, match=f"{next(iter(options))} must be"):
        AESGTrainer(model).fit(pairs(), **options)
    assert model.memory.calls == []


def test_numbers_of_numpy_are_numbers():
    trainer = AESGTrainer(language_model(), batch_size=np.int64(4), learning_rate=np.float64(1e-3))
    assert len(trainer.fit(pairs(), epochs=np.int64(2))) == 2


def test_samples_of_different_shapes():
    data = [(torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)) for n in (3, 4)]
    with pytest.raises(AESGTrainingError, match="collate_fn pads"):
        AESGTrainer(language_model()).fit(data, epochs=1)


def test_a_scheduler_s_class_is_a_callable_that_makes_one():
    trainer = AESGTrainer(language_model(), scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    assert isinstance(trainer.stepper.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    assert trainer.stepper.needs_metric
    for wrong in (torch.optim.lr_scheduler.StepLR, lambda: None, lambda optimizer: 3):
        with pytest.raises(AESGTrainingError, match="Expected a learning rate scheduler"):
            AESGTrainer(language_model(), scheduler=wrong)


def test_outputs_that_cannot_be_joined():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x):
            return {"logits": self.inner(x)}

    trainer = plain_trainer(Named())
    with pytest.raises(AESGTrainingError, match="tensors to join, got dict"):
        trainer.predict([torch.randn(4)])
    assert trainer.predict(torch.randn(2, 4))["logits"].shape == (2, 3)
