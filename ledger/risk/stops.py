"""Stops: a hold stops payouts to one creator, a freeze stops all of them, each with its reason.

The ledger places them by itself when something looks wrong; a person may place them, too. They end when a person
releases them by name; their rows stay in the tables. Until then the money that is owed stays in the creator's account.
A hold also stops payouts that are planned, but not those that are signed, since these may have been sent. A partial
hold withholds only what is doubtful or above proportion (see `review`). Owns `ledger.holds` and `ledger.freezes`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from cluster.errors import Rejected

Conn = Connection[Any]

HOLD, FREEZE = "hold", "freeze"
REASON_MAX = 500  # characters


@dataclass(frozen=True)
class Stop:
    """A hold or freeze that is in force."""

    name: str  # "hold-ID" or "freeze-ID", by which it is released
    creator_id: int | None  # None for a freeze
    reason: str
    detail: str  # of a freeze: JSON; of a hold: empty
    placed_at: datetime
    until: datetime | None  # when a hold ends by itself; None: when it is released


def hold(connection: Conn, creator_id: int, reason: str, *, once: bool = False, partial: bool = False) -> None:
    """Stop payouts to a creator. If a hold with the same reason is in force, no second one is placed.

    Args:
        connection: in the caller's transaction.
        creator_id: the creator.
        reason: why; cut to `REASON_MAX` characters.
        once: place no hold if one with this reason was ever placed, even if it was released since.
        partial: withhold only what is doubtful or above proportion (the SQL function `ledger.withheld`).
    """
    connection.execute(
        "INSERT INTO ledger.holds (creator_id, reason, partial) SELECT %(creator)s, %(reason)s, %(partial)s"
        " WHERE NOT EXISTS (SELECT FROM ledger.holds WHERE creator_id = %(creator)s AND reason = %(reason)s"
        "                   AND (%(once)s OR released_at IS NULL))",
        {"creator": creator_id, "reason": reason[:REASON_MAX], "once": once, "partial": partial},
    )


def hold_in_part(connection: Conn, creator_ids: Collection[int], reason: str) -> None:
    """Place a partial hold on each of these creators, unless they have one in force with this reason."""
    connection.execute(
        "INSERT INTO ledger.holds (creator_id, reason, partial) SELECT c.id, %(reason)s, true"
        " FROM unnest(%(creators)s::bigint[]) AS c (id) WHERE NOT EXISTS (SELECT FROM ledger.holds h"
        "   WHERE h.creator_id = c.id AND h.reason = %(reason)s AND h.released_at IS NULL)",
        {"creators": sorted(set(creator_ids)), "reason": reason[:REASON_MAX]},
    )


def hold_days(connection: Conn, holds: Collection[tuple[int, str, str]]) -> None:
    """Place a partial hold for each day of a creator, given as (creator, beginning of the reason, rest of the reason).

    If a creator ever had a hold whose reason begins in the same way, none is placed, even if that one was released
    since.
    """
    connection.execute(
        "INSERT INTO ledger.holds (creator_id, reason, partial) SELECT t.creator_id, t.begins || t.rest, true"
        " FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS t (creator_id, begins, rest)"
        " WHERE NOT EXISTS (SELECT FROM ledger.holds h"
        "                   WHERE h.creator_id = t.creator_id AND starts_with(h.reason, t.begins))",
        tuple(list(column) for column in zip(*holds, strict=True)),
    )


def trusted(connection: Conn, reason: str, for_s: int) -> set[int]:
    """Return the creators who had a hold released in the last `for_s` seconds whose reason begins with `reason`."""
    rows = connection.execute(
        "SELECT DISTINCT creator_id FROM ledger.holds WHERE starts_with(reason, %s)"
        " AND released_at > now() - make_interval(secs => %s)",
        (reason, for_s),
    )
    return {int(creator_id) for (creator_id,) in rows}


def under_way(connection: Conn, creator_id: int) -> int:
    """Return the signed and not settled amount of a creator, in base units of PIX. No stop can hold it back."""
    row = connection.execute(
        "SELECT coalesce(sum(p.amount_pix), 0)::bigint FROM ledger.payouts p JOIN ledger.batches b ON b.id = p.batch_id"
        " WHERE p.creator_id = %s AND b.state = 'signed'",
        (creator_id,),
    ).fetchone()
    return int(row[0]) if row else 0


def require_known(connection: Conn, creator_id: int) -> None:
    """Refuse a creator who has neither earnings nor a wallet.

    Raises:
        Rejected: 404, the creator has neither.
    """
    known = connection.execute(
        "SELECT FROM ledger.accounts WHERE party = 'creator' AND owner = %(creator)s"
        " UNION ALL SELECT FROM ledger.wallets WHERE creator_id = %(creator)s LIMIT 1",
        {"creator": creator_id},
    ).fetchone()
    if known is None:
        raise Rejected(
            f"the ledger knows no creator {creator_id}: they have neither earned nor a wallet",
            status=404,
            code="not-found",
            hint="check the number, or say --unknown to hold what they may earn",
        )


def freeze(connection: Conn, reason: str, detail: object) -> None:
    """Stop all payouts until a person releases the freeze. If one with the same reason is in force, no second one is placed."""
    connection.execute(
        "INSERT INTO ledger.freezes (reason, detail) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (reason[:REASON_MAX], json.dumps(detail, default=str)),
    )


def frozen(connection: Conn) -> str | None:
    """Return the reason of the oldest freeze in force; None if payouts are not frozen."""
    row = connection.execute(
        "SELECT reason FROM ledger.freezes WHERE released_at IS NULL ORDER BY id LIMIT 1"
    ).fetchone()
    return str(row[0]) if row else None


def is_frozen_for(connection: Conn, reason: str) -> bool:
    """Return whether a freeze with this reason is in force."""
    row = connection.execute(
        "SELECT 1 FROM ledger.freezes WHERE reason = %s AND released_at IS NULL", (reason,)
    ).fetchone()
    return row is not None


def age_of(connection: Conn, reason: str) -> tuple[int, float] | None:
    """Return id and age in seconds, by the database's clock, of the freeze in force with this reason; else None."""
    row = connection.execute(
        "SELECT id, extract(epoch FROM clock_timestamp() - placed_at)::float FROM ledger.freezes"
        " WHERE reason = %s AND released_at IS NULL",
        (reason,),
    ).fetchone()
    return (int(row[0]), float(row[1])) if row else None


