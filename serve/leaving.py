"""Clients that are gone before they are answered: where many ask at once, their requests are not begun.

A search is finished without watching its caller, which costs more than most searches do. Who asks and hangs up at once
would so have a replica do work that nobody waits for, and keep it from those who wait.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import Message, Receive

LOOP_TURNS = 2  # that an ended connection takes to be known: one reads it, the next one tells the request
HUNG_UP = 499  # the status in the figures of Serve of what has no reader; as nginx has it


async def has_left(receive: Receive) -> tuple[bool, Receive]:
    """Whether the client of a request without a body is gone, and how to go on receiving. Waits for turns of the loop alone."""
    for _ in range(LOOP_TURNS):
        await asyncio.sleep(0)
    first = await receive()  # the end of the body that there is none of
    if first["type"] == "http.disconnect":
        return True, receive
    second: Message | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            second = await receive()
    came = [first] if second is None else [first, second]
    return second is not None and second["type"] == "http.disconnect", _after(came, receive)


def _after(came: list[Message], receive: Receive) -> Receive:
    """What comes, with these messages before it."""

    async def received() -> Message:
        return came.pop(0) if came else await receive()

    return received
