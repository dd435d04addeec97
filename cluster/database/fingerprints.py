"""Fingerprints of the secrets that every machine of a deployment has to share, kept in its database.

A machine that made secrets of its own would call the same viewer by another name, so that what they were shown would be paid
again, and would refuse the links and cursors of the others. The first that is used is noted, any other is refused. A
fingerprint says nothing of its secret, which is 32 random bytes. What the ids of payouts derive from is noted by the ledger.
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
# Each secret with whether it is the noted one; NULL where none is.
COMPARED = """
    SELECT name, noted.fingerprint = here.fingerprint
    FROM unnest(%(names)s::text[], %(prints)s::text[]) AS here (name, fingerprint)
    LEFT JOIN pixr.fingerprints noted USING (name) ORDER BY name"""
FORGET = "DELETE FROM pixr.fingerprints WHERE name = ANY(%s)"


def of(settings: Settings) -> Mapping[str, list[str]]:
    """The names and fingerprints of this machine's secrets, as the statements here take them."""
    prints = [_fingerprint(name, runtime.secret(settings, name)) for name in SHARED]
    return {"names": list(SHARED), "prints": prints}


def note(connection: Connection, settings: Settings) -> None:
    """Note this machine's secrets where none are, in the caller's transaction.

    Raises:
        Rejected: others are noted.
    """
    connection.execute(NOTE, of(settings))
    refuse(compared(connection, settings))


def compared(connection: Connection, settings: Settings) -> dict[str, bool | None]:
    """By the name of each secret whether this machine's is the noted one; None where none is."""
    return dict(connection.execute(COMPARED, of(settings)).fetchall())


def forget(connection: Connection, names: Sequence[str]) -> None:
    """Let the next that is used be noted anew: a secret was replaced on purpose."""
    connection.execute(FORGET, (list(names),))


def refuse(found: Mapping[str, bool | None]) -> None:
    """Refuse secrets that were `compared` and are others.

    Raises:
        Rejected: there are some; they are named.
    """
    others = ", ".join(f"secrets/{name}" for name, same in found.items() if same is False)
    if others:
        hint = "put back those of the other machines; replaced on purpose: `pixr config secrets --forget NAME`"
        raise Rejected(f"{others}: not what this database was used with", code="other-secrets", hint=hint)


def _fingerprint(name: str, secret: str) -> str:
    return hmac.digest(secret.encode(), PURPOSE + name.encode(), "sha256").hex()[:32]
