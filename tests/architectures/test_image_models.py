"""What is special to the models of pictures: sizes, ranges, channels, weights that do not grow."""

from __future__ import annotations

import pytest
import torch

from aesg.architectures import AESGCNNAutoencoder, AESGCNNClassifier, AESGColorizationNet
from aesg.exceptions import AESGConfigError, AESGMemoryError
from tests.architectures.zoo import CHANNELS, IMAGES, Make, build, fill, inputs

SIZES = [(16, 16), (17, 31), (4, 5), (33, 8)]


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("size", SIZES)
def test_output_has_the_size_of_the_input(name, size, make_memory: Make) -> None:
    model = build(name, fill(make_memory()))
    output = model(inputs(name, size=size))
    channels = {"AESGColorizationNet": 3, "AESGCNNAutoencoder": 3}.get(name)
    assert output.shape == ((4, 10) if channels is None else (4, channels, *size))
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("model", [AESGColorizationNet, AESGCNNAutoencoder])
def test_presets_take_odd_sizes(model) -> None:
    net = model.small(storage_dir=None).eval()
    assert net(torch.rand(1, net.in_channels, 45, 61)).shape[2:] == (45, 61)


@pytest.mark.parametrize("name", ["AESGColorizationNet", "AESGCNNAutoencoder"])
def test_every_pixel_depends_on_the_picture(name) -> None:
    """Also the last row and column of odd sizes."""
    model = build(name, None).double().eval()  # in f32 two of them may be equal by chance
    x = inputs(name, batch=2, size=(15, 13)).double()
    output = model(x)
    assert (output[0] != output[1]).all()


def test_colours_stay_between_0_and_1() -> None:
    model = build("AESGColorizationNet", None)
    output = model(1000 * torch.randn(2, 1, 16, 16))
    assert output.min() >= 0 and output.max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_autoencoder_takes_any_number_of_channels(channels, make_memory: Make) -> None:
    model = AESGCNNAutoencoder(8, 2, fill(make_memory()), 8, in_channels=channels)
    assert model(torch.rand(2, channels, 9, 9)).shape == (2, channels, 9, 9)


@pytest.mark.parametrize("name", IMAGES)
def test_memory_adds_little_and_nothing_that_grows_with_the_picture(name, make_memory: Make) -> None:
    def weights(memory, bottleneck):
        torch.manual_seed(0)
        kind = {"AESGColorizationNet": AESGColorizationNet, "AESGCNNClassifier": AESGCNNClassifier}
        model = kind.get(name, AESGCNNAutoencoder)(32, 3, memory, bottleneck)
        return sum(p.numel() for p in model.parameters())

    memory = make_memory(vector_dim=64)
    assert weights(memory, 4) == weights(memory, 64)
    assert weights(memory, 16) - weights(None, 16) < 0.5 * weights(None, 16)


@pytest.mark.parametrize("name", IMAGES)
def test_one_query_a_picture(name, make_memory: Make) -> None:
    memory = fill(make_memory())
    build(name, memory)(inputs(name))
    assert memory.stats()["queries"] == 4


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((1, 16, 16), torch.float32, r"\[B, {c}, Y, X\].*\[1, 16, 16\]"),
        ((2, 4, 16, 16), torch.float32, r"\[B, {c}, Y, X\].*\[2, 4, 16, 16\]"),
        ((0, 0, 16, 16), torch.float32, r"B >= 1.*\[0, {c}, 16, 16\]"),
        ((2, 0, 3, 16), torch.float32, r"at least 4 x 4.*2 blocks.*got 3 x 16"),
        ((2, 0, 16, 16), torch.uint8, r"floating point.*torch.uint8"),
    ],
)
def test_bad_pictures(name, shape, dtype, expected) -> None:
    channels = CHANNELS[name]
    if len(shape) == 4 and shape[1] == 0:
        shape = (shape[0], channels, *shape[2:])
    with pytest.raises(AESGMemoryError, match=expected.replace("{c}", str(channels))):
        build(name, None)(torch.zeros(shape, dtype=dtype))
    with pytest.raises(AESGMemoryError, match="got list"):
        build(name, None)([1.0])


def test_bad_sizes(tmp_path) -> None:
    with pytest.raises(AESGConfigError, match="num_classes must be >= 1"):
        AESGCNNClassifier.small(num_classes=0, storage_dir=str(tmp_path / "m"))
    assert not (tmp_path / "m").exists()
    with pytest.raises(AESGConfigError, match="base_filters must be >= 1"):
        AESGColorizationNet(0, 2, None, 8)
    with pytest.raises(AESGConfigError, match="in_channels must be >= 1"):
        AESGCNNAutoencoder(8, 2, None, 8, in_channels=0)
