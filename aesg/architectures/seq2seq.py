"""AESGSeq2Seq: a GRU encoder and a GRU decoder that asks its memory about every token it is given.

Letters: B sequences, S source tokens, T target tokens, V vocabulary, H hidden size, W beams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aesg.architectures.base import check_positive, check_tokens
from aesg.architectures.text_model import RecurrentStack, TextModel, run_plain
from aesg.exceptions import AESGConfigError, AESGMemoryError
from aesg.nn.evaluating import evaluating
from aesg.nn.memory_layer import one_call
from aesg.nn.rnn import AESG_GRU
from aesg.nn.token_codes import LAGS, TokenCodes

if TYPE_CHECKING:
    from aesg.memory.controller import AESGMemory


class AESGSeq2Seq(TextModel):
    """Source [B, S] and target [B, T] to logits [B, T, V].

    The encoder is a plain GRU of `num_layers`; its last states begin the decoder, as many layers of GRU, of
    which the last is an AESG_GRU. The decoder begins with an embedding of its own, not with a token.

    With a target it is given the tokens before the one to predict (teacher forcing). Without, its own best
    guess (greedy). `decode` gives the tokens themselves, by beam search if asked for.

    The memory is asked as if source and target were one text: the first step with the end of the source, each
    other with the target token before the one to predict, and with those before them. No query waits for a
    state, so a given target costs one retrieval.
    `memory=None` is the plain model with the same other weights.
    """

    takes_target = True  # a trainer calls model(source, target)

    def __init__(self, vocab_size: int, hidden_size: int, num_layers: int, memory: AESGMemory | None) -> None:
        super().__init__(vocab_size, hidden_size, num_layers, memory)
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.begin = nn.Parameter(torch.randn(hidden_size))  # as nn.Embedding draws its rows
        self.encoder = nn.GRU(hidden_size, hidden_size, num_layers, batch_first=True)
        self.decoder = RecurrentStack(nn.GRU, AESG_GRU, hidden_size, num_layers, memory)
        self.output_proj = nn.Linear(hidden_size, vocab_size)
        self.codes = None if memory is None else TokenCodes(vocab_size, memory.vector_dim)

    def forward(self, src: Tensor, tgt: Tensor | None = None, max_length: int | None = None) -> Tensor:
        """Logits [B, T, V]: of `tgt` [B, T], or of `max_length` greedy steps (default: the source's length).

        Raises AESGMemoryError for anything but integer ids in [0, V) of rank 2 and one batch size.
        """
        states = self._encode(src)
        if tgt is not None:
            check_tokens(tgt, self.vocab_size)
            if len(tgt) != len(src):
                raise AESGMemoryError(
                    f"Expected as many targets as sources, got shapes {list(tgt.shape)} and {list(src.shape)}"
                )
            given = tgt[:, :-1].long()  # [B, T-1]
            x = torch.cat((self._begin(len(src)), self.embedding(given)), dim=1)  # [B, T, H]
            hidden, _ = self._decode(x, states, torch.cat((_end_of(src), given), dim=1))
            return self.output_proj(hidden)
        length = src.shape[1] if max_length is None else max_length
        check_positive(max_length=length)
        logits, x, text = [], self._begin(len(src)), _end_of(src)
        with one_call(self.memory):
            for _ in range(length):
                hidden, states = self._decode(x, states, text)
                logits.append(self.output_proj(hidden))  # [B, 1, V]
                best = logits[-1].argmax(-1)  # [B, 1]
                x, text = self.embedding(best), _end_of(text, best)
        return torch.cat(logits, dim=1)

    @torch.no_grad()
    def decode(
        self, src: Tensor, max_length: int | None = None, *, beam_size: int = 1, eos: int | None = None
    ) -> Tensor:
        """Target tokens [B, <= max_length] (default: the source's length) of the source [B, S].

        beam_size: the likeliest sequence among W kept at every step; 1 is greedy. A sequence that came to
        `eos` is filled up with it; when all did, the result ends there. The memory is only read.
        Raises AESGConfigError for options out of range. O(W V) a step and sequence.
        """
        length = max_length
        if length is None and isinstance(src, Tensor) and src.dim() == 2:
            length = src.shape[1]
        check_positive(beam_size=beam_size, max_length=length or 0 if max_length is not None else 1)
        if eos is not None and not 0 <= eos < self.vocab_size:
            raise AESGConfigError(f"eos must be a token id in [0, {self.vocab_size}) or None, got {eos}")
        with evaluating(self), self.reading_only():
            return self._beam_search(src, length, beam_size, eos)

    def _beam_search(self, src: Tensor, length: int | None, beams: int, eos: int | None) -> Tensor:
        """Keeps the W likeliest beginnings of each sequence. Rows b*W .. b*W+W-1 belong to sequence b."""
        states = _rows(self._encode(src), torch.arange(len(src)).repeat_interleave(beams))
        batch, device = len(src), src.device
        first = torch.arange(batch, device=device)[:, None] * beams  # [B, 1], each sequence's first row
        scores = torch.full((batch, beams), -torch.inf, device=device)  # [B, W] log probabilities
        scores[:, 0] = 0.0  # all beams are equal yet: one goes on
        tokens = torch.empty(batch * beams, 0, dtype=torch.long, device=device)  # [B W, t]
        ended = torch.zeros(batch * beams, dtype=torch.bool, device=device)
        x, text = self._begin(batch * beams), _end_of(src).repeat_interleave(beams, dim=0)
        for _ in range(length or src.shape[1]):
            hidden, states = self._decode(x, states, text)
            gains = self.output_proj(hidden[:, 0]).float().log_softmax(-1)  # [B W, V]
            if eos is not None:  # what has ended goes on with eos, for free
                gains[ended] = -torch.inf
                gains[ended, eos] = 0.0
            totals = (scores.view(-1, 1) + gains).view(batch, -1)  # [B, W V]
            scores, best = totals.topk(beams, dim=1)
            parents = (first + best // self.vocab_size).flatten()  # [B W]
            drawn = (best % self.vocab_size).flatten()
            tokens = torch.cat((tokens[parents], drawn[:, None]), dim=1)
            states, x = _rows(states, parents), self.embedding(drawn)[:, None]
            text = _end_of(text[parents], drawn[:, None])
            if eos is not None:
                ended = ended[parents] | (drawn == eos)
                if bool(ended.all()):
                    break
        return tokens[first[:, 0]]  # topk puts the likeliest first

    def _encode(self, src: Tensor) -> Any:
        """The states of the decoder's layers after the source, as RecurrentStack takes them."""
        check_tokens(src, self.vocab_size)
        _, last = run_plain(self.encoder, self.embedding(src.long()), None)  # [layers, B, H]
        return (last[:-1].contiguous() if self.num_layers > 1 else None), last[-1]

    def _decode(self, x: Tensor, states: Any, text: Tensor) -> tuple[Tensor, Any]:
        """Hidden states [B, T, H] and the last of each layer, for x [B, T, H], which stands for the last T
        tokens of `text` [B, >= T]; those before them are what came before the first step."""
        said = self.said(text) if self.reads_memory else None
        said = None if said is None else said[:, -x.shape[1] :]
        return self.decoder(x, states, read=self.reads_memory, said=said)

    def _begin(self, batch: int) -> Tensor:
        return self.begin.expand(batch, 1, -1)  # [B, 1, H]


def _rows(states: Any, rows: Tensor) -> Any:
    """The states [layers, B, H] and [B, H] of other rows of the batch."""
    below, top = states
    rows = rows.to(top.device)
    return (None if below is None else below[:, rows].contiguous()), top[rows]


def _end_of(*parts: Tensor) -> Tensor:
    """As many of the last tokens of these, one behind the other, [B, <= LAGS + 1] i64 as a query tells of."""
    return torch.cat([part.long() for part in parts], dim=1)[:, -LAGS - 1 :]
