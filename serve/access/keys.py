"""API keys: who calls, and what they may do. Owns `app.principals` and `app.api_keys`.

A key is 32 random bytes, shown once and stored as its SHA-256. It carries scopes, may expire, can be rotated (the old
one goes on working for a while) and revoked. The result of a check is cached for a few seconds, so that searches and
reads cost no query, and a revoked key stops working almost at once; requests that change something check again. Does
not know what the scopes protect.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakKeyDictionary

from cachetools import LRUCache
from psycopg import AsyncConnection, Connection, OperationalError
from psycopg_pool import ConnectionPool
from starlette.requests import Request  # the same class as FastAPI's, whose import takes a second in commands

from cluster import characters
from cluster.errors import Rejected, Temporary
from pipelines.catalog import creators as catalogue_creators
from pipelines.sources import handles, prefixes
from pipelines.sources.prefixes import FOLDERS_MAX

if TYPE_CHECKING:
    from serve.replica.readers import Readers
    from serve.settings import SearchSettings

SCOPES = ("search", "ingest", "creator", "admin")
PREFIX = "pixr_"
TOKEN_CHARS_MAX = 512
REMEMBERED_S = 5.0  # how long a valid key is cached
REFUSAL_REMEMBERED_S = 1.0  # how long a wrong one is
GRACE_S = 60.0  # how much longer a valid key works while the database is away
REMEMBERED_MAX = 10_000
ROTATION_GRACE_S = 24 * 3600
LISTED_MAX = 1000
TOTAL_MAX = 100_000  # rows that are counted at most
NAME_CHARS_MAX = 200
LIFETIME_MAX_S = 10 * 366 * 86_400
ADMIN, INGEST = "admin", "ingest"
READING = frozenset(("GET", "HEAD", "OPTIONS"))
ANY = "any"  # in place of handles: a key of scope ingest may act for any creator
CREATORS_MAX = 1000
KEYS = """SELECT k.id, p.name, k.scopes, p.creator_id, k.creators, k.folders, k.created_at, k.expires_at, k.revoked_at
          FROM app.api_keys k JOIN app.principals p ON p.id = k.principal_id"""
# Everything about a key in one round trip: it precedes almost every request.
VALID = f"""SELECT k.hash, p.id, k.scopes, p.creator_id, k.creators, extract(epoch FROM k.expires_at - now())::float8,
                   {catalogue_creators.IDS_OF_KEY}, k.folders
            FROM app.api_keys k JOIN app.principals p ON p.id = k.principal_id
            WHERE k.hash = %s AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())"""


class KeyReaders(Protocol):
    """What the check of a key needs from a replica: the database, and the search settings, which have the deadline."""

    @property
    def readers(self) -> Readers: ...

    @property
    def search(self) -> SearchSettings: ...


@dataclass(frozen=True)
class Principal:
    """The caller, with the scopes of the key that they used.

    `creators` are the handles of the creators whom scope `ingest` may act for; None means any creator. `own_ids` are
    the ids of the principal's creator and of the creators named in the key; a search with the key earns these creators
    nothing. `folders` are the only folders that jobs with this key may name; None means one folder for each of its
    creators, named after the handle.
    """

    id: int
    scopes: frozenset[str]
    creator_id: int | None = None
    creators: frozenset[str] | None = None
    own_ids: frozenset[int] = frozenset()
    folders: tuple[str, ...] | None = None

    def may(self, scope: str) -> bool:
        """Return whether the key has a scope; `admin` includes all."""
        return scope in self.scopes or ADMIN in self.scopes

    @property
    def speaks_for(self) -> tuple[str, ...] | None:
        """The handles of creators whose videos the key may list, see and change; None means any."""
        if ADMIN in self.scopes:
            return None
        if INGEST not in self.scopes:
            return ()
        return None if self.creators is None else tuple(sorted(self.creators))

    def folders_in(self, buckets: Sequence[str]) -> tuple[str, ...] | None:
        """Return the folders that jobs with this key may name; None means any folder.

        If the key has no folders of its own, they are the folders named after its creators' handles in the first of
        `buckets`.
        """
        named = self.speaks_for
        return None if named is None else _folders(named, self.folders, buckets)

    def covers(self, handle: str) -> bool:
        """Return whether the key may act for the creator with this handle, by scope `ingest` or `admin`."""
        handles_allowed = self.speaks_for
        return handles_allowed is None or handle in handles_allowed

    def owns(self, creator_id: int) -> bool:
        """Return whether this is the creator's own key, of scope `creator`."""
        return "creator" in self.scopes and self.creator_id == creator_id


