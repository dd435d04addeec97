"""Who is owed a payout: a small table beside the accounts, so that planning costs who is due and not who exists.

The database notes by itself whose balance comes to a payout or falls below one (schema 0020). A look takes the first of
them, tells who can be paid, and parks the others until that can have changed: at an instant, or when they are woken by a
new wallet, a released hold or a doubt that has become smaller. Knows no batch, no screening and no chain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any, NamedTuple

from psycopg import Connection

from ledger.settings import Economics

Conn = Connection[Any]

WOKEN_MAX = 10_000  # creators a round
WINDOW_MIN = 100  # creators that a look takes at least
LOOK_AGAIN_S = 60.0  # of what nothing says that it has changed


class Due(NamedTuple):
    """A creator who is owed a payout. `address` is the token account, once it is known to exist."""

    creator_id: int
    account_id: int
    wallet: str
    amount_pix: int
    period: date
    seq: int
    address: str | None


# Of those who have waited for longest. Whoever is held, unknown to us, or has a wallet that was changed a moment ago, waits;
# so does the part that is doubtful, and what was earned since the last review. `greatest` leaves out what is NULL.
LOOK = """
    SELECT o.creator_id, a.id, w.wallet, least(a.balance - h.doubtful_pix - f.earned_pix, %(most)s),
           (now() AT TIME ZONE 'utc')::date,
           (SELECT count(*) FROM ledger.payouts p
            WHERE p.creator_id = o.creator_id AND p.period = (now() AT TIME ZONE 'utc')::date)::int, t.address,
           nullif(greatest(CASE WHEN w.wallet IS NULL THEN 'infinity'::timestamptz END, w.hold_until, h.until,
                           CASE WHEN a.balance - h.doubtful_pix < %(least)s
                                THEN now() + make_interval(secs => %(again)s) END, now()), now())::text
    FROM ({window}) o
    JOIN ledger.accounts a ON a.id = o.account_id
    LEFT JOIN ledger.wallets w ON w.creator_id = o.creator_id
    LEFT JOIN ledger.token_accounts t ON t.wallet = w.wallet AND t.mint = %(mint)s
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(p.amount), 0)::bigint AS earned_pix FROM ledger.postings p
        JOIN ledger.entries e ON e.id = p.entry_id AND starts_with(e.key, 'fold:')
        WHERE p.account_id = a.id AND p.entry_id > (SELECT entry_id FROM ledger.reviewed)) f
    CROSS JOIN LATERAL (
        SELECT max(coalesce(until, 'infinity')) FILTER (WHERE NOT partial AND (until IS NULL OR until > now())) AS until,
               CASE WHEN coalesce(bool_or(partial), false) THEN ledger.withheld(o.creator_id) ELSE 0 END AS doubtful_pix
        FROM ledger.holds WHERE creator_id = o.creator_id AND released_at IS NULL) h
    ORDER BY o.n"""
ALL = LOOK.format(
    window="SELECT creator_id, account_id, n FROM ledger.owed WHERE parked_until IS NULL ORDER BY n LIMIT %(limit)s"
)
NAMED = LOOK.format(window="SELECT creator_id, account_id, n FROM ledger.owed WHERE creator_id = ANY(%(creators)s)")


def most_pix(economics: Economics) -> int:
    """What one creator is paid at once, and no more."""
    return min(economics.payout_max_pix, economics.payout_day_max_pix)


def look(
    connection: Conn, economics: Economics, mint: str, limit: int, creators: Collection[int] | None = None
) -> tuple[list[Due], dict[int, str]]:
    """Who can be paid, those first who have waited for longest; and the others, each with the instant until which they wait (or
    "infinity").

    Of these `creators`, where they are named; else of those whose turn it is. Nobody is due more at once than a day may pay.
    """
    most = most_pix(economics)
    if most < economics.payout_min_pix:  # an operator's emergency stop
        return [], {}
    values = {"most": most, "least": economics.payout_min_pix, "mint": mint, "again": LOOK_AGAIN_S,
              "limit": max(limit, WINDOW_MIN), "creators": list(creators or ())}  # fmt: skip
    due: list[Due] = []
    waiting: dict[int, str] = {}
    for *columns, until in connection.execute(ALL if creators is None else NAMED, values):
        each = Due(*columns)
        if until is not None:
            waiting[each.creator_id] = until
        elif each.amount_pix >= economics.payout_min_pix:
            due.append(each)  # else it waits for the next review, a moment later
    return due[:limit], waiting


def due(connection: Conn, economics: Economics, mint: str, limit: int) -> list[Due]:
    """Who can be paid, those first who have waited for longest."""
    return look(connection, economics, mint, limit)[0]


def wake(connection: Conn) -> list[int]:
    """Let those be looked at again of whom something was changed, or whose time has come; the former are returned.

    Before a look, never after: what is changed while we look wakes the next time.
    """
    gone = connection.execute(
        "DELETE FROM ledger.woken WHERE id IN (SELECT id FROM ledger.woken ORDER BY id LIMIT %s) RETURNING creator_id",
        (WOKEN_MAX,),
    ).fetchall()
    over = connection.execute(
        "SELECT creator_id FROM ledger.owed WHERE parked_until < 'infinity' AND parked_until <= now()"
        " ORDER BY parked_until LIMIT %s",
        (WOKEN_MAX,),
    ).fetchall()
    woken = {creator_id for (creator_id,) in gone}
    if awake := woken | {creator_id for (creator_id,) in over}:
        connection.execute(
            "UPDATE ledger.owed SET parked_until = NULL, open_since = coalesce(open_since, now())"
            " WHERE parked_until IS NOT NULL AND creator_id = ANY(%s)",
            (list(awake),),
        )
    return list(woken)


def park(connection: Conn, waiting: Mapping[int, str]) -> None:
    """These are not looked at before their instant, unless they are woken."""
    if waiting:
        connection.execute(
            "UPDATE ledger.owed o SET parked_until = p.until, open_since = NULL"
            " FROM unnest(%s::bigint[], %s::timestamptz[]) AS p (creator_id, until) WHERE o.creator_id = p.creator_id",
            (list(waiting), list(waiting.values())),
        )


def stand_behind(connection: Conn, creators: Collection[int]) -> None:
    """Who of these is still owed something waits behind all others from now on: nobody takes each day all that it may pay."""
    if creators:
        connection.execute("UPDATE ledger.owed SET n = DEFAULT WHERE creator_id = ANY(%s)", (sorted(creators),))


def note_planned(connection: Conn, creators: Collection[int]) -> None:
    """A payout of these is planned: what they are still owed beside it is due since now."""
    if creators:
        connection.execute(
            "UPDATE ledger.owed SET open_since = now() WHERE creator_id = ANY(%s) AND open_since IS NOT NULL",
            (list(creators),),
        )


def look_again(
    connection: Conn, creators: Collection[int], after_s: float = LOOK_AGAIN_S, *, are_due: bool = True
) -> None:
    """These are looked at again in a while: nothing says when they can be paid. They wait as long as they have, unless they are
    owed too little to be due."""
    if creators:
        connection.execute(
            "UPDATE ledger.owed SET parked_until = now() + make_interval(secs => %s),"
            " open_since = CASE WHEN %s THEN open_since END WHERE creator_id = ANY(%s)",
            (after_s, are_due, list(creators)),
        )


def fit(connection: Conn, least_pix: int, opening_pix: int) -> None:
    """Let the table hold those whose balance comes to `least_pix`. Commits.

    `opening_pix` is what a first payout must be worth: where it has changed, those who wait for a while are looked at again.
    """
    row = connection.execute("SELECT least_pix, opening_pix FROM ledger.owed_least").fetchone()
    connection.commit()
    if row != (least_pix, opening_pix):
        connection.execute("SELECT ledger.fit_owed(%s, %s)", (least_pix, opening_pix))
        connection.execute(
            "UPDATE ledger.owed SET open_since = now() WHERE parked_until IS NULL AND open_since IS NULL"
        )
        connection.commit()


def planned_today(connection: Conn) -> int:
    """What this UTC day's payouts come to so far, less what was voided."""
    row = connection.execute(
        "SELECT planned_pix FROM ledger.payout_days WHERE period = (now() AT TIME ZONE 'utc')::date"
    ).fetchone()
    return int(row[0]) if row else 0
