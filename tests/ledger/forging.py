"""Hands of somebody who owns the database and rewrites it, so well that the journal is right with itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Connection

from ledger.journal import book

Conn = Connection[Any]


@contextmanager
def forging(connection: Conn) -> Iterator[None]:
    """What is changed within leaves no trigger and no constraint behind; then balances, hashes and what is kept beside fit."""
    connection.commit()
    connection.execute("SET session_replication_role = replica")
    yield
    settle_balances(connection)
    keep_beside(connection)
    chain_again(connection)
    connection.execute("SET session_replication_role = origin")
    connection.commit()


def settle_balances(connection: Conn) -> None:
    connection.execute(
        "UPDATE ledger.accounts a SET balance ="
        " coalesce((SELECT sum(p.amount) FROM ledger.postings p WHERE p.account_id = a.id), 0)"
    )


def keep_beside(connection: Conn) -> None:
    """Who is owed a payout, and what days come to."""
    connection.execute("DELETE FROM ledger.owed")
    connection.execute(
        "INSERT INTO ledger.owed (creator_id, account_id) SELECT owner, a.id FROM ledger.accounts a, ledger.owed_least"
        " WHERE kind = 'payable' AND party = 'creator' AND asset = 'PIX' AND balance >= least_pix"
    )
    connection.execute(
        "UPDATE ledger.payout_days d SET planned_pix = coalesce((SELECT sum(p.amount_pix) FROM ledger.payouts p"
        " JOIN ledger.transfers t ON t.id = p.transfer_id"
        " WHERE p.period = d.period AND t.state IN ('pending', 'posted')), 0)"
    )


def chain_again(connection: Conn) -> None:
    """Every entry's hash, from what it now says and the one before."""
    previous, last = bytes(32), 0
    rows = connection.execute(
        "SELECT e.id, e.kind, e.key, e.document, e.lines, e.occurred_at, e.reverses,"
        " (SELECT string_agg(int8send(account_id) || int8send(amount), ''::bytea ORDER BY line)"
        "  FROM ledger.postings WHERE entry_id = e.id) FROM ledger.entries e ORDER BY e.id"
    ).fetchall()
    for number, kind, key, document, lines, at, reverses, postings in rows:
        hashed = book.entry_hash(previous, number, book.micros(at), lines, kind, key, document, bytes(postings))
        content = book.content_hash(kind, document, bytes(postings), reverses)
        connection.execute(
            "UPDATE ledger.entries SET prev_hash = %s, hash = %s, content = %s WHERE id = %s",
            (previous, hashed, content, number),
        )
        previous, last = hashed, number
    connection.execute("UPDATE ledger.chain_head SET entry_id = %s, hash = %s", (last, previous))