@dataclass(frozen=True)
class KeyRow:
    """A key as it is listed, without the secret."""

    id: int
    name: str
    scopes: tuple[str, ...]
    creator_id: int | None
    creators: list[str] | None
    folders: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def document(self, buckets: Sequence[str]) -> dict[str, Any]:
        """Return the row as the HTTP interface and `--json` show it.

        If the key has no folders of its own, those named after its creators' handles in the first of `buckets` are
        shown.
        """
        instants = {name: getattr(self, name) for name in ("created_at", "expires_at", "revoked_at")}
        return {
            "id": str(self.id),
            "name": self.name,
            "scopes": list(self.scopes),
            "creator_id": None if self.creator_id is None else str(self.creator_id),
            "creators": self.creators or (ANY if {INGEST, ADMIN} & {*self.scopes} else None),
            "folders": list(_folders(self.creators, self.folders, buckets)) if self.creators else None,
            **{name: instant.isoformat() if instant else None for name, instant in instants.items()},
        }


def _folders(creators: Sequence[str], named: Sequence[str] | None, buckets: Sequence[str]) -> tuple[str, ...]:
    return prefixes.usual(creators, buckets) if named is None else tuple(named)


# ── Making and ending keys ─────────────────────────────────────────────────────────────────────────────────────────


def digest(token: str) -> bytes:
    """Return the SHA-256 of a key, as it is stored."""
    return hashlib.sha256(token.encode()).digest()


def create(
    connection: Connection[Any],
    name: str,
    scopes: Sequence[str],
    *,
    creator_id: int | None = None,
    creators: Sequence[str] | Literal["any"] | None = None,
    folders: Sequence[str] | None = None,
    expires_in_s: int | None = None,
) -> tuple[int, str]:
    """Create a key for the principal with a name, and the principal too if there is none.

    Args:
        connection: The caller commits.
        name: The principal's name, one line of 1 to 200 characters.
        scopes: What the key may do; any of `SCOPES`.
        creator_id: The creator whom the principal stands for; needed for scope `creator`.
        creators: For scope `ingest`: the handles that the key may act for, or "any"; None means the creator of
            `creator_id`. All keys of one name are one caller.
        folders: The only folders in which its jobs may name sources and manifests (see `prefixes.checked`); None: those
            named by its creators' handles.
        expires_in_s: Lifetime in seconds; None: it does not expire.

    Returns:
        The key's id, and the key itself, which can never be read again.

    Raises:
        Rejected: a scope is unknown, the name or the lifetime is out of range, the creator does not exist, the
            principal stands for another creator or has a valid key that may do something else, it is not clear which
            creators a key of scope `ingest` may act for, or `folders` are too many, or given for a key that is not for
            named creators.
    """
    _check(scopes, creator_id)
    own_handle = None if creator_id is None else _handle(connection, creator_id)
    speaks_for = _speaks_for(connection, scopes, creators, own_handle)
    _check_folders(folders, speaks_for)
    name = _checked_name(name)
    if expires_in_s is not None and expires_in_s > LIFETIME_MAX_S:
        raise Rejected(f"a key expires in at most {LIFETIME_MAX_S // 86_400} days", status=422, code="bad-lifetime")
    token = PREFIX + secrets.token_urlsafe(32)
    principal_id = _principal(connection, name, creator_id)
    _check_alike(connection, principal_id, name, scopes, speaks_for)
    return _register(connection, principal_id, token, scopes, speaks_for, folders, expires_in_s), token


