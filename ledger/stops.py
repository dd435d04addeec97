"""Stops: a hold stops payouts to one creator, a freeze stops all of them, each with its reason.

The ledger places them by itself where something looks wrong, and a person where he knows more. Both end by being
released, by name, and stay written. Nothing is lost meanwhile: what is owed waits in the creator's account. A hold stops
what is planned, too; what is signed may be on its way. A partial hold withholds what is doubtful and nothing else.
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

HOLD, FREEZE, ASIDE = "hold", "freeze", "aside"
REASON_MAX = 500  # characters
SHOWN_MAX = 100  # wallets
# Why a creator's wallet `w` is held, in their words.
WALLET_WAITS = """'payouts wait until ' || to_char(w.hold_until AT TIME ZONE 'utc', 'YYYY-MM-DD HH24:MI') || ' UTC: '
    || CASE w.held_for WHEN 'manifest' THEN 'a manifest has named the wallet, and its creator has not confirmed it'
                       WHEN 'no proof' THEN 'the wallet is not proven' ELSE 'the wallet was changed' END"""


@dataclass(frozen=True)
class Stop:
    """A hold or freeze that is in force. `name` is what it is released by; a freeze is no creator's."""

    name: str
    creator_id: int | None
    reason: str
    detail: str
    placed_at: datetime
    until: datetime | None


def hold(connection: Conn, creator_id: int, reason: str, *, once: bool = False, partial: bool = False) -> None:
    """Stop payouts to a creator; for one reason at a time, and `once` not again after it was released.

    `partial`: only what was found doubtful, or above a day's proportion, waits (`ledger.withheld`); the rest is paid.
    """
    connection.execute(
        "INSERT INTO ledger.holds (creator_id, reason, partial) SELECT %(creator)s, %(reason)s, %(partial)s"
        " WHERE NOT EXISTS (SELECT FROM ledger.holds WHERE creator_id = %(creator)s AND reason = %(reason)s"
        "                   AND (%(once)s OR released_at IS NULL))",
        {"creator": creator_id, "reason": reason[:REASON_MAX], "once": once, "partial": partial},
    )


def hold_in_part(connection: Conn, creator_ids: Collection[int], reason: str) -> None:
    """Stop what is doubtful of these creators' payouts; for one reason at a time."""
    connection.execute(
        "INSERT INTO ledger.holds (creator_id, reason, partial) SELECT c.id, %(reason)s, true"
        " FROM unnest(%(creators)s::bigint[]) AS c (id) WHERE NOT EXISTS (SELECT FROM ledger.holds h"
        "   WHERE h.creator_id = c.id AND h.reason = %(reason)s AND h.released_at IS NULL)",
        {"creators": sorted(set(creator_ids)), "reason": reason[:REASON_MAX]},
    )


def hold_days(connection: Conn, holds: Collection[tuple[int, str, str]]) -> None:
    """Stop what is above proportion of these creators' days: creator, what the reason begins with, and its rest.

    Not again where a hold that begins so was ever placed, in whatever words, and whether it was released.
    """
    connection.execute(
        "INSERT INTO ledger.holds (creator_id, reason, partial) SELECT t.creator_id, t.begins || t.rest, true"
        " FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS t (creator_id, begins, rest)"
        " WHERE NOT EXISTS (SELECT FROM ledger.holds h"
        "                   WHERE h.creator_id = t.creator_id AND starts_with(h.reason, t.begins))",
        tuple(list(column) for column in zip(*holds, strict=True)),
    )


def trusted(connection: Conn, reason: str, for_s: int) -> set[int]:
    """Creators of whom a person has released a hold within the time, whose reason begins so: they have looked."""
    rows = connection.execute(
        "SELECT DISTINCT creator_id FROM ledger.holds WHERE starts_with(reason, %s)"
        " AND released_at > now() - make_interval(secs => %s)",
        (reason, for_s),
    )
    return {int(creator_id) for (creator_id,) in rows}


def under_way(connection: Conn, creator_id: int) -> int:
    """What is signed for a creator and not settled, in base units: no stop keeps it from arriving any more."""
    row = connection.execute(
        "SELECT coalesce(sum(p.amount_pix), 0)::bigint FROM ledger.payouts p JOIN ledger.batches b ON b.id = p.batch_id"
        " WHERE p.creator_id = %s AND b.state = 'signed'",
        (creator_id,),
    ).fetchone()
    return int(row[0]) if row else 0


