"""PostgreSQL connections. Knows how to reach the database and how its faults are sorted; owns no table."""

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
RECONNECT_TIMEOUT_S = 2.0  # then the next caller tries again, so that a server that is back is used at once
FULL = "53100"
# By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html): worth another try, with the words for it.
BUSY: Mapping[str, str] = {
    "40001": "refused two transactions that exclude each other",
    "40P01": "ended a deadlock",
    FULL: "has no space left on its disk",
    "53200": "has no memory left",
    "53300": "has no connections left",
    "55P03": "did not get a lock in time",
    "57014": "stopped a statement that took too long",
}
# Not worth another try: the settings are wrong.
REFUSED: Mapping[str, str] = {
    "28000": "does not let this user in",
    "28P01": "does not accept the password",
    "3D000": "has no database of this name",
}
AWAY = ("08", "57P01", "57P02", "57P03")  # connection lost or never made, shut down, crashed, starting
# A server that refuses a connection says so in words only, which libpq passes on without a SQLSTATE.
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
    """One connection.

    Raises:
        Temporary: the server does not answer; the line names host and port, never the password.
        Rejected: it answers and refuses user, password or database.
    """
    with translate(url):
        return psycopg.connect(url, autocommit=autocommit, connect_timeout=CONNECT_TIMEOUT_S)


@contextmanager
def session(url: str, *, autocommit: bool = False) -> Iterator[Connection]:
    """A connection for a block of statements; committed when the block ends, rolled back when it raises.

    Raises:
        Temporary, Rejected: as `translate` sorts what goes wrong.
    """
    with translate(url), connect(url, autocommit=autocommit) as connection:
        yield connection


def pool(url: str, *, max_size: int = 4, wait_s: float = POOL_WAIT_S) -> ConnectionPool:
    """An open pool whose connections are checked before use, so that a restarted server costs no error."""
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
    """The connection string for sessions in which no statement takes longer, unless it sets a time of its own."""
    options = conninfo_to_dict(url).get("options") or ""
    return make_conninfo(url, options=f"{options} -c statement_timeout={timeout_ms}".strip())


@contextmanager
def translate(url: str = "") -> Iterator[None]:
    """Sort operational errors of PostgreSQL by what the caller can do; every other database error is left as it is.

    Raises:
        Temporary: the server is away, or what was asked may succeed later; the words say which.
        Rejected: user, password or database are wrong, which no retry mends.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        raise of(error, url) from error


def of(error: psycopg.OperationalError, url: str = "") -> PixrError:
    """The error of ours that an operational error stands for."""
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
    """Whether the server, or the connection to it, is gone: another connection or server may answer."""
    code = code_of(error)
    return not code or code.startswith(AWAY)


def code_of(error: psycopg.OperationalError) -> str:
    """The SQLSTATE, also of a connection that the server refused; empty where there was no answer of the server's."""
    if error.sqlstate:
        return error.sqlstate
    said = str(error)
    return next((code for words, code in REFUSALS if words.search(said)), "")
