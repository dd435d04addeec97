"""Orders: work that administrators give the ledger and that none of its own rules does. Owns `ledger.orders`.

An order is placed and approved with an administrator's key, which the database verifies. The ledger, the one writer,
carries it out in its next round (see `ordering`). If two persons are required, it waits for another administrator's
approval, and expires if none approves it in time. The content of an order never changes.
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
from ledger.journal import book

Conn = Connection[Any]

ADOPT, WITHDRAWAL, CORRECTION, SECRET = "adopt", "withdrawal", "correction", "secret"
REFUSED = "PX006"
LISTED_MAX = 1000
COLUMNS = """id, kind, body, reason, ordered_as, ordered_at, expires_at, approved_as, approved_at, done_at, carried_out,
    outcome, entry_id, done_at IS NULL AND expires_at <= clock_timestamp()"""


@dataclass(frozen=True)
class Order:
    """An order: what is to be done and who has ordered it.

    Until it is answered `done_at`, `carried_out` and `outcome` are None.
    """

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
        """The order's number and reason, and the people responsible for it, as entries store them."""
        return {"order": self.id, "reason": self.reason, "by": self.ordered_as, "approved_by": self.approved_as}

    @property
    def state(self) -> str:
        """The state of the order: open, approved, carried out, refused or expired."""
        if self.done_at is not None:
            return "carried out" if self.carried_out else "refused"
        return "expired" if self.is_over else "approved" if self.approved_as else "open"


def place(connection: Conn, key: str, kind: str, body: Mapping[str, Any], reason: str, lives_s: int) -> int:
    """Place an order under the name of the key's administrator.

    Args:
        connection: of the ledger; nothing is committed.
        key: the API key of an administrator.
        kind: `ADOPT`, `WITHDRAWAL`, `CORRECTION` or `SECRET`.
        body: the details that this kind of order needs, as values of JSON.
        reason: why, in words; stored with what is booked.
        lives_s: seconds until it expires, if it was not carried out by then.

    Returns:
        The order's number.

    Raises:
        Rejected: the key does not belong to an administrator.
    """
    with _refusals():
        row = connection.execute(
            "SELECT ledger.place_order(%s, %s, %s, %s, %s)", (key, kind, Jsonb(body), reason, lives_s)
        ).fetchone()
    assert row is not None
    return int(row[0])


def approve(connection: Conn, key: str, number: int) -> None:
    """Approve another administrator's order.

    Raises:
        Rejected: the key does not belong to an administrator, or the order is the same administrator's own, or it is
            done, approved or expired already.
    """
    with _refusals():
        connection.execute("SELECT ledger.approve_order(%s, %s)", (key, number))


def one(connection: Conn, number: int) -> Order:
    """Return an order.

    Raises:
        Rejected: no order has this number.
    """
    row = connection.execute(f"SELECT {COLUMNS} FROM ledger.orders WHERE id = %s", (number,)).fetchone()
    if row is None:
        raise Rejected(f"there is no order {number}", status=404, code="order-unknown")
    return Order(*row)


def listing(connection: Conn, limit: int = LISTED_MAX) -> list[Order]:
    """Return orders, the newest first; at most `limit`."""
    rows = connection.execute(f"SELECT {COLUMNS} FROM ledger.orders ORDER BY id DESC LIMIT %s", (limit,))
    return [Order(*row) for row in rows]


def ready(connection: Conn, by_two: bool) -> list[Order]:
    """Return the orders to carry out now, the oldest first.

    With `by_two`, only orders that a second administrator has approved are returned.
    """
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM ledger.orders WHERE done_at IS NULL AND expires_at > clock_timestamp()"
        " AND (approved_by IS NOT NULL OR NOT %s) ORDER BY id",
        (by_two,),
    )
    return [Order(*row) for row in rows]


def answer(connection: Conn, number: int, carried_out: bool, outcome: str, entry_id: int | None) -> None:
    """Store the result of an order.

    Args:
        connection: of the ledger; nothing is committed.
        number: the number of the order.
        carried_out: True if it was carried out, False if it was refused.
        outcome: what was done, or why it was refused, in words.
        entry_id: the entry that was written for it, if any.
    """
    with book.refusals():
        connection.execute(
            "UPDATE ledger.orders SET done_at = now(), carried_out = %s, outcome = %s, entry_id = %s WHERE id = %s",
            (carried_out, outcome, entry_id, number),
        )


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except psycopg.DatabaseError as error:
        if error.sqlstate == REFUSED:
            raise Rejected(str(error).splitlines()[0], status=403, code="order-refused") from error
        raise
