"""Clients that are gone before they are answered: where many ask at once, their requests are not begun.

A search is finished without watching its caller, which costs more than most searches do. Who asks and hangs up at once
would so have a replica do work that nobody waits for, and keep it from those who wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from starlette.types import Message, Receive

from cluster.errors import Temporary

LOOP_TURNS = 2  # that an ended connection takes to be known: one reads it, the next one tells the request
HUNG_UP = 499  # the status in Serve's figures of what has no reader, as nginx has it


class ClientConnection:
    """The other end of one request without a body. `received` takes the place of what the request came with."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._came: deque[Message] = deque()
        self._has_begun = self._has_left = False

    async def received(self) -> Message:
        """The next message, also where `has_left` has seen it."""
        self._has_begun = True
        return self._came.popleft() if self._came else await self._receive()

    async def has_left(self) -> bool:
        """Whether the client is gone. Waits for turns of the loop alone."""
        if self._has_left:
            return True
        for _ in range(LOOP_TURNS):
            await asyncio.sleep(0)
        if not self._has_begun:  # the end of the body that there is none of, which is there at once
            self._keep(await self._receive())
            self._has_begun = True
        if not self._has_left:
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    self._keep(await self._receive())
        return self._has_left

    def _keep(self, message: Message) -> None:
        self._came.append(message)
        self._has_left = message["type"] == "http.disconnect"


async def require_here(client: ClientConnection | None) -> None:
    """Go on only for a client who is still there; None is one who is not watched.

    Raises:
        Temporary: they are gone, and nobody reads it.
    """
    if client is not None and await client.has_left():
        raise Temporary("the client has left")
