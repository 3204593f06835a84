"""What is special to the models of tokens: lengths, causality, bad tokens, speed by batching."""

from __future__ import annotations

import pytest
import torch

from aesg.architectures import AESGTransformer
from aesg.exceptions import AESGConfigError, AESGMemoryError
from tests.architectures.zoo import TEXTS, Make, V, build, fill, inputs

RECURRENT = ["AESGGRUText", "AESGLSTMText"]
CAUSAL = [("AESGGRUText", {}), ("AESGLSTMText", {}), ("AESGTransformer", {"causal": True})]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("length", [1, 9])
def test_shape(name, length, make_memory: Make) -> None:
    assert build(name, fill(make_memory()))(inputs(name)[:, :length]).shape == (4, length, V)


@pytest.mark.parametrize(("name", "options"), CAUSAL)
def test_later_tokens_never_change_earlier_logits(name, options, make_memory: Make) -> None:
    memory = fill(make_memory())
    memory.set_mode("INFERENCE")
    model, x = build(name, memory, **options).eval(), inputs(name)
    y = x.clone()
    y[:, 5:] = (y[:, 5:] + 1) % V
    a, b = model(x), model(y)
    assert torch.equal(a[:, :5], b[:, :5])
    assert not torch.equal(a[:, 5:], b[:, 5:])


def test_the_encoder_sees_the_whole_sequence(make_memory: Make) -> None:
    model, x = build("AESGTransformer", fill(make_memory())), inputs("AESGTransformer")
    y = x.clone()
    y[:, -1] = (y[:, -1] + 1) % V
    assert not torch.equal(model(x)[:, 0], model(y)[:, 0])


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_takes_any_length(causal, make_memory: Make) -> None:
    model = AESGTransformer(V, 32, 1, 4, fill(make_memory()), max_seq_len=8, causal=causal)
    x = torch.randint(0, V, (1, 700))
    logits = model(x)
    assert logits.shape == (1, 700, V) and torch.isfinite(logits).all()
    turned = model(x.flip(1)).flip(1)
    assert not torch.allclose(logits, turned)  # positions matter, also far beyond 512


@pytest.mark.parametrize(("causal", "queries"), [(False, 1), (True, 9)])
def test_transformer_asks_once_a_sequence_or_once_a_token(causal, queries, make_memory: Make) -> None:
    memory = fill(make_memory())
    build("AESGTransformer", memory, layers=3, causal=causal)(inputs("AESGTransformer"))
    assert memory.stats()["queries"] == 3 * 4 * queries


def test_only_the_last_layer_teaches(make_memory: Make) -> None:
    memory = make_memory(novelty_birth_threshold=1, novelty_explanation_threshold=1.0)
    fill(memory)
    build("AESGTransformer", memory, layers=3)(inputs("AESGTransformer"))
    assert memory.storage.active_count == 60 + 4


@pytest.mark.parametrize("name", RECURRENT)
def test_one_batched_retrieval_a_sequence(name, make_memory: Make) -> None:
    memory, shapes = fill(make_memory()), []
    model, retrieve = build(name, memory, layers=3), memory.retrieve
    memory.retrieve = lambda query, **further: shapes.append(query.shape) or retrieve(query, **further)
    model(inputs(name))
    assert shapes == [(4, 9, 16)]


@pytest.mark.parametrize("name", RECURRENT)
def test_steps_are_learnt_as_a_sequence(name, make_memory: Make) -> None:
    """Nine steps of four streams leave succession edges between concepts that explain them."""
    memory = make_memory(
        novelty_birth_threshold=1, novelty_explanation_threshold=0.95, link_min_similarity=1.0
    )
    model, x = build(name, memory), inputs(name)
    for _ in range(3):
        memory.reset_state()
        model(x)
    memory.update_topology()
    assert memory.storage.edge_count >= 9


def test_a_failed_pass_teaches_nothing(make_memory: Make) -> None:
    memory = fill(make_memory(novelty_birth_threshold=1, novelty_explanation_threshold=1.0))
    model = build("AESGGRUText", memory)
    top, x = model.layers.top, model.embedding(inputs("AESGGRUText"))
    steps, step = [], top._step

    def failing(*arguments):
        steps.append(1)
        if len(steps) == 5:
            raise RuntimeError("no more")
        return step(*arguments)

    top._step = failing
    with pytest.raises(RuntimeError, match="no more"):
        top.sequence(x)
    assert memory.storage.active_count == 60
    top._step = step
    top.sequence(x)
    assert memory.storage.active_count > 60


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.zeros(4, dtype=torch.long), r"\[B, T\].*\[4\]"),
        (torch.zeros(0, 3, dtype=torch.long), r"B, T >= 1.*\[0, 3\]"),
        (torch.zeros(1, 3), r"integer token ids, got dtype torch.float32"),
        (torch.tensor([[0, V]]), rf"\[0, {V}\).*0 to {V}"),
        (torch.tensor([[-1, 2]]), rf"\[0, {V}\).*-1 to 2"),
        ([[1, 2]], r"tensor.*list"),
    ],
)
def test_bad_tokens(name, given, expected) -> None:
    with pytest.raises(AESGMemoryError, match=expected):
        build(name, None)(given)


def test_bad_sizes() -> None:
    with pytest.raises(AESGConfigError, match="num_layers must be >= 1"):
        build("AESGGRUText", None, layers=0)
    with pytest.raises(AESGConfigError, match="nhead must be >= 1"):
        AESGTransformer(V, 32, 1, 0, None)
    with pytest.raises(AESGConfigError, match="max_seq_len must be >= 1"):
        AESGTransformer(V, 32, 1, 4, None, max_seq_len=0)
    with pytest.raises(AESGConfigError, match=r"multiple of 2 \* nhead = 10.*got 32"):
        AESGTransformer(V, 32, 1, 5, None)
