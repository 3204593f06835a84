"""The layers by themselves, as parts of anybody's module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aesg.exceptions import AESGConfigError, AESGMemoryError
from aesg.nn import AESG_GRU, AESG_LSTM, AESG_CNNLayer, AESG_TransformerLayer, MemoryReader, PooledReader
from aesg.nn.memory_layer import apart_from_other_weights
from tests.architectures.zoo import Make, fill

B, T, IN, H = 3, 5, 6, 32  # batch, steps, input and hidden size


def frozen(make_memory: Make):
    memory = fill(make_memory())
    memory.set_mode("INFERENCE")
    return memory


# ---------------------------------------------------------------- recurrent layers


def test_signatures_of_the_reference(make_memory: Make) -> None:
    memory = frozen(make_memory)
    x, h = torch.randn(B, IN), torch.zeros(B, H)
    assert AESG_GRU(IN, H, memory)(x, h).shape == (B, H)
    hidden, cell = AESG_LSTM(IN, H, memory)(x, (h, h))
    assert hidden.shape == cell.shape == (B, H)
    assert AESG_TransformerLayer(H, 4, memory)(torch.randn(B, T, H)).shape == (B, T, H)
    assert AESG_CNNLayer(IN, 8, memory, 4)(torch.randn(B, IN, 5, 7)).shape == (B, 8, 5, 7)


@pytest.mark.parametrize(("kind", "torch_kind"), [(AESG_GRU, nn.GRUCell), (AESG_LSTM, nn.LSTMCell)])
def test_cells_follow_torch(kind, torch_kind, make_memory: Make) -> None:
    """With an empty memory one step is torch's cell with the same weights."""
    layer, cell = kind(IN, H, make_memory()), torch_kind(IN, H)
    for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, key).data.copy_(getattr(layer.rnn, f"{key}_l0"))
    x, state = torch.randn(B, IN), torch.randn(B, H)
    given = state if kind is AESG_GRU else (state, torch.randn(B, H))
    for ours, theirs in zip(torch.cat([*layer(x, given)]), torch.cat([*cell(x, given)]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [AESG_GRU, AESG_LSTM])
@pytest.mark.parametrize("with_memory", [False, True])
def test_sequence_is_the_steps_one_by_one(kind, with_memory, make_memory: Make) -> None:
    layer = kind(IN, H, frozen(make_memory) if with_memory else None)
    x, state = torch.randn(B, T, IN), layer.zeros(B, torch.device("cpu"))
    outputs, last = layer.sequence(x)
    for step in range(T):
        state = layer(x[:, step], state)
        torch.testing.assert_close(outputs[:, step], layer.output_of(state), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last, state, rtol=1e-5, atol=1e-6)
    first, middle = layer.sequence(x[:, :2])
    second, end = layer.sequence(x[:, 2:], middle)
    torch.testing.assert_close(torch.cat((first, second), 1), outputs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(end, last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [AESG_GRU, AESG_LSTM])
def test_the_answer_depends_on_input_and_state(kind, make_memory: Make) -> None:
    layer, seen = kind(IN, H, frozen(make_memory)), []
    retrieve = layer.memory.retrieve
    layer.memory.retrieve = lambda query: seen.append(query.detach()) or retrieve(query)
    zero, other = layer.zeros(B, torch.device("cpu")), torch.randn(B, H)
    for x, hidden in ((0.0, zero), (1.0, zero), (0.0, other)):
        given = hidden if kind is AESG_GRU else (hidden if isinstance(hidden, tuple) else (hidden, hidden))
        layer(torch.full((B, IN), x), given)
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


# ---------------------------------------------------------------- readers


@pytest.mark.parametrize("heads", [1, 4])
def test_pooled_reader_reads_like_memory_reader(heads, make_memory: Make) -> None:
    """At one position the mean is the position, so both say the same with the same weights."""
    memory = frozen(make_memory)
    pooled = PooledReader(H, 16, heads)
    single = MemoryReader(H, 16, heads)
    single.load_state_dict(pooled.state_dict())
    hidden = torch.randn(B, 1, H)
    torch.testing.assert_close(pooled(hidden, memory), single(hidden, memory), rtol=1e-4, atol=1e-6)


def test_positions_read_one_answer_in_their_own_way(make_memory: Make) -> None:
    memory, reader = frozen(make_memory), PooledReader(H, 16, 4)
    hidden = torch.randn(B, T, H)
    added = reader(hidden, memory)
    assert not torch.allclose(added[:, 0], added[:, 1])
    swapped = reader(hidden.flip(1), memory)
    torch.testing.assert_close(swapped.flip(1), added, rtol=1e-4, atol=1e-5)


def test_layer_with_causal_asks_for_every_token(make_memory: Make) -> None:
    memory = frozen(make_memory)
    layer = AESG_TransformerLayer(H, 4, memory, causal=True)
    x = torch.randn(B, T, H)
    y = x.clone()
    y[:, 3:] += 1
    assert torch.equal(layer(x)[:, :3], layer(y)[:, :3])


# ---------------------------------------------------------------- as parts of a module


class Own(nn.Module):
    def __init__(self, memory) -> None:
        super().__init__()
        self.first = AESG_GRU(IN, H, memory)
        self.second = AESG_TransformerLayer(H, 4, memory)
        self.third = AESG_CNNLayer(IN, 8, memory, 4)


def test_layers_on_one_memory_name_it_once(make_memory: Make) -> None:
    module = Own(fill(make_memory()))
    nn.init.normal_(module.first.memory.abstraction_projection.weight)
    state = module.state_dict()
    assert [key for key in state if "abstraction" in key] == ["first.memory.abstraction_projection.weight"]
    assert sum(p is module.first.memory.abstraction_projection.weight for p in module.parameters()) == 1
    kept = {key: value.clone() for key, value in state.items()}
    nn.init.zeros_(module.first.memory.abstraction_projection.weight)
    module.load_state_dict(kept)
    assert torch.equal(
        module.third.memory.abstraction_projection.weight, kept["first.memory.abstraction_projection.weight"]
    )


def test_layers_on_two_memories_name_both(make_memory: Make) -> None:
    module = nn.ModuleList(AESG_GRU(IN, H, make_memory(name)) for name in "ab")
    state = module.state_dict()
    assert sum("abstraction" in key for key in state) == 2
    module.load_state_dict(state)
    with pytest.raises(RuntimeError, match="unknown"):
        module.load_state_dict({**state, "0.unknown": torch.zeros(1)})


def test_random_numbers_of_readers_are_their_own() -> None:
    torch.manual_seed(1)
    with apart_from_other_weights():
        inside = torch.rand(3)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    assert not torch.equal(inside, after)


# ---------------------------------------------------------------- bad input


def test_bad_input(make_memory: Make) -> None:
    gru, lstm = AESG_GRU(IN, H, None), AESG_LSTM(IN, H, None)
    with pytest.raises(AESGMemoryError, match=r"x: expected shape \[B, 6\], got \[3, 7\]"):
        gru(torch.zeros(B, 7), torch.zeros(B, H))
    with pytest.raises(AESGMemoryError, match=r"h_prev: expected shape \[3, 32\], got \[2, 32\]"):
        gru(torch.zeros(B, IN), torch.zeros(2, H))
    with pytest.raises(AESGMemoryError, match=r"c: expected shape \[3, 32\], got \[3, 31\]"):
        lstm(torch.zeros(B, IN), (torch.zeros(B, H), torch.zeros(B, 31)))
    with pytest.raises(AESGMemoryError, match=r"x: expected shape \[B, T, 6\], got \[3, 0, 6\]"):
        gru.sequence(torch.zeros(B, 0, IN))
    with pytest.raises(AESGMemoryError, match=r"src: expected a tensor \[B, T, 32\], got list"):
        AESG_TransformerLayer(H, 4, None)([1])
    with pytest.raises(AESGMemoryError, match=r"x: expected shape \[B, 6, Y, X\], got \[3, 5, 4, 4\]"):
        AESG_CNNLayer(IN, 8, None, 4)(torch.zeros(3, 5, 4, 4))
    with pytest.raises(AESGMemoryError, match=r"floating point values, got torch.int64"):
        gru(torch.zeros(B, IN, dtype=torch.long), torch.zeros(B, H))
    for build in (
        lambda: AESG_GRU(0, H, None),
        lambda: AESG_LSTM(IN, -1, None),
        lambda: AESG_CNNLayer(IN, 8, None, 0),
        lambda: AESG_TransformerLayer(H, True, None),
    ):
        with pytest.raises(AESGConfigError, match=">= 1, got"):
            build()
    with pytest.raises(AESGConfigError, match=r"multiple of 2 \* nhead = 64"):
        AESG_TransformerLayer(H, 32, None)
