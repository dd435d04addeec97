"""PostgreSQL connections: how to reach the database and how its errors are sorted. Owns no table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool

from cluster import urls
from cluster.errors import PixrError, Rejected, Temporary

CONNECT_TIMEOUT_S = 5
POOL_WAIT_S = 10.0
RECONNECT_TIMEOUT_S = 2.0  # short: afterwards the next caller tries again and finds a server that is back
FULL = "53100"
# Errors worth another try, by SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html).
BUSY: Mapping[str, str] = {
    "40001": "refused two transactions that exclude each other",
    "40P01": "ended a deadlock",
    FULL: "has no space left on its disk",
    "53200": "has no memory left",
    "53300": "has no connections left",
    "55P03": "did not get a lock in time",
    "57014": "stopped a statement that took too long",
}
# Errors that no retry helps against: the settings are wrong.
REFUSED: Mapping[str, str] = {
    "28000": "does not let this user in",
    "28P01": "does not accept the password",
    "3D000": "has no database of this name",
}
AWAY = ("08", "57P01", "57P02", "57P03")  # connection lost or never made; server shut down, crashed, starting
# Refused connections: libpq passes on the server's message without its SQLSTATE, so the text is matched.
REFUSALS = (
    (re.compile(r"password authentication failed|no password supplied"), "28P01"),
    (
        re.compile(
            r"no pg_hba\.conf entry|role .* does not exist|is not permitted to log in|permission denied for database"
        ),
        "28000",
    ),
    (re.compile(r"database .* does not exist"), "3D000"),
    (re.compile(r"too many clients|remaining connection slots|too many connections"), "53300"),
)


def connect(url: str, *, autocommit: bool = False) -> Connection:
    """Open one connection.

    Raises:
        Temporary: the server does not answer; the message names host and port, never the password.
        Rejected: the server refuses the user, the password or the database.
    """
    with translate(url):
        return psycopg.connect(url, autocommit=autocommit, connect_timeout=CONNECT_TIMEOUT_S)


@contextmanager
def session(url: str, *, autocommit: bool = False) -> Iterator[Connection]:
    """Yield a connection for a block of statements; commit at the end of the block, roll back when it raises.

    Raises:
        Temporary: the server is away or busy (see `translate`).
        Rejected: the server refuses the user, the password or the database.
    """
    with translate(url), connect(url, autocommit=autocommit) as connection:
        yield connection


def pool(url: str, *, max_size: int = 4, wait_s: float = POOL_WAIT_S) -> ConnectionPool:
    """Return an open pool that checks connections before use, so that a restart of the server causes no error.

    Args:
        url: The database.
        max_size: Connections at most.
        wait_s: How many seconds a caller waits for a free connection at most.

    Returns:
        The pool; the caller closes it.
    """
    return ConnectionPool(
        url,
        min_size=1,
        max_size=max_size,
        timeout=wait_s,
        open=True,
        check=ConnectionPool.check_connection,
        reconnect_timeout=RECONNECT_TIMEOUT_S,
        kwargs={"connect_timeout": CONNECT_TIMEOUT_S},
    )


def with_statement_timeout(url: str, timeout_ms: int) -> str:
    """Return a connection string whose sessions end statements that take longer than `timeout_ms`.

    A session may still set another timeout for itself.
    """
    options = conninfo_to_dict(url).get("options") or ""
    return make_conninfo(url, options=f"{options} -c statement_timeout={timeout_ms}".strip())


@contextmanager
def translate(url: str = "") -> Iterator[None]:
    """Turn operational errors of PostgreSQL into `Temporary` or `Rejected`; other database errors pass through.

    Raises:
        Temporary: the server is away, or the statement may succeed later; the message says which.
        Rejected: user, password or database name are wrong; a retry does not help.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        raise of(error, url) from error


def of(error: psycopg.OperationalError, url: str = "") -> PixrError:
    """Return the `Temporary` or `Rejected` that an operational error of PostgreSQL becomes."""
    where = f" at {urls.where(url)}" if url else ""
    line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    code = code_of(error)
    if code in REFUSED:
        hint = "check [postgres] url in the settings"
        return Rejected(f"PostgreSQL{where} {REFUSED[code]}: {line}", status=503, code="database-refused", hint=hint)
    if code in BUSY:
        public = f"the database {BUSY[code]}" if code == FULL else "the database is too busy at present"
        return Temporary(f"PostgreSQL{where} {BUSY[code]}: {line}", public=public)
    if is_away(error):
        return Temporary(f"PostgreSQL{where} is unreachable: {line}", public="the database does not answer")
    return Temporary(f"PostgreSQL{where} failed: {line}", public="the database failed")


def is_away(error: psycopg.OperationalError) -> bool:
    """Return whether the server or the connection is gone, so that another connection or server may answer."""
    code = code_of(error)
    return not code or code.startswith(AWAY)


def code_of(error: psycopg.OperationalError) -> str:
    """Return the SQLSTATE of an error, also of a refused connection; empty where the server did not answer."""
    if error.sqlstate:
        return error.sqlstate
    message = str(error)
    return next((code for pattern, code in REFUSALS if pattern.search(message)), "")
