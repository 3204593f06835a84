"""The command line: `aesg demo | inspect | pack | import-v3 | runs | bench ...`, `aesg --version`.

Only what a command needs is imported. An AESGError ends as one line on stderr and exit code 2, an interrupt
as 130, a reader of the output that went away as 141.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Sequence

from aesg import __version__
from aesg.exceptions import AESGError

USAGE_ERROR = 2
INTERRUPTED = 130
UNREAD = 141  # as a shell says of what SIGPIPE ended
EVIDENCE = ("colorization", "images", "lm", "packs", "recall")  # benchmarks whose --out gets a report


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv` (default: the process's own arguments) and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="aesg", description="A persistent, self-organising memory for PyTorch."
    )
    parser.add_argument("--version", action="version", version=f"aesg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # The commands parse their own arguments: their modules are loaded only when they are called.
    commands.add_parser(
        "demo", help="train with and without a memory on real text, reopen, compare", add_help=False
    )
    commands.add_parser("inspect", help="look at a memory's directory, also as a page", add_help=False)
    commands.add_parser("pack", help="look at, check and combine .aesgpack files", add_help=False)
    commands.add_parser("import-v3", help="make a memory from a directory of aesg 3.0.0", add_help=False)
    commands.add_parser("runs", help="list, show, compare and keep recorded runs", add_help=False)
    bench = commands.add_parser(
        "bench", help="run a benchmark; --record DIR keeps its report as a run there", add_help=False
    )
    bench.add_argument("name", nargs="?", metavar="NAME")
    options, rest = parser.parse_known_args(argv)
    try:
        if options.command == "demo":
            return _run("aesg.tools.demo", rest)
        if options.command == "inspect":
            return _run("aesg.tools.inspect_cli", rest)
        if options.command == "pack":
            return _run("aesg.tools.pack_cli", rest)
        if options.command == "import-v3":
            return _run("aesg.tools.import_cli", rest)
        if options.command == "runs":
            return _run("aesg.tools.runs", rest)
        return _bench(options.name, rest)
    except AESGError as error:
        print(f"aesg: {error.subsystem}: {error.message}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # who read our output, as `head` does, has had enough
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())  # so that flushing at exit does not fail again
        return UNREAD


def _bench(name: str | None, rest: Sequence[str]) -> int:
    if name is not None and name in _benchmarks():
        if "--record" in rest[:-1]:
            return _run("aesg.runs.reports", [name, *rest])
        if "--out" in rest[:-1] and name in EVIDENCE:
            return importlib.import_module("aesg.benchmarks._evidence").main(name, rest) or 0
        return _run(f"aesg.benchmarks.{name}", rest)
    there = ", ".join(_benchmarks()) or "none in this version"
    if name is None:
        print(f"usage: aesg bench NAME [OPTIONS]\nbenchmarks: {there}")
        return 0 if set(rest) <= {"-h", "--help"} and rest else USAGE_ERROR
    print(f"aesg: no benchmark '{name}'; there are: {there}", file=sys.stderr)
    return USAGE_ERROR


def _benchmarks() -> list[str]:
    if importlib.util.find_spec("aesg.benchmarks") is None:
        return []
    package = importlib.import_module("aesg.benchmarks")
    return sorted(
        found.name for found in pkgutil.iter_modules(package.__path__) if not found.name.startswith("_")
    )


def _run(module: str, argv: Sequence[str]) -> int:
    code = importlib.import_module(module).main(list(argv)) or 0
    sys.stdout.flush()  # here, where a broken pipe is caught, not at exit
    return code
