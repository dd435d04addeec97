"""Resolutions: a person's wishes that a batch without an end is ended by evidence. Owns `ledger.resolutions`.

The wish is written by `pixr payouts resolve` and carried out by the ledger, the one writer, in its next round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from cluster.errors import Rejected
from ledger.journal import book

Conn = Connection[Any]


@dataclass(frozen=True)
class Resolution:
    """What became of a wish; `ended` and `outcome` are None while it waits."""

    id: int
    batch_id: str
    ended: bool | None
    outcome: str | None
    evidence: Mapping[str, Any]


def ask(connection: Conn, batch_id: str, by: str) -> int:
    """Wish that a batch is ended by evidence; the wish that waits already, where there is one.

    Also a batch that has ended after a transaction of it was given up: that may have landed or failed all the same.

    Raises:
        Rejected: there is no such batch, or it has ended and no transaction of it was given up.
    """
    row = connection.execute(
        "SELECT state, ended_at IS NULL OR EXISTS"
        " (SELECT FROM ledger.attempts a WHERE a.batch_id = b.id AND a.state = 'expired')"
        " FROM ledger.batches b WHERE id = %s",
        (batch_id,),
    ).fetchone()
    if row is None:
        hint = "`pixr payouts stops` and `pixr audit` name batches"
        raise Rejected(f"there is no batch {batch_id!r}", status=404, code="batch-unknown", hint=hint)
    if not row[1]:
        raise Rejected(f"batch {batch_id} has ended: it is {row[0]}", status=409, code="batch-ended")
    connection.execute(
        "INSERT INTO ledger.resolutions (batch_id, asked_by) VALUES (%s, %s) ON CONFLICT DO NOTHING", (batch_id, by)
    )
    asked = connection.execute(
        "SELECT id FROM ledger.resolutions WHERE batch_id = %s AND done_at IS NULL", (batch_id,)
    ).fetchone()
    assert asked is not None  # just written
    return int(asked[0])


def one(connection: Conn, number: int) -> Resolution:
    row = connection.execute(
        "SELECT id, batch_id, ended, outcome, evidence FROM ledger.resolutions WHERE id = %s", (number,)
    ).fetchone()
    assert row is not None  # none is ever deleted
    return Resolution(*row)


def asked(connection: Conn) -> list[Resolution]:
    """Wishes that wait, the oldest first."""
    rows = connection.execute(
        "SELECT id, batch_id, ended, outcome, evidence FROM ledger.resolutions WHERE done_at IS NULL ORDER BY id"
    )
    return [Resolution(*row) for row in rows]


def done(connection: Conn, number: int, ended: bool, outcome: str, evidence: Mapping[str, Any]) -> None:
    with book.refusals():
        connection.execute(
            "UPDATE ledger.resolutions SET done_at = now(), ended = %s, outcome = %s, evidence = %s WHERE id = %s",
            (ended, outcome, Jsonb(evidence), number),
        )
