"""Who is let in: the middleware outside of all that reads a body or a route. A token is taken before anything that costs.

Without a key the address pays; with a good one its principal alone, so that many callers with keys behind one address
are not refused for each other. A key that this replica does not know must be asked about in the database. That takes a
token of the address's bucket of wrong keys, which is small and gets it back when the key is good, or when nobody could
say, but not when the caller hangs up; two questions an address are under way at once. When the bucket is empty, keys that
were good a minute ago and keys that exist (`known_keys`) are asked about still, without waiting behind those that may be
wrong, and pay from the address's own bucket if they are good no more; all others are refused unasked.

Where a body is sent to a route that needs a key, the key is judged before the first byte of the body is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from weakref import WeakValueDictionary

import psycopg
from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster import runtime
from cluster.errors import Rejected, Temporary
from serve import keys, limits, manners, origins, problems
from serve.deadlines import has_body, within
from serve.keys import Principal
from serve.known_keys import KnownKeys
from serve.leaving import HUNG_UP, Client
from serve.limits import Standing
from serve.services import Services
from serve.transfer import Incoming

EXEMPT = "/healthz"  # asked by Serve and by the door, of which a refusal would make a replica that is dead
METRICS = "/metrics"
PROBES = ("/readyz", METRICS)
MEDIA = ("/media/", "/web/")
WITH_BODY = frozenset(("POST", "PUT", "PATCH", "DELETE"))
QUESTIONS_ADDRESS_MAX = 2
SCOPES = "scopes"  # the attribute of a dependency that requires one of them


class Admission:
    """The middleware; `routes` are the application's."""

    def __init__(self, app: ASGIApp, services: Services, routes: Sequence[BaseRoute]) -> None:
        self._app, self._services, self._routes = app, services, routes
        self._secret = runtime.secret(services.settings, origins.SECRET).encode()
        self._known = KnownKeys(services.readers, services.search, services.tasks)
        self._asking: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._under_way = 0  # requests that have been let in and are not ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["address"] = origins.of(scope, self._secret)
        if origins.is_encrypted(scope, self._secret):
            scope["scheme"] = "https"
        if scope["path"] == EXEMPT and not has_body(scope):  # a body takes a place, which a wrong key must not
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            # Also with a body, whose arrival starts the clock of the request itself only later.
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
            refused = getattr(error, "standing", None)
            headers = limits.headers(refused) if refused is not None else {}
            await problems.refusal(scope, error, headers=headers)(scope, receive, send)
            return
        if self._under_way >= self._services.search.searches_max and not has_body(scope):
            client = Client(receive)
            if await client.has_left():  # it has paid its token; what costs more is not begun
                await Response(status_code=HUNG_UP)(scope, receive, send)
                return
            state["client"], receive = client, client.received
        self._under_way += 1
        try:
            await self._app(scope, receive, _standing_said(send, standing))
        finally:
            self._under_way -= 1

    async def _admitted(self, request: Request, address: str) -> tuple[Principal | None, Standing]:
        """The caller, whose bucket has given a token.

        Raises:
            Rejected: the bucket is empty, or the key is wrong.
            Temporary: the key cannot be checked.
        """
        take, token, identity = self._services.limits.take, keys.token_of(request), origins.bucket(address)
        if token is None:
            return None, await take(_kind(request.scope["path"]), identity)
        principal = keys.remembered(self._services, token) or await self._found(token, identity)
        return principal, await take("key", str(principal.id))

    async def _found(self, token: str, identity: str) -> Principal:
        """Whose key this is, by asking.

        Raises:
            Rejected: nobody's; or the address has asked for too many that were wrong.
        """
        has_paid = await self._has_paid(token, identity)
        waits_with = identity if has_paid else f"known at {identity}"
        asking = self._asking.setdefault(waits_with, asyncio.Semaphore(QUESTIONS_ADDRESS_MAX))
        limited = self._services.limits
        try:
            async with asking, self._services.gates.questions.passed():
                principal = await keys.identify(self._services, token)
        except (Temporary, psycopg.OperationalError):
            if has_paid:  # and nobody could say; who hangs up has asked all the same
                limited.give_back("wrong", identity)
            raise
        if principal is None:
            if not has_paid:
                await limited.take("address", identity)  # revoked or expired: asking is not for nothing
            raise keys.invalid()
        if has_paid:
            limited.give_back("wrong", identity)
        return principal

    async def _has_paid(self, token: str, identity: str) -> bool:
        """Take a token for a question about a key; False where that key need not pay.

        Raises:
            Limited: the bucket is empty, and nobody ever made such a key.
        """
        if keys.remembered(self._services, token, grace_s=keys.GRACE_S) is not None:
            return False
        try:
            await self._services.limits.take("wrong", identity)
        except limits.Limited:
            if not await self._known.has(keys.digest_of(token)):
                raise
            return False
        return True

    def _check_operator(self, request: Request, principal: Principal | None) -> None:
        """Note whether the caller may know how this replica is; only they may read its figures.

        They are an administrator, come from one of the networks of `operators_from` (not a browser there that some site's name
        has led here), or know the door's secret and speak for themselves (the supervisor).

        Raises:
            Rejected: 401 or 403, to others who ask for /metrics.
        """
        state = request.scope["state"]
        is_admin = principal is not None and principal.may(keys.ADMIN)
        is_near = origins.is_within(state["address"], self._services.search.operators_from)
        is_near = is_near and not manners.is_browser_by_name(request)
        state["is_operator"] = is_admin or is_near or origins.is_proven(request.scope, self._secret)
        if request.scope["path"] == METRICS and not state["is_operator"]:
            keys.check(principal, (keys.ADMIN,))

    def _check_scopes(self, scope: Scope, principal: Principal | None) -> None:
        """Refuse a body that its route would not take from this caller.

        Raises:
            Rejected: 401 or 403.
        """
        for route in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                for scopes in _required(route):
                    keys.check(principal, scopes)
                return


def _required(route: BaseRoute) -> list[tuple[str, ...]]:
    """The scopes that a route's dependencies require."""
    dependant = getattr(route, "dependant", None)
    return [scopes for each in getattr(dependant, "dependencies", ()) if (scopes := getattr(each.call, SCOPES, None))]


def _kind(path: str) -> str:
    """Which of an address's buckets pays: a page with its pictures is many requests, and a probe is not refused for them."""
    if path in PROBES:
        return "probe"
    return "media" if path == "/" or path.startswith(MEDIA) else "address"


def _standing_said(send: Send, standing: Standing) -> Send:
    async def said(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in limits.headers(standing).items():
                headers[name] = value
        await send(message)

    return said
