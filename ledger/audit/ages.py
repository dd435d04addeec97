"""Ages: everything in the ledger that is open and should end, by state, and for how long it has been open. Owns `ledger.ages`.

The ledger measures all states from time to time and writes the result to a table. A replica's `/metrics` and `pixr
status` show that table; they do not measure. `alarms` logs what is late, and the audit measures for itself. That table
is the only one that is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger.journal import book
from ledger.settings import LedgerSettings

Conn = Connection[Any]

NAMED_MAX = 5  # of the oldest late things of a state
BATCH = "SELECT 'batch ' || id AS name, planned_at AS since FROM ledger.batches WHERE state = "
ATTEMPT = "SELECT 'batch ' || batch_id AS name, signed_at AS since FROM ledger.attempts WHERE state = 'live' AND sends "
# Each state: the setting that says for how long a thing may be in it, and the query for the things in it (name, since).
STATES: Mapping[str, tuple[str, str]] = {
    "planned": ("batch_open_max_s", f"{BATCH} 'planned'"),
    "signed": ("batch_open_max_s", f"{ATTEMPT} = 0"),
    "sent": ("batch_open_max_s", f"{ATTEMPT} > 0"),
    "given up": (
        "batch_open_max_s",
        (
            "SELECT 'batch ' || b.id AS name, min(a.signed_at) AS since FROM ledger.batches b"
            " JOIN ledger.attempts a ON a.batch_id = b.id AND a.state = 'expired'"
            " WHERE b.state IN ('planned', 'signed') GROUP BY b.id"
        ),
    ),
    "frozen": (
        "stop_open_max_s",
        "SELECT 'freeze-' || id AS name, placed_at AS since FROM ledger.freezes WHERE released_at IS NULL",
    ),
    "on hold": (
        "stop_open_max_s",
        (
            "SELECT 'hold-' || id AS name, placed_at AS since FROM ledger.holds"
            " WHERE released_at IS NULL AND (until IS NULL OR until > now())"
        ),
    ),
    "order": (
        "order_open_max_s",
        (
            "SELECT 'order ' || id AS name, ordered_at AS since FROM ledger.orders"
            " WHERE done_at IS NULL AND expires_at > now()"
        ),
    ),
    "resolution": (
        "order_open_max_s",
        "SELECT 'batch ' || batch_id AS name, asked_at AS since FROM ledger.resolutions WHERE done_at IS NULL",
    ),
    "set aside": (
        "stop_open_max_s",
        "SELECT incarnation || ' ' || seq AS name, found_at AS since FROM ledger.set_aside",
    ),
    "unfolded": (
        "work_open_max_s",
        (
            "SELECT i.id::text AS name, (SELECT b.recorded_at FROM ledger.appearance_batches b"
            "   WHERE b.incarnation = i.id AND b.seq >= i.folded ORDER BY b.seq LIMIT 1) AS since FROM ledger.unfolded i"
            " WHERE i.folded < i.recorded"
        ),
    ),
    "matured": (
        "work_open_max_s",
        "SELECT 'account ' || account_id AS name, matures_at AS since FROM ledger.maturing WHERE matures_at <= now()",
    ),
    "unknown": (
        "work_open_max_s",
        (
            "SELECT c.signature AS name, c.seen_at AS since FROM ledger.chain_transactions c WHERE c.kind = 'unknown'"
            " AND NOT EXISTS (SELECT FROM ledger.attempts a"  # that was resolved
            "                 WHERE a.signature = c.signature AND a.state IN ('landed', 'failed'))"
        ),
    ),
    "not reconciled": (
        "work_open_max_s",
        "(SELECT 'the chain' AS name, at AS since FROM ledger.reconciliations WHERE ok ORDER BY id DESC LIMIT 1)",
    ),
}
# States that a person ends when they decide to: a late thing is shown, but is no error of the audit.
STOPS = frozenset(("frozen", "on hold", "set aside"))
MEASURE = """
    WITH o AS MATERIALIZED (SELECT name, since FROM ({query}) q WHERE since IS NOT NULL),
         late AS (SELECT name, since FROM o WHERE since < now() - make_interval(secs => %(limit)s))
    SELECT count(*), (SELECT count(*) FROM late), min(since), coalesce(extract(epoch FROM now() - min(since)), 0)::float,
           ARRAY(SELECT name FROM late ORDER BY since, name LIMIT %(named)s) FROM o"""


@dataclass(frozen=True)
class Age:
    """How many things are in one state, and for how long."""

    state: str
    open: int  # how many
    late: int  # how many of them for longer than `limit_s`
    oldest_at: datetime | None  # since when the oldest is in the state
    oldest_s: float  # its age in seconds
    limit_s: float
    names: tuple[str, ...]  # of the oldest late ones, `NAMED_MAX` at most

    def __str__(self) -> str:
        more = f" and {self.late - len(self.names)} more" if self.late > len(self.names) else ""
        return f"{self.state}: {', '.join(self.names)}{more}, the oldest for {self.oldest_s / 3600:.1f} h"


def measure(connection: Conn, settings: LedgerSettings) -> list[Age]:
    """Measure every state, by the database's clock."""
    return [_measured(connection, state, getattr(settings, limit), query) for state, (limit, query) in STATES.items()]


def _measured(connection: Conn, state: str, limit_s: float, query: str) -> Age:
    row = connection.execute(MEASURE.format(query=query), {"limit": limit_s, "named": NAMED_MAX}).fetchone()
    assert row is not None  # of a count
    return Age(state, row[0], row[1], row[2], max(0.0, row[3]), limit_s, tuple(row[4]))


def note(connection: Conn, measured: Sequence[Age]) -> None:
    """Write ages to `ledger.ages`, for replicas and `pixr status` to read."""
    with book.refusals():
        for each in measured:
            connection.execute(
                "INSERT INTO ledger.ages (state, open, late, oldest_at, limit_s, names, looked_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, now()) ON CONFLICT (state) DO UPDATE SET open = excluded.open,"
                "   late = excluded.late, oldest_at = excluded.oldest_at, limit_s = excluded.limit_s,"
                "   names = excluded.names, looked_at = excluded.looked_at",
                (each.state, each.open, each.late, each.oldest_at, each.limit_s, list(each.names)),
            )


NOTED = """SELECT state, open, late, oldest_at, greatest(coalesce(extract(epoch FROM now() - oldest_at), 0), 0)::float,
    limit_s, names, extract(epoch FROM now() - looked_at)::float FROM ledger.ages ORDER BY state"""


def noted(rows: Sequence[Sequence[Any]]) -> list[Age]:
    """Make ages of the rows of the query `NOTED`, leaving out their last column: seconds since they were noted."""
    return [
        Age(state, count, late, oldest_at, oldest_s, limit_s, tuple(names))
        for state, count, late, oldest_at, oldest_s, limit_s, names, _ in rows
    ]
