"""Everything that claims a benefit, in one report: `python -m aesg bench all --out DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aesg.benchmarks import _evidence
from aesg.benchmarks._device import add_device


def main(argv: Sequence[str] | None = None) -> int:
    """Runs them one after the other; the worst of their exit codes."""
    parser = argparse.ArgumentParser(prog="aesg bench all", description=__doc__)
    parser.add_argument(
        "--out", required=True, help="directory for report.md, report.html and the JSON files"
    )
    parser.add_argument(
        "--seeds", type=int, default=None, help="how many (default: each its own, at least 5)"
    )
    add_device(parser)
    parser.add_argument("--short", action="store_true", help="small, for tests")
    parser.add_argument("--reuse", action="store_true", help="only report what earlier runs left there")
    options = parser.parse_args(argv)
    arguments = ["--out", options.out, *(["--short"] if options.short else [])]
    if options.device != "cpu":
        arguments += ["--device", options.device]
    if options.reuse:
        arguments.append("--reuse")
    if options.seeds is not None:
        arguments += ["--seeds", str(options.seeds)]
    return _evidence.main("all", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
