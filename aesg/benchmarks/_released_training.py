"""A model of the released aesg 3.0.0 as a contestant of `aesg bench train`, in an environment of its own.

Imported, it starts a Python that has it; run by that Python as a program, it runs a forward pass or a
training step of the model of that name whenever a line asks for one, on the inputs and concepts it was given.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


class ReleasedModel:
    """A preset of aesg 3.0.0 in another process. `python`: an interpreter that has it.

    inputs, targets: arrays as our model of the same name takes them. concepts [N, D]: what its memory holds,
    without edges, which 3.0.0 never makes.
    """

    def __init__(
        self, python: str, name: str, size: str, vocab: int, inputs: Any, targets: Any, concepts: Any
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aesg-released-")
        np.savez(Path(self._folder.name) / "work.npz", inputs=inputs, targets=targets, concepts=concepts)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, __file__, self._folder.name, name, size, str(vocab)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self._folder.name,
        )
        self._answer()

    def run(self, what: str) -> tuple[float, float]:
        """Seconds, and processor seconds, of one 'forward' or 'training step'."""
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        seconds, processor = self._answer()
        return seconds, processor

    def _answer(self) -> list[float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("aesg 3.0.0: expected an answer, got none: see its message above")
        return list(json.loads(line))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._folder.cleanup()


def main(folder: Path, name: str, size: str, vocab: int) -> None:
    """Runs what is asked for until the input ends."""
    sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]
    import torch
    from torch.nn import functional as F

    texts, images = (importlib.import_module(f"aesg.architectures.{kind}") for kind in ("text", "image"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    work = np.load(folder / "work.npz")
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
        what = line.strip()
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
