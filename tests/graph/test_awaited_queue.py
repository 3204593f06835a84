"""The queue of what devices answered: order, room, errors."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError
from aesg.graph import awaited
from aesg.graph.awaited import Awaited


def test_what_is_sent_comes_back_as_it_was() -> None:
    queue, came = Awaited(), []
    parts = (
        torch.randn(3, 5), torch.randint(-(1 << 60), 1 << 60, (3, 4)), torch.randn(3, 0),
        torch.randn(8, 3).T, torch.randint(0, 9, (3,)),
    )  # fmt: skip
    queue.send(parts, lambda copies, behind: came.extend(copies), changes_graph=False)
    assert queue and not came
    queue.settle()
    assert not queue
    assert all(
        torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(parts, came, strict=True)
    )


def test_order_errors_and_settling_from_inside() -> None:
    queue, seen = Awaited(), []

    def take(copies: list[torch.Tensor], behind: bool) -> None:
        queue.settle()  # does nothing here
        seen.append(int(copies[0]))
        if seen[-1] == 1:
            raise AESGMemoryError("one")

    for number in range(4):
        queue.send([torch.tensor([number])], take, changes_graph=number == 3)
    assert queue.changes_graph
    with pytest.raises(AESGMemoryError, match="one"):
        queue.settle()
    assert seen == [0, 1]  # what lies behind the failed call is kept
    queue.settle()
    assert seen == [0, 1, 2, 3] and not queue and not queue.changes_graph


def test_the_oldest_are_taken_in_when_there_are_too_many(monkeypatch) -> None:
    queue, seen = Awaited(), []

    def send(number: int, count: int) -> None:
        queue.make_room()
        queue.send(
            [torch.full((count,), number)],
            lambda copies, behind: seen.append(int(copies[0][0])),
            changes_graph=False,
        )

    monkeypatch.setattr(awaited, "MOST_ROWS", 10)
    for number in range(6):
        send(number, 4)
    assert seen == [0, 1, 2] and len(queue._queue) == 3
    send(6, 400)
    assert seen == [0, 1, 2, 3]
    send(7, 400)
    assert seen == [0, 1, 2, 3, 4, 5] and queue  # one is always on its way
    monkeypatch.setattr(awaited, "MOST_CALLS", 2)
    queue, seen = Awaited(), []
    for number in range(5):
        send(number, 1)
    assert seen == [0, 1, 2]


def test_what_is_behind_a_failure_hears_of_it(monkeypatch) -> None:
    queue, behind_failure = Awaited(), []

    def fail(copies: list[torch.Tensor], behind: bool) -> None:
        raise AESGMemoryError("no")

    def send(take, failures_before: int | None = None) -> None:
        queue.send([torch.zeros(1)], take, changes_graph=True, failures_before=failures_before)

    def note(copies: list[torch.Tensor], behind: bool) -> None:
        behind_failure.append(behind)

    send(note)
    send(fail)
    send(note)
    queue.defer(lambda: None, changes_graph=True)
    send(note)
    with pytest.raises(AESGMemoryError, match="no"):
        queue.settle()
    send(note)
    send(note, failures_before=0)  # answered before the failure, sent after it
    queue.settle()
    assert behind_failure == [False, True, True, False, True]
    for gone in (True, False):
        queue.defer(lambda: 1 // 0, changes_graph=True)
        send(note)
        if gone:  # nothing has to come of what is deferred
            monkeypatch.setattr(awaited._Transfer, "arrived", lambda transfer: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            queue.settle()
        if gone:
            with pytest.raises(ZeroDivisionError):
                queue.settle()
            monkeypatch.undo()
    queue.settle()
    assert behind_failure[5:] == [True] and queue.failures == 4


def test_who_interrupts_the_waiting_loses_nothing(monkeypatch) -> None:
    queue, seen = Awaited(), []
    queue.send([torch.tensor([1])], lambda copies, behind: seen.append(int(copies[0])), changes_graph=True)
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(awaited._Transfer, "arrived", interrupted)
        queue.settle()
    assert queue and seen == []
    queue.settle()
    assert seen == [1] and not queue


@pytest.mark.parametrize("where", ["append", "popleft", "take"])
def test_who_is_interrupted_elsewhere_leaves_nothing_wrong(where) -> None:
    """What was taken from the queue is lost as a whole, and those behind hear of it."""
    seen: list[object] = []
    left = iter([where])

    class Interrupting(deque):
        def append(self, sent: object) -> None:
            super().append(sent)
            interrupt("append")

        def popleft(self) -> object:
            sent = super().popleft()
            interrupt("popleft")
            return sent

    def interrupt(here: str) -> None:
        if where == here and next(left, None):
            raise KeyboardInterrupt

    def take(copies: list[Tensor], behind: bool) -> None:
        interrupt("take")
        seen.append(behind)

    queue = Awaited()
    queue._queue = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        queue.send([torch.zeros(1)], take, changes_graph=True, lost=lambda: seen.append("lost"))
        queue.settle()
    assert seen == ([] if where == "append" else ["lost"])
    assert bool(queue) == queue.changes_graph or where == "popleft"
    queue.send([torch.zeros(1)], take, changes_graph=True, failures_before=0)
    queue.settle()
    assert seen == ([False, False] if where == "append" else ["lost", True])
    assert queue.changing == 0 == queue._rows and not queue.taking


def interrupted(transfer: object) -> list[Tensor]:
    raise KeyboardInterrupt


def test_what_will_never_come_is_given_up(monkeypatch) -> None:
    def lost(transfer: object) -> list[Tensor]:
        raise RuntimeError("the device is gone")

    queue = Awaited()
    queue.send([torch.tensor([1])], lambda copies, behind: None, changes_graph=True)
    monkeypatch.setattr(awaited._Transfer, "arrived", lost)
    with pytest.raises(RuntimeError, match="is gone"):
        queue.settle()
    assert not queue
