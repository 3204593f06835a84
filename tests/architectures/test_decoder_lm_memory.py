"""AESGDecoderLM on the real memory: independence, causality, gradients, generation, directories."""

import pytest
import torch

from aesg.architectures import AESGDecoderLM
from aesg.architectures.base import token_config
from aesg.exceptions import AESGError
from aesg.memory.controller import AESGMemory
from aesg.nn import KeyValueCache

V = 30


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    with AESGMemory(tmp_path / "memory", token_config(16)) as memory:
        model = AESGDecoderLM(V, 64, 2, memory)
        torch.nn.init.normal_(model.embedding.weight)
        for seed in range(6):
            model(tokens(4, 30, seed=seed % 3))
            memory.update_topology()
        assert memory.storage.node_count > 20
        assert memory.storage.edge_count > 20
        yield model


def tokens(*shape, seed=1):
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(seed))


def test_sample_zero_changes_nothing_in_the_others(model):
    model.memory.set_mode("INFERENCE")
    x = tokens(4, 20)
    y = x.clone()
    y[0] = (y[0] + 7) % V
    a, b = model(x), model(y)
    assert torch.equal(a[1:], b[1:])
    assert not torch.equal(a[0], b[0])


def test_nor_while_the_memory_learns(model, tmp_path):
    x = tokens(4, 20)
    y = x.clone()
    y[0] = (y[0] + 7) % V
    results = []
    for name, given in (("a", x), ("b", y)):  # each on its own copy: learning changes the graph
        model.memory.snapshot(tmp_path / name)
        with AESGMemory(tmp_path / name) as memory:
            copy = AESGDecoderLM(V, 64, 2, memory)
            copy.load_state_dict(model.state_dict())
            results.append(copy(given))
    assert torch.equal(results[0][1:], results[1][1:])
    assert not torch.equal(results[0][0], results[1][0])


def test_later_tokens_never_change_earlier_logits(model):
    model.memory.set_mode("INFERENCE")
    x = tokens(2, 20)
    y = x.clone()
    y[:, 12:] = (y[:, 12:] + 1) % V
    a, b = model(x), model(y)
    assert torch.equal(a[:, :12], b[:, :12])
    assert not torch.equal(a[:, 12:], b[:, 12:])


def test_gradient_reaches_the_projections(model):
    model(tokens(2, 9)).square().mean().backward()
    assert model.blocks[-1].reader.query_proj.weight.grad.abs().sum() > 0
    assert model.memory.abstraction_projection.weight.grad.abs().sum() > 0


def test_gradient_reaches_query_proj_through_the_weights_alone(model):
    reader = model.blocks[-1].reader
    with torch.no_grad():
        reader.likeness_weight.zero_()
    model(tokens(2, 9)).square().mean().backward()
    assert reader.query_proj.weight.grad.abs().sum() > 0


def test_logits_do_not_depend_on_how_a_text_is_cut(model):
    """Queries tell of the tokens before: with a cache, of those before the cut too."""
    model.memory.set_mode("INFERENCE")
    x, caches = tokens(2, 20), [KeyValueCache() for _ in model.blocks]
    pieces = [model(piece, caches) for piece in x.split([3, 1, 1, 12, 3], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(x), rtol=1e-4, atol=1e-5)


def test_cached_generation_equals_uncached_greedy(model):
    torch.nn.init.normal_(model.output_proj.weight)
    prompt = tokens(2, 5)
    expected = prompt
    model.memory.set_mode("INFERENCE")
    with torch.no_grad():
        for _ in range(20):
            expected = torch.cat((expected, model(expected)[:, -1].argmax(-1, keepdim=True)), dim=1)
    model.memory.set_mode("TRAIN")
    before = model.memory.stats()["concepts"]
    assert torch.equal(model.generate(prompt, 20, temperature=0.0), expected)
    assert model.memory.stats()["concepts"] == before


def test_reading_changes_the_logits(model):
    model.memory.set_mode("INFERENCE")
    x = tokens(2, 9)
    with model.reads_switched_off():
        off = model(x)
    assert not torch.equal(off, model(x))


def test_presets_on_the_default_directory_live_side_by_side(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = AESGDecoderLM.small(vocab_size=10)
    small(torch.zeros(1, 4, dtype=torch.long))
    small.memory.save()
    with pytest.warns(UserWarning, match="./aesg_memory-128"):
        medium = AESGDecoderLM.medium(vocab_size=10)
    assert (small.memory.vector_dim, medium.memory.vector_dim) == (64, 128)
    assert medium.memory.directory.name == "aesg_memory-128"
    again = AESGDecoderLM.small(vocab_size=10)
    assert again.memory.storage.node_count == small.memory.storage.node_count > 0
    for each in (small, medium, again):
        each.memory.close()


def test_another_dim_in_an_explicit_directory_is_refused(tmp_path):
    first = AESGDecoderLM.small(vocab_size=10, storage_dir=tmp_path / "m")
    first.memory.close()
    with pytest.raises(AESGError, match=r"(?s)64.*128|128.*64"):
        AESGDecoderLM.medium(vocab_size=10, storage_dir=tmp_path / "m")
