"""TokenCodes: queries of a token and those before it, and readers that ask with them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from aesg.architectures import AESGGRUText
from aesg.exceptions import AESGMemoryError
from aesg.nn import AESG_GRU, AESG_LSTM, AESG_TransformerLayer, MemoryReader
from aesg.nn.memory_reader import LEANING
from aesg.nn.token_codes import LAGS, TokenCodes
from tests.architectures.zoo import Make, fill

V, D = 100, 64


def test_codes_are_the_same_in_every_model_and_of_length_one() -> None:
    tokens = torch.randint(0, V, (2, 20))
    said = TokenCodes(V, D)(tokens, 0.6)
    assert torch.equal(said, TokenCodes(2 * V, D)(tokens, 0.6))
    torch.testing.assert_close(said.norm(dim=-1), torch.ones(2, 20))
    first = TokenCodes(3, 2).codes  # a memory on disk holds queries made of these
    expected = torch.tensor([[-0.5941, 0.8044], [-0.9056, 0.4242], [-0.0297, -0.9996]])
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-4)


def test_nothing_is_learnt_or_saved() -> None:
    codes = TokenCodes(V, D)
    assert not list(codes.parameters()) and not codes.state_dict()


@pytest.mark.parametrize("context", [0.3, 0.6])
def test_likeness_grows_with_the_tokens_in_common(context) -> None:
    """About 1 - context^n after n tokens in common, as codes are only nearly orthogonal."""
    codes, generator = TokenCodes(V, D), torch.Generator().manual_seed(0)
    found = []
    for common in range(1, 6):
        one, other = torch.randint(0, V, (2, 400, LAGS + 1), generator=generator)
        other[:, -common:] = one[:, -common:]
        a, b = (codes(tokens, context)[:, -1] for tokens in (one, other))
        found.append(float((a * b).sum(-1).mean()))
    assert found == sorted(found)
    expected = [1 - context**common for common in range(1, 6)]
    assert found == pytest.approx(expected, abs=0.05)


def test_order_counts() -> None:
    codes = TokenCodes(V, D)
    a, b = codes(torch.tensor([[1, 2, 3], [2, 1, 3]]), 0.6)[:, -1]
    assert float(a @ b) < 0.9


def test_context_nought_is_the_token_alone() -> None:
    codes = TokenCodes(V, D)
    tokens = torch.randint(0, V, (2, 5))
    assert torch.equal(codes(tokens, 0.0), F.normalize(codes.codes[tokens], dim=-1))


def test_a_token_tells_of_those_before_it_only() -> None:
    codes, one = TokenCodes(V, D), torch.randint(0, V, (1, 20), generator=torch.Generator().manual_seed(1))
    other = one.clone()
    other[0, 5] = (one[0, 5] + 1) % V
    same = (codes(one, 0.6) == codes(other, 0.6)).all(-1)[0]
    assert same.tolist() == [not 5 <= at <= 5 + LAGS for at in range(20)]


def test_hidden_states_only_lean_the_query() -> None:
    reader, said = MemoryReader(32, D, 2), TokenCodes(V, D)(torch.arange(50)[None], 0.0)[0]
    query = reader.ask(reader.query_norm(torch.randn(50, 32)), said)
    assert float(F.cosine_similarity(query, said, dim=-1).detach().min()) > 1 - LEANING**2
    query.square().sum().backward()
    assert reader.query_proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", [AESG_GRU, AESG_LSTM])
def test_what_tokens_say_is_asked_for_all_steps_at_once(kind, make_memory: Make) -> None:
    memory, shapes = fill(make_memory()), []
    layer, retrieve = kind(6, 32, memory), memory.retrieve
    memory.retrieve = lambda query, **further: shapes.append(query.shape) or retrieve(query, **further)
    x = torch.randn(3, 5, 6)
    layer.sequence(x)
    assert shapes == [(3, 1, 16)] * 5
    shapes.clear()
    layer.sequence(x, said=torch.randn(3, 5, 16))
    assert shapes == [(3, 5, 16)]


def test_what_was_stored_is_found_again_after_training(make_memory: Make) -> None:
    """The reason for codes that do not move: hidden states of other weights ask for the same concepts."""
    memory = make_memory(vector_dim=D, novelty_birth_threshold=1, novelty_explanation_threshold=0.9)
    tokens = torch.randint(0, V, (4, 32))
    torch.manual_seed(0)
    AESGGRUText(V, 32, 1, memory)(tokens)
    memory.set_mode("INFERENCE")
    torch.manual_seed(1)
    other = AESGGRUText(V, 32, 1, memory)
    reader, found = other.layers.top.reader, []
    retrieve = memory.retrieve
    memory.retrieve = lambda query, **further: found.append(retrieve(query, **further)) or found[-1]
    other(tokens)
    assert reader is not None and float(found[0].explanation.min()) > 0.9


def test_making_codes_takes_little_more_than_they_do() -> None:
    """Drawn at once they would take eight times what they end up as."""
    program = (
        "import resource\n"
        "from aesg.nn.token_codes import TokenCodes\n"
        "TokenCodes(1000, 64)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "TokenCodes(100_000, 64)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 4 * 100_000 * 64 / 1024  # KiB


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 2, 16), (3, 16), (1, 3, 16)])
def test_what_tokens_say_must_fit_the_positions(shape, make_memory: Make) -> None:
    memory = make_memory()
    layers = (
        AESG_GRU(8, 12, memory).sequence,
        AESG_LSTM(8, 12, memory).sequence,
        AESG_TransformerLayer(8, 2, memory, causal=True),
    )
    for layer in layers:
        with pytest.raises(AESGMemoryError, match=r"said: expected shape \[2, 3, 16\], got"):
            layer(torch.randn(2, 3, 8), said=torch.randn(shape))
    assert memory.stats()["queries"] == 0
