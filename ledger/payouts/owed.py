"""Who is owed a payout: a small table beside the accounts, so that planning reads only creators who are due and not all.

The database itself notes each creator whose balance rises to the least amount of a payout or falls below it (schema
0020). `look` reads the first of these creators and tells which of them can be paid. `park` lets the others wait until a
given time, or until a new wallet, a released hold or a lower doubtful amount wakes them. Knows no batch, no screening
and no chain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from psycopg import Connection

from ledger.settings import Economics

Conn = Connection[Any]

WOKEN_MAX = 10_000  # creators a round
WINDOW_MIN = 100  # creators that are looked at, at least
LOOK_AGAIN_S = 60.0  # after which creators are looked at again whom nothing will wake


class Due(NamedTuple):
    """A creator who is owed a payout. `address` is the token account, once it is known to exist."""

    creator_id: int
    account_id: int
    wallet: str
    amount_pix: int
    period: date
    seq: int
    address: str | None


# Creators who are held, have no wallet, or changed it a moment ago, wait; so does the part of a balance that is doubtful, and
# what was earned since the last review. The last column is the instant until which one waits, NULL for who can be paid:
# `greatest` leaves out what is NULL.
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


def payable_max_pix(economics: Economics) -> int:
    """Return the most that one creator is paid at once, in base units of PIX."""
    return min(economics.payout_max_pix, economics.payout_day_max_pix)


def look(
    connection: Conn, economics: Economics, mint: str, limit: int, creators: Collection[int] | None = None
) -> tuple[list[Due], dict[int, str]]:
    """Return who can be paid now, and until when the others wait. Nobody is due more at once than a day may pay in all.

    Args:
        connection: of the ledger; nothing is written.
        economics: the bounds of a payout.
        mint: the token's address, by which recipients' token accounts are found.
        limit: at most this many creators are returned as due.
        creators: only look at these; None for those who are not parked, the longest waiting first.

    Returns:
        The creators who can be paid, the longest waiting first; and for each of the others the instant until which they
        wait, or "infinity". Creators who have too little without what no review has seen yet are in neither.
    """
    most = payable_max_pix(economics)
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
    """Return who can be paid now, the longest waiting first.

    Args:
        connection: of the ledger; nothing is written.
        economics: the bounds of a payout.
        mint: the token's address, by which recipients' token accounts are found.
        limit: creators at most.

    Returns:
        One line for each creator.
    """
    return look(connection, economics, mint, limit)[0]


def wake(connection: Conn) -> list[int]:
    """Wake parked creators for whom something has changed, or whose time has come.

    Must be called before `look`, never after it. Then a change during `look` is not lost: it wakes the creator the next
    time.

    Returns:
        The creators for whom something has changed, without those whose time has come.
    """
    taken = connection.execute(
        "DELETE FROM ledger.woken WHERE id IN (SELECT id FROM ledger.woken ORDER BY id LIMIT %s) RETURNING creator_id",
        (WOKEN_MAX,),
    ).fetchall()
    timed = connection.execute(
        "SELECT creator_id FROM ledger.owed WHERE parked_until < 'infinity' AND parked_until <= now()"
        " ORDER BY parked_until LIMIT %s",
        (WOKEN_MAX,),
    ).fetchall()
    woken = {creator_id for (creator_id,) in taken}
    if awake := woken | {creator_id for (creator_id,) in timed}:
        connection.execute(
            "UPDATE ledger.owed SET parked_until = NULL WHERE parked_until IS NOT NULL AND creator_id = ANY(%s)",
            (list(awake),),
        )
    return list(woken)


def park(connection: Conn, waiting: Mapping[int, str]) -> None:
    """Let creators wait until the instant given for each, unless something wakes them earlier."""
    if waiting:
        connection.execute(
            "UPDATE ledger.owed o SET parked_until = p.until"
            " FROM unnest(%s::bigint[], %s::timestamptz[]) AS p (creator_id, until) WHERE o.creator_id = p.creator_id",
            (list(waiting), list(waiting.values())),
        )


def stand_behind(connection: Conn, creators: Collection[int]) -> None:
    """Move creators who are still owed something to the end of the queue.

    So the same creators do not use up every day's limit.
    """
    if creators:
        connection.execute("UPDATE ledger.owed SET n = DEFAULT WHERE creator_id = ANY(%s)", (sorted(creators),))


def look_again(connection: Conn, creators: Sequence[int]) -> None:
    """Let creators wait for `LOOK_AGAIN_S` seconds. For creators whom no event would wake."""
    if creators:
        connection.execute(
            "UPDATE ledger.owed SET parked_until = now() + make_interval(secs => %s) WHERE creator_id = ANY(%s)",
            (LOOK_AGAIN_S, list(creators)),
        )


def fit(connection: Conn, least_pix: int, opening_pix: int) -> None:
    """Fill the table again with the creators whose balance reaches `least_pix`, if that amount has changed. Commits.

    `least_pix` is the least amount of a payout, `opening_pix` that of a first payout. If the latter has changed,
    creators who wait for a point in time are woken.
    """
    row = connection.execute("SELECT least_pix, opening_pix FROM ledger.owed_least").fetchone()
    connection.commit()
    if row != (least_pix, opening_pix):
        connection.execute("SELECT ledger.fit_owed(%s, %s)", (least_pix, opening_pix))
        connection.commit()


def planned_today(connection: Conn) -> int:
    """Return the sum of this UTC day's payouts so far, without voided ones, in base units."""
    row = connection.execute(
        "SELECT planned_pix FROM ledger.payout_days WHERE period = (now() AT TIME ZONE 'utc')::date"
    ).fetchone()
    return int(row[0]) if row else 0
