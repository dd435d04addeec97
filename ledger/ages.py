"""Ages: everything that is open and should end, by state, with how long it has been so. Owns `ledger.ages`.

Money that waits in silence is the worst kind. The ledger measures every state here at its own pace and keeps what it found,
so that a replica's `/metrics` and `pixr status` show it without looking themselves; `alarms` says in the log what is late,
and the audit measures anew. Only reads, but for the note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger import book
from ledger.settings import LedgerSettings

Conn = Connection[Any]

NAMED_MAX = 5  # of a state's oldest
COUNTED_MAX = 10_000  # of those who are due, which may be everybody
BATCH = "SELECT 'batch ' || id AS name, planned_at AS since FROM ledger.batches WHERE state = "
ATTEMPT = "SELECT 'batch ' || batch_id AS name, signed_at AS since FROM ledger.attempts WHERE state = 'live' AND sends "
# Each state: the setting that limits it, and what is in it, by name and since when.
STATES: Mapping[str, tuple[str, str]] = {
    "due": (
        "due_open_max_s",
        (
            "SELECT 'creator ' || creator_id AS name, open_since AS since FROM ledger.owed WHERE open_since IS NOT NULL"
            f" ORDER BY open_since LIMIT {COUNTED_MAX}"
        ),
    ),
    "waiting": ("work_open_max_s", "SELECT part || ': ' || why AS name, since FROM ledger.waits"),
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
        (
            "SELECT 'aside-' || incarnation || '-' || seq AS name, found_at AS since FROM ledger.set_aside"
            " WHERE looked_at IS NULL"
        ),
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
# States that a person has put things into, for as long as they want, or that come of it: named, and nothing is wrong with
# the books.
STOPS = frozenset(("due", "waiting", "frozen", "on hold", "set aside"))
MEASURE = """
    WITH o AS MATERIALIZED (SELECT name, since FROM ({query}) q WHERE since IS NOT NULL),
         late AS (SELECT name, since FROM o WHERE since < now() - make_interval(secs => %(limit)s))
    SELECT count(*), (SELECT count(*) FROM late), min(since), coalesce(extract(epoch FROM now() - min(since)), 0)::float,
           ARRAY(SELECT name FROM late ORDER BY since, name LIMIT %(named)s) FROM o"""


@dataclass(frozen=True)
class Age:
    """How many things are in a state, and since when the oldest; `late` of them for longer than `limit_s`, by `names`."""

    state: str
    open: int
    late: int
    oldest_at: datetime | None
    oldest_s: float
    limit_s: float
    names: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {self.late - len(self.names)} more" if self.late > len(self.names) else ""
        return f"{self.state}: {', '.join(self.names)}{more}, the oldest for {self.oldest_s / 3600:.1f} h"


def measure(connection: Conn, settings: LedgerSettings) -> list[Age]:
    """Every state, by the database's clock."""
    return [_measured(connection, state, getattr(settings, limit), query) for state, (limit, query) in STATES.items()]


def _measured(connection: Conn, state: str, limit_s: float, query: str) -> Age:
    row = connection.execute(MEASURE.format(query=query), {"limit": limit_s, "named": NAMED_MAX}).fetchone()
    assert row is not None  # of a count
    return Age(state, row[0], row[1], row[2], max(0.0, row[3]), limit_s, tuple(row[4]))


def note_waits(connection: Conn, waits: Mapping[str, str]) -> None:
    """Keep what parts of the ledger wait for, each since it did; a part that is not named waits no longer."""
    with book.refusals():
        connection.execute("DELETE FROM ledger.waits WHERE part <> ALL(%s)", (list(waits),))
        connection.execute(
            "INSERT INTO ledger.waits AS w (part, why) SELECT * FROM unnest(%s::text[], %s::text[])"
            " ON CONFLICT (part) DO UPDATE SET why = excluded.why WHERE w.why <> excluded.why",
            (list(waits), [why.replace("\0", "") for why in waits.values()]),
        )


def note(connection: Conn, found: Sequence[Age]) -> None:
    """Keep what was found, for who shows it."""
    with book.refusals():
        for each in found:
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
    """What was noted last, of the rows of `NOTED`; each row's last column is how long ago, in seconds."""
    return [
        Age(state, count, late, oldest_at, oldest_s, limit_s, tuple(names))
        for state, count, late, oldest_at, oldest_s, limit_s, names, _ in rows
    ]