def _checked_name(name: str) -> str:
    """Return the name of a principal as it is stored.

    Raises:
        Rejected: it is empty, too long, has only invisible characters, or is more than one line of text.
    """
    try:
        cleaned = characters.line(name)
    except ValueError as error:
        raise Rejected(f"the name {error}", status=422, code="bad-name") from error
    if not 1 <= len(cleaned) <= NAME_CHARS_MAX:
        raise Rejected(f"a name has 1 to {NAME_CHARS_MAX} characters", status=422, code="bad-name")
    return cleaned


def ensure_admin(source: ConnectionPool[Any] | Connection[Any], token: str) -> None:
    """Store a deployment's first admin key, unless it is stored already. Any text can be a key."""
    if isinstance(source, ConnectionPool):
        with source.connection() as connection:
            ensure_admin(connection, token)
        return
    row = source.execute("SELECT FROM app.api_keys WHERE hash = %s", (digest(token),)).fetchone()
    if row is None:
        _register(source, _principal(source, ADMIN, None), token, (ADMIN,), None, None, None)
    source.commit()


def _check(scopes: Sequence[str], creator_id: int | None) -> None:
    """Check the scopes of a new key; raise `Rejected` when they are unknown, or `creator` comes without a creator."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise Rejected(
            f"scopes {list(scopes)} are not valid", status=422, code="bad-scope", hint=f"known: {', '.join(SCOPES)}"
        )
    if "creator" in scopes and creator_id is None:
        raise Rejected("a key of scope creator needs a creator_id", status=422, code="bad-scope")


def _speaks_for(
    connection: Connection[Any], scopes: Sequence[str], creators: Sequence[str] | None, own_handle: str | None
) -> list[str] | None:
    """Return the handles that a new key may act for, to be stored.

    None means that it may act for any creator, or that none of its scopes acts for creators. `own_handle` is the handle
    of the key's creator.

    Raises:
        Rejected: a handle is wrong or missing, or the key is not of scope `ingest`.
    """
    if INGEST not in scopes or ADMIN in scopes:
        if creators not in (None, ANY):
            raise Rejected("only a key of scope ingest is for creators", status=422, code="bad-creators")
        return None
    if creators == ANY:
        return None
    if not creators and own_handle is not None:  # as it is stored, even where today's rules would refuse it
        return [own_handle]
    if not creators or len(creators) > CREATORS_MAX:
        detail = "for whom a key of scope ingest speaks is not said"
        hint = f"name 1 to {CREATORS_MAX} creators, or say any"
        raise Rejected(detail, status=422, code="bad-creators", hint=hint)
    return list(handles.checked(creators, catalogue_creators.known_handles(connection, creators)))


def _check_folders(folders: Sequence[str] | None, speaks_for: Sequence[str] | None) -> None:
    if folders is None:
        return
    if speaks_for is None:
        detail = "only a key of scope ingest that is for named creators has folders"
        raise Rejected(detail, status=422, code="bad-folders", hint="a key for any creator ingests from everywhere")
    if not 1 <= len(folders) <= FOLDERS_MAX:
        raise Rejected(f"a key has 1 to {FOLDERS_MAX} folders", status=422, code="bad-folders")


def _handle(connection: Connection[Any], creator_id: int) -> str:
    """Return the handle of a creator.

    Raises:
        Rejected: 404, the creator does not exist. A key made now would belong to the next creator with that number.
    """
    handle = catalogue_creators.handle(connection, creator_id)
    if handle is None:
        hint = "GET /v1/creators lists them"
        raise Rejected(f"there is no creator {creator_id}", status=404, code="not-found", hint=hint)
    return handle


def _principal(connection: Connection[Any], name: str, creator_id: int | None) -> int:
    """Find the principal with a name, or create it; lock its row and return its id.

    Raises:
        Rejected: 409, the principal of that name stands for another creator.
    """
    # The update changes nothing; it makes RETURNING return an existing row. Another creator's principal is left alone.
    row = connection.execute(
        "INSERT INTO app.principals AS p (name, creator_id) VALUES (%s, %s)"
        " ON CONFLICT (name) DO UPDATE SET name = excluded.name"
        " WHERE p.creator_id IS NOT DISTINCT FROM excluded.creator_id RETURNING id",
        (name, creator_id),
    ).fetchone()
    if row is None:
        raise Rejected(f"principal {name!r} stands for another creator", status=409, code="principal-taken")
    return int(row[0])


def _check_alike(
    connection: Connection[Any], principal_id: int, name: str, scopes: Sequence[str], creators: Sequence[str] | None
) -> None:
    """Check that a new key has the same scopes and creators as each valid key of its principal.

    All keys of a principal count as one viewer and share the idempotency keys of jobs and the wallet challenges.
    `_principal` has locked the principal's row, so that of two keys created at once, the second is checked against the
    first.

    Raises:
        Rejected: 409, the principal has a valid key with other scopes or creators.
    """
    row = connection.execute(
        "SELECT id FROM app.api_keys WHERE principal_id = %(principal)s AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > now())"
        " AND NOT (scopes @> %(scopes)s::text[] AND scopes <@ %(scopes)s::text[]"
        "   AND (creators IS NULL) = (%(creators)s::text[] IS NULL)"
        "   AND coalesce(creators @> %(creators)s::text[] AND creators <@ %(creators)s::text[], true)) ORDER BY id LIMIT 1",
        {"principal": principal_id, "scopes": list(scopes), "creators": None if creators is None else list(creators)},
    ).fetchone()
    if row is not None:
        hint = f"take another name, or revoke key {row[0]} first"
        detail = f"{name!r} has a key of other scopes or creators, and keys of one name are one caller"
        raise Rejected(detail, status=409, code="principal-taken", hint=hint)


def _register(
    connection: Connection[Any],
    principal_id: int,
    token: str,
    scopes: Sequence[str],
    creators: Sequence[str] | None,
    folders: Sequence[str] | None,
    expires_in_s: int | None,
) -> int:
    """Store a key; return its id."""
    key_row = connection.execute(
        "INSERT INTO app.api_keys (principal_id, hash, scopes, creators, folders, expires_at) VALUES (%s, %s, %s, %s, %s,"
        " now() + make_interval(secs => %s)) ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash RETURNING id",
        (principal_id, digest(token), list(scopes), creators, None if folders is None else list(folders), expires_in_s),
    ).fetchone()
    assert key_row is not None  # RETURNING gives a row after an insert and after an update
    return int(key_row[0])


def rotate(connection: Connection[Any], key_id: int, *, grace_s: int = ROTATION_GRACE_S) -> tuple[int, str]:
    """Create a key with the scopes, creators, folders and lifetime of an old one; let the old one expire in `grace_s` seconds.

    Returns the new key's id, and the new key itself. An old key that expires sooner anyway keeps its expiry.

    Raises:
        Rejected: the key does not exist, was revoked, or has expired.
    """
    row = connection.execute(
        "WITH living AS (SELECT id, expires_at - created_at AS lifetime FROM app.api_keys"
        "   WHERE id = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) FOR UPDATE)"
        " UPDATE app.api_keys k SET expires_at = least(k.expires_at, now() + make_interval(secs => %s))"
        " FROM living WHERE k.id = living.id RETURNING k.principal_id, k.scopes, k.creators, k.folders, living.lifetime",
        (key_id, min(grace_s, LIFETIME_MAX_S)),
    ).fetchone()
    if row is None:
        raise _unknown(key_id)
    token = PREFIX + secrets.token_urlsafe(32)
    key_row = connection.execute(
        "INSERT INTO app.api_keys (principal_id, hash, scopes, creators, folders, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, now() + %s::interval) RETURNING id",
        (row[0], digest(token), *row[1:]),
    ).fetchone()
    assert key_row is not None
    return int(key_row[0]), token


def revoke(connection: Connection[Any], key_id: int) -> None:
    """Revoke a key; revoking it again changes nothing.

    Raises:
        Rejected: the key does not exist.
    """
    updated = connection.execute(
        "UPDATE app.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s", (key_id,)
    )
    if updated.rowcount == 0:
        raise _unknown(key_id)


def listing(connection: Connection[Any], limit: int = LISTED_MAX, before: int = 2**63 - 1) -> list[KeyRow]:
    """Return keys, the newest first, up to `limit`, with ids below `before`."""
    rows = connection.execute(f"{KEYS} WHERE k.id < %s ORDER BY k.id DESC LIMIT %s", (before, limit))
    return [KeyRow(row[0], row[1], tuple(row[2]), *row[3:]) for row in rows]


def count(connection: Connection[Any]) -> int:
    """Return how many keys there are, revoked and expired ones included, up to `TOTAL_MAX`."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM app.api_keys LIMIT %s) counted", (TOTAL_MAX,)
    ).fetchone()
    assert row is not None  # a count always gives a row
    return int(row[0])


