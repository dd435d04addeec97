"""Health checks of dependencies: one short request each, bounded in time; a failure raises `Temporary` with the reason.

The same checks serve embedded services and external ones. Knows no service's name in the settings.
"""

from __future__ import annotations

import functools
import ssl

import httpx
import redis as redis_client

from cluster import urls
from cluster.database import database
from cluster.errors import Temporary
from cluster.runtime import S3Endpoint

TIMEOUT_S = 3.0
GET_HEALTH = {"jsonrpc": "2.0", "id": 1, "method": "getHealth"}


def postgres(url: str) -> None:
    """Check that PostgreSQL runs a statement.

    Raises:
        Temporary: it does not answer.
        Rejected: it refuses the login.
    """
    with database.session(url, autocommit=True) as connection:
        connection.execute("SELECT 1")


def redis(url: str) -> None:
    """Check that Redis answers a PING; raise `Temporary` when it does not."""
    address = urls.where(url)
    try:
        with redis_client.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
            client.ping()
    except redis_client.RedisError as error:
        raise Temporary(f"Redis at {address} is unreachable: {error}") from error


def s3(endpoint: S3Endpoint) -> None:
    """Check that the store answers an unsigned request with a status below 500; raise `Temporary` otherwise.

    A store that works refuses such a request with a 403.
    """
    _get(endpoint.url + "/", "S3", accept_below=500)


def solana(url: str) -> None:
    """Check that a Solana RPC node says that it is healthy; raise `Temporary` otherwise."""
    try:
        answer = httpx.post(url, json=GET_HEALTH, timeout=TIMEOUT_S, verify=_tls())
        if answer.is_error:
            raise Temporary(f"Solana RPC at {urls.shown(url)} answers {answer.status_code}")
        result = answer.json().get("result")
    except (httpx.HTTPError, ValueError) as error:
        raise Temporary(f"Solana RPC at {urls.shown(url)} is unreachable: {_line(error)}") from error
    if result != "ok":
        raise Temporary(f"Solana RPC at {urls.shown(url)} says it is {result!r}")


def ray(dashboard_url: str, token: str = "") -> None:
    """Check that a Ray cluster has a node that is alive; that its dashboard answers is not enough.

    Raises:
        Temporary: the cluster does not answer, or has no node yet.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    _get(f"{dashboard_url}/api/gcs_healthz", "Ray", headers=headers)
    answer = _get(f"{dashboard_url}/api/v0/nodes", "Ray", headers=headers)
    try:
        states = [node["state"] for node in answer.json()["data"]["result"]["result"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Temporary(f"Ray at {urls.shown(dashboard_url)} does not say which nodes it has") from error
    if "ALIVE" not in states:
        raise Temporary(f"Ray at {urls.shown(dashboard_url)} has no node yet")


def serve(url: str, verify: ssl.SSLContext | bool = True) -> None:
    """Check that Serve answers; raise `Temporary` otherwise.

    `verify` is the argument of httpx that says how the server's certificate is verified.
    """
    _get(f"{url}/healthz", "Serve", verify=verify)


def _get(
    url: str,
    what: str,
    *,
    accept_below: int = 400,
    headers: dict[str, str] | None = None,
    verify: ssl.SSLContext | bool = True,
) -> httpx.Response:
    """Send a GET request and return a response below `accept_below`; raise `Temporary` otherwise."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, headers=headers, verify=_tls() if verify is True else verify)
    except httpx.HTTPError as error:
        raise Temporary(f"{what} at {urls.shown(url)} is unreachable: {_line(error)}") from error
    if answer.status_code >= accept_below:
        raise Temporary(f"{what} at {urls.shown(url)} answers {answer.status_code}")
    return answer


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return a TLS context with the system's certificates; made once, since loading them takes longer than any request."""
    return httpx.create_ssl_context()


def _line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error) or type(error).__name__).splitlines()[0]
