"""API keys: who calls, and what they may do. Owns `app.principals` and `app.api_keys`.

A key is 32 random bytes, shown once, kept as its SHA-256; it carries scopes, may expire, can be rotated (the old one
lives on for a while) and revoked. A check is remembered for a few seconds, so that a key costs no query per search or
read, where a revocation is felt almost at once; what changes something asks afresh. Knows nothing of what the scopes protect.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection, Connection, OperationalError
from psycopg_pool import ConnectionPool
from starlette.requests import Request  # FastAPI's own; commands need no FastAPI, which takes a second to load

from cluster.errors import Rejected, Temporary
from pipelines import handles, prefixes
from pipelines.creators import known_handles
from pipelines.prefixes import FOLDERS_MAX
from serve import caller_names

if TYPE_CHECKING:
    from serve.readers import Readers
    from serve.services import Services

SCOPES = ("search", "ingest", "creator", "admin")
PREFIX = "pixr_"
TOKEN_CHARS_MAX = 512
REMEMBERED_S = 5.0
REFUSAL_REMEMBERED_S = 1.0
GRACE_S = 60.0  # a key that was good is good for so long while the database is away
REMEMBERED_MAX = 10_000
ROTATION_GRACE_S = 24 * 3600
LISTED_MAX = 1000
TOTAL_MAX = 100_000  # rows that are counted
LIFETIME_MAX_S = 10 * 366 * 86_400
ADMIN, INGEST = "admin", "ingest"
READING = frozenset(("GET", "HEAD", "OPTIONS"))
ANY = "any"  # creator, that a key of scope ingest may speak for
CREATORS_MAX = 1000
KEYS = """SELECT k.id, p.name, k.scopes, p.creator_id, k.creators, k.folders, k.created_at, k.expires_at, k.revoked_at
          FROM app.api_keys k JOIN app.principals p ON p.id = k.principal_id"""


@dataclass(frozen=True)
class Principal:
    """Who calls, with the scopes of the key they used. `creators` are the handles that scope ingest holds for; None: any.
    `folders` are those that its jobs may name; None: the usual ones of its creators.

    `own_ids` are the ids of the creators whom the key stands or speaks for by name: its searches earn them nothing.
    """

    id: int
    scopes: frozenset[str]
    creator_id: int | None = None
    creators: frozenset[str] | None = None
    own_ids: frozenset[int] = frozenset()
    folders: tuple[str, ...] | None = None

    def may(self, scope: str) -> bool:
        """An administrator may do everything."""
        return scope in self.scopes or ADMIN in self.scopes

    @property
    def speaks_for(self) -> tuple[str, ...] | None:
        """Handles of the creators whose videos the key may list, see and change; None: any."""
        if ADMIN in self.scopes:
            return None
        if INGEST not in self.scopes:
            return ()
        return None if self.creators is None else tuple(sorted(self.creators))

    def folders_in(self, buckets: Sequence[str]) -> tuple[str, ...] | None:
        """Folders that its jobs may name, the usual ones being in the first of these buckets; None: anywhere."""
        named = self.speaks_for
        return None if named is None else _folders(named, self.folders, buckets)

    def covers(self, handle: str) -> bool:
        """Whether scope ingest holds for this creator's things."""
        named = self.speaks_for
        return named is None or handle in named

    def owns(self, creator_id: int) -> bool:
        """A creator's own key, for that creator's own things."""
        return "creator" in self.scopes and self.creator_id == creator_id


