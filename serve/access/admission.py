"""Admission: the middleware that decides who is let in, before anything reads a body or finds a route.

Each request takes a token from a bucket of the rate limits before it costs anything more. A request without a key takes
it from the bucket of the client's address. A request with a valid key takes it from the bucket of the key's principal,
so that callers with keys who share an address do not use up each other's limit.

A replica caches the results of key checks for a few seconds. Any other key is looked up in the database:

* If it was valid within the last minute, the lookup takes no token.
* Otherwise the lookup takes a token from the address's small bucket for wrong keys. The token is given back if the key
  is valid or the database cannot answer, but not if the caller hangs up.
* While that bucket is empty, a key is looked up only if it was ever created (`known_keys`). This lookup takes no token.

Lookups that have taken a token wait in one queue, the others in a second one, so that possibly wrong keys do not delay
keys that exist. In each queue, two lookups per address run at once. If a key that took no token is not valid after all,
the address's ordinary bucket pays.

Where a body is sent to a route that requires a key, the key is checked before the first byte of the body is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

import psycopg
from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import runtime
from cluster.errors import Rejected, Temporary
from cluster.settings import Settings
from cluster.tasks import Tasks
from serve.access import keys, limits, origins
from serve.access.keys import KeyReaders, Principal
from serve.access.known_keys import KnownKeys
from serve.access.limits import Limits, Standing
from serve.access.transfer import Incoming
from serve.http import manners, problems
from serve.http.deadlines import has_body, within
from serve.http.gates import Gates
from serve.http.leaving import HUNG_UP, ClientConnection

EXEMPT = "/healthz"  # Serve and the door would take a refusal here for a dead replica
METRICS = "/metrics"
PROBES = ("/readyz", METRICS)
MEDIA = ("/media/", "/web/")
WITH_BODY = frozenset(("POST", "PUT", "PATCH", "DELETE"))
QUESTIONS_ADDRESS_MAX = 2  # lookups of keys in the database at once, per address
SCOPES = "scopes"  # attribute of a FastAPI dependency: the scopes of which it requires one (`keys.require`)


class AdmissionContext(KeyReaders, Protocol):
    """What admission needs from a replica."""

    @property
    def settings(self) -> Settings: ...

    @property
    def tasks(self) -> Tasks: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def gates(self) -> Gates: ...


class Admission:
    """Middleware that decides who is let in. `routes` are the application's; they tell which scopes a request needs."""

    def __init__(self, app: ASGIApp, services: AdmissionContext, routes: Sequence[BaseRoute]) -> None:
        self._app, self._services, self._routes = app, services, routes
        self._secret = runtime.secret(services.settings, origins.SECRET).encode()
        self._known_keys = KnownKeys(services.readers, services.search, services.tasks)
        self._lookups: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by address
        self._in_progress = 0  # requests that were let in and have not ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["address"] = origins.of(scope, self._secret)
        if origins.is_encrypted(scope, self._secret):
            scope["scheme"] = "https"
        if scope["path"] == EXEMPT and not has_body(scope):  # a body would take a place without any check
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            # Bounded here, since the deadline of a request with a body starts only when the body has arrived.
            admitted = self._admitted(request, state["address"])
            principal, standing = await within(admitted, self._services.search.deadline_s)
            state["principal"] = principal
            if scope["path"] in PROBES:
                self._check_operator(request, principal)
            if scope["method"] in WITH_BODY:
                self._check_scopes(scope, principal)
        except (Rejected, Temporary, psycopg.OperationalError) as error:
            if has_body(scope):
                await Incoming(receive).drop(self._services.search)
            bucket = getattr(error, "standing", None)
            headers = limits.headers(bucket) if bucket is not None else {}
            await problems.refusal(scope, error, headers=headers)(scope, receive, send)
            return
        if self._in_progress >= self._services.search.searches_max and not has_body(scope):
            client = ClientConnection(receive)
            if await client.has_left():  # its token is spent; costlier work is not begun
                await Response(status_code=HUNG_UP)(scope, receive, send)
                return
            state["client"], receive = client, client.received
        self._in_progress += 1
        try:
            await self._app(scope, receive, _with_headers(send, limits.headers(standing)))
        finally:
            self._in_progress -= 1

    async def _admitted(self, request: Request, address: str) -> tuple[Principal | None, Standing]:
        """Take a token from the caller's bucket; return the caller (None without a key) and the state of the bucket.

        Raises:
            Rejected: the bucket is empty, or the key is wrong.
            Temporary: the key cannot be checked.
        """
        take, token, identity = self._services.limits.take, keys.token_of(request), origins.bucket(address)
        if token is None:
            return None, await take(_kind(request.scope["path"]), identity)
        principal = keys.remembered(self._services, token) or await self._look_up(token, identity)
        return principal, await take("key", str(principal.id))

    async def _look_up(self, token: str, identity: str) -> Principal:
        """Look up a key in the database and return its principal; `identity` is the bucket name of the address.

        Raises:
            Rejected: the key is not valid, or the address has sent too many wrong ones.
            Temporary: the key cannot be checked.
        """
        has_paid = await self._pay_for_lookup(token, identity)
        queue = identity if has_paid else f"known at {identity}"
        places = self._lookups.setdefault(queue, asyncio.Semaphore(QUESTIONS_ADDRESS_MAX))
        buckets = self._services.limits
        try:
            async with places, self._services.gates.questions.passed():
                principal = await keys.identify(self._services, token)
        except (Temporary, psycopg.OperationalError):
            if has_paid:  # not given back when the caller hangs up, which raises CancelledError
                buckets.give_back("wrong", identity)
            raise
        if principal is None:
            if not has_paid:
                await buckets.take("address", identity)  # the key exists, but was revoked or has expired
            raise keys.invalid()
        if has_paid:
            buckets.give_back("wrong", identity)
        return principal

    async def _pay_for_lookup(self, token: str, identity: str) -> bool:
        """Take a token from the address's bucket for wrong keys unless the lookup is free; return whether it was taken.

        A lookup is free if the key was valid within the last minute, or if the bucket is empty and the key was ever
        created.

        Raises:
            Limited: the bucket is empty, and the key was never created.
            Temporary: the list of known keys cannot be read.
        """
        if keys.remembered(self._services, token, grace_s=keys.GRACE_S) is not None:
            return False
        try:
            await self._services.limits.take("wrong", identity)
        except limits.Limited:
            if not await self._known_keys.has(keys.digest_of(token)):
                raise
            return False
        return True

    def _check_operator(self, request: Request, principal: Principal | None) -> None:
        """Note in the scope's state whether the caller is an operator; only operators may read this replica's metrics.

        Operators have a key of scope `admin`, call from a network in `operators_from`, or are programs of this
        deployment that send the door's secret on their own behalf (the supervisor). A browser in such a network does
        not count if it uses a host name, since the page of any site may have made it send the request
        (`manners.is_browser_by_name`).

        Raises:
            Rejected: 401 or 403, the request is for /metrics and does not come from an operator.
        """
        state = request.scope["state"]
        is_admin = principal is not None and principal.may(keys.ADMIN)
        is_listed = origins.is_within(state["address"], self._services.search.operators_from)
        is_listed = is_listed and not manners.is_browser_by_name(request)
        state["is_operator"] = is_admin or is_listed or origins.is_proven(request.scope, self._secret)
        if request.scope["path"] == METRICS and not state["is_operator"]:
            keys.check(principal, (keys.ADMIN,))

    def _check_scopes(self, scope: Scope, principal: Principal | None) -> None:
        """Check the caller's scopes against the route that the request will reach.

        Raises:
            Rejected: 401 or 403; the route would refuse the caller.
        """
        for route in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                for scopes in _required(route):
                    keys.check(principal, scopes)
                return


def _required(route: BaseRoute) -> list[tuple[str, ...]]:
    """Return the scopes that a route's dependencies require, one tuple for each dependency."""
    dependant = getattr(route, "dependant", None)
    dependencies = getattr(dependant, "dependencies", ())
    return [scopes for dependency in dependencies if (scopes := getattr(dependency.call, SCOPES, None))]


def _kind(path: str) -> str:
    """Return the kind of the address's bucket that pays for a path; media and probes have kinds of their own.

    The page with its pictures makes many requests. They must not use up the tokens of probes.
    """
    if path in PROBES:
        return "probe"
    return "media" if path == "/" or path.startswith(MEDIA) else "address"


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    """Return a `send` that adds headers to the response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            response_headers = MutableHeaders(scope=message)
            for name, value in headers.items():
                response_headers[name] = value
        await send(message)

    return send_with_headers
