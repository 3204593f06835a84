"""Random lives of a memory, with a copy that learns ahead and without one."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aesg.config import AESGConfig
from aesg.exceptions import AESGError, AESGNavigationError
from aesg.memory import learning
from aesg.memory.controller import AESGMemory
from tests.graph.test_device_learning import assert_same_as_store

MODES = ("TRAIN", "FINETUNE", "INFERENCE", "ONLINE")
CHOICES: dict[str, tuple[Any, ...]] = {
    "vector_dim": (1, 2, 3, 8, 16, 33, 64),
    "max_concepts": (1, 3, 20, 60, 1_000_000),
    "consolidation_epoch_interval": (1, 2, 5, 9),
    "region_detection_interval": (1, 3, 50),
    "survival_threshold_relevance": (0.0, 0.05, 0.9, 1.0),
    "survival_threshold_frequency": (1, 5),
    "prune_min_age": (1, 5),
    "prune_confidence_threshold": (0.0, 0.1, 0.6),
    "merge_similarity_threshold": (0.95, 0.5, 1.0),
    "coactivation_threshold_create": (2, 50),
    "split_density_threshold": (4, 800),
    "novelty_explanation_threshold": (0.0, 0.3, 0.6, 0.9, 1.0),
    "novelty_birth_threshold": (1, 2, 3),
    "novelty_pool_size": (1, 2, 5, 64),
    "seed_top_k": (1, 4, 9),
    "context_size": (1, 2, 10),
    "seed_min_similarity": (0.0, 0.1, 0.5),
    "priming": (0.0, 0.5, 1.0),
    "link_count": (1, 4, 20),
    "link_min_similarity": (0.0, 0.2, 0.5),
    "edge_initial_confidence": (0.0, 0.5, 1.0),
    "edge_fade": (0.5, 0.999),
    "succession_rate": (0.0, 0.3, 1.0),
    "succession_yield": (0.0, 0.7, 1.0),
    "coactivation_rate": (0.0, 0.05, 1.0),
    "relevance_gain": (0.0, 0.1, 1.0),
    "relevance_decay": (0.0, 0.95, 1.0),
    "query_collapse_threshold": (0.3, 0.9, 1.0),
    "region_facilitation_multiplier": (1.5, 0.5),
    "memory_mode": MODES,
}


class Life:
    """One or two memories on a directory, and what they said. Everything is drawn from the seed alone."""

    on_host = True  # what is asked now is asked there

    def __init__(self, directory: Path, seed: int, copies: bool, fields: dict[str, Any]) -> None:
        self.random = np.random.default_rng(seed)
        self.copies, self.now = copies, 1000.0
        self.config = AESGConfig(**fields)
        self.directory = directory
        self.said: list[tuple[str, Any]] = []
        self.memories = [self.opened()]
        patterns = torch.from_numpy(self.random.standard_normal((40, self.config.vector_dim)))
        if self.random.random() < 0.3:  # all alike
            patterns += 3 * patterns[0]
        self.patterns = patterns.float()
        self.waited = self.checked = 0

    def opened(self) -> AESGMemory:
        memory = AESGMemory(self.directory / "m", self.config, clock=lambda: self.now)
        self.use_copy(memory, self.random.choice(["device", "device", "device", "host"]))
        return memory

    def use_copy(self, memory: AESGMemory, residency: str | None) -> None:
        if self.copies:
            memory.graph.use_copy(None if residency is None else "cpu", residency or "device")

    def query(self, *lead: int) -> Tensor:
        which = torch.from_numpy(self.random.integers(0, len(self.patterns), lead))
        noise = torch.from_numpy(self.random.standard_normal((*lead, self.config.vector_dim))).float()
        rows = self.patterns[which] + self.random.choice([0.0, 0.05, 0.5]) * noise
        if self.random.random() < 0.1:
            rows = torch.where(torch.from_numpy(self.random.random((*lead, 1))) < 0.3, 0.0, rows)
        return rows.float()

    def small(self, most: int) -> int:
        return int(self.random.integers(1, most + 1))

    # -- what may happen: each returns what is to be compared -----------------------------------------------

    def ask(self, memory: AESGMemory) -> Any:
        shape = [(), (self.small(7),), (self.small(4), self.small(5))][self.random.integers(3)]
        learn, batch_idx = bool(self.random.random() < 0.8), int(self.random.integers(0, 6))
        return told(memory.retrieve(self.query(*shape), batch_idx, learn=learn))

    def ask_many(self, memory: AESGMemory) -> Any:
        return told(memory.retrieve(self.query(self.small(120))))

    def ask_quietly(self, memory: AESGMemory) -> Any:
        with torch.inference_mode() if self.random.random() < 0.5 else torch.no_grad():
            return told(memory.retrieve(self.query(3)))

    def ask_with_gradient(self, memory: AESGMemory) -> Any:
        query = self.query(self.small(5)).requires_grad_()
        if self.random.random() < 0.5:
            answer = memory.retrieve(query).aggregate()
        else:
            answer = checkpoint(
                lambda q: memory.retrieve(q).aggregate(), query,
                use_reentrant=bool(self.random.random() < 0.5),
            )  # fmt: skip
        if self.random.random() < 0.3:
            self.ask(memory)
        answer.square().sum().backward()
        assert query.grad is not None
        return [answer.detach(), query.grad]

    def ask_in_one_call(self, memory: AESGMemory) -> Any:
        answers: list[Any] = []
        traced, batch = bool(self.random.random() < 0.5), self.small(4)
        plan = self.random.random()
        with memory.one_call(traced):
            for step in range(self.small(5)):
                if plan < 0.5:
                    answers += told(memory.retrieve(self.query(batch, 1)))
                elif plan < 0.7:
                    answers += told(memory.retrieve(self.query(batch + step)))
                else:
                    with memory.one_call(not traced):
                        answers += self.ask(memory)
            if plan < 0.5 and traced:
                steps = len(answers) // 4
                query = self.query(batch, steps).requires_grad_()
                again = memory.retrieve_again(query)
                answers += [*told(again), *torch.autograd.grad(again.weights.sum(), query)]
            if plan > 0.9:
                raise AESGError("given up")
        return answers

    def change_within_a_call(self, memory: AESGMemory) -> Any:
        answers: list[Any] = []
        with memory.one_call():
            answers += told(memory.retrieve(self.query(3)))
            act = self.random.choice(["forget", "forget_and_add", "add", "update"])  # type: ignore[arg-type]
            if act.startswith("forget"):
                answers += self.forget(memory)
            if act.endswith("add"):
                answers += self.add(memory)
            if act == "update":
                memory.update_topology()
            answers += told(memory.retrieve(self.query(3)))
        return answers

    def end_streams(self, memory: AESGMemory) -> Any:
        which = [None, [0], [1, 3], [99], [-1], "no", np.array([0, 2]), torch.tensor([1])]
        memory.reset_state(which[self.random.integers(len(which))])  # type: ignore[arg-type]
        return []

    def set_streams(self, memory: AESGMemory) -> Any:
        memory.active_state = type(memory.active_state)()
        return []

    def look_at_streams(self, memory: AESGMemory) -> Any:
        return [str(memory.active_state.to_state())]

    def update(self, memory: AESGMemory) -> Any:
        memory.update_topology()
        return []

    def save(self, memory: AESGMemory) -> Any:
        memory.save()
        return []

    def stats(self, memory: AESGMemory) -> Any:
        gone = (
            "retrieval_seconds",
            "topology_seconds",
            "query_effective_rank",
            "mean_explanation",
            "query_resultant",
        )  # sums in another order
        return [str({name: value for name, value in memory.stats().items() if name not in gone})]

    def switch_mode(self, memory: AESGMemory) -> Any:
        memory.set_mode(MODES[self.random.choice(4, p=[0.4, 0.2, 0.1, 0.3])])
        return []

    def forget(self, memory: AESGMemory) -> Any:
        if self.random.random() < 0.5:
            return [memory.forget(query=self.query(), radius=float(self.random.choice([0.05, 0.3])))]
        count = max(1, memory.storage.node_count)
        ids = self.random.integers(1, count + 1, self.small(3))
        return [memory.forget(ids=ids)]

    def give_vector(self, memory: AESGMemory) -> Any:
        memory.update_concept(int(self.random.integers(0, 12)), self.query())
        return []

    def add(self, memory: AESGMemory) -> Any:
        return [memory.graph.add_concepts(self.query(self.small(4)))]

    def add_many(self, memory: AESGMemory) -> Any:
        return [memory.graph.add_concepts(self.query(self.small(1400)))]

    def link(self, memory: AESGMemory) -> Any:
        ends = self.random.integers(0, 12, (2, 3))
        return [memory.graph.add_edges(ends[0], ends[1], [0.5, 0.9, 1.0], [0.2, 0.5, 1.0])]

    def assign(self, memory: AESGMemory) -> Any:
        name = str(self.random.choice(["relevance", "age", "use_frequency"]))
        memory.storage.nodes[name][int(self.random.integers(0, 12))] = int(self.random.integers(0, 2))
        return []

    def move_relevance(self, memory: AESGMemory) -> Any:
        memory.graph.update_relevance(int(self.random.integers(0, 12)), float(self.random.normal()))
        return []

    def bear(self, memory: AESGMemory) -> Any:
        engine = memory.cognitive_engine
        if self.random.random() < 0.5:
            return [engine.create_sensory_concept(self.query())]
        return [engine.create_abstract_concept(self.random.integers(0, 12, 2))]

    def observe(self, memory: AESGMemory) -> Any:
        return [memory.cognitive_engine.observe_novelty(self.query(self.small(4)))]

    def merge_or_split(self, memory: AESGMemory) -> Any:
        engine, slots = memory.cognitive_engine, self.random.integers(0, 12, 2).tolist()
        return [
            engine.merge_concepts(*slots) if self.random.random() < 0.5 else engine.split_concept(slots[0])
        ]

    def by_hand(self, memory: AESGMemory) -> Any:
        engine = memory.cognitive_engine
        acts: list[Callable[[], Any]] = [
            engine.consolidate, engine.sweep, engine.apply_evolutionary_pressure, engine.find_semantic_regions
        ]  # fmt: skip
        return [str(acts[self.random.integers(len(acts))]())]

    def snapshot(self, memory: AESGMemory) -> Any:
        memory.snapshot(self.directory / f"s{self.small(3)}")
        return []

    def restore(self, memory: AESGMemory) -> Any:
        memory.restore(self.directory / f"s{self.small(3)}")
        return []

    def compact(self, memory: AESGMemory) -> Any:
        memory.compact()
        return []

    def packed(self, memory: AESGMemory) -> Any:
        path = self.directory.parent / "p.aesgpack"  # the directory remembers where it lies
        if self.random.random() < 0.4:
            memory.export_pack(path, name="p", format_version=2)
            return [path.read_bytes()]
        if self.random.random() < 0.5:
            pack = memory.load_pack(path)
            born = memory.absorb(pack)
            return [born.born, born.merged, born.edges, born.slots]
        elif memory.pack_manager.in_use:
            memory.detach_pack("p")
        else:
            memory.attach_pack(memory.load_pack(path))
        return []

    def move(self, memory: AESGMemory) -> Any:
        self.use_copy(memory, [None, "device", "device", "host"][self.random.integers(4)])
        return []

    def reopen(self, memory: AESGMemory) -> Any:
        how = self.random.random()
        if how < 0.5:
            memory.close()
        self.memories = [other for other in self.memories if other is not memory]
        if how > 0.75:
            memory.cycle = memory  # left to the collector
        self.memories.append(None)  # type: ignore[arg-type]
        return []

    def collect(self, memory: AESGMemory) -> Any:
        return []  # `compare` does it, for both

    def another(self, memory: AESGMemory) -> Any:
        if len(self.memories) < 3:
            self.memories.append(None)  # type: ignore[arg-type]
        return []

    def infinite(self, memory: AESGMemory) -> Any:
        memory.graph.add_concepts(self.query(1))  # an empty copy looks at no query
        query = self.query(3)
        query[1, 0] = float(self.random.choice([np.nan, np.inf]))
        return told(memory.retrieve(query))

    def fail(self, memory: AESGMemory) -> Any:
        return told(memory.retrieve(torch.zeros(2, self.config.vector_dim + 1), int(self.random.integers(9))))

    def lose_a_call(self, memory: AESGMemory) -> Any:
        """As if it had not been asked, whatever was asked behind it."""
        lost, behind = self.query(self.small(5)), [self.query(self.small(6)) for _ in range(self.small(4))]
        updates = bool(self.random.random() < 0.3)
        refuse, waiting = learning.require_finite, [lost]

        def require_finite(copies: Any) -> None:
            if waiting and torch.equal(copies[0], waiting[0]):
                waiting.clear()
                raise AESGNavigationError("lost")
            refuse(copies)

        def insist(act: Callable[[], object]) -> None:
            with contextlib.suppress(AESGNavigationError):  # of the lost call, before anything was done
                act()
                return
            act()

        memory.navigator.check(lost, memory._learner.streams, 0)  # what is refused makes streams, too
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learning, "require_finite", require_finite)
            if not Life.on_host:
                memory.retrieve(lost)
            for place, query in enumerate(behind):
                insist(lambda query=query: memory.retrieve(query))
                if place == 0 and updates:
                    insist(memory.update_topology)
            insist(memory._state.settle)
        assert Life.on_host or not waiting
        return []

    def check(self, memory: AESGMemory) -> Any:
        found = memory.check()
        copied = memory.graph.copied
        if self.copies and copied is not None and copied.learning is not None and copied.learning.in_step:
            assert_same_as_store(memory)
            self.checked += 1
        return [
            str(found),
            memory.storage.nodes["id"][:].copy(),
            memory.storage.nodes["created_at"][:].copy(),
        ]

    def history(self, memory: AESGMemory) -> Any:
        return [memory.logger.get_history().array.copy()]

    # -------------------------------------------------------------------------------------------------------

    OFTEN = (
        *(["ask"] * 6), *(["ask_in_one_call"] * 3), "ask_many", "ask_quietly", "ask_with_gradient",
        *(["update"] * 4), "end_streams",
    )  # fmt: skip
    SELDOM = (
        "change_within_a_call", "set_streams", "look_at_streams", "save", "stats", "switch_mode", "forget",
        "give_vector", "add", "link", "assign", "move_relevance", "bear", "observe", "merge_or_split",
        "by_hand", "snapshot", "restore", "compact", "packed", "move", "reopen", "collect", "another",
        "infinite", "fail", "lose_a_call", "check", "check", "history",
    )  # fmt: skip
    RARE = ("add_many",)

    def step(self, seldom: float) -> None:
        draw = self.random.random()
        names = self.RARE if draw < 0.004 else self.SELDOM if draw < seldom else self.OFTEN
        name = names[self.random.integers(len(names))]
        self.now += self.small(3)
        self.memories = [self.opened() if memory is None else memory for memory in self.memories]
        memory = self.memories[self.random.integers(len(self.memories))]
        Life.on_host = memory.graph.copied is None or memory.pack_manager.in_use
        state = self.random.bit_generator.state
        try:
            said = getattr(self, name)(memory)
        except (AESGError, ValueError, TypeError, IndexError, OverflowError) as error:
            if isinstance(error, (IndexError, TypeError)) and name not in ("assign", "end_streams"):
                raise
            said = [f"{type(error).__name__}: {error}".replace(str(self.directory), "")]
            self.random.bit_generator.state = state  # as much was drawn in both
            self.random.random(50)
        if memory._state.awaited is not None:
            self.waited += bool(memory._state.awaited)
        self.said.append((name, said))

    def end(self) -> dict[str, bytes]:
        """All bytes of the directory."""
        for memory in self.memories:
            if memory is not None:
                memory.save()
        self.memories.clear()
        gc.collect()
        paths = [path for path in (self.directory / "m").iterdir() if path.name != "LOCK"]
        return {path.name: path.read_bytes() for path in paths}


@contextlib.contextmanager
def collected_on_request() -> Iterator[None]:
    """Inside, what is left to the collector is there until a life collects it, in both at the same moment."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def told(context: Any) -> list[Tensor]:
    return [part.detach().clone() for part in (context.vectors, context.weights, context.indices,
                                               context.explanation)]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)


