"""Addresses of services as they may be shown: nothing that could be a user, a password or a key.

A URL is shown as its scheme and hosts and, for a database, its name; an RPC URL as scheme and host, since paths and queries may
contain keys. A URL that is ambiguous (a `/` in a password shifts everything after it) is shown as its scheme alone, and is
refused when settings are read. Knows no settings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

EMBEDDED = "embedded"
POSTGRES, REDIS, HTTP = ("postgresql", "postgres"), ("redis", "rediss", "unix"), ("http", "https")
PORT_MAX = 65_535
UNKNOWN = "…"
WAY = "@ : / ? # in a user or password are written %40 %3A %2F %3F %23"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# user:password@, hosts, path, and a query or fragment; nothing of it holds a character that another part begins with.
_URL = re.compile(
    r"(?:[^@/?#\\\s]*@)?(?P<host>[^@/?#\\\s]*)(?P<path>/[^@?#\\\s]*)?(?:[?#][^@\s]*)?"  # not seen again: no @ may follow
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[\w.-]*)(?::(?P<port>\d{0,5}))?")
_DATABASE = re.compile(r"/[\w.-]*")


def shown(url: str) -> str:
    """Return a URL or a connection string of PostgreSQL without anything that could be secret.

    `embedded` and the empty text are returned as they are.
    """
    if url in ("", EMBEDDED):
        return url
    found, scheme = where(url), _scheme(url)
    if not scheme and found != UNKNOWN:
        scheme = POSTGRES[0]
    return f"{scheme}://{found}" if scheme else UNKNOWN


def where(url: str) -> str:
    """Return `host:port` of each host, and `/name` of a database; `UNKNOWN` if the URL is ambiguous."""
    scheme = _scheme(url)
    if not scheme or scheme in POSTGRES:
        return _of_postgres(url)
    parts = _URL.fullmatch(url.partition("://")[2])
    if parts is None or scheme == "unix":
        return UNKNOWN
    if scheme in HTTP:
        return _place(parts["host"]) if parts["host"] else UNKNOWN
    place, database = _place(parts["host"], "localhost", 6379), parts["path"] or ""
    return f"{place}{database}" if place != UNKNOWN and (not database or _DATABASE.fullmatch(database)) else UNKNOWN


def check(url: str, name: str, schemes: Sequence[str]) -> None:
    """Check that a setting is a URL of one of these schemes, `embedded` or empty; for PostgreSQL key=value pairs are valid too.

    Raises:
        ValueError: it is not; the message does not quote it.
    """
    if url in ("", EMBEDDED):
        return
    expected = f"expected {' or '.join(f'{scheme}://…' for scheme in schemes)}"
    scheme = _scheme(url)
    if scheme not in schemes and (scheme or POSTGRES[0] not in schemes or _pairs(url) is None):
        raise ValueError(f"{name} is not of the kind that is needed, {expected}")
    if not _is_readable(url, scheme):
        raise ValueError(f"{name} cannot be read as a URL, {expected}; {WAY}")


def _is_readable(url: str, scheme: str) -> bool:
    """Return whether a client can read a URL, and reads it as it was meant.

    An `@` in the host or behind it shows that a character in the password, such as a `/`, has shifted everything after
    it. Several `@` before the host are valid: clients of Redis and of HTTP take everything before the last one as the
    user.
    """
    if not scheme or scheme in POSTGRES:
        pairs = _pairs(url)
        return pairs is not None and not any("@" in pairs.get(key, "") for key in ("host", "port", "dbname"))
    if scheme == "unix":
        return True
    authority, path, query = re.fullmatch(r"([^/?#]*)([^?#]*)(.*)", url.partition("://")[2], re.DOTALL).groups()  # type: ignore[union-attr]
    host = authority.rpartition("@")[2]
    is_moved = "@" not in authority and "@" in (path if scheme in HTTP else path + query)
    return not is_moved and _place(host) != UNKNOWN and (bool(host) or scheme not in HTTP)


def _scheme(url: str) -> str:
    """Return the scheme if a setting may have it, else "", because other text before `://` could be a secret."""
    found = _SCHEME.match(url)
    if found is None or found[1] in POSTGRES:  # PostgreSQL's library knows it in this case alone
        return found[1] if found else ""
    return found[1].lower() if found[1].lower() in (*REDIS, *HTTP) else ""


def _place(host: str, name: str = "", port: int | None = None) -> str:
    """Return `host:port` of one host, with a default name and port; `UNKNOWN` if it is not a host."""
    found = _HOST.fullmatch(host)
    if found is None or int(found["port"] or 0) > PORT_MAX:
        return UNKNOWN
    number = found["port"] or port
    return f"{found['name'] or name}:{number}" if number else found["name"] or name


def _pairs(text: str) -> dict[str, str] | None:
    """Return the parameters of a URL or of key=value pairs as PostgreSQL's library reads them; None if it cannot."""
    import psycopg  # lazily: settings are also read by commands that need no database
    from psycopg.conninfo import conninfo_to_dict

    try:
        found = {key: str(value) for key, value in conninfo_to_dict(text).items() if value is not None}
    except psycopg.Error:
        return None
    is_port = re.fullmatch(r"(?:\d{0,5},)*\d{0,5}", found.get("port", ""))
    return found if is_port else None


def _of_postgres(text: str) -> str:
    """Return `host:port/database` of a text that PostgreSQL's library can read."""
    pairs = _pairs(text)
    if not pairs:
        return UNKNOWN
    hosts = (pairs.get("host") or pairs.get("hostaddr") or "").split(",")
    ports = pairs.get("port", "").split(",")
    if len(ports) not in (1, len(hosts)):
        return UNKNOWN
    named = [f"[{host}]" if ":" in host else host for host in hosts]
    every = ports * len(hosts) if len(ports) == 1 else ports
    places = [_place(f"{host}:{port}", "localhost", 5432) for host, port in zip(named, every, strict=True)]
    database = f"/{pairs['dbname']}" if pairs.get("dbname") else ""
    is_certain = UNKNOWN not in places and (not database or _DATABASE.fullmatch(database))
    return ",".join(places) + database if is_certain else UNKNOWN
