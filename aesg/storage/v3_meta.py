"""The counts in a meta.npy of aesg 3.0.0, without running the pickle they lie in.

The file is an .npy of one object: a pickle of a 0-d array that holds a dict of five integers. A pickle is a
program; this reads it with a machine of our own that knows the few operations such a file needs, admits the
three names it may mention and calls nothing, not even those.
"""

from __future__ import annotations

import pickletools
from typing import Any

from aesg.exceptions import AESGStorageError

MAX_BYTES = 1 << 16  # a real one has some 350
KEYS = ("node_count", "edge_count", "vector_dim", "cap_nodes", "cap_edges")
ADMITTED = frozenset(
    {
        "numpy._core.multiarray _reconstruct",
        "numpy.core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
    }
)
_START = b"\x93NUMPY\x01\x00"
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    ["BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"]
)
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Name:
    """An admitted name. Nothing is imported."""


class _Made:
    """What calling an admitted name would have made: keeps the state given to it."""

    state: Any = None


def read_meta(data: bytes) -> dict[str, int]:
    """The five counts of a 3.0.0 meta.npy. Raises AESGStorageError for anything else; runs nothing."""
    if not data.startswith(_START) or not 128 < len(data) <= MAX_BYTES:
        raise AESGStorageError("meta.npy: expected an .npy file of version 1.0 with one object")
    try:
        made = _load(data[10 + int.from_bytes(data[8:10], "little") :])
        (counts,) = made.state[4]
        numbers = {key: counts[key] for key in KEYS}
    # Whatever a damaged or hostile file makes of the stack: too little on it, wrong types, bad lengths.
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        text = f"meta.npy: expected the counts of a 3.0.0 memory, got {error!r}"
        raise AESGStorageError(text[:300]) from None
    for key, value in numbers.items():
        if type(value) is not int or not 0 <= value < 2**40:
            raise AESGStorageError(f"meta.npy: expected a count as {key}, got {repr(value)[:40]}")
    if not 1 <= numbers["vector_dim"] <= 8192:
        raise AESGStorageError(f"meta.npy: expected a vector_dim of 1..8192, got {numbers['vector_dim']}")
    return numbers


def _load(program: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = max(place for place, value in enumerate(stack) if value is _MARK)
        values = stack[at + 1 :]
        del stack[at:]
        return values

    for operation, argument, _ in pickletools.genops(program):
        name = operation.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in _TUPLES:
            size = _TUPLES[name]
            values = stack[len(stack) - size :]
            del stack[len(stack) - size :]
            stack.append(tuple(values))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[_a(int, argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[_a(int, argument)])
        elif name == "APPEND":
            value = stack.pop()
            _a(list, stack[-1]).append(value)
        elif name == "APPENDS":
            values = since_mark()
            _a(list, stack[-1]).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            for key, value in zip(values[::2], values[1::2], strict=True):
                _a(dict, stack[-1])[_a(str, key)] = value  # text only: hashing anything else may never end
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                what, module = _a(str, stack.pop()), _a(str, stack.pop())
                argument = f"{module} {what}"
            if argument not in ADMITTED:
                raise ValueError(f"the name {argument!r}")
            stack.append(_Name())
        elif name == "REDUCE":
            stack.pop()
            _a(_Name, stack.pop())
            stack.append(_Made())
        elif name == "BUILD":
            state = stack.pop()
            _a(_Made, stack[-1]).state = state
        else:
            raise ValueError(f"the operation {name}")
    raise ValueError("no end")


def _a(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where {kind.__name__} must be")
    return value
