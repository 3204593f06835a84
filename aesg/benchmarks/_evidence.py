"""`aesg bench colorization|images|recall|packs|lm|all --out DIR`: runs them and writes one report."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aesg.benchmarks._device import require_cuda
from aesg.benchmarks._report import read_part, write_report
from aesg.exceptions import AESGStorageError
from aesg.tools.files import replacing

# What claims that a memory is worth something, in the order of the report.
NAMES = ("recall", "lm", "packs", "images", "colorization")


def there() -> list[str]:
    """Those that this version has."""
    return [name for name in NAMES if importlib.util.find_spec(f"aesg.benchmarks.{name}") is not None]


def main(name: str, argv: Sequence[str]) -> int:
    """Runs benchmark `name`, or all, with these arguments, which hold `--out DIR`.

    Each writes its own JSON there; report.md and report.html are made of it. Returns the worst exit code;
    one that missed an aim still stands in the report. Raises AESGStorageError where DIR cannot be written,
    before anything is run.

    With `--reuse`, what an earlier run left in DIR is taken instead of running again; `all` then
    runs nothing, and raises AESGStorageError where nothing was left.
    """
    arguments = [argument for argument in argv if argument != "--reuse"]
    reuse = len(arguments) < len(argv)
    out = Path(arguments[arguments.index("--out") + 1])
    left = [each for each in NAMES if reuse and (out / f"{each}.json").is_file()]
    if reuse and name == "all" and not left:
        raise AESGStorageError(f"'{out}': expected what earlier runs left there, found nothing")
    names = [name] if name != "all" else left or there()
    if {"cuda", "--device=cuda"} & set(arguments):
        require_cuda()
    with replacing(out / "report.md.test") as probe:  # hours of work want a place to go
        probe.write_text("")
    (out / "report.md.test").unlink()
    code = 0
    parts: dict[str, dict[str, Any]] = {}
    for each in names:
        path = out / f"{each}.json"
        if reuse and path.is_file():
            parts[each] = read_part(path)
            continue
        print(f"== {each}", flush=True)
        code = max(code, importlib.import_module(f"aesg.benchmarks.{each}").main(arguments) or 0)
        if not path.is_file():
            raise AESGStorageError(f"'{path}': expected what the benchmark wrote, found nothing")
        parts[each] = read_part(path)
        parts[each]["command"] = command(each, arguments)
        with replacing(path) as beside:
            beside.write_text(json.dumps(parts[each], indent=2) + "\n", encoding="utf-8")
    for path in write_report(out, parts, command(name, argv)):
        print(f"written: {path}")
    return code


def command(name: str, arguments: Sequence[str]) -> str:
    return " ".join(["python -m aesg bench", name, *arguments])
