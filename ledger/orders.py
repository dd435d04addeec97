"""Orders: what an administrator has the ledger do that no rule of its own does. Owns `ledger.orders`.

Placed and approved with an administrator's key, which the database verifies; carried out by the ledger, the one writer, in
its next round (see `ordering`). Where two persons are wanted an order waits for another administrator, and is over when
nobody has approved it in time. Nothing that an order says ever changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from cluster.errors import Rejected
from ledger import book

Conn = Connection[Any]

ADOPT, WITHDRAWAL, CORRECTION, SECRET = "adopt", "withdrawal", "correction", "secret"
REFUSED = "PX006"
LISTED_MAX = 1000
ONE_AT_A_TIME = 0x6F7264657273  # of transactions that place an order which is not to be there twice
COLUMNS = """id, kind, body, reason, ordered_as, ordered_at, expires_at, approved_as, approved_at, done_at, carried_out,
    outcome, entry_id, done_at IS NULL AND expires_at <= clock_timestamp()"""


@dataclass(frozen=True)
class Order:
    """What is to be done and who says so; `done_at`, `carried_out` and `outcome` are None while it waits."""

    id: int
    kind: str
    body: Mapping[str, Any]
    reason: str
    ordered_as: str
    ordered_at: datetime
    expires_at: datetime
    approved_as: str | None
    approved_at: datetime | None
    done_at: datetime | None
    carried_out: bool | None
    outcome: str | None
    entry_id: int | None
    is_over: bool  # it has expired and was never carried out

    @property
    def by(self) -> Mapping[str, Any]:
        """Who answers for it, as entries say it."""
        return {"order": self.id, "reason": self.reason, "by": self.ordered_as, "approved_by": self.approved_as}

    @property
    def state(self) -> str:
        if self.done_at is not None:
            return "carried out" if self.carried_out else "refused"
        return "expired" if self.is_over else "approved" if self.approved_as else "open"


def place(
    connection: Conn, key: str, kind: str, body: Mapping[str, Any], reason: str, lives_s: int, *, once_in_s: int = 0
) -> int:
    """Place an order under the name of the key's administrator; its number.

    `once_in_s`: not where an equal one was placed within that time and was, or may be, carried out. Two that are placed at
    once wait for each other until the transaction's end.

    Raises:
        Rejected: the key is no administrator's; 409, an equal order was placed.
    """
    with _refusals():
        if once_in_s:
            _require_new(connection, kind, body, once_in_s)
        row = connection.execute(
            "SELECT ledger.place_order(%s, %s, %s, %s, %s)", (key, kind, Jsonb(body), reason, lives_s)
        ).fetchone()
    assert row is not None
    return int(row[0])


def approve(connection: Conn, key: str, number: int) -> None:
    """Approve another administrator's order.

    Raises:
        Rejected: the key is no administrator's, or the order is their own, done, approved or over.
    """
    with _refusals():
        connection.execute("SELECT ledger.approve_order(%s, %s)", (key, number))


def one(connection: Conn, number: int) -> Order:
    row = connection.execute(f"SELECT {COLUMNS} FROM ledger.orders WHERE id = %s", (number,)).fetchone()
    if row is None:
        raise Rejected(f"there is no order {number}", status=404, code="order-unknown")
    return Order(*row)


def listing(connection: Conn, limit: int = LISTED_MAX) -> list[Order]:
    """The newest first."""
    rows = connection.execute(f"SELECT {COLUMNS} FROM ledger.orders ORDER BY id DESC LIMIT %s", (limit,))
    return [Order(*row) for row in rows]


def ready(connection: Conn, by_two: bool) -> list[Order]:
    """What is to be carried out now, the oldest first; `by_two`: only what a second administrator has approved."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM ledger.orders WHERE done_at IS NULL AND expires_at > clock_timestamp()"
        " AND (approved_by IS NOT NULL OR NOT %s) ORDER BY id",
        (by_two,),
    )
    return [Order(*row) for row in rows]


def done(connection: Conn, number: int, carried_out: bool, outcome: str, entry_id: int | None) -> None:
    with book.refusals():
        connection.execute(
            "UPDATE ledger.orders SET done_at = now(), carried_out = %s, outcome = %s, entry_id = %s WHERE id = %s",
            (carried_out, outcome, entry_id, number),
        )


def _require_new(connection: Conn, kind: str, body: Mapping[str, Any], within_s: int) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
    row = connection.execute(
        "SELECT id, ordered_as, ordered_at FROM ledger.orders WHERE kind = %s AND body = %s"
        " AND ordered_at > clock_timestamp() - make_interval(secs => %s)"
        " AND coalesce(carried_out, expires_at > clock_timestamp()) ORDER BY id DESC LIMIT 1",
        (kind, Jsonb(body), within_s),
    ).fetchone()
    if row is not None:
        detail = f"{row[1]!a} has placed the same {kind} as order {row[0]} at {row[2]:%Y-%m-%d %H:%M %Z}"
        hint = "`pixr payouts order list` shows it; with --again it is placed once more"
        raise Rejected(detail, status=409, code="order-again", hint=hint)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except psycopg.DatabaseError as error:
        if error.sqlstate == REFUSED:
            raise Rejected(str(error).splitlines()[0], status=403, code="order-refused") from error
        raise