@dataclass(frozen=True)
class Key:
    """A key as it is listed: never the key itself."""

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
        """As the HTTP interface and `--json` show it, with its folders, the usual ones being in the first of these buckets."""
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
    """A new key for a principal, who is made if there is none of that name; its id, and the key, never shown again.

    One of scope ingest speaks for `creators`, given by their handles, or for any if that is said; without a word for the
    creator of `creator_id`. Its jobs name sources and manifests in `folders` alone (see `prefixes.checked`); None: in those
    that are called as its creators. All keys of one name are one caller, who may have several.

    Raises:
        Rejected: a scope is unknown, the name is none or looks like another caller's, the lifetime is out of range, there is
            no such creator, the principal stands for another one or has a living key that may do something else, for whom a
            key of scope ingest speaks is not said, or another has folders.
    """
    _check(scopes, creator_id)
    own = None if creator_id is None else _handle(connection, creator_id)
    speaks_for = _speaks_for(connection, scopes, creators, own)
    _check_folders(folders, speaks_for)
    name = caller_names.named(connection, name)
    if expires_in_s is not None and expires_in_s > LIFETIME_MAX_S:
        raise Rejected(f"a key expires in at most {LIFETIME_MAX_S // 86_400} days", status=422, code="bad-lifetime")
    token = PREFIX + secrets.token_urlsafe(32)
    principal_id = _principal(connection, name, creator_id)
    _check_alike(connection, principal_id, name, scopes, speaks_for)
    return _register(connection, principal_id, token, scopes, speaks_for, folders, expires_in_s), token


def ensure_admin(source: ConnectionPool[Any] | Connection[Any], token: str) -> None:
    """Make a deployment's first key known. Any text will do; run again, it changes nothing."""
    if isinstance(source, ConnectionPool):
        with source.connection() as connection:
            ensure_admin(connection, token)
        return
    known = source.execute("SELECT FROM app.api_keys WHERE hash = %s", (digest(token),)).fetchone()
    if known is None:
        _register(source, _principal(source, ADMIN, None), token, (ADMIN,), None, None, None)
    source.commit()


def _check(scopes: Sequence[str], creator_id: int | None) -> None:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise Rejected(
            f"scopes {list(scopes)} are not valid", status=422, code="bad-scope", hint=f"known: {', '.join(SCOPES)}"
        )
    if "creator" in scopes and creator_id is None:
        raise Rejected("a key of scope creator needs a creator_id", status=422, code="bad-scope")


def _speaks_for(
    connection: Connection[Any], scopes: Sequence[str], creators: Sequence[str] | None, own: str | None
) -> list[str] | None:
    """The creators that a new key speaks for; None: any, or it is of no scope that speaks for them. `own`: its creator's."""
    if INGEST not in scopes or ADMIN in scopes:
        if creators not in (None, ANY):
            raise Rejected("only a key of scope ingest is for creators", status=422, code="bad-creators")
        return None
    if creators == ANY:
        return None
    if not creators and own is not None:  # as it is kept, whatever it holds: it is theirs
        return [own]
    if not creators or len(creators) > CREATORS_MAX:
        detail, hint = (
            "for whom a key of scope ingest speaks is not said",
            f"name 1 to {CREATORS_MAX} creators, or say any",
        )
        raise Rejected(detail, status=422, code="bad-creators", hint=hint)
    return list(handles.checked(creators, known_handles(connection, creators)))


def _check_folders(folders: Sequence[str] | None, speaks_for: Sequence[str] | None) -> None:
    if folders is None:
        return
    if speaks_for is None:
        detail = "only a key of scope ingest that is for named creators has folders"
        raise Rejected(detail, status=422, code="bad-folders", hint="a key for any creator ingests from everywhere")
    if not 1 <= len(folders) <= FOLDERS_MAX:
        raise Rejected(f"a key has 1 to {FOLDERS_MAX} folders", status=422, code="bad-folders")


def _handle(connection: Connection[Any], creator_id: int) -> str:
    """The handle of a creator.

    Raises:
        Rejected: 404, there is none: a key made now would be that of whoever is given the number later.
    """
    row = connection.execute("SELECT handle FROM media.creators WHERE id = %s", (creator_id,)).fetchone()
    if row is None:
        hint = "GET /v1/creators lists them"
        raise Rejected(f"there is no creator {creator_id}", status=404, code="not-found", hint=hint)
    return str(row[0])


