"""Commands one after the other, each with its limit, none hiding the others: their status and duration."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

TIMED_OUT = 124  # as timeout(1) says it
NOT_STARTED = 127  # as a shell says of a command that is not there
TAIL = 4000  # characters of what a failed step printed that are kept


class Step(NamedTuple):
    """A command; its `result`, a JSON file, must be there afterwards."""

    name: str
    command: list[str]
    limit: float  # seconds
    environment: Mapping[str, str] = {}
    result: Path | None = None
    left_out: str | None = None  # why it is not run: no failure
    must_pass: bool = False  # pytest's: at least one test, as skipped ones prove nothing
    judges: bool = False  # exits with 1 when it missed an aim of its own: no failure if its result is there


def run(step: Step, folder: Path, log: Path, most: float) -> dict[str, Any]:
    """Runs a step in `folder`, at most `most` seconds, its output behind `log`. Returns {"name", "command",
    "status", "seconds", "ok"}, with "reason" and "tail" where it failed.

    What is over its time is ended with all it started.
    """
    told: dict[str, Any] = {"name": step.name, "command": step.command}
    if step.left_out is not None:
        return told | {"status": None, "seconds": 0.0, "ok": True, "left_out": step.left_out}
    limit = min(step.limit, most)
    if limit <= 0:
        return told | {"status": TIMED_OUT, "seconds": 0.0, "ok": False, "reason": "no time was left"}
    start, reason = time.monotonic(), None
    with log.open("ab") as out:
        out.write(f"\n=== {step.name}: {' '.join(step.command)}\n".encode())
        out.flush()
        begun = out.tell()
        try:
            process = subprocess.Popen(
                step.command,
                cwd=folder,
                env={**os.environ, **step.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return told | {"status": NOT_STARTED, "seconds": 0.0, "ok": False, "reason": str(error)}
        try:
            status = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            status, reason = TIMED_OUT, f"not done after {limit:.0f} s"
        finally:
            _end(process)
    seconds = round(time.monotonic() - start, 2)
    with log.open("rb") as written:
        written.seek(begun)
        output = written.read().decode(errors="replace")
    told |= {"status": status, "seconds": seconds}
    counts = tests(output)
    if counts:
        told["tests"] = counts
    there = step.result is None or step.result.is_file()
    if reason is None and status != 0 and not (step.judges and status == 1):
        reason = f"exit status {status}"
    if reason is None and not there:
        reason = "it left no results"
    if reason is None and step.must_pass and not counts.get("passed"):
        reason = "no test ran"
    if reason is None:
        return told | {"ok": True}
    return told | {"ok": False, "reason": reason, "tail": output[-TAIL:]}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the step and what it left running, which has its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tests(output: str) -> dict[str, int]:
    """What pytest counted, from the last line that says how long it took; empty for what is no pytest."""
    lines = [line for line in output.splitlines() if re.search(r" in \d+(\.\d+)?s", line)]
    if not lines:
        return {}
    words = re.findall(r"(\d+) (passed|failed|errors?|skipped|deselected)", lines[-1])
    return {kind: int(count) for count, kind in words}
