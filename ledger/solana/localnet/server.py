"""The localnet as a process: JSON-RPC over HTTP on the loopback address, one block per slot, everything on disk.

A transaction is on disk before its request is answered; transactions that arrive together share one write. Heights are
reserved on disk before they are used, so that a restart never uses one twice.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from ledger.solana.localnet.blocks import LocalChain
from ledger.solana.localnet.methods import RpcError, answer
from ledger.solana.localnet.store import LocalnetStore

log = logging.getLogger(__name__)

HEIGHTS_AHEAD = 20  # that are promised at once
BODY_BYTES_MAX = 1 << 20
BATCH_CALLS_MAX = 100
GATHER_S = 0.002  # for which a write waits for other transactions
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
ACCEPTING = ("sendTransaction", "requestAirdrop")


class LocalnetServer:
    """A localnet's chain with its clock and its HTTP interface. A slot takes `slot_ms`."""

    def __init__(self, chain: LocalChain, slot_ms: int) -> None:
        self.chain = chain
        self._slot_s = slot_ms / 1000
        self._promised = chain.height
        self._unwritten: list[tuple[str, bytes]] = []
        self._written: asyncio.Future[None] | None = None

    def application(self) -> web.Application:
        """Return the HTTP application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/", self._post)
        app.router.add_get("/health", lambda _: _text("ok"))
        return app

    async def tick_forever(self) -> None:
        """Make a block each slot, endlessly; if the machine is late, slots are skipped, as on the real chain."""
        due = time.monotonic()
        while True:
            self.tick(int(time.time()))
            due = max(due + self._slot_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def tick(self, now: int) -> None:
        """Make a block at a Unix time."""
        if self.chain.height + 1 > self._promised:
            self._promised = self.chain.height + HEIGHTS_AHEAD
            self.chain.keep_height(self._promised)
        self.write()
        self.chain.produce(now)

    def write(self) -> None:
        """Write accepted transactions to disk, then answer the requests that wait for this."""
        if self._unwritten:
            self.chain.store.accept(self._unwritten)
            self._unwritten = []
        if self._written is not None and not self._written.done():
            self._written.set_result(None)
        self._written = None

    async def _post(self, request: web.Request) -> web.Response:
        _require_no_browser(request)
        try:
            body = orjson.loads(await request.read())
        except ValueError:
            return _json(_error(None, RpcError(-32700, "Parse error")))
        if isinstance(body, list):
            if not 1 <= len(body) <= BATCH_CALLS_MAX:
                return _json(_error(None, RpcError(-32600, f"a batch holds 1 to {BATCH_CALLS_MAX} calls")))
            return _json([await self._call(each) for each in body])
        return _json(await self._call(body))

    async def _call(self, body: Any) -> dict[str, Any]:
        if not isinstance(body, Mapping) or not isinstance(body.get("method"), str):
            return _error(None, RpcError(-32600, "Invalid request"))
        method, params, number = body["method"], body.get("params") or [], body.get("id")
        if not isinstance(params, list):
            return _error(number, RpcError(-32602, "Invalid params: expected a list"))
        try:
            result = answer(self.chain, method, params)
        except RpcError as error:
            return _error(number, error)
        if method in ACCEPTING:
            await self._durable(str(result))
        return {"jsonrpc": "2.0", "id": number, "result": result}

    async def _durable(self, signature: str) -> None:
        """Wait until a transaction is on disk."""
        transaction = self.chain.pending.get(signature)
        if transaction is None:
            return  # it is in a block already, and a block is written before it is seen
        self._unwritten.append((signature, bytes(transaction)))
        loop = asyncio.get_running_loop()
        if self._written is None:
            self._written = loop.create_future()
            loop.call_later(GATHER_S, self.write)
        await asyncio.shield(self._written)


def _require_no_browser(request: web.Request) -> None:
    """Refuse requests that a web page could have a browser on this machine send; programs do not send such requests.

    A page can post text/plain to the loopback address without permission. It can also let its own host name point to
    that address (DNS rebinding).

    Raises:
        HTTPForbidden, HTTPUnsupportedMediaType: as JSON-RPC servers of real nodes answer.
    """
    if urlsplit(f"//{request.host}").hostname not in LOOPBACK_NAMES or "Origin" in request.headers:
        raise web.HTTPForbidden(text="the localnet answers programs of this machine, not web pages")
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="Supplied content type is not allowed. Content-Type: application/json")


def _error(number: object, error: RpcError) -> dict[str, Any]:
    inner = {"code": error.code, "message": error.message}
    if error.data is not None:
        inner["data"] = error.data
    return {"jsonrpc": "2.0", "id": number, "error": inner}


def _json(document: Any) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json")


async def _text(text: str) -> web.Response:
    return web.Response(text=text)


async def serve(port: int, folder: Path, slot_ms: int) -> None:
    """Serve JSON-RPC on a port of the loopback address until SIGTERM or SIGINT, with data in `folder`."""
    store = LocalnetStore(str(folder / "localnet.db"))
    node = LocalnetServer(LocalChain(store), slot_ms)
    node.tick(int(time.time()))
    runner = web.AppRunner(node.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    log.info("localnet on 127.0.0.1:%s from height %s", port, node.chain.height)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ticking = asyncio.create_task(node.tick_forever())
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({ticking, stopping}, return_when=asyncio.FIRST_COMPLETED)
    ticking.cancel()
    await runner.cleanup()
    node.write()
    store.close()
    if ticking in done:
        ticking.result()  # a bug or a full disk: end with its traceback