def _principal(connection: Connection[Any], name: str, creator_id: int | None) -> int:
    """The principal of a name, who is made if there is none.

    Raises:
        Rejected: 409, it stands for another creator.
    """
    # The no-op update makes RETURNING give the row that was there; another creator's principal is left alone.
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
    """Check that a principal's living keys may do what a new one is to: they are one viewer, and share their jobs' idempotency
    and challenges. The principal's row is locked by `_principal`, so that two keys made at once see each other.

    Raises:
        Rejected: 409, one of them has other scopes or speaks for other creators: it is somebody else's, or is left over.
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
    made = connection.execute(
        "INSERT INTO app.api_keys (principal_id, hash, scopes, creators, folders, expires_at) VALUES (%s, %s, %s, %s, %s,"
        " now() + make_interval(secs => %s)) ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash RETURNING id",
        (principal_id, digest(token), list(scopes), creators, None if folders is None else list(folders), expires_in_s),
    ).fetchone()
    assert made is not None  # RETURNING after an insert or an update gives a row
    return int(made[0])


def rotate(connection: Connection[Any], key_id: int, *, grace_s: int = ROTATION_GRACE_S) -> tuple[int, str]:
    """A new key with the same scopes, creators, folders and lifetime; the old one lives on for `grace_s`, so that its users
    can change over.

    Raises:
        Rejected: there is no such living key.
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
    made = connection.execute(
        "INSERT INTO app.api_keys (principal_id, hash, scopes, creators, folders, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, now() + %s::interval) RETURNING id",
        (row[0], digest(token), *row[1:]),
    ).fetchone()
    assert made is not None
    return int(made[0]), token


def revoke(connection: Connection[Any], key_id: int) -> None:
    """End a key; ending it again is no error.

    Raises:
        Rejected: there is no such key.
    """
    done = connection.execute(
        "UPDATE app.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s", (key_id,)
    )
    if done.rowcount == 0:
        raise _unknown(key_id)


def listing(connection: Connection[Any], limit: int = LISTED_MAX, before: int = 2**63 - 1) -> list[Key]:
    """Every key, the newest first; `before` is the id of one to go on from."""
    rows = connection.execute(f"{KEYS} WHERE k.id < %s ORDER BY k.id DESC LIMIT %s", (before, limit))
    return [Key(row[0], row[1], tuple(row[2]), *row[3:]) for row in rows]


def count(connection: Connection[Any]) -> int:
    """How many keys there are, living or not, up to `TOTAL_MAX`."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM app.api_keys LIMIT %s) counted", (TOTAL_MAX,)
    ).fetchone()
    assert row is not None  # of a count
    return int(row[0])


def one(connection: Connection[Any], key_id: int) -> Key:
    """One key, living or not."""
    row = connection.execute(f"{KEYS} WHERE k.id = %s", (key_id,)).fetchone()
    if row is None:
        raise _unknown(key_id)
    return Key(row[0], row[1], tuple(row[2]), *row[3:])


def _unknown(key_id: int) -> Rejected:
    return Rejected(f"there is no living key {key_id}", status=404, code="not-found")


# ── Checking keys ──────────────────────────────────────────────────────────────────────────────────────────────────


def digest_of(token: str) -> bytes:
    """Under which a key stands in the database, of a token however long."""
    return digest(token[:TOKEN_CHARS_MAX])


class Checks:
    """What was found out about keys in the last seconds, by their hash. Bounded; one per deployment's database."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, Principal | None]] = OrderedDict()

    def get(self, key: bytes, grace_s: float = 0.0) -> tuple[bool, Principal | None]:
        """Whether it is known still, and who it is; `grace_s` later too when nobody can be asked."""
        until_s, principal = self._known.get(key, (float("-inf"), None))
        return time.monotonic() < until_s + grace_s, principal

    def put(self, key: bytes, principal: Principal | None, left_s: float | None) -> None:
        lasts_s = REFUSAL_REMEMBERED_S if principal is None else min(REMEMBERED_S, left_s or REMEMBERED_S)
        self._known[key] = (time.monotonic() + lasts_s, principal)
        self._known.move_to_end(key)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)


_checks: WeakKeyDictionary[Readers, Checks] = WeakKeyDictionary()


