"""retire_: the oracle's and the store's bits in every layout, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from edge_helpers import assert_learnt, learnt_of
from ops_helpers import grouped, needs_cuda
from test_follow import arguments, assert_same, copied, flat, grow, on_cuda, small, tensors
from torch import Tensor

from aesg import _core
from aesg.exceptions import AESGMemoryError
from aesg.ops import COUNTERS, Edges, follow_, retire_
from aesg.ops.reference_learning import retire_ref_
from aesg.storage.engine import AESGStorage

# Concepts, edges of each kind, more successors of slot 1, share of the doomed.
CASES: dict[str, tuple[int, int, int, float]] = {
    "nothing": (0, 0, 0, 0.5),
    "one concept": (1, 0, 0, 1.0),
    "none doomed": (300, 500, 0, 0.0),
    "no edges": (300, 0, 0, 0.5),
    "some": (600, 2000, 0, 0.2),
    "all": (257, 700, 20, 1.0),
    "few of many": (5000, 9000, 0, 0.002),
    "a long chain": (900, 300, 700, 0.4),
}


def doomed_of(n: int, rows: int, share: float, seed: int = 0) -> Tensor:
    """u8 [rows]: a share of the slots, dead ones among them, and slot 1 if there is any."""
    generator = torch.Generator().manual_seed(seed)
    doomed = torch.zeros(rows, dtype=torch.uint8)
    doomed[:n] = (torch.rand(n, generator=generator) < share).to(torch.uint8)
    if share > 0 and n > 1:
        doomed[1] = 1
    return doomed


@pytest.mark.parametrize("name", CASES)
def test_same_as_the_store_and_the_oracle(tmp_path, name):
    n, edges, hub, share = CASES[name]
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, n, edges, hub)
        free = storage.core.counters.free_block
        learnt = learnt_of(storage, more_nodes=1, more_blocks=1)
        ungrouped, oracle = flat(learnt), flat(learnt)
        doomed = doomed_of(n, len(ungrouped[1]), share)
        there = retire_(*arguments(learnt), grouped(doomed))
        died = retire_(*ungrouped, doomed > 0)
        theirs = retire_ref_(*oracle, doomed)
        want = _core.retire(storage.core, torch.nonzero(doomed)[:, 0].numpy(), 0)
        assert there.tolist() == died.tolist() == theirs.tolist() == [want]
        assert_learnt(learnt, storage)
        assert_same(ungrouped, oracle)
        assert_same(flat(learnt), oracle)
        assert (storage.core.counters.free_block != free) == (edges > 0 and share > 0)
        assert retire_(*ungrouped, doomed).tolist() == [0]  # nobody dies twice
        assert_same(ungrouped, oracle)


def test_what_was_given_back_is_taken_again(tmp_path):
    """Free blocks come out of the list in the order in which the store takes them."""
    pairs = torch.arange(2, 60), torch.arange(2, 60) - 1
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, 60, 300)
        learnt = learnt_of(storage)
        doomed = doomed_of(60, 1024, 0.4)
        retire_(*arguments(learnt), doomed)
        follow_(*arguments(learnt), *pairs, initial=0.5, rate=0.3, yield_=0.7)
        _core.retire(storage.core, torch.nonzero(doomed)[:, 0].numpy(), 0)
        _core.follow(storage.core, pairs[0].numpy(), pairs[1].numpy(), 0.5, 0.3, 0.7)
        assert_learnt(learnt, storage)


def test_blocks_without_an_edge_stay():
    """As in a store, where a chain without edges is not looked at further."""
    given = small()
    given[0].first_block[3] = 1
    died = retire_(*given, (torch.arange(20) == 3).to(torch.uint8))
    assert died.tolist() == [1] and given[1][3] == 0 and given[0].first_block[3] == 1
    assert given[2][COUNTERS.index("free_block")] == 2


def test_opcheck_and_compile():
    doomed = (torch.arange(20) % 3 == 0).to(torch.uint8)
    torch.library.opcheck(torch.ops.aesg.retire_.default, (*tensors(small()), doomed))

    def run(*columns):
        died = retire_(Edges(*columns[:10]), *columns[10:])
        return [died, *(column + 0 for column in columns)]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*tensors(small()), doomed), run(*tensors(small()), doomed), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    "text, change",
    [
        ("next_block: expected 4 blocks as in targets", {"next_block": torch.zeros(3, dtype=torch.int32)}),
        ("active: expected bool or uint8, got int64", {"active": torch.ones(20, dtype=torch.int64)}),
        ("active: expected 20 rows as in first_block, got .21.", {"active": torch.ones(21) > 0}),
        ("counters: expected int64", {"counters": torch.zeros(7)}),
        ("doomed: expected 20 rows as in first_block, got .1, 1024.", {"doomed": torch.ones(1, 1024) > 0}),
        ("doomed: expected bool or uint8, got float32", {"doomed": torch.ones(20)}),
        ("expected all on cpu", {"doomed": torch.ones(20, device="meta") > 0}),
    ],
)
def test_bad_input_changes_nothing(text, change):
    edges, active, counters = small()
    given = {
        **edges._asdict(),
        "active": active,
        "counters": counters,
        "doomed": torch.ones(20) > 0,
        **change,
    }
    before = {name: part.clone() for name, part in given.items()}
    with pytest.raises(AESGMemoryError, match=text):
        retire_(Edges(*[given.pop(name) for name in Edges._fields]), **given)
    for name, part in given.items():
        assert part.device.type == "meta" or torch.equal(part, before[name])
    assert edges.targets.eq(-1).all()


def test_damaged_chains_end():
    for broken in (0, 2, 99, -7):
        given = small()
        given[0].first_block[:] = broken
        given[0].next_block[:] = broken
        given[0].counts[:] = torch.tensor([9, 7, -3, 7])
        assert retire_(*given, torch.ones(20, dtype=torch.uint8)).tolist() == [20]


def crossed(kind: str) -> tuple[tuple[Edges, Tensor, Tensor], Tensor]:
    """Slots 3 and 4 are doomed. Their chains: 0, 1, 0, 1 and so on; or 0, 1 and 3, 1, with 1 of slot 3."""
    given, doomed = small(), torch.zeros(20, dtype=torch.uint8)
    edges, _, counters = given
    doomed[3:5] = 1
    counters[COUNTERS.index("block_count")] = 4
    edges.next_block[2] = -1
    edges.first_block[3], edges.next_block[0], edges.sources[:2], edges.counts[:2] = 0, 1, 3, 7
    if kind == "ring":
        edges.next_block[1] = 0
    else:
        edges.first_block[4], edges.next_block[3], edges.sources[3], edges.counts[3] = 3, 1, 4, 7
    return given, doomed


def free_blocks(given: tuple[Edges, Tensor, Tensor]) -> list[int]:
    """The list of free blocks, each of which is free and comes once."""
    edges, _, counters = given
    blocks, block = [], int(counters[COUNTERS.index("free_block")])
    while block >= 0:
        assert block not in blocks and int(edges.sources[block]) == -1 and int(edges.counts[block]) == 0
        blocks.append(block)
        block = int(edges.next_block[block])
    return blocks


def test_no_block_is_given_back_twice():
    given, doomed = crossed("ring")
    assert retire_(*given, doomed).tolist() == [2]
    assert free_blocks(given) in ([0, 2], [1, 0, 2])
    given, doomed = crossed("two of one")
    assert retire_(*given, doomed).tolist() == [2]
    assert free_blocks(given) == [3, 1, 0, 2]


@needs_cuda
@pytest.mark.parametrize("name", CASES)
def test_cuda_has_the_bits_of_the_cpu(tmp_path, name):
    n, edges, hub, share = CASES[name]
    with AESGStorage(str(tmp_path / "graph"), 3) as storage:
        grow(storage, n, edges, hub)
        host = flat(learnt_of(storage, more_nodes=1, more_blocks=1))
    doomed = doomed_of(n, len(host[1]), share)
    device = on_cuda(host)
    died = retire_(*device, doomed.cuda())
    assert retire_(*copied(host), doomed).tolist() == died.tolist()
    retire_(*host, doomed)
    assert_same((Edges(*(c.cpu() for c in device[0])), device[1].cpu(), device[2].cpu()), host)
