"""Program for a Python that has aesg 3.0.0: a model that runs a forward pass or a training step when asked
(`_released.py`).
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path, name: str, size: str, vocab: int) -> None:
    """Runs what is asked for until the input ends."""
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]
    import torch
    from torch.nn import functional as F

    texts, images = (importlib.import_module(f"aesg.architectures.{kind}") for kind in ("text", "image"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    work = np.load(folder / "arrays.npz")
    inputs, targets = torch.from_numpy(work["inputs"]), torch.from_numpy(work["targets"])
    text = not inputs.is_floating_point()
    preset: Any = getattr(getattr(texts, name, None) or getattr(images, name), size)
    model = preset(*((vocab,) if text else ()), storage_dir=str(folder / "memory"))
    fill(model.memory.storage, work["concepts"])
    optimizer = torch.optim.Adam(model.parameters())

    def loss() -> torch.Tensor:
        outputs = model(inputs)
        if text:
            return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())
        return (F.mse_loss if targets.is_floating_point() else F.cross_entropy)(outputs, targets)

    def forward() -> None:
        model.memory.set_mode("INFERENCE")
        model.memory.reset_state()
        with torch.no_grad():
            model(inputs)

    def step() -> None:
        model.memory.set_mode("TRAIN")
        model.memory.reset_state()
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        model.memory.update_topology()

    print("[]", flush=True)
    for line in sys.stdin:
        what = json.loads(line)
        model.train(what != "forward")
        clock, processor = time.perf_counter(), time.process_time()
        (forward if what == "forward" else step)()
        print(json.dumps([time.perf_counter() - clock, time.process_time() - processor]), flush=True)


def fill(storage: Any, concepts: np.ndarray) -> None:
    """What `add_node` writes, of all concepts at once."""
    count = min(len(concepts), len(storage.nodes))
    nodes = storage.nodes[:count]
    values = {
        "id": np.arange(1, count + 1), "vector": concepts[:count], "created_at": 1, "modified_at": 1,
        "use_frequency": 0, "relevance": 1.0, "age": 0, "stability": 0.5, "region_id": 0, "is_active": 1,
        "head_edge_idx": -1,
    }  # fmt: skip
    for field, value in values.items():
        nodes[field] = value
    storage.node_count = count


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
