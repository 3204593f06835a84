"""Runs a blocking call for an asynchronous caller, and ends it with that caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from aesg.runs.index import abandoned

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The call's result. Cancelled, it waits for the call to end, whose transaction is not committed then
    unless it was already, so that nothing goes on behind the caller's back.
    """
    gone = threading.Event()
    token = abandoned.set(gone)
    try:
        task = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))  # copies the context
    finally:
        abandoned.reset(token)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        gone.set()
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # seen: it is the Abandoned that was asked for
        raise
