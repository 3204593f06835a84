"""Program for a Python that has aesg 3.0.0: a memory that does the work it is asked for (`_released.py`)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path) -> None:
    """Answers commands until its input ends."""
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]
    import torch

    from aesg.config import AESGConfig
    from aesg.memory.controller import AESGMemory

    torch.set_num_threads(1)
    world = np.load(folder / "arrays.npz")
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