async def identify(services: Services, token: str, *, afresh: bool = False) -> Principal | None:
    """Whose key this is; None for one that is unknown, expired or revoked. `afresh`: as the database has it now, whatever
    was found out before.

    Raises:
        Temporary, OperationalError: the database does not say, and it was not found out lately enough.
    """
    from serve.deadlines import within  # brings FastAPI; only replicas come here

    key = digest_of(token)
    checks = _checks.setdefault(services.readers, Checks())
    fresh, principal = checks.get(key)
    if fresh and not afresh:
        return principal
    try:
        row = await within(_asked(services, key), services.search.deadline_s, "keys cannot be checked at present")
    except (Temporary, OperationalError):
        known, principal = checks.get(key, GRACE_S)
        if known and principal is not None and not afresh:
            return principal
        raise
    if row is None or not hmac.compare_digest(bytes(row[0]), key):
        checks.put(key, None, None)
        return None
    creators = None if row[4] is None else frozenset(row[4])
    folders = None if row[7] is None else tuple(row[7])
    principal = Principal(row[1], frozenset(row[2]), row[3], creators, frozenset(row[6]), folders)
    checks.put(key, principal, row[5])
    return principal


async def _asked(services: Services, key: bytes) -> tuple[Any, ...] | None:
    """From the primary: a replica would refuse a fresh key, and let a revoked one live on."""

    async def look(connection: AsyncConnection[Any]) -> tuple[Any, ...] | None:
        cursor = await connection.execute(
            "SELECT k.hash, p.id, k.scopes, p.creator_id, k.creators, extract(epoch FROM k.expires_at - now())::float8,"
            " ARRAY(SELECT c.id FROM media.creators c WHERE c.handle = ANY(k.creators) OR c.id = p.creator_id), k.folders"
            " FROM app.api_keys k JOIN app.principals p ON p.id = k.principal_id"
            " WHERE k.hash = %s AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())",
            (key,),
        )
        row: tuple[Any, ...] | None = await cursor.fetchone()
        return row

    return await services.readers.primary(look)


def remembered(services: Services, token: str, grace_s: float = 0.0) -> Principal | None:
    """Whose key this is, if it was found out in the last seconds; `grace_s` longer, for one that must be asked again."""
    checks = _checks.setdefault(services.readers, Checks())
    known, principal = checks.get(digest_of(token), grace_s)
    return principal if known else None


def token_of(request: Request) -> str | None:
    """The key a request carries: `Authorization: Bearer …` or `X-API-Key`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("x-api-key") or None


def optional(services: Services) -> Callable[[Request], Awaitable[Principal | None]]:
    """A dependency for what is open to all: the caller, if a key says who that is. A wrong key is refused.

    `Admission` has found that out already, where it stands before the application.
    """

    async def principal(request: Request) -> Principal | None:
        if "principal" in request.scope.get("state", {}):
            admitted: Principal | None = request.scope["state"]["principal"]
            return admitted
        token = token_of(request)
        if token is None:
            return None
        found = await identify(services, token)
        if found is None:
            raise invalid()
        return found

    return principal


def require(services: Services, *scopes: str) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency for what needs a key with one of these scopes, which it carries as its attribute `scopes`.

    A request that changes something has its key looked up afresh: one that was revoked a moment ago makes no other key.
    """
    identified = optional(services)

    async def principal(request: Request) -> Principal:
        found = check(await identified(request), scopes)
        token = token_of(request)
        if request.method in READING or token is None:
            return found
        now = await identify(services, token, afresh=True)
        if now is None:
            raise invalid()
        return check(now, scopes)

    principal.scopes = scopes  # type: ignore[attr-defined]
    return principal


def check(principal: Principal | None, scopes: Sequence[str]) -> Principal:
    """The caller, if their key has one of these scopes.

    Raises:
        Rejected: 401 without a key, 403 with another.
    """
    if principal is None:
        hint = "send it as `Authorization: Bearer …`"
        raise Rejected("this needs an API key", status=401, code="key-missing", hint=hint)
    if not any(principal.may(scope) for scope in scopes):
        raise Rejected(f"this needs a key of scope {' or '.join(scopes)}", status=403, code="scope-missing")
    return principal


def invalid() -> Rejected:
    return Rejected("the API key is unknown, expired or revoked", status=401, code="key-invalid")
