"""Earnings: what a creator has earned and where it is now. Only reads; the journal is the source.

pending    earned, not matured yet: can still be reversed
payable    matured, waits for a payout
in_flight  in a payout that is not settled
paid       settled, by the journal
on_chain   received, by the finalized transactions themselves
accrued    pending + payable + in_flight + paid: everything ever earned, less reversals
withheld   the part of payable that partial holds keep back; it falls as other people see the same moments
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection


@dataclass(frozen=True)
class Earnings:
    """One creator's earnings; amounts are base units of PIX."""

    creator_id: int
    pending: int = 0
    payable: int = 0
    in_flight: int = 0
    paid: int = 0
    on_chain: int = 0
    payouts: int = 0  # how many are settled
    wallet: str | None = None
    held: str | None = None  # the reason of the oldest hold in force
    withheld: int = 0

    @property
    def accrued(self) -> int:
        """Everything ever earned, less reversals."""
        return self.pending + self.payable + self.in_flight + self.paid

    def document(self) -> dict[str, Any]:
        """Return the earnings as the HTTP interface shows them: amounts and ids as strings."""
        names = ("pending", "accrued", "payable", "in_flight", "paid", "on_chain", "withheld")
        amounts: dict[str, Any] = {name: str(getattr(self, name)) for name in names}
        others = {"payouts": self.payouts, "wallet": self.wallet, "held": self.held}
        return {"creator_id": str(self.creator_id), **amounts, **others}


# One statement, so that all amounts are of the same time and add up.
OF = """
    SELECT c.id,
        coalesce((SELECT balance FROM ledger.accounts
                  WHERE (kind, party, owner, asset) = ('maturing', 'creator', c.id, 'PIX')), 0),
        coalesce((SELECT balance FROM ledger.accounts
                  WHERE (kind, party, owner, asset) = ('payable', 'creator', c.id, 'PIX')), 0),
        coalesce(p.in_flight, 0)::bigint, (coalesce(p.paid, 0) + coalesce(b.paid_pix, 0))::bigint,
        (coalesce(p.on_chain, 0) + coalesce(b.on_chain_pix, 0))::bigint, p.settled + coalesce(b.settled, 0),
        (SELECT wallet FROM ledger.wallets WHERE creator_id = c.id),
        (SELECT reason FROM ledger.holds WHERE creator_id = c.id AND released_at IS NULL
         AND (until IS NULL OR until > now()) ORDER BY id LIMIT 1),
        least(ledger.withheld(c.id), coalesce((SELECT balance FROM ledger.accounts
                  WHERE (kind, party, owner, asset) = ('payable', 'creator', c.id, 'PIX')), 0))
    FROM unnest(%s::bigint[]) WITH ORDINALITY AS c (id, place) CROSS JOIN LATERAL (
        SELECT sum(t.amount_pix) FILTER (WHERE t.state = 'pending') AS in_flight,
               sum(CASE t.state WHEN 'posted' THEN t.amount_pix WHEN 'voided' THEN o.on_chain_pix END) AS paid,
               sum(o.on_chain_pix) AS on_chain, count(*) FILTER (WHERE t.state = 'posted') AS settled
        FROM ledger.payouts o JOIN ledger.transfers t ON t.id = o.transfer_id WHERE o.creator_id = c.id) p
    LEFT JOIN ledger.paid_before b ON b.creator_id = c.id
    ORDER BY c.place"""


def of(connection: Connection[Any], creator_id: int) -> Earnings:
    """Return one creator's earnings: all 0 for a creator whom the ledger does not know."""
    return of_many(connection, [creator_id])[0]


def of_many(connection: Connection[Any], creator_ids: list[int]) -> list[Earnings]:
    """Return the earnings of creators in the given order."""
    return [Earnings(*row) for row in connection.execute(OF, (creator_ids,))]
