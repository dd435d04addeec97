"""Replaced: what a restore keeps of the database in whose place it puts an older one, and what it says is forgotten.

Kept is what stops money or callers: holds in force, freezes that a person has placed, keys that were revoked, and that a
creator has named another wallet since (whose payouts are held until they name it again). Not kept are orders: what they
have moved is not moved in the restored journal, and an order that has moved it is named instead. Knows no chain.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection

from cluster import database
from cluster.errors import Rejected
from ledger.advances import RESTORED
from ledger.wallets import UNPAYABLE

log = logging.getLogger(__name__)

Rows = list[tuple[Any, ...]]

NAMED_MAX = 50  # orders that are named


@dataclass(frozen=True)
class Replaced:
    """Rows of a database that is about to be dropped."""

    chain: Rows
    holds: Rows
    freezes: Rows
    keys: Rows
    wallets: Rows
    orders: Rows


def read(url: str) -> Replaced | None:
    """What there is to keep; None where the database is not there, or not of this kind."""
    try:
        with database.connect(url) as connection:
            return Replaced(*(connection.execute(query).fetchall() for query in QUERIES))
    except (psycopg.Error, Rejected) as error:  # the latter where there is no such database
        log.info("nothing can be read of the database that is replaced: %s", str(error).strip())
        return None


CHAIN = "SELECT genesis, mint, treasury FROM ledger.chain"
QUERIES = (
    CHAIN,
    "SELECT creator_id, reason, placed_at, until, partial FROM ledger.holds WHERE released_at IS NULL ORDER BY id",
    # Earlier releases have who placed it in the detail, as has the freeze of a restore that a person has declared.
    (
        "SELECT reason, detail::text, placed_at FROM ledger.freezes WHERE released_at IS NULL"
        f" AND (reason LIKE '%(by %)' OR detail ? 'by' AND reason <> '{RESTORED}') ORDER BY 3"
    ),
    "SELECT hash, revoked_at, expires_at FROM app.api_keys WHERE coalesce(revoked_at, expires_at) IS NOT NULL ORDER BY id",
    "SELECT DISTINCT ON (creator_id) creator_id, new_wallet, set_at FROM ledger.wallet_changes ORDER BY creator_id, id DESC",
    "SELECT id, kind, body::text, ordered_as, ordered_at, outcome FROM ledger.orders WHERE carried_out ORDER BY id",
)


def keep(url: str, replaced: Replaced) -> list[str]:
    """Put into the restored database what is to be kept; what was kept and what is forgotten, in lines for a person."""
    with database.connect(url) as connection:
        own = connection.execute(CHAIN).fetchall()
        if own and replaced.chain and own != replaced.chain:
            return ["the database that was replaced was of another treasury: nothing of it is kept"]
        held, frozen = _hold(connection, replaced.holds), _freeze(connection, replaced.freezes)
        ended, moved = _end_keys(connection, replaced.keys), _hold_moved(connection, replaced.wallets)
        lines = [f"kept of the database that was replaced: {held} holds, {frozen} freezes, the end of {ended} keys"]
        if moved:
            lines.append(f"{moved} creators have named another wallet since: they are held until they name it again")
        return lines + _forgotten(connection, replaced.orders)


def _hold(connection: Connection[Any], holds: Rows) -> int:
    done = connection.execute(
        "INSERT INTO ledger.holds (creator_id, reason, placed_at, until, partial)"
        " SELECT * FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::boolean[])"
        "  AS t (creator_id, reason, placed_at, until, partial)"
        " WHERE NOT EXISTS (SELECT FROM ledger.holds h WHERE h.released_at IS NULL"
        "                   AND (h.creator_id, h.reason) = (t.creator_id, t.reason))",
        _columns(holds, 5),
    )
    return done.rowcount


def _freeze(connection: Connection[Any], freezes: Rows) -> int:
    done = connection.execute(
        "INSERT INTO ledger.freezes (reason, detail, placed_at)"
        " SELECT reason, detail::jsonb, placed_at FROM unnest(%s::text[], %s::text[], %s::timestamptz[])"
        "  AS t (reason, detail, placed_at) ON CONFLICT DO NOTHING",
        _columns(freezes, 3),
    )
    return done.rowcount


def _end_keys(connection: Connection[Any], keys: Rows) -> int:
    """Those that were revoked since, or end sooner than the restored database says."""
    done = connection.execute(
        "UPDATE app.api_keys k SET revoked_at = coalesce(k.revoked_at, t.revoked_at),"
        "  expires_at = least(k.expires_at, t.expires_at)"
        " FROM unnest(%s::bytea[], %s::timestamptz[], %s::timestamptz[]) AS t (hash, revoked_at, expires_at)"
        " WHERE k.hash = t.hash AND (k.revoked_at IS NULL AND t.revoked_at IS NOT NULL"
        "                            OR t.expires_at < coalesce(k.expires_at, 'infinity'))",
        _columns(keys, 3),
    )
    return done.rowcount


def _hold_moved(connection: Connection[Any], wallets: Rows) -> int:
    """Whom the restored database would pay at a wallet that they have left since: it may have been stolen."""
    done = connection.execute(
        "INSERT INTO ledger.holds (creator_id, reason) SELECT w.creator_id, %s || ': ' || w.wallet"
        "  || ' was left for another one before the database was restored; name that one again'"
        " FROM ledger.wallets w JOIN unnest(%s::bigint[], %s::text[], %s::timestamptz[]) AS t (creator_id, wallet, set_at)"
        "  ON t.creator_id = w.creator_id AND t.wallet <> w.wallet"
        " WHERE NOT EXISTS (SELECT FROM ledger.wallet_changes c WHERE c.creator_id = t.creator_id"
        "                   AND (c.new_wallet, c.set_at) = (t.wallet, t.set_at))",
        (UNPAYABLE, *_columns(wallets, 3)),
    )
    return done.rowcount


def _forgotten(connection: Connection[Any], orders: Rows) -> list[str]:
    """The orders that were carried out and are not in the restored database."""
    known = set(connection.execute("SELECT id, ordered_at FROM ledger.orders").fetchall())
    lost = [each for each in orders if (each[0], each[4]) not in known]
    lines = [f"forgotten: order {each[0]}, {each[1]} {each[2]} by {each[3]}: {each[5]}" for each in lost[:NAMED_MAX]]
    if len(lost) > NAMED_MAX:
        lines.append(f"forgotten: {len(lost) - NAMED_MAX} more orders")
    if lost:
        lines.append(
            "what a correction gave a creator and the chain has paid them comes back by itself: order none of them again"
            " before payouts go on and you have seen that it is missing"
        )
    return lines


def _columns(rows: Rows, count: int) -> tuple[list[Any], ...]:
    return tuple([row[number] for row in rows] for number in range(count))
