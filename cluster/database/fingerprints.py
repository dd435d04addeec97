"""Fingerprints of the secrets that all machines of a deployment must share, kept in the database.

A machine with secrets of its own would hash the same viewer to another value, so that the same appearances would be
paid twice. It would also refuse the links and cursors that other machines signed. The database notes the fingerprints
of the first secrets that are used, and a machine with other secrets is refused. A fingerprint reveals nothing about its
secret, 32 random bytes. The secret from which the ids of payouts derive is noted by the ledger.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence

from psycopg import Connection

from cluster import runtime
from cluster.errors import Rejected
from cluster.settings import Settings

SHARED = ("appearances", "cursor_key", "link_key", "viewer_key")
PURPOSE = b"what a deployment's machines share: "
NOTE = """
    INSERT INTO pixr.fingerprints (name, fingerprint) SELECT * FROM unnest(%(names)s::text[], %(prints)s::text[])
    ON CONFLICT DO NOTHING"""
# Whether each secret is the one that was noted; NULL where none was.
COMPARED = """
    SELECT name, noted.fingerprint = here.fingerprint
    FROM unnest(%(names)s::text[], %(prints)s::text[]) AS here (name, fingerprint)
    LEFT JOIN pixr.fingerprints noted USING (name) ORDER BY name"""
FORGET = "DELETE FROM pixr.fingerprints WHERE name = ANY(%s)"


def of(settings: Settings) -> Mapping[str, list[str]]:
    """Return the names and fingerprints of this machine's secrets, as parameters for the statements of this module."""
    prints = [_fingerprint(name, runtime.secret(settings, name)) for name in SHARED]
    return {"names": list(SHARED), "prints": prints}


def note(connection: Connection, settings: Settings) -> None:
    """Store the fingerprints of this machine's secrets, where the database has none yet, in the caller's transaction.

    Raises:
        Rejected: the database has the fingerprint of another secret.
    """
    connection.execute(NOTE, of(settings))
    refuse(compared(connection, settings))


def compared(connection: Connection, settings: Settings) -> dict[str, bool | None]:
    """Map each secret's name to whether the database has its fingerprint (True), another one (False) or none (None)."""
    return dict(connection.execute(COMPARED, of(settings)).fetchall())


def forget(connection: Connection, names: Sequence[str]) -> None:
    """Delete the fingerprints of secrets that were replaced on purpose, so that the secrets used next are noted."""
    connection.execute(FORGET, (list(names),))


def refuse(same_by_name: Mapping[str, bool | None]) -> None:
    """Raise an error if a secret differs from the noted one; `same_by_name` is a result of `compared`.

    Raises:
        Rejected: at least one differs; the message names all that do.
    """
    others = ", ".join(f"secrets/{name}" for name, is_same in same_by_name.items() if is_same is False)
    if others:
        hint = "put back those of the other machines; replaced on purpose: `pixr config secrets --forget NAME`"
        raise Rejected(f"{others}: not what this database was used with", code="other-secrets", hint=hint)


def _fingerprint(name: str, secret: str) -> str:
    return hmac.digest(secret.encode(), PURPOSE + name.encode(), "sha256").hex()[:32]
