"""Resolutions: people's requests to end a stuck batch by evidence. Owns `ledger.resolutions`.

A request is written by `pixr payouts resolve` and carried out by the ledger, the one writer, in its next round.
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
    """A request and its result; `ended` and `outcome` are None while it waits."""

    id: int
    batch_id: str
    ended: bool | None
    outcome: str | None
    evidence: Mapping[str, Any]


def request(connection: Conn, batch_id: str, by: str) -> int:
    """Request that a batch is ended by evidence. Returns the request's number; if one waits already, that one's.

    A batch that has ended can be named, too, if one of its transactions was given up: that transaction may be on chain.

    Raises:
        Rejected: no batch has this id, or the batch has ended and none of its transactions was given up.
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
    row = connection.execute(
        "SELECT id FROM ledger.resolutions WHERE batch_id = %s AND done_at IS NULL", (batch_id,)
    ).fetchone()
    assert row is not None  # just written
    return int(row[0])


def one(connection: Conn, number: int) -> Resolution:
    """Return a request. It must exist."""
    row = connection.execute(
        "SELECT id, batch_id, ended, outcome, evidence FROM ledger.resolutions WHERE id = %s", (number,)
    ).fetchone()
    assert row is not None  # none is ever deleted
    return Resolution(*row)


def waiting(connection: Conn) -> list[Resolution]:
    """Return requests that wait, the oldest first."""
    rows = connection.execute(
        "SELECT id, batch_id, ended, outcome, evidence FROM ledger.resolutions WHERE done_at IS NULL ORDER BY id"
    )
    return [Resolution(*row) for row in rows]


def answer(connection: Conn, number: int, ended: bool, outcome: str, evidence: Mapping[str, Any]) -> None:
    """Store the result of a request.

    Args:
        connection: of the ledger; nothing is committed.
        number: the number of the request.
        ended: whether the batch was ended.
        outcome: what was done, or what evidence is missing, in words.
        evidence: what nodes reported, stored with the answer.
    """
    with book.refusals():
        connection.execute(
            "UPDATE ledger.resolutions SET done_at = now(), ended = %s, outcome = %s, evidence = %s WHERE id = %s",
            (ended, outcome, Jsonb(evidence), number),
        )