def require_known(connection: Conn, creator_id: int) -> None:
    """Refuse a creator of whom the ledger has heard nothing: who has neither earned nor a wallet.

    Raises:
        Rejected: 404.
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
    """Stop all payouts until someone has looked; freezing twice for one reason is once."""
    connection.execute(
        "INSERT INTO ledger.freezes (reason, detail) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (reason[:REASON_MAX], json.dumps(detail, default=str)),
    )


def frozen(connection: Conn) -> str | None:
    """Why payouts are stopped, or None."""
    row = connection.execute(
        "SELECT reason FROM ledger.freezes WHERE released_at IS NULL ORDER BY id LIMIT 1"
    ).fetchone()
    return str(row[0]) if row else None


def is_frozen_for(connection: Conn, reason: str) -> bool:
    row = connection.execute(
        "SELECT 1 FROM ledger.freezes WHERE reason = %s AND released_at IS NULL", (reason,)
    ).fetchone()
    return row is not None


def age_of(connection: Conn, reason: str) -> tuple[int, float] | None:
    """The number of the freeze in force for a reason, and its age in seconds by the database's clock."""
    row = connection.execute(
        "SELECT id, extract(epoch FROM clock_timestamp() - placed_at)::float FROM ledger.freezes"
        " WHERE reason = %s AND released_at IS NULL",
        (reason,),
    ).fetchone()
    return (int(row[0]), float(row[1])) if row else None


def thaw(connection: Conn, reason: str) -> None:
    """The ledger itself has found that the reason of a freeze is gone."""
    connection.execute(
        "UPDATE ledger.freezes SET released_at = now(), released_by = 'ledger' WHERE reason = %s AND released_at IS NULL",
        (reason,),
    )


def release(connection: Conn, name: str, by: str) -> None:
    """End a stop, by its name.

    Raises:
        Rejected: nothing in force has that name.
    """
    kind, _, number = name.partition("-")
    table = {HOLD: "holds", FREEZE: "freezes"}.get(kind)
    done = 0
    if kind == ASIDE:
        done = connection.execute(
            "UPDATE ledger.set_aside SET looked_at = now(), looked_by = %s"
            " WHERE incarnation || '-' || seq = %s AND looked_at IS NULL",
            (by, number),
        ).rowcount
    if table and number.isdecimal() and len(number) < 19:
        done = connection.execute(
            f"UPDATE ledger.{table} SET released_at = now(), released_by = %s WHERE id = %s AND released_at IS NULL",
            (by, int(number)),
        ).rowcount
    if not done:
        raise Rejected(
            f"nothing that waits for a person is named {name!r}",
            status=404,
            code="stop-unknown",
            hint="`pixr payouts stops` lists holds and freezes, `pixr status` what is set aside",
        )


def waiting(connection: Conn) -> list[Stop]:
    """What else keeps payouts waiting: parts of the ledger, and the first `SHOWN_MAX` wallets whose holds end next.

    They have no name: each ends by itself, with its time or its cause.
    """
    rows = connection.execute(
        "(SELECT '', NULL::bigint, part || ' waits: ' || why, '', since, NULL::timestamptz FROM ledger.waits ORDER BY part)"
        f" UNION ALL (SELECT '', creator_id, {WALLET_WAITS}, '', set_at, hold_until FROM ledger.wallets w"
        "            WHERE hold_until > now() ORDER BY hold_until, creator_id LIMIT %s)",
        (SHOWN_MAX,),
    )
    return [Stop(*row) for row in rows]


def in_force(connection: Conn) -> list[Stop]:
    """What stops payouts now, freezes first."""
    rows = connection.execute(
        "SELECT 'freeze-' || id, NULL, reason, detail::text, placed_at, NULL, 0 AS rank, id FROM ledger.freezes"
        " WHERE released_at IS NULL UNION ALL"
        " SELECT 'hold-' || id, creator_id, reason, '', placed_at, until, 1, id FROM ledger.holds"
        " WHERE released_at IS NULL AND (until IS NULL OR until > now()) ORDER BY rank, id"
    )
    return [Stop(*row[:6]) for row in rows]