def compare(
    tmp_path: Path, seed: int, steps: int, seldom: float = 0.3, kind: type[Life] = Life, **fixed: Any
) -> Life:
    random = np.random.default_rng(seed + 10_000)
    fields = {name: values[random.integers(len(values))] for name, values in CHOICES.items()
              if random.random() < 0.6}  # fmt: skip
    fields.update(fixed)
    with warnings.catch_warnings(), collected_on_request():
        warnings.simplefilter("ignore")
        if kind is Life:  # otherwise it does fail
            warnings.filterwarnings("error", "What the device was to learn", RuntimeWarning)
        lives = [kind(tmp_path / name, seed, name == "copies", fields) for name in ("plain", "copies")]
        for step in range(steps):
            for life in lives:
                life.step(seldom)
            if lives[0].said[-1][0] == "collect":
                gc.collect()
            (name, wanted), (other, got) = lives[0].said[-1], lives[1].said[-1]
            assert name == other, (step, name, other, wanted, got)
            assert len(wanted) == len(got), (step, name, wanted, got)
            for place, (one, two) in enumerate(zip(wanted, got, strict=True)):
                assert same(one, two), (step, name, place, one, two, fields)
        wanted_bytes, got_bytes = (life.end() for life in lives)
    assert wanted_bytes.keys() == got_bytes.keys()
    for name in wanted_bytes:
        assert wanted_bytes[name] == got_bytes[name], name
    return lives[1]