def one(connection: Connection[Any], key_id: int) -> KeyRow:
    """Return one key, also if it is revoked or expired.

    Raises:
        Rejected: the key does not exist.
    """
    row = connection.execute(f"{KEYS} WHERE k.id = %s", (key_id,)).fetchone()
    if row is None:
        raise _unknown(key_id)
    return KeyRow(row[0], row[1], tuple(row[2]), *row[3:])


def _unknown(key_id: int) -> Rejected:
    return Rejected(f"there is no living key {key_id}", status=404, code="not-found")


# ── Checking keys ──────────────────────────────────────────────────────────────────────────────────────────────────


def digest_of(token: str) -> bytes:
    """Return the digest under which a caller's key is looked up; the text may be of any length."""
    return digest(token[:TOKEN_CHARS_MAX])


class Checks:
    """A bounded cache of the results of key checks, by the keys' digests; each `Readers` has one."""

    def __init__(self) -> None:
        self._results: LRUCache[bytes, tuple[float, Principal | None]] = LRUCache(REMEMBERED_MAX)  # (until, principal)

    def get(self, key: bytes, grace_s: float = 0.0) -> tuple[bool, Principal | None]:
        """Return whether the cached result of a check is still valid, and its principal (None: the key is wrong).

        A result that expired less than `grace_s` seconds ago counts as valid.
        """
        until_s, principal = self._results.get(key, (float("-inf"), None))
        return time.monotonic() < until_s + grace_s, principal

    def put(self, key: bytes, principal: Principal | None, left_s: float | None) -> None:
        """Cache the result of a check: the principal of a valid key, None for a wrong one.

        A valid key that expires in `left_s` seconds is cached no longer than that; None means that it does not expire.
        """
        lasts_s = REFUSAL_REMEMBERED_S if principal is None else min(REMEMBERED_S, left_s or REMEMBERED_S)
        self._results[key] = (time.monotonic() + lasts_s, principal)


