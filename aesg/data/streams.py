"""StreamLoader: long texts read in order by parallel streams, as a memory with streams wants them.

Letters: B streams, T tokens a chunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aesg.exceptions import AESGTrainingError

IGNORED_TARGET = -100  # CrossEntropyLoss skips it


class StreamBatch(NamedTuple):
    """One step of all streams: row b continues row b of the batch before, unless `begins[b]`."""

    inputs: Tensor  # [B, T] i64
    targets: Tensor  # [B, T] i64, the token that follows; -100 where nothing does
    begins: Tensor  # [B] bool


class StreamLoader:
    """Reads texts from their first token to their last, B at a time, T tokens a step.

    Each stream reads one text to its end and then takes the next one that nobody has begun. A text starts at
    the start of a chunk; its last chunk is filled up with `pad` whose targets are ignored. With `drop_last`
    the pass ends when a stream finds no text left (every batch is full); without, until all texts are read,
    rows without a text being filled with `pad`.

    texts: bytes, or integer sequences or tensors [L]; those shorter than two tokens are passed over.
    shuffle: a new order of texts each pass, drawn from (`seed`, pass). `max_steps` ends a pass early.
    `state_dict()` holds pass and step: a loader loaded with it goes on with the batch that would have come
    next.

    Raises AESGTrainingError for sizes below 1 or no usable text.
    """

    def __init__(
        self,
        texts: Sequence[Any],
        batch_size: int = 16,
        chunk: int = 256,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        max_steps: int | None = None,
        pad: int = 0,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("chunk", chunk), ("max_steps", max_steps)):
            if value is not None and value < 1:
                raise AESGTrainingError(f"{name} must be >= 1, got {value}")
        self.texts = [text for text in map(_as_tokens, texts) if len(text) >= 2]
        if len(self.texts) < (batch_size if drop_last else 1):
            raise AESGTrainingError(
                f"Expected at least {batch_size if drop_last else 1} texts of two tokens or more, "
                f"got {len(self.texts)}"
            )
        self.batch_size = batch_size
        self.chunk = chunk
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.max_steps = max_steps
        self.pad = pad
        self.passes = 0
        self._steps_to_skip = 0
        self._step = 0
        self._reader: object | None = None  # of the pass under way

    def __len__(self) -> int:
        """Steps of the pass that comes next."""
        return sum(1 for _ in itertools.islice(self._plan(self.passes), self.max_steps))

    def __iter__(self) -> Iterator[StreamBatch]:
        skip, self._steps_to_skip = self._steps_to_skip, 0
        self._step = 0
        self._reader = reader = object()
        try:
            for rows in self._plan(self.passes):
                if self.max_steps is not None and self._step >= self.max_steps:
                    break
                self._step += 1
                if self._step > skip:
                    yield self._batch(rows)
            self.passes += 1
        finally:  # also where a pass is left early: the next one begins at its start
            if self._reader is reader:
                self._step = 0

    def state_dict(self) -> dict[str, int]:
        return {"passes": self.passes, "step": self._step or self._steps_to_skip}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.passes, self._steps_to_skip = int(state["passes"]), int(state["step"])
        self._step = 0

    def _plan(self, number: int) -> Iterator[list[tuple[int, int] | None]]:
        """For each step and stream: (text, offset) or None when the stream has nothing to read."""
        order = list(range(len(self.texts)))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            order = torch.randperm(len(order), generator=generator).tolist()
        waiting = iter(order)
        rows: list[tuple[int, int] | None] = [None] * self.batch_size
        while True:
            for b, row in enumerate(rows):
                if row is not None and row[1] + self.chunk < len(self.texts[row[0]]) - 1:
                    rows[b] = (row[0], row[1] + self.chunk)
                else:
                    text = next(waiting, None)
                    rows[b] = None if text is None else (text, 0)
            if all(row is None for row in rows) or (self.drop_last and None in rows):
                return
            yield list(rows)

    def _batch(self, rows: list[tuple[int, int] | None]) -> StreamBatch:
        inputs = torch.full((self.batch_size, self.chunk), self.pad)
        targets = torch.full((self.batch_size, self.chunk), IGNORED_TARGET)
        begins = torch.zeros(self.batch_size, dtype=torch.bool)
        for b, row in enumerate(rows):
            if row is None:
                begins[b] = True
                continue
            text, offset = self.texts[row[0]], row[1]
            piece = text[offset : offset + self.chunk + 1].long()
            count = len(piece) - 1
            inputs[b, :count] = piece[:-1]
            targets[b, :count] = piece[1:]
            begins[b] = offset == 0
        return StreamBatch(inputs, targets, begins)


def _as_tokens(text: Any) -> Tensor:
    """[L] integer tensor; bytes become uint8, so a corpus in memory costs its size on disk."""
    if isinstance(text, (bytes, bytearray)):
        return torch.frombuffer(bytearray(text) or bytearray(1), dtype=torch.uint8)[: len(text)]
    tokens = torch.as_tensor(text)
    if tokens.dim() != 1 or tokens.is_floating_point():
        raise AESGTrainingError(
            "Expected texts as bytes or integer sequences [L], "
            f"got shape {list(tokens.shape)} of {tokens.dtype}"
        )
    return tokens
