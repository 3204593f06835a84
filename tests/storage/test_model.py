"""A storage against a model of plain dicts: whatever is done in whatever order, both say the same, also after
reopening, after a crash (what was not committed is gone) and to a reader beside."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aesg import _core
from aesg.storage import AESGStorage, EvolutionLogger

D = 4
LIMITS = {"fold_bytes": 9000, "bulk_bytes": 60000}  # small: folds and bulk commits happen within an example


class Model:
    """What a storage should hold."""

    def __init__(self) -> None:
        self.nodes: list[dict] = []  # by slot
        self.edges: dict[tuple[int, int], float] = {}  # (slot, slot) -> weight
        self.events: list[tuple[int, int]] = []  # type, id1
        self.state: dict = {}

    def copy(self) -> Model:
        twin = Model()
        twin.nodes = [dict(node) for node in self.nodes]
        twin.edges, twin.events, twin.state = dict(self.edges), list(self.events), dict(self.state)
        return twin


def read(storage: AESGStorage) -> Model:
    """The same, read through the public face."""
    found = Model()
    columns = {name: storage.nodes[name][:] for name in ("id", "vector", "relevance", "age")}
    for slot in range(storage.node_count):
        found.nodes.append({name: column[slot].tolist() for name, column in columns.items()})
        for edge in storage.get_edges(slot):
            found.edges[slot, int(edge["target"])] = float(edge["weight"])
    history = EvolutionLogger(storage).get_history().array
    found.events = list(zip(history["type"].tolist(), history["id1"].tolist(), strict=True))
    found.state = storage.read_state()
    return found


class StorageAgainstModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="aesg-model-"))
        self.live, self.committed = Model(), Model()
        self.reader: AESGStorage | None = None
        self.seen = Model()  # by the reader
        self.next_id = 1
        self.open()

    def open(self) -> None:
        """As AESGStorage does, with limits that a short example reaches."""
        self.storage = AESGStorage(self.folder / "m", D, clock=lambda: 7.0)
        self.storage.core.close()
        self.storage.core = _core.Store.open(str(self.folder / "m"), D, **LIMITS)

    def teardown(self) -> None:
        if self.reader is not None:
            self.reader.close()
        self.storage.close(commit=False)
        shutil.rmtree(self.folder)

    # -- changes -------------------------------------------------------------------------------------------

    @rule(count=st.sampled_from([1, 1, 1, 2, 5, 1100]), seed=st.integers(0, 99))
    def bear(self, count: int, seed: int) -> None:
        vectors = np.random.default_rng(seed).integers(-4, 5, (count, D)).astype(np.float32)
        if len(self.live.nodes) + count > 3000:
            return
        for vector in vectors:
            assert self.storage.add_node(self.next_id, vector) == len(self.live.nodes)
            self.live.nodes.append(
                {"id": self.next_id, "vector": vector.tolist(), "relevance": 1.0, "age": 0}
            )
            self.next_id += 1

    @precondition(lambda self: self.live.nodes)
    @rule(data=st.data(), value=st.integers(0, 64))
    def assign(self, data: st.DataObject, value: int) -> None:
        slot = data.draw(st.integers(0, len(self.live.nodes) - 1))
        self.storage.nodes["relevance"][slot] = value / 64
        self.storage.nodes["age"][slot:] = value
        self.live.nodes[slot]["relevance"] = value / 64
        for node in self.live.nodes[slot:]:
            node["age"] = value

    @precondition(lambda self: len(self.live.nodes) > 1)
    @rule(data=st.data(), weight=st.integers(1, 64))
    def link(self, data: st.DataObject, weight: int) -> None:
        slots = st.integers(0, len(self.live.nodes) - 1)
        source = data.draw(slots)
        target = data.draw(slots.filter(lambda slot: slot != source))
        self.storage.add_edge(source, self.live.nodes[target]["id"], weight / 64)
        self.live.edges[source, target] = weight / 64

    @rule(kind=st.integers(0, 5), id1=st.integers(0, 2**64 - 1), count=st.sampled_from([1, 3, 200]))
    def log(self, kind: int, id1: int, count: int) -> None:
        for _ in range(count):
            EvolutionLogger(self.storage).log_event(kind, id1)
        self.live.events += [(kind, id1)] * count

    @rule(value=st.dictionaries(st.sampled_from("abc"), st.text(max_size=80), max_size=3))
    def write_state(self, value: dict) -> None:
        self.storage.write_state(value)
        self.live.state = value

    # -- durability ----------------------------------------------------------------------------------------

    @rule()
    def commit(self) -> None:
        self.storage.commit()
        self.committed = self.live.copy()

    @rule()
    def fold(self) -> None:
        self.storage.core.fold()

    @precondition(lambda self: self.reader is None)
    @rule()
    def compact(self) -> None:
        self.storage.compact()

    @rule()
    def close_and_reopen(self) -> None:
        self.storage.close()
        self.committed = self.live.copy()
        self.open()

    @rule(folds=st.booleans())
    def crash_and_reopen(self, folds: bool) -> None:
        """The files as they are now, without the close of whoever had them open."""
        if not folds:
            shutil.copytree(self.folder / "m", self.folder / "crashed")
        self.storage.close(commit=False)
        if not folds and self.reader is None:
            shutil.rmtree(self.folder / "m")
            (self.folder / "crashed").rename(self.folder / "m")
        shutil.rmtree(self.folder / "crashed", ignore_errors=True)
        self.live = self.committed.copy()
        self.next_id = 1 + max((node["id"] for node in self.live.nodes), default=0)
        self.open()

    # -- a reader beside -----------------------------------------------------------------------------------

    @precondition(lambda self: self.reader is None)
    @rule()
    def open_reader(self) -> None:
        self.reader = AESGStorage(self.folder / "m", read_only=True)
        self.seen = self.committed.copy()

    @precondition(lambda self: self.reader is not None)
    @rule()
    def refresh(self) -> None:
        assert self.reader is not None
        self.reader.refresh()
        self.seen = self.committed.copy()

    @precondition(lambda self: self.reader is not None)
    @rule()
    def close_reader(self) -> None:
        assert self.reader is not None
        self.reader.close()
        self.reader = None

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "storage"):
            return
        same(read(self.storage), self.live)
        assert self.storage.verify() == []
        if self.reader is not None:
            same(read(self.reader), self.seen)


def same(found: Model, wanted: Model) -> None:
    assert found.nodes == wanted.nodes
    assert found.edges == wanted.edges
    assert found.events == wanted.events
    assert found.state == wanted.state


TestStorageAgainstModel = StorageAgainstModel.TestCase
TestStorageAgainstModel.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
