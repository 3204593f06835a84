"""`aesg import-v3 OLD NEW`: a memory of aesg 3.0.0 as one of ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from aesg.storage.import_v3 import import_v3


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="aesg import-v3",
        description="Make a memory from a directory of aesg 3.0.0, which stays as it is.",
    )
    parser.add_argument("old", metavar="OLD", help="directory that 3.0.0 wrote")
    parser.add_argument("new", metavar="NEW", help="directory to make; must not hold anything yet")
    parser.add_argument("--vector-dim", type=int, help="needed when OLD/meta.npy is missing or damaged")
    options = parser.parse_args(argv)
    report = import_v3(options.old, options.new, vector_dim=options.vector_dim)
    for finding in report.findings:
        print(f"not usable: {finding}")
    print(
        f"{report.concepts} concepts ({report.active} living) of {report.vector_dim} dimensions, "
        f"{report.edges} edges, {report.events} events"
    )
    return 0
