"""The mutation loop over the pack parser: `python -m tests.packs.mutate --executions 10000000 --seed 1`.

Starts from small packs of both versions, changes bytes, cuts, repeats and splices, and in two of three runs
makes the checksums right again so that the lie gets past them. A run ends well when the parser answers with a
pack or an AESGStorageError; an accepted pack must be sound and is searched and spread through by the C++ ops.
Anything else stops the loop with the seed and the bytes.
"""

from __future__ import annotations

import argparse
import math
import random
import struct
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

from aesg._extension import LIBRARY
from aesg.config import AESGConfig
from aesg.exceptions import AESGStorageError
from aesg.graph.query_mean import QueryMean
from aesg.packs import MemoryPack, PackGraph
from tests.packs.packmaker import bytes_of, golden_v1, parse, sealed, some_columns

_INTERESTING = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**63,
    2**64 - 1,
)
_NUMBERS = [
    struct.pack(form, number & (2**32 - 1 if form[1] == "I" else 2**64 - 1))
    for form in (">I", "<I", ">Q", "<Q")
    for number in _INTERESTING
]
_FLOATS = [
    struct.pack("<f", number) for number in (np.nan, np.inf, -np.inf, -0.0, 1e-45, 3e38, -1.0, 1.0000001, 2.0)
]


CHUNK = 100_000  # executions between two lines of progress
_RULES: dict[int, tuple[AESGConfig, QueryMean, torch.Tensor]] = {}  # by vector_dim


def corpus() -> list[bytes]:
    """Three of four of version 2, which has more rules and holds to them more strictly."""
    packs = [golden_v1()]
    for columns in (some_columns(2, 1, 3), some_columns(5, 2, 9), some_columns(3, 3, 6)):
        packs += [
            bytes_of(columns, 1),
            *2 * [bytes_of(columns, 2), bytes_of(columns, 2, name="x", licence="y")],
        ]
    return packs


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """One to eight changes; in two of three cases none that changes the size, which is soon found out."""
    below = _below(chance)
    changed, ways = bytearray(data), 8 if below(3) == 0 else 5
    for _ in range((1, 1, 1, 2, 3, 8)[below(6)]):
        if not changed:
            break
        at, how = below(len(changed)), below(ways)
        if how == 0:
            changed[at] ^= 1 << below(8)
        elif how == 1:
            changed[at] = below(256)
        elif how == 2:  # a number, at its natural place more often than not
            at -= at % 4
            value = _NUMBERS[below(len(_NUMBERS))]
            changed[at : at + len(value)] = value
        elif how == 3:
            at -= at % 4
            changed[at : at + 4] = _FLOATS[below(len(_FLOATS))]
        elif how == 4:  # one of the header's fields
            at = 8 + 4 * below(12)
            changed[at : at + 4] = struct.pack(">I", (0, 1, 2, 3, 5, 64, below(2**32))[below(7)])
        elif how == 5:
            del changed[at : at + 1 + below(64) if below(2) else None]
        elif how == 6:
            changed[at:at] = changed[at : at + 1 + below(128)]
        else:
            other = others[below(len(others))]
            changed[at:] = other[below(len(other)) :]
    return bytes(changed)


def _below(chance: random.Random) -> Callable[[int], int]:
    """Numbers 0..n-1, n <= 2**32, three times as quick as `randrange`."""
    share = chance.random
    return lambda n: int(share() * n)


def use(pack: MemoryPack) -> None:
    """An accepted pack holds what was promised, and the ops can be let loose on it."""
    columns = pack.columns
    n, dim = len(columns), pack.vector_dim
    assert np.isfinite(columns.vectors).all() and len(columns.inv_norm) == n == len(pack.nodes)
    assert columns.weights.min(initial=0) >= 0 and columns.weights.max(initial=0) <= 1
    assert columns.targets.min(initial=0) >= -1 and columns.targets.max(initial=-1) < n
    # Copies of their own, each with the sanitizer's red zones around it, instead of views of one buffer.
    for column in (columns.vectors, columns.inv_norm, columns.active, columns.fields["region_id"],
                   columns.first_block, columns.targets, columns.strengths, columns.next_block):  # fmt: skip
        column.flags.writeable = False
    if dim not in _RULES:
        _RULES[dim] = AESGConfig(vector_dim=dim), QueryMean(dim), torch.ones(2, dim)
    config, queries, asked = _RULES[dim]
    graph = PackGraph(pack, config, queries)
    with torch.no_grad():
        scores, slots = graph.search(asked, 3, -1.0)
        found = graph.activate(scores, slots, jacobian=True)
    assert int(found.members.max()) < max(1, n)
    for values in (found.energies, found.jacobian, found.vectors):
        assert math.isfinite(float(values.sum()))


def _one(data: bytes) -> str:
    """What became of the bytes."""
    try:
        pack = parse(data)
    except AESGStorageError as error:
        return "refused by checksum" if "Checksum" in str(error) else "refused otherwise"
    if pack.vector_dim * len(pack) > 4096:
        return "accepted"
    use(pack)
    return "accepted and searched"


def run(executions: int, seed: object) -> Counter[str]:
    """How often each thing happened. Raises whatever the parser should not have raised, with the bytes."""
    chance, packs, counts = random.Random(str(seed)), corpus(), Counter[str]()
    for number in range(executions):
        data = mutated(packs[chance.randrange(len(packs))], packs, chance)
        if number % 3:
            data = sealed(data)
        try:
            what = _one(data)
        except BaseException:
            print(f"seed {seed}, execution {number}: {data.hex()}")
            raise
        counts[what] += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, counts, done = time.monotonic(), Counter[str](), 0
    print(f"ops of {LIBRARY}, seed {options.seed}", flush=True)
    while done < options.executions:
        # Each chunk has random numbers of its own: what a sanitizer aborted is soon found again.
        chunk = min(CHUNK, options.executions - done)
        counts += run(chunk, f"{options.seed}.{done // CHUNK}")
        done += chunk
        print(f"{done} executions, {dict(counts)}, {time.monotonic() - started:.0f} s", flush=True)
    print("0 crashes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
