"""AESG_GRU and AESG_LSTM: recurrent layers that ask the memory at every step.

Letters: B sequences, T steps, I input size, H hidden size, G gates (3 of a GRU, 4 of an LSTM).
Equations of the cells: those of torch.nn.GRU and torch.nn.LSTM.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aesg.nn.memory_layer import (
    MemoryLayer,
    apart_from_other_weights,
    check_shape,
    check_sizes,
    one_call,
)
from aesg.nn.memory_reader import OUTPUT_STD, QUERY_STD, MemoryReader

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory

READER_HEADS = 2  # one begins with what is like the query, the other with what is not
# What was read comes in parts of at most length 1, beside inputs whose every number may be about 1. As
# it is it whispers, and learning to hear it takes many times the steps (docs/quality.md).
LOUDNESS = 32.0
GATES_STD = 0.01

State = TypeVar("State", Tensor, tuple[Tensor, Tensor])


class StepReader(MemoryReader):
    """A MemoryReader that says what it found as it is, for the gates of a cell: [..., H] -> [..., (h + 1) D].

    h heads, D the concepts' width.
    """

    def __init__(self, hidden_size: int, vector_dim: int, num_heads: int) -> None:
        super().__init__(hidden_size, vector_dim, num_heads)
        del self.output_proj

    def reset_parameters(self) -> None:
        nn.init.normal_(self.query_proj.weight, std=QUERY_STD)
        nn.init.normal_(self.attend_proj.weight, std=OUTPUT_STD)

    def forward(self, hidden: Tensor, memory: Any, said: Tensor | None = None) -> Tensor:
        normed = self.query_norm(hidden)
        query = self.ask(normed, said)
        found, gist = self.read(normed, query, memory.retrieve(query))
        return torch.cat((found, gist), dim=-1).to(normed.dtype)

    def step(self, hidden: Tensor, memory: Any, asking: Tensor) -> tuple[Tensor, Tensor]:
        """The same for one step of a sequence, in two parts: [B, H] -> [B, h D] and [B, D], f32.

        asking [(h + 1) D, H]: `query_proj` over `attend_proj`, which then cost one product instead of two.
        """
        normed = self.query_norm(hidden)
        query, sought = F.linear(normed, asking).float().tensor_split((self.vector_dim,), dim=1)
        # [B, 1, D]: a step of a sequence. What went before is in `hidden`, so no former answer primes this.
        context = memory.retrieve(query.unsqueeze(1))
        vectors, energies = context.vectors.squeeze(1), context.weights.squeeze(1)
        return self.look(sought, query, vectors, energies, context.projection)


class _Weights(NamedTuple):
    """What a cell multiplies with, put together once a sequence. I' is I, or I + (h + 1) D where it reads."""

    given: Tensor  # [G H, I'], of what is given to the cell
    given_bias: Tensor  # [G H]
    hidden: Tensor  # [G H, H], of the state
    hidden_bias: Tensor  # [G H]


