"""AESGCNNClassifier.teach: the memory is told what pictures show, and says so."""

from __future__ import annotations

import copy

import pytest
import torch

from aesg.architectures import AESGCNNClassifier
from aesg.config import AESGConfig
from aesg.exceptions import AESGMemoryError
from aesg.memory.controller import AESGMemory
from tests.architectures.zoo import Make, fill


def pictures(batch: int = 4) -> torch.Tensor:
    """Each a bright square at a place and of a colour of its own [batch, 3, 16, 16]."""
    images = torch.zeros(batch, 3, 16, 16)
    for at, image in enumerate(images):
        image[at % 3, 2 * at : 2 * at + 6, 10 - 2 * at : 16 - 2 * at] = 1.0
        image[(at + 1) % 3, at::5] = 0.7
    return images


def told(memory: AESGMemory | None, seed: int = 0) -> AESGCNNClassifier:
    torch.manual_seed(seed)
    return AESGCNNClassifier(8, 2, memory, 8, num_classes=5).eval()


def test_what_was_told_is_answered_and_other_pictures_like_it(make_memory: Make) -> None:
    model = told(make_memory(vector_dim=64))
    images = pictures(5)
    labels = torch.tensor([3, 1, 4, 0, 2])
    before = copy.deepcopy(model.state_dict())
    model.teach(images, labels)
    model.memory.set_mode("INFERENCE")
    assert model(images).argmax(1).tolist() == labels.tolist()
    near = images + 0.01 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    assert model(near).argmax(1).tolist() == labels.tolist()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    # One concept a picture and one a class; told again, classes are found, not born again.
    assert model.memory.stats()["active"] == 10
    model.memory.set_mode("TRAIN")
    model.teach(images[:2], labels[:2])
    assert model.memory.stats()["active"] == 12


def test_untold_and_training_logits_are_those_of_the_weights(make_memory: Make) -> None:
    model = told(fill(make_memory(vector_dim=64)))
    images = pictures()
    model.memory.set_mode("INFERENCE")
    plain = model(images)
    with torch.no_grad():
        model.label_weight = 0.0
        assert torch.equal(model(images), plain)
        model.label_weight = 20.0
    model.memory.set_mode("TRAIN")
    model.teach(images, torch.arange(4))
    model.memory.set_mode("INFERENCE")
    assert not torch.equal(model(images), plain)
    model.train()
    trained = model(images)
    model.label_weight = 0.0
    assert torch.equal(model(images), trained)


def test_reopened_it_still_knows(tmp_path) -> None:
    images, labels = pictures(5), torch.tensor([3, 1, 4, 0, 2])
    with AESGMemory(tmp_path, AESGConfig(vector_dim=64)) as memory:
        model = told(memory)
        model.teach(images, labels)
        weights = model.state_dict()
    with AESGMemory(tmp_path, AESGConfig(vector_dim=64, memory_mode="INFERENCE")) as memory:
        again = told(memory, seed=1)
        again.load_state_dict(weights)
        assert again.eval()(images).argmax(1).tolist() == labels.tolist()


def test_mode_and_dropout_of_the_model_stay(make_memory: Make) -> None:
    model = told(make_memory(vector_dim=64)).train()
    mean = model.encoder[0][1].running_mean.clone()
    model.teach(pictures(), torch.zeros(4, dtype=torch.int64))
    assert model.training and torch.equal(model.encoder[0][1].running_mean, mean)


@pytest.mark.parametrize(
    "labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(4), torch.tensor([0, 1, 2, 5]), [0, 1, 2, 3]]
)
def test_other_labels_are_refused_before_anything_is_borne(labels, make_memory: Make) -> None:
    model = told(make_memory(vector_dim=64))
    with pytest.raises(AESGMemoryError, match=r"labels: expected i64 \[4\] in 0..4"):
        model.teach(pictures(), labels)
    assert model.memory.stats()["active"] == 0


def test_no_memory_or_reading_only_cannot_be_told(make_memory: Make) -> None:
    images, labels = pictures(), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(AESGMemoryError, match="memory=None"):
        told(None).teach(images, labels)
    model = told(make_memory(vector_dim=64))
    model.memory.set_mode("INFERENCE")
    with pytest.raises(AESGMemoryError, match="INFERENCE"):
        model.teach(images, labels)
    assert model.memory.stats()["active"] == 0


@pytest.mark.parametrize("images", [None, [1, 2], torch.tensor(1.0), torch.zeros(3, 16, 16)])
def test_what_is_no_batch_of_pictures_is_refused(images, make_memory: Make) -> None:
    model = told(make_memory(vector_dim=64))
    with pytest.raises(AESGMemoryError, match="Expected pictures"):
        model.teach(images, torch.zeros(4, dtype=torch.int64))
    assert model.memory.stats()["active"] == 0


def test_pictures_that_are_not_finite_are_refused(make_memory: Make) -> None:
    model, images = told(make_memory(vector_dim=64)), pictures()
    images[2, 0, 3, 3] = float("nan")
    with pytest.raises(AESGMemoryError, match="finite"):
        model.teach(images, torch.zeros(4, dtype=torch.int64))
    assert model.memory.stats()["active"] == 0


def test_frozen_parts_of_the_model_stay_frozen(make_memory: Make) -> None:
    model = told(make_memory(vector_dim=64)).train()
    model.encoder[0][1].eval()
    model.teach(pictures(), torch.zeros(4, dtype=torch.int64))
    assert model.training and model.encoder[1][1].training and not model.encoder[0][1].training


def test_what_pictures_ask_does_not_depend_on_what_the_process_makes_tensors_as(make_memory: Make) -> None:
    memory = make_memory(vector_dim=64)
    expected = told(memory)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            model = AESGCNNClassifier(8, 2, memory, 8, num_classes=5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(model.codes, expected.codes) and torch.equal(model.sketch, expected.sketch)


def test_what_was_told_outlives_updates_without_use(make_memory: Make) -> None:
    model = told(make_memory(vector_dim=64))
    images, labels = pictures(5), torch.tensor([3, 1, 4, 0, 2])
    model.teach(images[:3], labels[:3])
    model.teach(images[3:], labels[3:])
    for _ in range(200):
        model.memory.update_topology()
    assert model(images).argmax(1).tolist() == labels.tolist()
    assert model.memory.check() == []
