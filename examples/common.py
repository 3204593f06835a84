"""What all examples share: `--short`, `--dir`, and a directory for memories."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch


@contextlib.contextmanager
def example(text: str) -> Iterator[tuple[bool, Path]]:
    """(whether to be short, directory for memories); the directory is removed unless it was named."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--dir", type=Path, help="where memories go (default: a temporary directory)")
    options = parser.parse_args()
    torch.manual_seed(0)
    with contextlib.ExitStack() as stack:
        if options.dir is None:
            options.dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aesg-example-")))
        yield options.short, options.dir
