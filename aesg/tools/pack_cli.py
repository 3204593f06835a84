"""`aesg pack info|verify|merge|diff`: what is in pack files, and one out of two."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aesg.packs.combine import diff_packs, merge_packs
from aesg.packs.export import edge_statistics, write_columns
from aesg.packs.files import AESGPACK_VERSION, read_pack
from aesg.packs.pack import MemoryPack

SIMILARITY = 0.95  # from which two concepts are one, as merge_similarity_threshold
_SHOWN_IDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 fine, 1 packs differ or a file holds what cannot be used, 2 an error."""
    parser = argparse.ArgumentParser(
        prog="aesg pack", description="Look at, check and combine .aesgpack files."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="what a pack says about itself and what is in it")
    info.add_argument("file", metavar="FILE")
    info.add_argument("--json", action="store_true", help="as one JSON object")

    verify = commands.add_parser("verify", help="check all of a pack; exit code 1 when parts cannot be used")
    verify.add_argument("file", metavar="FILE")

    merge = commands.add_parser("merge", help="one pack out of two, near-duplicates made one")
    merge.add_argument("a", metavar="A")
    merge.add_argument("b", metavar="B")
    merge.add_argument("-o", "--output", required=True, metavar="C")
    merge.add_argument("--similarity", type=float, default=SIMILARITY, help="cosine from which two are one")
    merge.add_argument("--format", type=int, default=AESGPACK_VERSION, choices=(1, 2), dest="format_version")
    merge.add_argument("--name", help="name in the file (format 2)")

    diff = commands.add_parser("diff", help="what tells two packs apart; exit code 1 when they differ")
    diff.add_argument("a", metavar="A")
    diff.add_argument("b", metavar="B")

    options = parser.parse_args(argv)
    if options.command == "info":
        return _info(options.file, options.json)
    if options.command == "verify":
        return _verify(options.file)
    if options.command == "merge":
        return _merge(options)
    return _diff(options.a, options.b)


def describe(pack: MemoryPack, size: int) -> dict[str, object]:
    """What `aesg pack info` tells, by name."""
    columns, said = pack.columns, pack.metadata
    created = said.get("created_at")
    whole = isinstance(created, int) and not isinstance(created, bool) and 0 <= created < 2**33
    return {
        "name": pack.name,
        "format": pack.format_version,
        "version": pack.version,
        "description": said.get("description"),
        "licence": said.get("licence"),
        "embedding": said.get("embedding"),
        "provenance": said.get("provenance"),
        "created": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(created)) if whole else None,
        "vector_dim": pack.vector_dim,
        "concepts": len(columns),
        "living": int(columns.active.sum()),
        "regions": len(set(columns.fields["region_id"].tolist()) - {0}),
        **edge_statistics(columns),
        "bytes": size,
        "checksum": pack.checksum,
        "unusable": list(pack.findings),
    }


def _info(file: str, as_json: bool) -> int:
    told = describe(read_pack(file), Path(file).stat().st_size)
    if as_json:
        print(json.dumps(told, ensure_ascii=True))
        return 0
    for key, value in told.items():
        if value is not None and value != []:
            print(f"{key.replace('_', ' ') + ':':<16}{_printable(value)}")
    return 0


def _printable(value: object) -> str:
    """Text from a stranger's file must not steer the terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True)
    return "".join(character if character.isprintable() else "?" for character in text)


def _verify(file: str) -> int:
    pack = read_pack(file)
    for finding in pack.findings:
        print(finding)
    print(
        f"{_printable(pack.name)}: format {pack.format_version}, {len(pack)} concepts of {pack.vector_dim} "
        f"dimensions, {pack.columns.edge_count} edges, {'usable in part' if pack.findings else 'sound'}"
    )
    return 1 if pack.findings else 0


def _merge(options: argparse.Namespace) -> int:
    a, b = read_pack(options.a), read_pack(options.b)
    merged = merge_packs(a, b, options.similarity)
    described = {"name": options.name} if options.name is not None else {}
    if options.format_version == 2:
        described["provenance"] = {"merged": [{"name": p.name, "checksum": p.checksum} for p in (a, b)]}
    write_columns(
        merged.columns,
        options.output,
        created_at=int(time.time()),
        format_version=options.format_version,
        **described,
    )
    print(
        f"{len(merged.columns)} concepts, {merged.columns.edge_count} edges: {merged.shared} of B are in A, "
        f"{merged.renumbered} got a new id"
    )
    return 0


def _diff(file_a: str, file_b: str) -> int:
    found = diff_packs(read_pack(file_a), read_pack(file_b))
    for what, ids in (
        ("concepts only in A", found.only_a),
        ("concepts only in B", found.only_b),
        ("vectors differ", found.moved),
        ("other fields differ", found.changed),
    ):
        if len(ids):
            print(f"{what}: {len(ids)} ({_ids(ids)})")
    for what, count in (
        ("edges only in A", found.edges_only_a),
        ("edges only in B", found.edges_only_b),
        ("edges differ", found.edges_changed),
    ):
        if count:
            print(f"{what}: {count}")
    if found.same:
        print("the packs hold the same")
    return 0 if found.same else 1


def _ids(ids: np.ndarray) -> str:
    shown = ", ".join(str(number) for number in ids[:_SHOWN_IDS].tolist())
    return shown + (", ..." if len(ids) > _SHOWN_IDS else "")
