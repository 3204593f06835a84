"""AESG_GRU and AESG_LSTM: recurrent layers that ask the memory at every step.

Letters: B sequences, T steps, I input size, H hidden size, G gates (3 of a GRU, 4 of an LSTM).
Equations of the cells: those of torch.nn.GRU and torch.nn.LSTM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aesg.nn.memory_layer import (
    MemoryLayer,
    apart_from_other_weights,
    check_shape,
    check_sizes,
    one_call,
    reader_heads,
)
from aesg.nn.memory_reader import MemoryReader

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory

State = TypeVar("State", Tensor, tuple[Tensor, Tensor])


class StepReader(MemoryReader):
    """A MemoryReader whose reading goes to all gates of a cell: [..., H] -> [..., G H]."""

    def __init__(self, hidden_size: int, vector_dim: int, num_heads: int, gates: int) -> None:
        super().__init__(hidden_size, vector_dim, num_heads)
        self.output_proj = nn.Linear((num_heads + 1) * vector_dim, gates * hidden_size, bias=False)
        self.reset_parameters()


class MemoryRNN(MemoryLayer, Generic[State]):
    """What AESG_GRU and AESG_LSTM share: the query, the loop over the steps.

    At step t the memory is asked with what the input x_t and the state h_{t-1} say together; a state alone
    does not know yet what it is asked about. What is read enters the gates beside the input, which is the
    same as concatenating it to the input of the cell.
    """

    gates: int
    rnn: nn.GRU | nn.LSTM  # holds the cell's weights; without a memory it does the work

    def __init__(self, input_size: int, hidden_size: int, memory: AESGMemory | None) -> None:
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        super().__init__(memory)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.rnn = self._make_rnn()
        self.reader: StepReader | None = None
        self.query_input: nn.Linear | None = None
        if memory is not None:
            with apart_from_other_weights():
                self.query_input = nn.Linear(input_size, hidden_size, bias=False)
                heads = reader_heads(hidden_size)
                self.reader = StepReader(hidden_size, memory.vector_dim, heads, self.gates)

    def forward(self, x: Tensor, state: State) -> State:
        """One step: input [B, I] and state to the next state.

        Raises AESGMemoryError for other shapes.
        """
        check_shape("x", x, "B", self.input_size)
        self._check_state(state, x.shape[0])
        gates, asks = self._of_input(x, True)
        return self._step(gates, asks, state)

    def sequence(self, x: Tensor, state: State | None = None, *, read: bool = True) -> tuple[Tensor, State]:
        """All steps of x [B, T, I]: the outputs [B, T, H] and the last state.

        state: the one before the first step, None for zeros. read: False leaves the memory out.
        Whatever does not depend on the step before is done for all steps at once. What the steps teach the
        memory is learnt at the end: within a sequence no step sees what was born at an earlier one.
        Raises AESGMemoryError for other shapes.
        """
        check_shape("x", x, "B", "T", self.input_size)
        if state is not None:
            self._check_state(state, x.shape[0])
        if self.reader is None or not read:
            return self._without_memory(x, state)
        if state is None:
            state = self.zeros(x.shape[0], x.device)
        gates, asks = self._of_input(x, read)
        assert asks is not None
        outputs = []
        with one_call(self.memory):
            for gate, ask in zip(gates.unbind(1), asks.unbind(1), strict=True):
                state = self._step(gate, ask, state)
                outputs.append(self.output_of(state))
        return torch.stack(outputs, dim=1), state

    def _of_input(self, x: Tensor, read: bool) -> tuple[Tensor, Tensor | None]:
        """What inputs [..., I] give to the gates [..., G H] and to the queries [..., H]."""
        gates = F.linear(x, *self._weights("ih"))
        return gates, None if self.query_input is None or not read else self.query_input(x)

    def _gates(self, gates: Tensor, asks: Tensor | None, hidden: Tensor) -> Tensor:
        """The input's share of the gates [B, G H], with what was read added."""
        if self.reader is None or asks is None:
            return gates
        # [B, 1, H]: a step of a sequence. What went before is in `hidden`, so no former answer primes this.
        read = self.reader((asks + hidden).unsqueeze(1), self.memory)
        return gates + read.squeeze(1)

    def _weights(self, side: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of the gates: "ih" from the input, "hh" from the state."""
        weight, bias = getattr(self.rnn, f"weight_{side}_l0"), getattr(self.rnn, f"bias_{side}_l0")
        return weight, bias

    def _make_rnn(self) -> nn.GRU | nn.LSTM:
        raise NotImplementedError

    def _step(self, gates: Tensor, asks: Tensor | None, state: State) -> State:
        raise NotImplementedError

    def _without_memory(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
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


class AESG_GRU(MemoryRNN[Tensor]):
    """GRU that reads a memory: forward(x [B, I], h_prev [B, H]) -> h [B, H]; `sequence` for all steps."""

    gates = 3

    def _make_rnn(self) -> nn.GRU:
        return nn.GRU(self.input_size, self.hidden_size, batch_first=True)

    def _step(self, gates: Tensor, asks: Tensor | None, state: Tensor) -> Tensor:
        width = self.hidden_size
        given = self._gates(gates, asks, state)  # [B, 3H]: reset, update, new
        recurrent = F.linear(state, *self._weights("hh"))
        reset, update = (given[:, : 2 * width] + recurrent[:, : 2 * width]).sigmoid().chunk(2, dim=1)
        new = torch.addcmul(given[:, 2 * width :], reset, recurrent[:, 2 * width :]).tanh()
        return torch.lerp(new, state.to(new.dtype), update)  # (1 - z) n + z h

    def _without_memory(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        outputs, last = run_plain(self.rnn, x, None if state is None else state.unsqueeze(0))
        return outputs, last.squeeze(0)

    def _check_state(self, state: Tensor, batch: int) -> None:
        check_shape("h_prev", state, batch, self.hidden_size)

    def zeros(self, batch: int, device: torch.device) -> Tensor:
        return torch.zeros(batch, self.hidden_size, device=device)

    @staticmethod
    def output_of(state: Tensor) -> Tensor:
        return state


class AESG_LSTM(MemoryRNN[tuple[Tensor, Tensor]]):
    """LSTM that reads a memory: forward(x [B, I], (h, c)) -> (h, c), [B, H] each; `sequence` for all."""

    gates = 4

    def _make_rnn(self) -> nn.LSTM:
        return nn.LSTM(self.input_size, self.hidden_size, batch_first=True)

    def _step(
        self, gates: Tensor, asks: Tensor | None, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        hidden, cell = state
        given = self._gates(gates, asks, hidden)  # [B, 4H]: input, forget, new, output
        total = given + F.linear(hidden, *self._weights("hh"))
        into, forget, new, out = total.chunk(4, dim=1)
        cell = torch.addcmul(forget.sigmoid() * cell.to(new.dtype), into.sigmoid(), new.tanh())
        return out.sigmoid() * cell.tanh(), cell

    def _without_memory(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        before = None if state is None else (state[0].unsqueeze(0), state[1].unsqueeze(0))
        outputs, (hidden, cell) = run_plain(self.rnn, x, before)
        return outputs, (hidden.squeeze(0), cell.squeeze(0))

    def _check_state(self, state: tuple[Tensor, Tensor], batch: int) -> None:
        for name, part in zip(("h", "c"), state, strict=True):
            check_shape(name, part, batch, self.hidden_size)

    def zeros(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        hidden, cell = torch.zeros(2, batch, self.hidden_size, device=device)
        return hidden, cell

    @staticmethod
    def output_of(state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0]


def run_plain(rnn: nn.GRU | nn.LSTM, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """torch's own recurrent layer on x [B, T, I], in its weights' precision also under autocast.

    Its fused kernels take all arguments in one dtype, which autocast does not see to on every device.
    """
    with torch.autocast(x.device.type, enabled=False):
        dtype = next(rnn.parameters()).dtype
        if state is not None:
            state = tuple(part.to(dtype) for part in state) if isinstance(state, tuple) else state.to(dtype)
        return rnn(x.to(dtype), state)
