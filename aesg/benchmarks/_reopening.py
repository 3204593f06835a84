"""Facts written by one process and asked for by another: run as a program, it is one of the two."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import aesg
from aesg.benchmarks._facts import CHAIN, CONFIG, TOLD, asked, chains, noisy, tell, unit_vectors
from aesg.memory.controller import AESGMemory

NOISE = 0.1
# A round of 10,000 facts in random order takes 157 updates. A concept met once or twice a round is forgotten
# in between by the default thresholds, which give it 58 updates; here nothing dies for lack of use.
WRITTEN = replace(CONFIG, survival_threshold_relevance=0.0)


def across_processes(directory: Path, facts: int, seed: int, device: str = "cpu") -> dict[str, float]:
    """One process is told `facts` facts, in one random order a round, asks and ends; another opens the
    directory and asks the same.

    1.0 where every answer has the same bits, and the share of right ones two hops away.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for role in ("tell", "ask"):
        in_a_process(role, str(directory), str(facts), str(seed), device)
    told, asked_again = (np.load(directory / f"{role}.npz") for role in ("tell", "ask"))
    same = all(told[name].tobytes() == asked_again[name].tobytes() for name in told.files)
    return {"same bits": float(same), "right after reopening, 2 hops": float(asked_again["right"].mean())}


def in_a_process(*arguments: str) -> None:
    """`main` of these arguments in a process of its own."""
    # The child finds the package where this process found it.
    path = os.pathsep.join([str(Path(aesg.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "aesg.benchmarks._reopening", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})


def main(role: str, folder: str, facts: str, seed: str, device: str) -> None:
    directory = Path(folder)
    generator = torch.Generator().manual_seed(int(seed))
    count, pairs = chains(int(facts))
    vectors = unit_vectors(count, generator)
    starts = torch.arange(0, count - 2, CHAIN)
    queries = noisy(vectors[starts], NOISE, generator)
    config = WRITTEN if role == "tell" else None
    with AESGMemory(directory / "memory", config, device) as memory:
        if role == "tell":
            tell(memory, vectors, pairs, TOLD, NOISE, generator)
            memory.save()
        context = asked(memory, 2).retrieve(queries.to(device))
        found = context.vectors.cpu()
        likeness = torch.cosine_similarity(found, vectors[starts + 2][:, None], dim=2)
        np.savez(
            directory / f"{role}.npz",
            indices=context.indices.cpu().numpy(),
            weights=context.weights.cpu().numpy(),
            vectors=found.numpy(),
            aggregate=context.aggregate().detach().cpu().numpy(),
            right=(likeness.max(dim=1).values >= 0.8).numpy(),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
