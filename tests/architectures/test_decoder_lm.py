"""AESGDecoderLM: causality, independence of samples, gradients, generation, bad input."""

import pytest
import torch

from aesg.architectures import AESGDecoderLM
from aesg.architectures.base import TEXT_SIZES
from aesg.exceptions import AESGConfigError, AESGMemoryError
from aesg.nn.attention import KeyValueCache
from tests.fake_memory import FakeMemory

V = 50


def model_with(concepts: int = 30, layers: int = 2, hidden: int = 64, seed: int = 0) -> AESGDecoderLM:
    torch.manual_seed(seed)
    return AESGDecoderLM(V, hidden, layers, FakeMemory(concepts=concepts))


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("memory", [None, FakeMemory(), FakeMemory(concepts=30)])
def test_shape_and_finite(memory):
    logits = AESGDecoderLM(V, 64, 2, memory)(tokens(3, 7))
    assert logits.shape == (3, 7, V)
    assert torch.isfinite(logits).all()


def test_later_tokens_never_change_earlier_logits():
    model, x = model_with().eval(), tokens(2, 40)
    y = x.clone()
    y[:, 25:] = (y[:, 25:] + 1) % V
    a, b = model(x), model(y)
    assert torch.equal(a[:, :25], b[:, :25])
    assert not torch.equal(a[:, 25:], b[:, 25:])


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_sample_zero_changes_nothing_in_the_others(batch):
    model, x = model_with(), tokens(batch, 33)
    y = x.clone()
    y[0] = (y[0] + 7) % V
    a, b = model(x), model(y)
    assert torch.equal(a[1:], b[1:])
    assert not torch.equal(a[0], b[0])


def test_gradient_reaches_the_projections():
    model = model_with()
    model(tokens(2, 9)).square().mean().backward()
    for name in ("query_proj", "attend_proj", "output_proj"):
        assert getattr(model.blocks[-1].reader, name).weight.grad.abs().sum() > 0, name
    assert model.memory.abstraction_projection.weight.grad.abs().sum() > 0


def test_gradient_is_finite_on_an_empty_memory():
    model = model_with(concepts=0)
    model(tokens(2, 9)).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_an_empty_context_adds_exactly_nothing():
    memory = FakeMemory(concepts=0)
    torch.manual_seed(3)
    plain = AESGDecoderLM(V, 64, 2, None)
    torch.manual_seed(3)
    empty = AESGDecoderLM(V, 64, 2, memory)
    x = tokens(2, 12)
    assert torch.equal(plain(x), empty(x))


def test_equal_seeds_give_equal_weights_with_and_without_memory():
    memory = FakeMemory(concepts=3)
    torch.manual_seed(3)
    plain, after_plain = AESGDecoderLM(V, 64, 2, None), torch.rand(1)
    torch.manual_seed(3)
    with_memory, after_memory = AESGDecoderLM(V, 64, 2, memory), torch.rand(1)
    other = with_memory.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in plain.state_dict().items())
    assert torch.equal(after_plain, after_memory)


def test_reads_switched_off_is_the_model_without_its_memory_and_ends():
    model, x = model_with(), tokens(2, 12)
    with_memory = model(x)
    with model.reads_switched_off():
        off = model(x)
    assert not torch.equal(off, with_memory)
    assert torch.equal(model(x), with_memory)
    model.memory.concepts = torch.empty(0, model.memory.vector_dim)
    assert torch.equal(model(x), off)


def test_memory_is_held_once_in_the_state_dict():
    model = model_with()
    names = [name for name in model.state_dict() if "abstraction_projection" in name]
    assert names == ["memory.abstraction_projection.weight"]


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_presets_have_the_sizes_of_the_reference(size):
    model = getattr(AESGDecoderLM, size)(vocab_size=11, storage_dir=None)
    hidden, layers, _, heads = TEXT_SIZES[size]
    assert (model.hidden_size, model.num_layers, len(model.blocks)) == (hidden, layers, layers)
    assert all(block.attention.num_heads == heads for block in model.blocks)
    assert model.memory is None
    assert model(torch.zeros(1, 2, dtype=torch.long)).shape == (1, 2, 11)


# ---------------------------------------------------------------- generation


@pytest.mark.parametrize("memory", [None, FakeMemory(concepts=30)])
def test_cached_generation_equals_uncached_greedy(memory):
    torch.manual_seed(0)
    model = AESGDecoderLM(V, 64, 2, memory)
    torch.nn.init.normal_(model.embedding.weight)
    torch.nn.init.normal_(model.output_proj.weight)  # clear winners: rounding cannot change the argmax
    prompt = tokens(3, 5)
    expected = prompt
    with torch.no_grad():
        for _ in range(40):
            expected = torch.cat((expected, model(expected)[:, -1].argmax(-1, keepdim=True)), dim=1)
    assert torch.equal(model.generate(prompt, 40, temperature=0.0), expected)
    assert len(set(expected[0, 5:].tolist())) > 3  # not one token over and over


