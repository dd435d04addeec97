"""Detection of clients that have closed the connection before their request is begun.

A search runs to its end without watching its client, because watching costs more than most searches. While a replica is
busy, clients that send requests and hang up at once would take its capacity from clients that wait. So their requests
are not begun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from starlette.types import Message, Receive

from cluster.errors import Temporary

LOOP_TURNS = 2  # of the event loop: the first one reads the end of a connection, the second tells the request
HUNG_UP = 499  # status of a response that no client reads, as in nginx; it appears in Serve's metrics only


class ClientConnection:
    """Finds out whether the client of a request without a body has left. Its `received` replaces the request's `receive`."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: deque[Message] = deque()  # read by `has_left`, not passed on yet
        self._has_begun = self._has_left = False

    async def received(self) -> Message:
        """Return the next message, also if `has_left` has read it already."""
        self._has_begun = True
        return self._messages.popleft() if self._messages else await self._receive()

    async def has_left(self) -> bool:
        """Return whether the client has closed the connection. Takes a few turns of the event loop at most."""
        if self._has_left:
            return True
        for _ in range(LOOP_TURNS):
            await asyncio.sleep(0)
        if not self._has_begun:  # the message that ends the empty body; it is there at once
            self._keep(await self._receive())
            self._has_begun = True
        if not self._has_left:
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    self._keep(await self._receive())
        return self._has_left

    def _keep(self, message: Message) -> None:
        self._messages.append(message)
        self._has_left = message["type"] == "http.disconnect"


async def require_here(client: ClientConnection | None) -> None:
    """Check that the client is still connected; None stands for a client that is not watched, and passes.

    Raises:
        Temporary: the client has closed the connection, so that no one reads this error.
    """
    if client is not None and await client.has_left():
        raise Temporary("the client has left")
