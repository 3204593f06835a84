"""note_succession_: the oracle's answer in every layout, what a memory itself notes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ops_helpers import grouped, needs_cuda

from aesg.exceptions import AESGMemoryError
from aesg.graph.use_log import Use
from aesg.ops import note_succession_
from aesg.ops.reference import note_succession_ref_

BAR = 0.6
NAN, INF = float("nan"), float("inf")


def case(streams=5, steps=2, width=3, n=2000, seed=0):
    """What is written [B], two of them, and seeds, similarities, born slots, ids, active. Some of everything:
    similarities at the bar, NaN, slots outside the graph, dead concepts, identities that changed.
    """
    generator = torch.Generator().manual_seed(seed)

    def some(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    rows = streams * steps
    ids = some(-(2**62), 2**62, n)
    last = some(-2, n + 2, streams)
    last_id = torch.cat([ids, torch.zeros(4, dtype=torch.int64)])[last]
    last_id = torch.where(some(0, 4, streams) == 0, last_id + 1, last_id)
    values = torch.tensor([BAR, 0.1, 0.9, 0.0, -1.0, NAN, INF, -INF])
    values[1] = torch.nextafter(values[0], torch.zeros(()))
    similarities = values[some(0, len(values), rows, width)]
    active = (some(0, 5, n) > 0).to(torch.uint8)
    return [last, last_id, some(-2, n + 2, rows, width), similarities, some(-2, n + 2, rows), ids, active]


def same(ours, theirs):
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def check(given, steps=2, threshold=BAR, newborn=None):
    """Runs both on copies; the last two arguments alone may be views. Returns all that was written."""
    ours, theirs = ([part.clone() for part in given[:2]] for _ in range(2))
    rules = {"threshold": threshold, "steps": steps, "newborn": newborn}
    got = note_succession_(*ours, *given[2:], **rules)
    want = note_succession_ref_(*theirs, *given[2:], **rules)
    assert same((*ours, *got), (*theirs, *want))
    assert all(part.dtype == torch.int64 and part.is_contiguous() for part in got)
    return [*ours, *got]


@pytest.mark.parametrize("width", [0, 1, 4])
@pytest.mark.parametrize(
    "streams, steps, n", [(0, 1, 9), (0, 3, 9), (1, 1, 1), (5, 3, 50), (300, 4, 2500), (9, 1, 0)]
)
def test_same_as_the_oracle(streams, steps, n, width):
    for seed in range(3):
        given = case(streams, steps, width, max(n, 1), seed)
        if n == 0:  # then every slot lies outside
            given[5], given[6] = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.uint8)
        for born in (0, 1, 20):
            check(given, steps, newborn=case(1, born, 1, max(n, 1), seed)[4])
        *_, previous, current = check(given, steps)
        assert min(n, width) < 1 or streams < 100 or 0 < int((current < 0).sum()) < len(previous) / 2


def one_row(similarity, seed=3, born=4, last=5, last_id=105, active=1, width=1, n=10, newborn=None):
    """(previous, current, last seed, last id) of one row in a graph whose slot s has the identity 100 + s."""
    alive = torch.ones(n, dtype=torch.uint8)
    alive[5] = active
    kept = torch.tensor([last]), torch.tensor([last_id])
    seeds, similarities = torch.full((1, width), seed), torch.full((1, width), similarity)
    found = note_succession_(
        *kept, seeds, similarities, torch.tensor([born]), 100 + torch.arange(n), alive, threshold=BAR,
        newborn=newborn,
    )  # fmt: skip
    return [int(part) for part in (*found, *kept)]


def test_which_concept_a_row_meant():
    just_below = float(np.nextafter(np.float32(BAR), np.float32(0)))
    assert one_row(BAR) == [5, 3, 3, 103]
    assert one_row(just_below) == [5, 4, 4, 104], "novel: the newborn"
    assert one_row(0.1, born=-1) == [5, -1, -1, 0]
    assert one_row(NAN) == [5, -1, -1, 0], "neither explained nor novel"
    assert one_row(1.0, width=0) == [5, 4, 4, 104], "without seeds all is novel"
    assert one_row(0.9, seed=10) == one_row(0.9, seed=-7) == one_row(0.1, born=10) == [5, -1, -1, 0]


def test_what_a_stream_followed():
    assert one_row(0.9, last=-1, last_id=0)[0] == one_row(0.9, last=10)[0] == -1
    assert one_row(0.9, last_id=104)[0] == -1, "another concept has the slot"
    assert one_row(0.9, active=0)[0] == -1, "it died"
    assert one_row(0.9, active=255)[0] == 5


def test_a_row_follows_the_one_before_in_its_stream_alone():
    seeds = torch.tensor([[1], [2], [3], [4], [5], [6]])
    kept = torch.tensor([7, 8]), torch.tensor([107, 0])
    previous, current = note_succession_(
        *kept, seeds, torch.tensor([[0.9], [0.1], [0.9], [0.9], [0.9], [0.9]]), torch.full((6,), -1),
        100 + torch.arange(10), torch.ones(10, dtype=torch.bool), threshold=BAR, steps=3,
    )  # fmt: skip
    assert current.tolist() == [1, -1, 3, 4, 5, 6] and previous.tolist() == [7, 1, -1, -1, 4, 5]
    assert kept[0].tolist() == [3, 6] and kept[1].tolist() == [103, 106]


def test_columns_in_row_groups_and_inputs_that_are_views():
    flat, strided = case(n=2048), case(n=2048)
    strided[5], strided[6] = grouped(flat[5]), grouped(flat[6])
    for place in (2, 3):
        wide = strided[place].repeat(1, 2)
        wide[:, 1::2], wide[:, ::2] = -1, strided[place]
        strided[place] = wide[:, ::2]
    strided[4] = torch.stack([strided[4], strided[4]], dim=1)[:, 0]
    assert not any(strided[place].is_contiguous() for place in (2, 3, 4, 5, 6))
    assert same(check(flat), check(strided))


def test_newborn_are_named_by_their_place():
    assert [one_row(0.1, born=place, newborn=torch.tensor([7, 2, -1, 10]))[1] for place in range(-1, 5)] == [
        -1, 7, 2, -1, -1, -1
    ]  # fmt: skip
    assert one_row(0.9, born=0, newborn=torch.tensor([7]))[1] == 3, "explained"
    given = case()
    wide = torch.stack([torch.arange(20)] * 2, dim=1)
    assert same(check(given, newborn=wide[:, 0]), check(given, newborn=torch.arange(20)))


def test_a_part_of_the_streams_is_written():
    whole = case(streams=6, steps=2)
    kept = [part.clone() for part in whole[:2]]
    rows = [part[4:8] for part in whole[2:5]]
    found = note_succession_(*(part[2:4] for part in kept), *rows, *whole[5:], threshold=BAR, steps=2)
    before = [part.clone() for part in whole[:2]]
    want = note_succession_(*whole, threshold=BAR, steps=2)
    assert same(found, [part[4:8] for part in want])
    for got, all_of_it, was in zip(kept, whole[:2], before, strict=True):
        assert torch.equal(got[2:4], all_of_it[2:4])
        assert torch.equal(got[:2], was[:2]) and torch.equal(got[4:], was[4:])


def test_what_a_memory_notes(make_memory, monkeypatch):
    """The op beside `Learner.learn`, on the columns of the store as they are after the births."""
    memory = make_memory(memory_mode="TRAIN", novelty_birth_threshold=2, survival_threshold_relevance=0.0)
    learner, noted = memory._learner, []
    born_of, note = learner._born_of, memory.cognitive_engine.note_retrieval
    monkeypatch.setattr(learner, "_born_of", lambda *given: noted.append(born_of(*given)) or noted[-1])
    monkeypatch.setattr(memory.cognitive_engine, "note_retrieval", lambda use: noted.append(use) or note(use))
    learn, seen = learner.learn, {"explained": 0, "newborn": 0, "nothing": 0, "followed": 0, "gone": 0}

    def learn_beside(query, found):
        noted.clear()
        streams = learner.streams
        kept = [part[query.streams].clone() for part in (streams.last_seed, streams.last_id)]
        had = int((kept[0] >= 0).sum())
        learn(query, found)
        use = noted[-1]
        assert isinstance(use, Use)
        novel = found.explanation < BAR
        born = torch.full(novel.shape, -1)
        if len(noted) > 1:
            born[novel] = torch.from_numpy(noted[0])
        storage = memory.storage
        previous, current = note_succession_(
            *kept, found.seeds, found.similarities, born, storage.column("id"), storage.column("is_active"),
            threshold=BAR, steps=query.steps,
        )  # fmt: skip
        after = [part[query.streams] for part in (streams.last_seed, streams.last_id)]
        assert same(kept, after)
        assert current.tolist() == use.current.tolist() and previous.tolist() == use.previous.tolist()
        first = previous.view(-1, query.steps)[:, 0]
        seen["explained"] += int((~novel).sum())
        seen["newborn"] += int((born >= 0).sum())
        seen["nothing"] += int((current < 0).sum())
        seen["followed"] += int((first >= 0).sum())
        seen["gone"] += had - int((first >= 0).sum())

    monkeypatch.setattr(learner, "learn", learn_beside)
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(40, 16, generator=generator)
    for turn in range(40):
        steps, streams = turn % 4 + 1, turn % 3 + 1
        picked = torch.randint(0, 10 + turn, (streams, steps), generator=generator).clamp(max=39)
        rows = centres[picked] + 0.05 * torch.randn(streams, steps, 16, generator=generator)
        memory.retrieve(rows)
        if turn % 7 == 6:  # so that slots are freed, and given to others
            last = [s for s in memory.active_state.last_seed.tolist() if s >= 0]
            memory.forget(ids=memory.graph.identities(np.array(last[:1])).tolist())
            memory.retrieve(torch.randn(16, generator=generator).expand(3, 1, 16))
    assert min(seen.values()) > 0, seen


def test_opcheck_and_compile():
    op = torch.ops.aesg.note_succession_.default
    torch.library.opcheck(op, (*case(), BAR, 2))
    torch.library.opcheck(op, (*case(width=0), BAR, 2))
    torch.library.opcheck(op, (*case(), BAR, 2, torch.arange(9)))

    def run(*given):
        found = note_succession_(*given, threshold=BAR, steps=2)
        return [part + 0 for part in (*given[:2], *found)]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert same(compiled(*case()), run(*case()))


@pytest.mark.parametrize(
    "text, change, rules",
    [
        (r"last_seed: expected shape \[B\]", {0: torch.zeros(5, 1, dtype=torch.int64)}, {}),
        ("last_seed: expected int64, got int32", {0: torch.zeros(5, dtype=torch.int32)}, {}),
        ("last_seed: expected a contiguous", {0: torch.zeros(10, dtype=torch.int64)[::2]}, {}),
        ("last_id: expected int64", {1: torch.zeros(5)}, {}),
        ("last_id: expected 5 streams as in last_seed, got 4", {1: torch.zeros(4, dtype=torch.int64)}, {}),
        ("seeds: expected int64", {2: torch.zeros(10, 3)}, {}),
        (r"seeds: expected shape \[B \* steps, S\]", {2: torch.zeros(10, dtype=torch.int64)}, {}),
        ("seeds: expected 5 streams of 3 rows, got 10", {}, {"steps": 3}),
        ("seeds: expected 5 streams of 1 rows, got 10", {}, {"steps": 1}),
        ("steps: expected an integer >= 1, got 0", {}, {"steps": 0}),
        ("similarities: expected float32, got float64", {3: torch.zeros(10, 3, dtype=torch.float64)}, {}),
        ("similarities: expected the shape of seeds", {3: torch.zeros(10, 2)}, {}),
        ("born_slots: expected int64", {4: torch.zeros(10)}, {}),
        ("born_slots: expected 10 rows as in seeds, got 9", {4: torch.zeros(9, dtype=torch.int64)}, {}),
        ("ids: expected int64, got float32", {5: torch.zeros(2000)}, {}),
        ("active: expected bool or uint8", {6: torch.zeros(2000)}, {}),
        ("active: expected 2000 rows as in ids", {6: torch.zeros(1999, dtype=torch.uint8)}, {}),
        ("expected all on cpu", {5: torch.zeros(9, dtype=torch.int64, device="meta")}, {}),
        ("threshold: expected a number, got NaN", {}, {"threshold": NAN}),
        ("newborn: expected int64, got float32", {}, {"newborn": torch.zeros(3)}),
        (r"newborn: expected shape \[n\]", {}, {"newborn": torch.zeros(3, 1, dtype=torch.int64)}),
    ],
)
def test_bad_input_changes_nothing(text, change, rules):
    given = case()
    for place, part in change.items():
        given[place] = part
    before = [part.clone() for part in given]
    with pytest.raises(AESGMemoryError, match=text):
        note_succession_(*given, **{"threshold": BAR, "steps": 2, **rules})
    assert same(before[:2], given[:2])


@needs_cuda
@pytest.mark.parametrize(
    "streams, steps, width", [(0, 1, 4), (1, 1, 1), (500, 3, 10), (1, 4096, 4), (7, 2, 0)]
)
def test_cuda_has_the_bits_of_the_cpu(streams, steps, width):
    host = case(streams, steps, width)
    device = [part.cuda() for part in host]
    want = note_succession_(*host, threshold=BAR, steps=steps)
    got = note_succession_(*device, threshold=BAR, steps=steps)
    assert same([part.cpu() for part in (*device[:2], *got)], [*host[:2], *want])
    newborn = torch.arange(100, 700)
    want = note_succession_(*host, threshold=BAR, steps=steps, newborn=newborn)
    got = note_succession_(*device, threshold=BAR, steps=steps, newborn=newborn.cuda())
    assert same([part.cpu() for part in (*device[:2], *got)], [*host[:2], *want])
