"""`aesg inspect DIR`: what lies in a memory's directory, in the terminal or as a page."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from aesg.tools.look import look, open_for_looking

BARS = " ▁▂▃▄▅▆▇█"
LABEL = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 sound, 1 damage was found, 2 an error (raised)."""
    parser = argparse.ArgumentParser(
        prog="aesg inspect",
        description="Look at a memory's directory, also while it is being written to. Changes nothing.",
    )
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--html", metavar="FILE", help="write a page that needs no network")
    parser.add_argument(
        "--concepts", type=int, default=20_000, help="drawn on the page at most (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="the facts as one JSON object")
    parser.add_argument("--quick", action="store_true", help="leave out the check of files and graph")
    options = parser.parse_args(argv)
    if options.concepts < 1:
        parser.error(f"--concepts: expected at least 1, got {options.concepts}")
    with open_for_looking(options.directory) as storage:
        facts = look(storage, health=not options.quick)
        if options.html is not None:
            from aesg.tools.inspect_page import write_page

            write_page(storage, facts, options.html, options.concepts)
    if options.json:
        print(json.dumps(facts))
    elif options.html is not None:
        print(f"written: {options.html}")
    else:
        print(report(facts))
    return 1 if facts["health"] else 0


def report(facts: dict[str, Any]) -> str:
    """The facts as text, at most 100 columns wide."""
    concepts, edges, regions = facts["concepts"], facts["edges"], facts["regions"]
    lines = [
        f"{printable(facts['directory'])}",
        _line(
            "memory",
            f"{facts['vector_dim']} dimensions, generation {facts['generation']}, "
            f"opens in mode {facts['mode']}",
        ),
        _line(
            "concepts",
            f"{concepts['living']:,} living ({concepts['abstract']:,} abstract), {concepts['dead']:,} dead, "
            f"{concepts['free']:,} free slots, {concepts['candidates']:,} candidates",
        ),
        _line(
            "",
            f"{concepts['never_used']:,} never used, {concepts['without_edges']:,} without an edge",
        ),
        _line(
            "edges",
            f"{edges['all']:,}: {edges['similarity']:,} similarity, {edges['succession']:,} succession, "
            f"{edges['abstraction']:,} abstraction",
        ),
        _line(
            "",
            f"{edges['mean_degree']:.2f} a concept, at most {edges['most']:,}; "
            f"{edges['into_the_dead']:,} with a dead end",
        ),
        _line("regions", _regions(regions)),
    ]
    if facts["packs"]:
        named = ", ".join(f"{printable(str(p['name']))} (priority {p['priority']})" for p in facts["packs"])
        lines.append(_line("packs", named))
    lines.append("")
    for name, title in (("age", "age"), ("relevance", "relevance"), ("use", "uses"), ("degree", "edges")):
        lines.append(_line(title, _histogram(facts["histograms"][name], name in ("use", "degree"))))
    lines.append("")
    for place, hub in enumerate(facts["hubs"]):
        lines.append(
            _line(
                "hubs" if place == 0 else "",
                f"concept {hub['id']:<8} {hub['degree']:>6,} edges ({hub['degree_in']:,} in, "
                f"{hub['degree_out']:,} out), used {hub['use_frequency']:,}, region {hub['region_id']}",
            )
        )
    if not facts["hubs"]:
        lines.append(_line("hubs", "none: no concept has an edge"))
    events = facts["events"]
    counts = ", ".join(f"{count:,} {name}" for name, count in events["counts"].items() if count)
    lines += ["", _line("events", f"{events['total']:,}" + (f": {counts}" if counts else ""))]
    lines += [_line("", _event(event)) for event in events["last"]]
    disk = facts["disk"]
    total = sum(file["bytes"] for file in disk.values())
    taken = sum(file["on_disk"] for file in disk.values())
    lines += ["", _line("disk", f"{size(total)}, {size(taken)} of it allocated")]
    lines += [_line("", f"{name:<18}{size(file['bytes']):>10}") for name, file in disk.items()]
    health = facts["health"]
    if health is None:
        lines += ["", _line("health", "not checked")]
    else:
        lines += ["", _line("health", "sound" if not health else f"{len(health)} findings")]
        lines += [_line("", printable(finding)) for finding in health[:20]]
    return "\n".join(lines)


def printable(text: str) -> str:
    """Names from files must not steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL}}{text}"


def _regions(regions: dict[str, Any]) -> str:
    if not regions["count"]:
        return "none yet"
    listed = ", ".join(f"{region} ({members:,})" for region, members in regions["largest"])
    more = ", ..." if regions["count"] > len(regions["largest"]) else ""
    outside = f"; {regions['none']:,} concepts in none" if regions["none"] else ""
    return f"{regions['count']:,}; the largest: {listed}{more}{outside}"


def _histogram(counted: dict[str, Any], logarithmic: bool) -> str:
    """A bar a bin; one concept among thousands still shows."""
    if counted["mean"] is None:
        return "no concepts"
    top = max(counted["counts"])
    bars = "".join(BARS[0 if not n else max(1, round(8 * n / top))] for n in counted["counts"])
    low, high = ((10**v - 1 if logarithmic else v) for v in (counted["low"], counted["high"]))
    mean = "" if logarithmic else f", mean {counted['mean']:.3g}"
    return f"{low:>6.3g} |{bars}| {high:.3g}{mean}{' (logarithmic)' if logarithmic else ''}"


def _event(event: dict[str, Any]) -> str:
    try:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event["timestamp"]))
    except (OverflowError, ValueError, OSError):
        when = str(event["timestamp"])
    kind, one, other, value = (event[name] for name in ("type", "id1", "id2", "val"))
    told = {
        "CREATE": f"concept {one}" + (f" above {value:.0f}, the first {other}" if other else ""),
        "MERGE": f"concept {other} into {one}",
        "SPLIT": f"concept {one}, the new one {other}",
        "PRUNE": f"concept {one}",
        "CONSOLIDATE": f"pass {one}: {other} living, {value:.0f} died",
        "RESTRUCTURE": f"sweep {one}: {other} edges removed, {value:.0f} slots freed"
        if one
        else f"{other} regions found",
    }.get(str(kind), f"{one} {other} {value:g}")
    return f"{when}  {kind!s:<12}{told}"