def thaw(connection: Conn, reason: str) -> None:
    """Release a freeze in the ledger's own name, after it has found that the reason no longer holds."""
    connection.execute(
        "UPDATE ledger.freezes SET released_at = now(), released_by = 'ledger' WHERE reason = %s AND released_at IS NULL",
        (reason,),
    )


def release(connection: Conn, name: str, by: str) -> None:
    """End a hold or freeze by its name ("hold-12"); `by` names the person who releases it.

    Raises:
        Rejected: 404, no hold or freeze in force has that name.
    """
    kind, _, number = name.partition("-")
    table = {HOLD: "holds", FREEZE: "freezes"}.get(kind)
    done = 0
    if table and number.isdecimal() and len(number) < 19:
        done = connection.execute(
            f"UPDATE ledger.{table} SET released_at = now(), released_by = %s WHERE id = %s AND released_at IS NULL",
            (by, int(number)),
        ).rowcount
    if not done:
        raise Rejected(
            f"no hold or freeze in force is named {name!r}",
            status=404,
            code="stop-unknown",
            hint="`pixr payouts stops` lists them",
        )


def in_force(connection: Conn) -> list[Stop]:
    """Return all freezes and holds in force, freezes first, the oldest first."""
    rows = connection.execute(
        "SELECT 'freeze-' || id, NULL, reason, detail::text, placed_at, NULL, 0 AS rank, id FROM ledger.freezes"
        " WHERE released_at IS NULL UNION ALL"
        " SELECT 'hold-' || id, creator_id, reason, '', placed_at, until, 1, id FROM ledger.holds"
        " WHERE released_at IS NULL AND (until IS NULL OR until > now()) ORDER BY rank, id"
    )
    return [Stop(*row[:6]) for row in rows]