_checks: WeakKeyDictionary[Readers, Checks] = WeakKeyDictionary()


async def identify(services: KeyReaders, token: str, *, afresh: bool = False) -> Principal | None:
    """Return the principal of a key; None if the key is unknown, expired or revoked.

    `afresh` asks the database even when the result is cached.

    Raises:
        Temporary: the database is away or too slow, and no valid result was cached in the last `GRACE_S`.
        OperationalError: the same, as psycopg reports it.
    """
    from serve.http.deadlines import within  # imports FastAPI; only replicas call this

    key = digest_of(token)
    checks = _checks.setdefault(services.readers, Checks())
    fresh, principal = checks.get(key)
    if fresh and not afresh:
        return principal
    try:
        row = await within(_read(services, key), services.search.deadline_s, "keys cannot be checked at present")
    except (Temporary, OperationalError):
        known, principal = checks.get(key, GRACE_S)
        if known and principal is not None and not afresh:
            return principal
        raise
    if row is None or not hmac.compare_digest(bytes(row[0]), key):
        checks.put(key, None, None)
        return None
    _, principal_id, scopes, creator_id, creators, left_s, own_ids = row
    handles_allowed = None if creators is None else frozenset(creators)
    folders = None if row[7] is None else tuple(row[7])
    principal = Principal(principal_id, frozenset(scopes), creator_id, handles_allowed, frozenset(own_ids), folders)
    checks.put(key, principal, left_s)
    return principal