def test_generate_only_reads_and_restores_mode_and_training():
    model = model_with()
    model.memory.births = True
    model.memory.set_mode("ONLINE")
    model.train()
    model.blocks[0].eval()
    model.generate(tokens(2, 4), 3)
    assert model.memory.mode.value == "ONLINE"
    assert len(model.memory.concepts) == 30
    assert model.training and model.blocks[1].training and not model.blocks[0].training


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_tokens_of_any_integers(dtype):
    model = model_with().eval()
    given = tokens(2, 9)
    assert torch.equal(model(given.to(dtype)), model(given))
    caches = [KeyValueCache() for _ in model.blocks]
    parts = [
        model(part.to(kind), caches) for part, kind in ((given[:, :4], dtype), (given[:, 4:], torch.int64))
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(given))


def test_generate_keeps_rank_and_prompt():
    model, prompt = model_with(), tokens(4)
    out = model.generate(prompt, 6)
    assert out.shape == (10,)
    assert torch.equal(out[:4], prompt)
    assert model.generate(prompt, 0).shape == (4,)


def test_generate_stops_at_eos_and_fills_up():
    model = model_with()
    first = model.generate(tokens(1, 4), 1, temperature=0.0)[0, -1].item()
    assert model.generate(tokens(1, 4), 10, temperature=0.0, eos=first).shape == (1, 5)
    both = model.generate(torch.cat((tokens(1, 4), tokens(1, 4, seed=9))), 5, temperature=0.0, eos=first)
    row = both[0, 4:]
    assert (row == first).all()


def test_top_k_one_and_tiny_top_p_are_greedy():
    model, prompt = model_with(), tokens(2, 4)
    greedy = model.generate(prompt, 8, temperature=0.0)
    assert torch.equal(model.generate(prompt, 8, top_k=1), greedy)
    assert torch.equal(model.generate(prompt, 8, top_p=1e-6), greedy)


def test_generation_repeats_with_a_generator():
    model, prompt = model_with(), tokens(2, 4)
    runs = [model.generate(prompt, 8, generator=torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"eos": V},
        {"eos": 1.0},
        {"eos": True},
        {"top_k": "3"},
        {"top_k": 2.0},
        {"top_p": "0.5"},
        {"temperature": "warm"},
        {"temperature": None},
        {"generator": 4},
    ],
)
def test_bad_sampling_options(options):
    with pytest.raises(AESGConfigError, match=next(iter(options))):
        model_with().generate(tokens(1, 3), 2, **options)


@pytest.mark.parametrize("count", [-1, 1.0, "2", None, True])
def test_bad_counts_of_new_tokens(count):
    with pytest.raises(AESGConfigError, match="max_new_tokens"):
        model_with().generate(tokens(1, 3), count)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("vocab_size", [0, -3])
def test_vocab_size_below_one(vocab_size, tmp_path):
    with pytest.raises(AESGConfigError) as caught:
        AESGDecoderLM.small(vocab_size=vocab_size, storage_dir=str(tmp_path / "memory"))
    assert caught.value.message == "vocab_size must be >= 1"
    assert caught.value.subsystem == "config"
    assert not (tmp_path / "memory").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.zeros(4, dtype=torch.long), r"\[B, T\].*\[4\]"),
        (torch.zeros(1, 2, 3, dtype=torch.long), r"\[B, T\].*\[1, 2, 3\]"),
        (torch.zeros(0, 3, dtype=torch.long), r"B, T >= 1.*\[0, 3\]"),
        (torch.zeros(1, 3), "integer token ids, got dtype torch.float32"),
        (torch.tensor([[0, V]]), rf"\[0, {V}\).*0 to {V}"),
        (torch.tensor([[-1, 2]]), rf"\[0, {V}\).*-1 to 2"),
        ([[1, 2]], "tensor.*list"),
    ],
)
def test_bad_tokens(given, expected):
    with pytest.raises(AESGMemoryError, match=expected):
        model_with()(given)


def test_bad_sizes():
    with pytest.raises(AESGConfigError, match="num_layers must be >= 1"):
        AESGDecoderLM(V, 64, 0, None)
    with pytest.raises(AESGConfigError, match="hidden_size must be even, got 33"):
        AESGDecoderLM(V, 33, 1, None)