class MemoryRNN(MemoryLayer, Generic[State]):
    """What AESG_GRU and AESG_LSTM share: the query, the loop over the steps.

    At step t the memory is asked with what the input x_t and the state h_{t-1} say together; a state alone
    does not know yet what it is asked about. What is read, times LOUDNESS, is concatenated to the cell's
    input.

    full_gradient: whether in `sequence` the gradient of what was read also reaches the state that asked.
    Without, the gradient stops there and reaches the question's weights, the input and the reading only; a
    training step then takes about half the time.
    """

    gates: int
    rnn: nn.GRU | nn.LSTM  # holds the cell's weights; without a memory it does the work

    def __init__(
        self, input_size: int, hidden_size: int, memory: AESGMemory | None, *, full_gradient: bool = False
    ) -> None:
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        super().__init__(memory)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.full_gradient = full_gradient
        self.rnn = self._make_rnn()
        self.reader: StepReader | None = None
        if memory is not None:
            with apart_from_other_weights():
                heads = READER_HEADS
                self.reader = StepReader(hidden_size, memory.vector_dim, heads)
                self.reader_input = nn.Linear(input_size, hidden_size, bias=False)
                self.reader_gates = nn.Linear(
                    (heads + 1) * memory.vector_dim, self.gates * hidden_size, bias=False
                )
                nn.init.normal_(self.reader_gates.weight, std=GATES_STD)

    def forward(self, x: Tensor, state: State) -> State:
        """One step: input [B, I] and state to the next state.

        Raises AESGMemoryError for other shapes.
        """
        check_shape("x", x, "B", self.input_size)
        self._check_state(state, x.shape[0])
        _, state = self._run_steps(x.unsqueeze(1), state)
        return state

    def sequence(
        self, x: Tensor, state: State | None = None, *, read: bool = True, said: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """All steps of x [B, T, I]: the outputs [B, T, H] and the last state.

        state: the one before the first step, None for zeros. read: False leaves the memory out.
        said [B, T, D]: what tokens say of themselves (`MemoryReader.ask`). With it the steps ask with that
        and the input, which wait for no state: one retrieval for all of them, and one call of torch's kernel.
        Whatever does not depend on the step before is done for all steps at once. What the steps teach the
        memory is learnt at the end: within a sequence no step sees what was born at an earlier one.
        Raises AESGMemoryError for other shapes.
        """
        check_shape("x", x, "B", "T", self.input_size)
        if state is None:
            state = self.zeros(x.shape[0], x.device)
        else:
            self._check_state(state, x.shape[0])
        if self.reader is None or not read:
            return self._run_fused(x, state, self._weights(read=False))
        if said is not None:
            return self._run_with(x, self.reader(self.reader_input(x), self.memory, said), state)
        once_more = torch.is_grad_enabled() and not self.full_gradient
        with one_call(self.memory, traced=once_more):
            if not once_more:
                return self._run_steps(x, state)
            # What the steps find is found step by step; all else, once more with gradients, for all at once.
            with torch.no_grad():
                outputs, _ = self._run_steps(x, state)
            before = torch.cat((self.output_of(state).unsqueeze(1).detach(), outputs[:, :-1]), dim=1)
            found = self.reader(self.reader_input(x) + before, _Again(self.memory))  # [B, T, (h + 1) D]
        return self._run_with(x, found, state)

    def _run_with(self, x: Tensor, found: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, I] beside what was read for it [B, T, (h + 1) D], in torch's kernel."""
        return self._run_fused(torch.cat((x, found.to(x.dtype)), dim=2), state, self._weights())

    def _run_steps(self, x: Tensor, state: State, *, read: bool = True) -> tuple[Tensor, State]:
        """x [B, T, I] step by step, with one retrieval each: the outputs [B, T, H] and the last state."""
        weights, outputs = self._weights(read=read), []
        reader = self.reader if read else None
        given = x.unbind(1)
        if reader is None:
            for one in given:
                state = self._step(one, state, weights)
                outputs.append(self.output_of(state))
            return torch.stack(outputs, dim=1), state
        asking = torch.cat((reader.query_proj.weight, reader.attend_proj.weight))
        for one, ask in zip(given, self.reader_input(x).unbind(1), strict=True):
            found, gist = reader.step(ask + self.output_of(state), self.memory, asking)
            state = self._step(torch.cat((one, found, gist), dim=1), state, weights)
            outputs.append(self.output_of(state))
        return torch.stack(outputs, dim=1), state

    def _weights(self, *, read: bool = True) -> _Weights:
        """read: of a cell that is given what was read beside its input."""
        rnn: Any = self.rnn
        given = rnn.weight_ih_l0
        if read and self.reader is not None:
            given = torch.cat((given, LOUDNESS * self.reader_gates.weight), dim=1)
        return _Weights(given, rnn.bias_ih_l0, rnn.weight_hh_l0, rnn.bias_hh_l0)

    def _make_rnn(self) -> nn.GRU | nn.LSTM:
        raise NotImplementedError

    def _step(self, given: Tensor, state: State, weights: _Weights) -> State:
        """torch's own cell on one step [B, I']."""
        raise NotImplementedError

    def _run_fused(self, x: Tensor, state: State, weights: _Weights) -> tuple[Tensor, State]:
        """torch's own kernel on x [B, T, I']."""
        raise NotImplementedError

    def _check_state(self, state: State, batch: int) -> None:
        raise NotImplementedError

    def zeros(self, batch: int, device: torch.device) -> State:
        """The state before the first step."""
        raise NotImplementedError

    @staticmethod
    def output_of(state: State) -> Tensor:
        """The hidden state [B, H] that goes to the next layer."""
        raise NotImplementedError


class _Again:
    """A memory to a reader: answers what was asked step by step, for all steps at once."""

    def __init__(self, memory: Any) -> None:
        self.retrieve = memory.retrieve_again


class AESG_GRU(MemoryRNN[Tensor]):
    """GRU that reads a memory: forward(x [B, I], h_prev [B, H]) -> h [B, H]; `sequence` for all steps."""

    gates = 3

    def _make_rnn(self) -> nn.GRU:
        return nn.GRU(self.input_size, self.hidden_size, batch_first=True)

    def _step(self, given: Tensor, state: Tensor, weights: _Weights) -> Tensor:
        given, state = in_dtype_of(weights.hidden, given, state)
        with without_autocast(given):
            return torch.gru_cell(
                given, state, weights.given, weights.hidden, weights.given_bias, weights.hidden_bias
            )

    def _run_fused(self, x: Tensor, state: Tensor, weights: _Weights) -> tuple[Tensor, Tensor]:
        x, state = in_dtype_of(weights.hidden, x, state)
        ordered = [weights.given, weights.hidden, weights.given_bias, weights.hidden_bias]
        with without_autocast(x):
            outputs, last = torch.gru(
                x, state.unsqueeze(0), ordered, True, 1, 0.0, self.training, False, True
            )
        return outputs, last.squeeze(0)

    def _check_state(self, state: Tensor, batch: int) -> None:
        check_shape("h_prev", state, batch, self.hidden_size)

    def zeros(self, batch: int, device: torch.device) -> Tensor:
        return torch.zeros(
            batch, self.hidden_size, device=device, dtype=self._weights(read=False).hidden.dtype
        )

    @staticmethod
    def output_of(state: Tensor) -> Tensor:
        return state


class AESG_LSTM(MemoryRNN[tuple[Tensor, Tensor]]):
    """LSTM that reads a memory: forward(x [B, I], (h, c)) -> (h, c), [B, H] each; `sequence` for all."""

    gates = 4

    def _make_rnn(self) -> nn.LSTM:
        return nn.LSTM(self.input_size, self.hidden_size, batch_first=True)

    def _step(self, given: Tensor, state: tuple[Tensor, Tensor], weights: _Weights) -> tuple[Tensor, Tensor]:
        given, hidden, cell = in_dtype_of(weights.hidden, given, *state)
        with without_autocast(given):
            hidden, cell = torch.lstm_cell(
                given, (hidden, cell), weights.given, weights.hidden, weights.given_bias, weights.hidden_bias
            )
        return hidden, cell

    def _run_fused(
        self, x: Tensor, state: tuple[Tensor, Tensor], weights: _Weights
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x, hidden, cell = in_dtype_of(weights.hidden, x, *state)
        ordered = [weights.given, weights.hidden, weights.given_bias, weights.hidden_bias]
        before = [hidden.unsqueeze(0), cell.unsqueeze(0)]
        with without_autocast(x):
            outputs, hidden, cell = torch.lstm(x, before, ordered, True, 1, 0.0, self.training, False, True)
        return outputs, (hidden.squeeze(0), cell.squeeze(0))

    def _check_state(self, state: tuple[Tensor, Tensor], batch: int) -> None:
        for name, part in zip(("h", "c"), state, strict=True):
            check_shape(name, part, batch, self.hidden_size)

    def zeros(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        hidden, cell = torch.zeros(
            2, batch, self.hidden_size, device=device, dtype=self._weights(read=False).hidden.dtype
        )
        return hidden, cell

    @staticmethod
    def output_of(state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0]


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Ends autocast inside: torch's recurrent kernels do not follow it on every device."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def in_dtype_of(weight: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The tensors in the weight's precision.

    torch's fused kernels take all arguments in one dtype, which autocast does not see to on every device.
    """
    return [tensor.to(weight.dtype) for tensor in tensors]
