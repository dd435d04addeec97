"""Advances: what adoption has credited to creators after a restore, since the chain had paid what the journal did not have.

What it was earned by may still lie in a replica's spool, and comes back whenever that does. It was paid: a fold sets off what
was shown before the restore, creator by creator, against what is open of their advances, once. Nobody can tell what was paid
from what was shown beside it and was not; what was shown after the restore is never set off. Where neither a batch's id nor an
administrator says whom it has paid, creators who are or were paid at one wallet stand for each other, since adoption cannot
tell whose a payment there was. Owns `ledger.advances` and `ledger.folded_again`. Knows no chain, and of appearances only what
they come to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.money import Amounts

Conn = Connection[Any]
Ids = NDArray[np.int64]
ByDay = tuple[Ids, Ids, Amounts]  # creators, UTC days and amounts, each pair once

RESTORED = "restored from a backup: waiting until everything the chain has paid since is in the journal"
# Restores of which something is open, or which still are under way; what was shown before an earlier one was so before a later.
STANDING = """
    SELECT z.id, (extract(epoch FROM z.placed_at) * 1000)::bigint, z.released_at IS NULL FROM ledger.freezes z
    WHERE z.reason = %s AND (z.released_at IS NULL OR EXISTS (
        SELECT FROM ledger.advances a WHERE a.freeze_id = z.id AND a.set_off_pix < a.amount_pix))
    ORDER BY z.placed_at, z.id"""
# A creator's own, then those of others who are paid where they are or were; what surely was another one's names no wallet.
OPEN = """
    WITH open AS (SELECT creator_id, wallet, amount_pix - set_off_pix AS left_pix FROM ledger.advances
                  WHERE freeze_id = %(freeze)s AND set_off_pix < amount_pix)
    SELECT creator_id AS whose, creator_id, wallet, left_pix, 0 AS rank FROM open WHERE creator_id = ANY(%(creators)s)
    UNION SELECT w.creator_id, o.creator_id, o.wallet, o.left_pix, 1 FROM open o
    JOIN ledger.wallet_changes w ON w.new_wallet = o.wallet AND w.creator_id <> o.creator_id
    WHERE w.creator_id = ANY(%(creators)s) ORDER BY rank, whose, creator_id, wallet"""
# A restore that is declared once more while it is under way is one with what it was.
AGAIN = """
    WITH RECURSIVE under_way AS (
        SELECT id, placed_at FROM ledger.freezes WHERE reason = %(reason)s AND released_at IS NULL
        UNION SELECT z.id, z.placed_at FROM ledger.freezes z JOIN under_way u
              ON z.reason = %(reason)s AND z.released_at = u.placed_at AND z.id < u.id)
    SELECT g.creator_id, g.freeze_id, g.amount_pix FROM ledger.folded_again g JOIN under_way u ON u.id = g.freeze_id
    WHERE g.creator_id = ANY(%(creators)s) AND g.amount_pix > 0 ORDER BY g.creator_id, g.freeze_id"""


@dataclass
class SetOff:
    """What of a fold's earnings was paid before: by creator and UTC day; and the restores whose advances it was."""

    by_day: dict[tuple[int, int], int] = field(default_factory=dict)
    restores: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.by_day.values())

    @property
    def by_creator(self) -> tuple[Ids, Amounts]:
        """Creators, ascending, and what is set off of each."""
        found: dict[int, int] = {}
        for (creator, _), amount in sorted(self.by_day.items()):
            found[creator] = found.get(creator, 0) + amount
        return np.array(list(found), np.int64), np.array(list(found.values()), np.int64)

    def rest(self, earned: ByDay) -> ByDay:
        """What is left of what was earned."""
        if not self.by_day:
            return earned
        creators, days, amounts = earned
        pairs = zip(creators.tolist(), days.tolist(), strict=True)
        left = amounts - np.array([self.by_day.get(pair, 0) for pair in pairs], np.int64)
        some = left > 0
        return creators[some], days[some], left[some]


def set_off(connection: Conn, shown_before: Callable[[int], ByDay], *, matures: bool) -> SetOff:
    """Set off what a fold is about to credit for what was shown before restores, in its transaction.

    The end of the journal must be held: who adopts has committed then, or comes after this.

    Args:
        shown_before: what of it was shown before an instant, in milliseconds since 1970.
        matures: whether it is payable only later.
    """
    found = SetOff()
    for freeze_id, instant_ms, is_under_way in connection.execute(STANDING, (RESTORED,)).fetchall():
        left: dict[int, dict[int, int]] = {}
        for creator, day, amount in zip(*(column.tolist() for column in shown_before(instant_ms)), strict=True):
            if amount > (before := found.by_day.get((creator, day), 0)):
                left.setdefault(creator, {})[day] = amount - before
        _set_off_one(connection, freeze_id, left, found)
        if is_under_way and matures:
            _note_again(connection, freeze_id, {creator: sum(days.values()) for creator, days in left.items()})
    return found


