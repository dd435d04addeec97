"""PostgreSQL connections. Knows how to reach the database and how its faults are sorted; owns no table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
from psycopg import Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from cluster.errors import Temporary

CONNECT_TIMEOUT_S = 5
POOL_WAIT_S = 10.0


def connect(url: str, *, autocommit: bool = False) -> Connection:
    """One connection.

    Raises:
        Temporary: the server does not answer; the line names host and port, never the password.
    """
    with translate(url):
        return psycopg.connect(url, autocommit=autocommit, connect_timeout=CONNECT_TIMEOUT_S)


@contextmanager
def session(url: str, *, autocommit: bool = False) -> Iterator[Connection]:
    """A connection for a block of statements; committed when the block ends, rolled back when it raises.

    Raises:
        Temporary: the server does not answer, or goes away before the block is over.
    """
    with translate(url), connect(url, autocommit=autocommit) as connection:
        yield connection


def pool(url: str, *, max_size: int = 4) -> ConnectionPool:
    """An open pool whose connections are checked before use, so that a restarted server costs no error."""
    return ConnectionPool(
        url,
        min_size=1,
        max_size=max_size,
        timeout=POOL_WAIT_S,
        open=True,
        check=ConnectionPool.check_connection,
        kwargs={"connect_timeout": CONNECT_TIMEOUT_S},
    )


def async_pool(url: str, *, max_size: int = 8) -> AsyncConnectionPool:
    """An async pool, not yet open: `await pool.open()` inside the loop that uses it."""
    return AsyncConnectionPool(
        url,
        min_size=1,
        max_size=max_size,
        timeout=POOL_WAIT_S,
        open=False,
        check=AsyncConnectionPool.check_connection,
        kwargs={"connect_timeout": CONNECT_TIMEOUT_S},
    )


@contextmanager
def translate(url: str = "") -> Iterator[None]:
    """Turn "the server is away" into `Temporary`; every other database error is left as it is."""
    try:
        yield
    except psycopg.OperationalError as error:
        where = f" at {where_of(url)}" if url else ""
        line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        detail = f"PostgreSQL{where} is unreachable: {line}"
        raise Temporary(detail, public="the database does not answer") from error


def where_of(url: str) -> str:
    """`host:port/database` of a URL, without user and password."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
