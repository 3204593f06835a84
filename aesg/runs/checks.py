"""What users hand in, checked before anything is written; canonical JSON. Errors are AESGStorageError."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from aesg.exceptions import AESGStorageError

SCOPES = ("run", "graph", "node", "all")
MODES = ("max", "min")
MAX_NAME = 200  # bytes; file systems allow 255
MAX_SHOWN = 200  # characters of a value in a message
MAX_DEPTH = 100  # of nested values: what is written must be readable wherever it is asked for


def check_text(value: Any, what: str) -> str:
    """A string that is not empty, holds no NUL and can be written as UTF-8; a member of a str-Enum counts
    as its value.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise AESGStorageError(
            f"{what}: expected a string that is not empty and has no NUL, got {shown(value)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise AESGStorageError(f"{what}: expected a string that UTF-8 can hold, got {shown(value)}") from None
    return str.__str__(value)  # str() of a str-Enum would be its name


def check_name(value: Any, what: str) -> str:
    """A string that may become part of a path: printable, no separators, not '.' or '..', short."""
    text = check_text(value, what)
    if (
        len(text.encode()) > MAX_NAME
        or not text.isprintable()
        or text in (".", "..")
        or "/" in text
        or "\\" in text
    ):
        raise AESGStorageError(
            f"{what}: expected at most {MAX_NAME} bytes, printable, without '/' or '\\', not '.' or '..', "
            f"got {text!r}"
        )
    return text


def check_suffix(value: Any, what: str) -> str:
    """'' or a file name's ending such as '.png', with its dot."""
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not value.startswith(".") or len(value) > 32:
        raise AESGStorageError(f"{what}: expected an ending such as '.png', got {shown(value)}")
    return check_name(value, what)


def check_member(name: str, what: str) -> str:
    """The path of a member inside a directory: relative, no '.', '..' or empty part, no NUL."""
    parts = name.split("/") if isinstance(name, str) else [""]
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise AESGStorageError(f"{what}: expected a relative path inside its directory, got {name!r}")
    return str(PurePosixPath(name))


def check_path(value: Any, what: str) -> str:
    """A path as text."""
    try:
        path = os.fspath(value)
    except TypeError:
        raise AESGStorageError(f"{what}: expected a path, got {type(value).__name__}") from None
    if not isinstance(path, str) or not path or "\0" in path:
        raise AESGStorageError(f"{what}: expected a path as text, got {path!r}")
    return path


def check_choice(value: Any, choices: tuple[str, ...], what: str) -> str:
    if not isinstance(value, str) or value not in choices:
        raise AESGStorageError(f"{what}: expected one of {', '.join(choices)}, got {shown(value)}")
    return str.__str__(value)


def check_limit(value: Any, what: str = "limit") -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AESGStorageError(f"{what}: expected a whole number >= 1, got {shown(value)}")
    return min(value, 2**62)  # what SQLite can hold


def check_labels(labels: Any, what: str = "labels") -> dict[str, Any]:
    """Labels: a mapping from names to JSON values."""
    checked = _mapping(labels, what)
    for key in checked:
        check_text(key, f"{what} key")
    return json.loads(encode(checked, what))


def label_key(value: Any) -> str:
    """The text under which a label's value is found: equal only for the same type and value (1, 1.0, True,
    '1' are four).
    """
    return encode(value + 0.0 if isinstance(value, float) else value, "label")  # -0.0 is 0.0


def check_metrics(metrics: Any, what: str = "metrics", finite: bool = True) -> dict[str, float]:
    """Metrics: a mapping from names to real numbers, finite ones where they rank."""
    checked = _mapping(metrics, what)
    return {
        check_text(name, f"{what} name"): _number(value, f"{what} {name!r}", finite)
        for name, value in checked.items()
    }


def check_words(words: Any, what: str) -> list[str]:
    """A list of strings; one string alone is a mistake (it would be taken letter by letter)."""
    if words is None:
        return []
    if isinstance(words, (str, bytes)) or not isinstance(words, Iterable):
        raise AESGStorageError(f"{what}: expected a list of strings, got {words!r}")
    return [check_text(word, what) for word in words]


def encode(value: Any, what: str, *, nan: bool = False) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII. Scalars of numpy and torch are plain numbers.

    Raises AESGStorageError for what JSON cannot hold: other types, keys that are no strings, circles, more
    than MAX_DEPTH levels, and NaN and infinities unless `nan`.
    """
    try:
        _check_nested(value, what, MAX_DEPTH)
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=nan, default=_scalar)
    except (TypeError, ValueError, RecursionError) as error:
        raise AESGStorageError(f"{what}: expected what JSON can hold, {error}") from None


def shown(value: Any) -> str:
    """A value for a message: its repr, cut short; numbers can be too long to have one."""
    try:
        text = repr(value)
    except Exception as error:  # whatever a foreign __repr__ raises
        return f"{type(value).__name__} ({error})"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _check_nested(value: Any, what: str, levels: int) -> None:
    """json.dumps would quietly make strings of other keys, and two keys one; what is nested too deeply could
    be read only by a caller whose own stack is as shallow as the writer's.
    """
    if levels < 0:
        raise AESGStorageError(f"{what}: expected at most {MAX_DEPTH} levels of nested values, got more")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise AESGStorageError(f"{what}: expected keys that are strings, got {key!r}")
            _check_nested(item, what, levels - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_nested(item, what, levels - 1)


def _scalar(value: Any) -> Any:
    """numpy and torch scalars have item() and no dimensions."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(f"got {type(value).__name__}")


def _mapping(value: Any, what: str) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise AESGStorageError(f"{what}: expected a mapping, got {type(value).__name__}")
    return dict(value)


def _number(value: Any, what: str, finite: bool) -> float:
    try:
        plain = value if isinstance(value, (int, float)) else _scalar(value)
        if isinstance(plain, bool) or not isinstance(plain, (int, float)):
            raise TypeError
        as_float = float(plain)
    except (TypeError, ValueError, OverflowError):
        raise AESGStorageError(f"{what}: expected a real number, got {shown(value)}") from None
    if finite and not math.isfinite(as_float):
        raise AESGStorageError(
            f"{what}: expected a finite number to rank by, got {shown(value)} (events take it)"
        )
    return plain if isinstance(plain, int) else as_float
