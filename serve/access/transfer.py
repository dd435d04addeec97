"""The transfer of request bodies and responses, bounded in bytes and in time.

A body is read here completely, within `body_timeout_s` and its route's size limit, and checked before anything parses
it; the application gets it as one message. So the application never waits for a client that sends slowly, and only a
few large bodies are in memory at once. A client that does not accept a part of the response within `write_timeout_s` is
cut off.

If a request is refused while its body is still arriving, the door closes the connection, and the client may not see the
reason. So whatever part of a refused body arrives quickly is read and discarded before the refusal is sent. A slow body
is not waited for.
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
from serve.access import origins
from serve.access.keys import Principal
from serve.http import bodies, problems
from serve.http.deadlines import has_body
from serve.http.gates import STRANGER, Gates
from serve.replica import memory
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

PICTURES = ("/v1/search",)  # paths whose bodies may contain a picture


class Gone(Exception):
    """The client has closed the connection, or was cut off."""


class HeldResponse(StreamingResponse):
    """A response in parts. It releases what it holds when the last part is sent or the client has gone."""

    def __init__(
        self,
        parts: AsyncIterator[bytes] | AsyncIterator[str],
        held: AsyncExitStack,
        headers: Mapping[str, str],
        status_code: int = 200,
        media_type: str | None = None,
    ) -> None:
        """Make a response that is not sent yet.

        Args:
            parts: the parts, as the text or bytes to send.
            held: what to release at the end.
            headers: the headers of the response.
            status_code: the status; FastAPI reads its default for the OpenAPI document.
            media_type: the type of the content; None for that of the class.
        """
        super().__init__(parts, status_code, headers, media_type)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


class Transfer:
    """Middleware that reads request bodies completely before the application runs, and cuts off clients that read slowly."""

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
            if not writer.cut_off:  # otherwise it is a consequence of cutting the client off
                raise

    async def _with_body(self, scope: Scope, receive: Receive, writer: Writer) -> None:
        incoming = Incoming(receive)
        try:
            async with self._read(scope, incoming) as body:
                await self._app(scope, _once(body, receive), writer.send)
        except (Rejected, Temporary) as error:
            if writer.started:
                raise
            if getattr(error, "status", None) != HTTPStatus.REQUEST_TIMEOUT:  # such a body had its time already
                await incoming.drop(self._search)
            # The connection stays open: if it were closed while the client sends, the client would not see the response.
            await problems.refusal(scope, error)(scope, receive, writer.send)

    @asynccontextmanager
    async def _read(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """Yield a complete, checked body; a large one holds a place while the block runs.

        Raises:
            Rejected: it is too large, too slow, or not acceptable (`bodies.check`).
            Temporary: the gates are full.
            Gone: the client has closed the connection.
        """
        search, (payer, network, weight) = self._search, _sender(scope, self._search)
        picture = scope["path"] in PICTURES
        bytes_max = search.body_max_bytes if picture else search.json_max_bytes
        if _announced(scope) > bytes_max:
            raise bodies.too_large(bytes_max)
        intake = Intake(receive, search.body_timeout_s)
        with self._gates.bodies.passed(payer, weight):
            is_small = await intake.until(search.json_max_bytes)
        if is_small:
            yield intake.checked(search, picture=picture)
            return
        if not picture:
            raise bodies.too_large(bytes_max)
        try:
            with self._gates.large_shares.passed(payer, weight):
                async with self._gates.large_bodies.passed(network, weight):
                    if not await intake.until(bytes_max):
                        raise bodies.too_large(bytes_max)
                    yield intake.checked(search, picture=True)
        finally:
            intake.parts.clear()
            memory.trim()


class Incoming:
    """A wrapper of ASGI's `receive` that notes whether the body has ended."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self.has_ended = receive, False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.has_ended = message["type"] != "http.request" or not message.get("more_body")
        return message

    async def drop(self, search: SearchSettings) -> None:
        """Read and discard the rest of a body while it arrives quickly.

        The time allowed begins with a short pause (`refused_pause_s`) and grows with each byte received
        (`refused_bytes_per_s_min`). Reading ends with the body, when that time is over (`refused_timeout_s` seconds at
        most), or after `refused_bytes_max` bytes.
        """
        began_s, size = asyncio.get_running_loop().time(), 0
        with suppress(TimeoutError):
            while not self.has_ended and size <= search.refused_bytes_max:
                allowed_s = search.refused_pause_s + size / search.refused_bytes_per_s_min
                async with asyncio.timeout_at(began_s + min(allowed_s, search.refused_timeout_s)):
                    size += len((await self()).get("body", b""))


class Intake:
    """A body that is being received, until its deadline."""

    def __init__(self, receive: Receive, timeout_s: float) -> None:
        self._receive, self._timeout_s = receive, timeout_s
        self._deadline_s = asyncio.get_running_loop().time() + timeout_s
        self._size, self._ended = 0, False
        self.parts: list[bytes] = []

    async def until(self, bytes_max: int) -> bool:
        """Read until the end, or until the body is longer than `bytes_max`; return whether all of it is there.

        Raises:
            Rejected: 408, it does not arrive in time.
            Gone: the client has closed the connection.
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
        """Return the complete body after `bodies.check` has accepted it; release the parts that it was received in."""
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        bodies.check(body, search, picture=picture)
        return body


class Writer:
    """A wrapper of ASGI's `send` with a timeout for each part; a client that takes longer is cut off."""

    def __init__(self, send: Send, timeout_s: float) -> None:
        self._send, self._timeout_s = send, timeout_s
        self.started = self.cut_off = False

    async def send(self, message: Message) -> None:
        """Send a part of the response.

        Raises:
            Gone: the client did not accept it in time, or was cut off before.
        """
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
    """Return who sends a body, as gates count them: a name for small bodies, a name for large ones, and a weight.

    With a key both names are the key's; without one, they are the address and its network. `Admission` has checked the key.
    """
    state = scope["state"]
    principal: Principal | None = state.get("principal")
    if principal is not None:
        return f"key {principal.id}", f"key {principal.id}", search.key_weight
    address = state["address"]
    network = origins.prefix(address, ipv4_bits=search.prefix_ipv4_bits, ipv6_bits=search.prefix_ipv6_bits)
    return origins.bucket(address), network, STRANGER


def _announced(scope: Scope) -> int:
    """Return the body's length according to Content-Length, in bytes; 0 without the header.

    Raises:
        Rejected: the header is not a number.
    """
    text = dict(scope["headers"]).get(b"content-length", b"0")
    if not text.isdigit() or len(text) > 19:
        raise Rejected("Content-Length is not a number of bytes", code="bad-length")
    return int(text)


def _once(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the whole body as one message, and after that what the original `receive` gives.

    All that the original can still give is the message that the client has left.
    """
    is_given = False

    async def received() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received
