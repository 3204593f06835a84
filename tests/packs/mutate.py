"""The mutation loop over the pack parser: `python -m tests.packs.mutate --executions 10000000 --seed 1`.

Starts from small packs of both versions, changes bytes, cuts, repeats and splices, and in two of three runs
makes the checksums right again so that the lie gets past them. A run ends well when the parser answers with a
pack or an AESGStorageError; an accepted pack must be sound and is searched and spread through by the C++ ops.
Anything else stops the loop with the seed and the bytes.
"""

from __future__ import annotations

import argparse
import random
import struct
import time
from collections import Counter

import numpy as np
import torch

from aesg.config import AESGConfig
from aesg.exceptions import AESGStorageError
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
_FLOATS = (np.nan, np.inf, -np.inf, -0.0, 1e-45, 3e38, -1.0, 1.0000001, 2.0)


def corpus() -> list[bytes]:
    packs = [golden_v1()]
    for columns in (some_columns(2, 1, 3), some_columns(5, 2, 9), some_columns(3, 3, 6)):
        packs += [bytes_of(columns, 1), bytes_of(columns, 2), bytes_of(columns, 2, name="x", licence="y")]
    return packs


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        how = chance.randrange(9)
        if how == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            changed[at] = chance.randrange(256)
        elif how == 2:  # a number, at its natural place more often than not
            form = chance.choice((">I", "<I", ">Q", "<Q"))
            at -= at % 4
            value = struct.pack(
                form, chance.choice(_INTERESTING) & (2**32 - 1 if form[1] == "I" else 2**64 - 1)
            )
            changed[at : at + len(value)] = value
        elif how == 3:
            at -= at % 4
            changed[at : at + 4] = struct.pack("<f", chance.choice(_FLOATS))
        elif how == 4:
            del changed[at:]
        elif how == 5:
            del changed[at : at + chance.randrange(1, 65)]
        elif how == 6:
            changed[at:at] = changed[at : at + chance.randrange(1, 129)]
        elif how == 7:
            other = chance.choice(others)
            start = chance.randrange(len(other))
            changed[at:] = other[start:]
        else:  # one of the header's fields
            at = chance.choice((8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52))
            small = struct.pack(">I", chance.choice((0, 1, 2, 3, 5, 64, chance.randrange(2**32))))
            changed[at : at + 4] = small
    return bytes(changed)


def use(pack: MemoryPack) -> None:
    """An accepted pack holds what was promised, and the ops can be let loose on it."""
    columns = pack.columns
    assert np.isfinite(columns.vectors).all() and len(columns.inv_norm) == len(columns)
    assert ((columns.weights >= 0) & (columns.weights <= 1)).all()
    edges = columns.edges()
    assert ((edges.target >= 0) & (edges.target < len(columns))).all() and len(pack.nodes) == len(columns)
    graph = PackGraph(pack, AESGConfig(vector_dim=pack.vector_dim))
    scores, slots = graph.search(torch.ones(2, pack.vector_dim), 3, -1.0)
    found = graph.activate(scores, slots, jacobian=True)
    assert bool(torch.isfinite(found.energies).all()) and int(found.members.max()) < max(1, len(columns))
    assert bool(torch.isfinite(found.jacobian).all()) and bool(torch.isfinite(found.vectors).all())


def run(executions: int, seed: int) -> Counter[str]:
    """How often each thing happened. Raises whatever the parser should not have raised, with the bytes."""
    chance, packs, counts = random.Random(seed), corpus(), Counter[str]()
    for number in range(executions):
        data = mutated(chance.choice(packs), packs, chance)
        if number % 3:
            data = sealed(data)
        try:
            pack = parse(data)
        except AESGStorageError:
            counts["refused"] += 1
            continue
        except BaseException:
            print(f"seed {seed}, execution {number}: {data.hex()}")
            raise
        counts["accepted"] += 1
        if pack.vector_dim * len(pack) <= 4096:
            use(pack)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    counts = run(options.executions, options.seed)
    seconds = time.monotonic() - started
    print(f"{options.executions} executions, {dict(counts)}, 0 crashes, {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