def _set_off_one(connection: Conn, freeze_id: int, left: dict[int, dict[int, int]], found: SetOff) -> None:
    """Set off against one restore's advances what is `left`, by creator and day; lowers both."""
    rows = connection.execute(OPEN, {"freeze": freeze_id, "creators": list(left)}).fetchall() if left else []
    open_pix = {(owner, wallet): amount for _, owner, wallet, amount, _ in rows}
    used: dict[tuple[int, str], int] = {}
    for creator, owner, wallet, _, _ in rows:
        for day in sorted(left[creator]):
            part = min(left[creator][day], open_pix[owner, wallet])
            if part:
                left[creator][day] -= part
                open_pix[owner, wallet] -= part
                used[owner, wallet] = used.get((owner, wallet), 0) + part
                found.by_day[creator, day] = found.by_day.get((creator, day), 0) + part
    if not used:
        return
    found.restores.append(freeze_id)
    connection.execute(
        "UPDATE ledger.advances a SET set_off_pix = a.set_off_pix + t.amount"
        " FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS t (creator_id, wallet, amount)"
        " WHERE (a.freeze_id, a.creator_id, a.wallet) = (%s, t.creator_id, t.wallet)",
        ([owner for owner, _ in used], [wallet for _, wallet in used], list(used.values()), freeze_id),
    )


def _note_again(connection: Conn, freeze_id: int, amounts: Mapping[int, int]) -> None:
    some = {creator: amount for creator, amount in amounts.items() if amount}
    if some:
        connection.execute(
            "INSERT INTO ledger.folded_again AS g (freeze_id, creator_id, amount_pix)"
            " SELECT %s, t.* FROM unnest(%s::bigint[], %s::bigint[]) AS t (creator_id, amount)"
            " ON CONFLICT (freeze_id, creator_id) DO UPDATE SET amount_pix = g.amount_pix + excluded.amount_pix",
            (freeze_id, list(some), list(some.values())),
        )


def give(connection: Conn, given: Sequence[tuple[int, str, int]]) -> None:
    """Note what adoption takes from `reward_pool`, as (creator, wallet, amount): advances of the restore under way.

    Without a wallet ("") it was surely that creator who was paid: nobody else stands for them.
    """
    connection.execute(
        "INSERT INTO ledger.advances AS a (freeze_id, creator_id, wallet, amount_pix)"
        " SELECT z.id, t.creator_id, t.wallet, sum(t.amount)::bigint"
        " FROM ledger.freezes z, unnest(%s::bigint[], %s::text[], %s::bigint[]) AS t (creator_id, wallet, amount)"
        " WHERE z.reason = %s AND z.released_at IS NULL GROUP BY 1, 2, 3"
        " ON CONFLICT (freeze_id, creator_id, wallet) DO UPDATE SET amount_pix = a.amount_pix + excluded.amount_pix",
        (*[list(column) for column in zip(*given, strict=True)], RESTORED),
    )


def folded_again(connection: Conn, creators: Sequence[int]) -> dict[int, int]:
    """What folds since the restore have brought these creators of what was shown before it, and no payment was taken from."""
    found: dict[int, int] = {}
    for creator, _, amount in connection.execute(AGAIN, {"reason": RESTORED, "creators": list(creators)}):
        found[creator] = found.get(creator, 0) + amount
    return found


def take_again(connection: Conn, creator: int, amount: int) -> None:
    """A payment is taken from so much of that."""
    for _, freeze_id, noted in connection.execute(AGAIN, {"reason": RESTORED, "creators": [creator]}).fetchall():
        part = min(noted, amount)
        connection.execute(
            "UPDATE ledger.folded_again SET amount_pix = amount_pix - %s WHERE (freeze_id, creator_id) = (%s, %s)",
            (part, freeze_id, creator),
        )
        amount -= part


# ── Audit ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# Postings that are archived are missing in the journal's sums: then these are only not more.
SUMS = """
    SELECT coalesce((SELECT sum(amount_pix) FROM ledger.advances), 0)::bigint,
           coalesce((SELECT sum(set_off_pix) FROM ledger.advances), 0)::bigint,
           coalesce(-sum(p.amount) FILTER (WHERE e.kind = 'adopted_accrual'), 0)::bigint,
           coalesce(sum(p.amount) FILTER (WHERE e.kind = 'set_off'), 0)::bigint,
           EXISTS (SELECT FROM ledger.forgotten WHERE kind IN ('journal', 'rest') AND upto > 0)
    FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id
    JOIN ledger.accounts a ON a.id = p.account_id AND a.kind = 'reward_pool'
    WHERE e.kind IN ('adopted_accrual', 'set_off')"""


def check(connection: Conn) -> tuple[list[str], str]:
    """What is wrong between advances and the journal, and what they come to. Only reads."""
    row = connection.execute(SUMS).fetchone()
    assert row is not None  # of an aggregate
    given, used, adopted, set_off_pix, is_archived = row
    wrong = []
    if given > adopted and not is_archived:
        wrong.append(f"advances come to {given}, adoption has taken {adopted} from reward_pool")
    if set_off_pix > used or (set_off_pix < used and not is_archived):
        wrong.append(f"{used} of the advances are set off, the journal has set off {set_off_pix}")
    return wrong, f"{given} advanced to creators after restores, {used} of it set off since"
