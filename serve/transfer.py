"""What comes into a request and goes out of it, bounded in bytes and in time.

A body is read here to its end, within `body_timeout_s` and the limit of its route, and looked at before anything parses
it; what is behind gets it as one message. So nothing behind waits for a client that sends slowly, and large bodies are
in memory a few at a time. A part of an answer that a client does not take within `write_timeout_s` ends the request.

The door ends a request that is refused, and with it the connection of who still sends, who may then not see why. So what
comes quickly of a refused body is read and thrown away before the refusal is said; a body that drips is not waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from http import HTTPStatus

from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import Rejected, Temporary
from serve import bodies, memory, origins, problems
from serve.deadlines import has_body
from serve.gates import STRANGER, Gates
from serve.keys import Principal
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

PICTURES = ("/v1/search",)  # what may carry a picture


class Gone(Exception):
    """The client has gone, or was cut off."""


class HeldResponse(StreamingResponse):
    """An answer in parts; what it holds is released when the last is sent, or the client has gone."""

    def __init__(
        self,
        parts: AsyncIterator[bytes] | AsyncIterator[str],
        held: AsyncExitStack,
        headers: Mapping[str, str],
        status_code: int = 200,  # FastAPI looks here for what the document says
        media_type: str | None = None,
    ) -> None:
        super().__init__(parts, status_code, headers, media_type)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


class Transfer:
    """The middleware around everything that reads a body or writes an answer."""

    def __init__(self, app: ASGIApp, search: SearchSettings, gates: Gates) -> None:
        self._app, self._search, self._gates = app, search, gates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        writer = Writer(send, self._search.write_timeout_s)
        try:
            if has_body(scope):
                await self._with_body(scope, receive, writer)
            else:
                await self._app(scope, receive, writer.send)
        except Gone:
            log.debug("a client has gone", extra={"request_id": problems.request_id(scope)})
        except Exception:
            if not writer.cut_off:
                raise  # else it is what became of cutting it off

    async def _with_body(self, scope: Scope, receive: Receive, writer: Writer) -> None:
        incoming = Incoming(receive)
        try:
            async with self._read(scope, incoming) as body:
                await self._app(scope, _once(body, receive), writer.send)
        except (Rejected, Temporary) as error:
            if writer.started:
                raise
            if getattr(error, "status", None) != HTTPStatus.REQUEST_TIMEOUT:  # which had its time
                await incoming.drop(self._search)
            # The connection stays: were it closed under a client that still sends, the client would not see the answer.
            await problems.refusal(scope, error)(scope, receive, writer.send)

    @asynccontextmanager
    async def _read(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """A body that was found good, and for a large one its place."""
        search, (whose, network, weight) = self._search, _sender(scope, self._search)
        picture = scope["path"] in PICTURES
        bytes_max = search.body_max_bytes if picture else search.json_max_bytes
        if _announced(scope) > bytes_max:
            raise bodies.too_large(bytes_max)
        intake = Intake(receive, search.body_timeout_s)
        with self._gates.bodies.passed(whose, weight):
            is_small = await intake.until(search.json_max_bytes)
        if is_small:
            yield intake.checked(search, picture=picture)
            return
        if not picture:
            raise bodies.too_large(bytes_max)
        try:
            with self._gates.large_shares.passed(whose, weight):
                async with self._gates.large_bodies.passed(network, weight):
                    if not await intake.until(bytes_max):
                        raise bodies.too_large(bytes_max)
                    yield intake.checked(search, picture=True)
        finally:
            intake.parts.clear()
            memory.trim()


class Incoming:
    """A body on its way in: `receive` of ASGI, which knows whether the end has come."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self.has_ended = receive, False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.has_ended = message["type"] != "http.request" or not message.get("more_body")
        return message

    async def drop(self, search: SearchSettings) -> None:
        """Throw away what else comes of it, while it comes quickly: so much in the time since the beginning, and a little.

        Ends with the body, after `refused_bytes_max`, or `refused_timeout_s` at the latest.
        """
        began_s, size = asyncio.get_running_loop().time(), 0
        with suppress(TimeoutError):
            while not self.has_ended and size <= search.refused_bytes_max:
                earned_s = search.refused_pause_s + size / search.refused_bytes_per_s_min
                async with asyncio.timeout_at(began_s + min(earned_s, search.refused_timeout_s)):
                    size += len((await self()).get("body", b""))


class Intake:
    """A body on its way in, until its deadline."""

    def __init__(self, receive: Receive, timeout_s: float) -> None:
        self._receive, self._timeout_s = receive, timeout_s
        self._deadline_s = asyncio.get_running_loop().time() + timeout_s
        self._size, self._ended = 0, False
        self.parts: list[bytes] = []

    async def until(self, bytes_max: int) -> bool:
        """Read to the end, or until it is longer; whether the whole body is there and no longer than that.

        Raises:
            Rejected: 408, it does not come in time.
            Gone: the client has gone.
        """
        try:
            async with asyncio.timeout_at(self._deadline_s):
                while not self._ended and self._size <= bytes_max:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        raise Gone
                    self.parts.append(message.get("body", b""))
                    self._size += len(self.parts[-1])
                    self._ended = not message.get("more_body")
        except TimeoutError as error:
            raise Rejected(
                f"the body did not come within {self._timeout_s:g} s", status=408, code="body-timeout"
            ) from error
        return self._size <= bytes_max

    def checked(self, search: SearchSettings, *, picture: bool) -> bytes:
        """The whole body, which nothing here holds any longer."""
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        bodies.check(body, search, picture=picture)
        return body


class Writer:
    """The way out to a client, which has so long for each part."""

    def __init__(self, send: Send, timeout_s: float) -> None:
        self._send, self._timeout_s = send, timeout_s
        self.started = self.cut_off = False

    async def send(self, message: Message) -> None:
        if self.cut_off:
            raise Gone
        self.started = True
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._send(message)
        except TimeoutError as error:
            self.cut_off = True
            raise Gone from error


def _sender(scope: Scope, search: SearchSettings) -> tuple[str, str, float]:
    """Whose body it is: a key's, or an address's; whose that is where places are few: a key's, or a network's; and their
    weight. `Admission` has judged the key."""
    state = scope["state"]
    principal: Principal | None = state.get("principal")
    if principal is not None:
        return f"key {principal.id}", f"key {principal.id}", search.key_weight
    address = state["address"]
    network = origins.prefix(address, ipv4_bits=search.prefix_ipv4_bits, ipv6_bits=search.prefix_ipv6_bits)
    return origins.bucket(address), network, STRANGER


def _announced(scope: Scope) -> int:
    """The announced length of a body; 0 without one.

    Raises:
        Rejected: it is not a number.
    """
    text = dict(scope["headers"]).get(b"content-length", b"0")
    if not text.isdigit() or len(text) > 19:
        raise Rejected("Content-Length is not a number of bytes", code="bad-length")
    return int(text)


def _once(body: bytes, receive: Receive) -> Receive:
    """The whole body as one message, then what comes after it: the client's end."""
    given = False

    async def received() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received
