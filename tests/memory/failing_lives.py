"""Random lives in which the device, what comes from it and who waits for it fail now and then."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aesg.exceptions import AESGError, AESGNavigationError
from aesg.graph import awaited, device_learning
from aesg.graph.device_copy import DeviceCopy
from aesg.graph.device_groups import Groups
from aesg.graph.device_learning import DeviceLearning
from aesg.memory import device_streams, learning
from aesg.memory.controller import AESGMemory
from tests.memory.lives import Life, told

OPS = (
    (device_learning, "pool_novelty_"), (device_learning, "bear_"), (device_learning, "follow_"),
    (device_learning, "count_use_"), (device_learning, "consolidate_"), (device_learning, "retire_"),
    (device_streams, "keep_primary_"), (device_streams, "note_succession_"), (torch, "cat"),
    (awaited, "_Transfer"), (Tensor, "new_full"), (Groups, "_allocated"),
)  # fmt: skip


class FailingLife(Life):
    """What fails there is as if it had not been asked, and is asked once more; or it is learnt all the
    same.
    """

    def some_act(self) -> Callable[[AESGMemory], Any]:
        """Anything, with all that it needs drawn now."""
        query, which = self.query(self.small(6)), int(self.random.integers(9))
        ids = self.random.integers(1, 12, 2)
        batch = self.query(3, 1)

        def one_call(memory: AESGMemory) -> Any:
            with memory.one_call():
                return told(memory.retrieve(batch)) + told(memory.retrieve(query))

        def with_gradient(memory: AESGMemory) -> Any:
            asked = query.clone().requires_grad_()
            answer = checkpoint(lambda q: memory.retrieve(q).aggregate(), asked, use_reentrant=False)
            answer.sum().backward()
            return [answer.detach()]

        def forget(memory: AESGMemory) -> Any:
            return [memory.forget(ids=ids)]

        acts: list[Callable[[AESGMemory], Any]] = [
            lambda memory: told(memory.retrieve(query)),
            lambda memory: told(memory.retrieve(query, learn=False)),
            lambda memory: told(memory.retrieve(query[0], 3)),
            one_call,
            with_gradient,
            lambda memory: memory.update_topology() or [],
            lambda memory: memory.reset_state([0]) or [],
            lambda memory: memory.set_mode("ONLINE") or [],
            forget,
        ]  # fmt: skip
        return acts[which]

    def insisted(self, memory: AESGMemory, acts: list[Callable[[AESGMemory], Any]], *kinds: type) -> Any:
        """Each done, once more where it failed so."""
        said: list[Any] = []
        for act in acts:
            for _ in range(300):
                try:
                    said += act(memory)
                    break
                except kinds:
                    continue
                except AESGError as error:  # of the act itself
                    said.append(str(error))
                    break
            else:
                raise AssertionError("fails for ever")
        return said

    def device_fails(self, memory: AESGMemory) -> Any:
        where, name = OPS[self.random.integers(len(OPS))]
        acts = [self.some_act() for _ in range(self.small(4))]
        after, left = bool(self.random.random() < 0.5), self.small(4)
        op = getattr(where, name)

        def fail(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            state = memory._state.awaited
            if state is not None and not state.taking and not Life.on_host:
                left -= 1
                if left == 0:
                    if after:
                        op(*args, **kwargs)
                    raise torch.OutOfMemoryError("there")
            return op(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not Life.on_host and memory.graph.copied.learning is not None:
                patch.setattr(where, name, fail)
            return self.insisted(memory, acts, torch.OutOfMemoryError)

    def lose_behind_anything(self, memory: AESGMemory) -> Any:
        """As `lose_a_call`, whatever was asked behind; what that answered is another's."""
        lost, acts = self.query(self.small(5)), [self.some_act() for _ in range(self.small(5))]
        lost += float(self.random.normal()) * 0.01  # no other is equal
        refuse, waiting = learning.require_finite, [lost]
        looks = bool(self.random.random() < 0.3)

        def require_finite(copies: Any) -> None:
            if waiting and torch.equal(copies[0], waiting[0]):
                waiting.clear()
                raise AESGNavigationError("lost")
            refuse(copies)

        memory.navigator.check(lost, memory._learner.streams, 0)  # streams grow by what is refused, too
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learning, "require_finite", require_finite)
            if not Life.on_host:
                if memory.graph.copied.learning is None and memory._state.awaited:
                    memory._state.settle()
                memory.retrieve(lost)
            self.insisted(memory, acts, AESGNavigationError)
            if looks:
                self.insisted(memory, [lambda memory: [memory.storage]], AESGNavigationError)
            self.insisted(memory, [lambda memory: memory._state.settle() or []], AESGNavigationError)
        return []

    def not_finite(self, memory: AESGMemory) -> Any:
        """As a GPU has it: rows that are not finite find nothing and teach nothing there."""
        query, acts = self.query(self.small(5) + 1), [self.some_act() for _ in range(self.small(4))]
        query[self.small(len(query)) - 1, 0] = float("nan")
        search, bear = DeviceCopy.search, DeviceLearning.bear

        def finite(rows: Tensor) -> Tensor:
            return torch.where(torch.isfinite(rows).all(dim=1, keepdim=True), rows, 0.0)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DeviceCopy, "search", lambda own, rows, *rest: search(own, finite(rows), *rest))
            patch.setattr(DeviceLearning, "bear", lambda own, rows, *rest: bear(own, finite(rows), *rest))
            memory.graph.add_concepts(self.query(1))
            with contextlib.suppress(AESGNavigationError):
                memory.retrieve(query)
            self.insisted(memory, acts, AESGNavigationError)
            self.insisted(memory, [lambda memory: memory._state.settle() or []], AESGNavigationError)
        return []

    def interrupted_waiting(self, memory: AESGMemory) -> Any:
        acts, left = [self.some_act() for _ in range(self.small(4))], self.small(3)
        arrived = awaited._Transfer.arrived

        def interrupted(transfer: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return arrived(transfer)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(awaited._Transfer, "arrived", interrupted)
            return self.insisted(
                memory, [*acts, lambda memory: [memory.storage.node_count]], KeyboardInterrupt
            )

    def collected_meanwhile(self, memory: AESGMemory) -> Any:
        """Somebody else's memory is collected in the middle of calls, and settles what it shares."""
        acts, left = [self.some_act() for _ in range(self.small(4))], self.small(9)
        where, name = OPS[self.random.integers(len(OPS))]
        op = getattr(where, name)

        def settle(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                memory._state.settle_at_the_end()
            return op(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(where, name, settle)
            return self.insisted(memory, acts)

    def keep_streams(self, memory: AESGMemory) -> Any:
        kept = memory.active_state
        said = told(memory.retrieve(self.query(3)))
        kept.reset([0])
        return said + told(memory.retrieve(self.query(3)))

    SELDOM = (
        *Life.SELDOM, *(["device_fails"] * 3), *(["lose_behind_anything"] * 3), *(["not_finite"] * 3),
        *(["interrupted_waiting"] * 3), *(["collected_meanwhile"] * 3), "keep_streams",
    )  # fmt: skip
