"""The released aesg 3.0.0 as a contestant, in an environment of its own.

Imported, it starts a Python that has it; run by that Python as a program, it answers one command a line with
the seconds it took. So both can be timed in turn on the same vectors and edges.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


class Released:
    """A memory of aesg 3.0.0 in another process. `python`: an interpreter that has it."""

    def __init__(
        self,
        python: str,
        vectors: np.ndarray,
        queries: np.ndarray,
        edges: tuple[np.ndarray, ...] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aesg-released-")
        given: dict[str, Any] = (
            {} if edges is None else dict(zip(("sources", "targets", "weights"), edges, strict=True))
        )
        np.savez(Path(self._folder.name) / "world.npz", vectors=vectors, queries=queries, **given)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, __file__, self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self._folder.name,
        )
        self.version = self._answer()["version"]

    def ask(self, work: str, **options: Any) -> dict[str, Any]:
        """Does a piece of work there: its answer, with its `seconds`."""
        assert self._process.stdin is not None
        print(json.dumps({"work": work, **options}), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("aesg 3.0.0: expected an answer, got none: see its message above")
        return dict(json.loads(line))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._folder.cleanup()


def main(folder: Path) -> None:
    """Answers commands until its input ends."""
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]
    import torch

    from aesg.config import AESGConfig
    from aesg.memory.controller import AESGMemory

    torch.set_num_threads(1)
    world = np.load(folder / "world.npz")
    vectors, queries = world["vectors"], torch.from_numpy(world["queries"])
    most = max(2 * len(vectors), 1000)
    config = AESGConfig(vector_dim=vectors.shape[1], max_concepts=most)
    memory = AESGMemory(str(folder / "memory"), config)
    storage: Any = memory.storage
    for row, vector in enumerate(vectors):
        storage.add_node(row + 1, vector)
    if "sources" in world:
        for source, target, weight in zip(world["sources"], world["targets"], world["weights"], strict=True):
            if storage.edge_count < len(storage.edges):
                storage.add_edge(int(source), int(target) + 1, float(weight))
    asked = 0

    def answer(**values: Any) -> None:
        print(json.dumps(values), flush=True)

    answer(version="3.0.0")
    for line in sys.stdin:
        command = json.loads(line)
        work = command.pop("work")
        if work == "nearest":
            found = [[slot for slot, _ in memory.graph.find_nearest_neighbors(q.numpy(), 2)] for q in queries]
            answer(found=found)
        elif work == "retrieve":
            object.__setattr__(config, "spreading_activation_steps", command["hops"])
            memory.set_mode("INFERENCE")
            memory.reset_state()
            query = queries[asked % len(queries)]
            asked += 1
            start = time.perf_counter()
            memory.retrieve(query)
            answer(seconds=time.perf_counter() - start)
        elif work == "consolidate":
            memory.set_mode("TRAIN")
            storage.nodes["age"][: storage.node_count] = 0
            start = time.perf_counter()
            memory.cognitive_engine.consolidate()
            answer(seconds=time.perf_counter() - start)
        elif work == "insert":
            rows = vectors[: command["rows"]]
            storage.node_count = 0
            start = time.perf_counter()
            for row, vector in enumerate(rows):
                storage.add_node(row + 1, vector)
            answer(seconds=time.perf_counter() - start)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
