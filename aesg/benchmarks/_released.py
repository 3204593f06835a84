"""The released aesg 3.0.0 as a contestant, in an environment of its own.

Each contestant is a program that the other environment's Python runs (`_released_memory.py`,
`_released_model.py`): it answers a line of JSON with a line of JSON, the seconds it took among it. So both
releases are timed in turn on the same arrays. The programs import nothing of this package.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


class _Program:
    """A program of this folder, run by another Python; `arrays` are given to it as a file."""

    def __init__(self, python: str, program: str, arrays: dict[str, Any], *arguments: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aesg-released-")
        np.savez(Path(self._folder.name) / "arrays.npz", **arrays)
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name(program)), self._folder.name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            cwd=self._folder.name,
        )
        self.greeting = self._answer()

    def ask(self, command: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("aesg 3.0.0: expected an answer, got none: see its message above")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._folder.cleanup()


class Released:
    """A memory of aesg 3.0.0 in another process. `python`: an interpreter that has it."""

    def __init__(
        self,
        python: str,
        vectors: np.ndarray,
        queries: np.ndarray,
        edges: tuple[np.ndarray, ...] | None = None,
    ) -> None:
        world = {"vectors": vectors, "queries": queries}
        if edges is not None:
            world |= dict(zip(("sources", "targets", "weights"), edges, strict=True))
        self._program = _Program(python, "_released_memory.py", world)
        self.version: str = self._program.greeting["version"]

    def ask(self, work: str, **options: Any) -> dict[str, Any]:
        """Does a piece of work there: its answer, with its `seconds`."""
        return dict(self._program.ask({"work": work, **options}))

    def close(self) -> None:
        """Ends the process."""
        self._program.close()


class ReleasedModel:
    """A preset of aesg 3.0.0 in another process. `python`: an interpreter that has it.

    inputs, targets: arrays as our model of the same name takes them. concepts [N, D]: what its memory holds,
    without edges, which 3.0.0 never makes.
    """

    def __init__(
        self, python: str, name: str, size: str, vocab: int, inputs: Any, targets: Any, concepts: Any
    ) -> None:
        work = {"inputs": inputs, "targets": targets, "concepts": concepts}
        self._program = _Program(python, "_released_model.py", work, name, size, str(vocab))

    def run(self, what: str) -> tuple[float, float]:
        """Seconds, and processor seconds, of one 'forward' or 'training step'."""
        seconds, processor = self._program.ask(what)
        return seconds, processor

    def close(self) -> None:
        """Ends the process."""
        self._program.close()