async def _read(services: KeyReaders, key: bytes) -> tuple[Any, ...] | None:
    """Return the row of a valid key, with its principal; None without one.

    The primary is asked: a standby would refuse a new key, and accept one that was just revoked.
    """

    async def read(connection: AsyncConnection[Any]) -> tuple[Any, ...] | None:
        cursor = await connection.execute(VALID, (key,))
        row: tuple[Any, ...] | None = await cursor.fetchone()
        return row

    return await services.readers.primary(read)


def remembered(services: KeyReaders, token: str, grace_s: float = 0.0) -> Principal | None:
    """Return a key's principal from the cache of checks, without asking the database.

    Return None if the key is not cached, if the cached result expired more than `grace_s` seconds ago, or if the key is
    wrong.
    """
    checks = _checks.setdefault(services.readers, Checks())
    known, principal = checks.get(digest_of(token), grace_s)
    return principal if known else None


def token_of(request: Request) -> str | None:
    """Return the key that a request carries, in `Authorization: Bearer …` or `X-API-Key`; None without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("x-api-key") or None


def optional(services: KeyReaders) -> Callable[[Request], Awaitable[Principal | None]]:
    """Return a FastAPI dependency for routes that are open to all; it gives the caller, or None without a key.

    A wrong key is refused. Where the middleware `Admission` runs, it has identified the caller already.
    """

    async def principal(request: Request) -> Principal | None:
        if "principal" in request.scope.get("state", {}):
            admitted: Principal | None = request.scope["state"]["principal"]
            return admitted
        token = token_of(request)
        if token is None:
            return None
        caller = await identify(services, token)
        if caller is None:
            raise invalid()
        return caller

    return principal


def require(services: KeyReaders, *scopes: str) -> Callable[[Request], Awaitable[Principal]]:
    """Return a FastAPI dependency for routes that need a key with one of `scopes`.

    The dependency has the scopes as its attribute `scopes`. For requests that change something, the key is checked in
    the database again, so that a key that was just revoked cannot create another one.
    """
    identified = optional(services)

    async def principal(request: Request) -> Principal:
        caller = check(await identified(request), scopes)
        token = token_of(request)
        if request.method in READING or token is None:
            return caller
        caller_now = await identify(services, token, afresh=True)
        if caller_now is None:
            raise invalid()
        return check(caller_now, scopes)

    principal.scopes = scopes  # type: ignore[attr-defined]
    return principal


def check(principal: Principal | None, scopes: Sequence[str]) -> Principal:
    """Return the caller, if their key has one of these scopes.

    Raises:
        Rejected: 401 without a key, 403 with one of other scopes.
    """
    if principal is None:
        hint = "send it as `Authorization: Bearer …`"
        raise Rejected("this needs an API key", status=401, code="key-missing", hint=hint)
    if not any(principal.may(scope) for scope in scopes):
        raise Rejected(f"this needs a key of scope {' or '.join(scopes)}", status=403, code="scope-missing")
    return principal


def invalid() -> Rejected:
    """Return the error for a key that is not valid."""
    return Rejected("the API key is unknown, expired or revoked", status=401, code="key-invalid")
