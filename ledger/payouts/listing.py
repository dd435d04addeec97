"""Listing: the payouts so far, and what the next ones would cost. Only reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from psycopg import Connection

from ledger.payouts import owed
from ledger.settings import Economics, LedgerSettings
from ledger.solana.treasury import Treasury

ROWS_MAX = 1000
TOTAL_MAX = 100_000  # rows that are counted
FEE_LAMPORTS = 5000  # for each signature; what a transaction did cost stands with its attempt


@dataclass(frozen=True)
class Line:
    """One payout as it is shown to people. `signature` is that of its latest transaction; None until it is signed."""

    id: int
    creator_id: int
    wallet: str
    amount_pix: int
    state: str
    batch_id: str
    signature: str | None
    slot: int | None
    planned_at: str

    def document(self) -> dict[str, Any]:
        """Return the payout as the HTTP interface and `--json` show it: ids and amounts as strings."""
        shown = asdict(self)
        return shown | {name: str(shown[name]) for name in ("id", "creator_id", "amount_pix")}


def payouts(
    connection: Connection[Any], *, creator_id: int | None = None, before: int | None = None, limit: int = 50
) -> list[Line]:
    """Return payouts, newest first.

    Args:
        connection: of the ledger; only read.
        creator_id: only payouts to this creator; None for all creators.
        before: only payouts that are older than the one with this id; None for all.
        limit: rows at most; values above `ROWS_MAX + 1` count as that.

    Returns:
        One line for each payout.
    """
    rows = connection.execute(
        "SELECT p.id, p.creator_id, p.wallet, p.amount_pix, CASE t.state WHEN 'posted' THEN 'paid'"
        "   WHEN 'pending' THEN b.state ELSE t.state END, p.batch_id, a.signature, a.slot,"
        "   to_char(p.planned_at AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        " FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id"
        " JOIN ledger.batches b ON b.id = p.batch_id"
        " LEFT JOIN LATERAL (SELECT signature, slot FROM ledger.attempts"
        "                    WHERE batch_id = b.id ORDER BY n DESC LIMIT 1) a ON true"
        " WHERE (%(creator)s::bigint IS NULL OR p.creator_id = %(creator)s)"
        "   AND (%(before)s::bigint IS NULL OR p.id < %(before)s)"
        " ORDER BY p.id DESC LIMIT %(limit)s",
        {"creator": creator_id, "before": before, "limit": min(limit, ROWS_MAX + 1)},
    )
    return [Line(*row) for row in rows]


def count(connection: Connection[Any], creator_id: int) -> int:
    """Return how many payouts a creator has had; counting stops at `TOTAL_MAX`."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM ledger.payouts WHERE creator_id = %s LIMIT %s) counted",
        (creator_id, TOTAL_MAX),
    ).fetchone()
    assert row is not None  # of a count
    return int(row[0])


@dataclass(frozen=True)
class Plan:
    """What the next payouts would pay (base units of PIX) and cost (lamports)."""

    recipients: int
    amount_pix: int
    accounts_to_open: int
    transactions: int
    opening_transactions: int
    fee_lamports: int
    rent_lamports: int
    marker_lamports: int
    lamports_per_recipient: float
    version: str

    def document(self) -> dict[str, Any]:
        return asdict(self) | {"amount_pix": str(self.amount_pix)}


def plan(connection: Connection[Any], treasury: Treasury, economics: Economics, settings: LedgerSettings) -> Plan:
    """Compute what the next payouts would pay and cost if they were planned now; nothing is written.

    Args:
        connection: of the ledger; it is rolled back.
        treasury: the treasury that pays, with the costs on its chain.
        economics: the bounds of a payout.
        settings: the bounds of a plan.

    Returns:
        The plan. Fees per recipient are without rent, which is paid once or comes back.
    """
    due = owed.due(connection, economics, treasury.mint, settings.payouts_per_plan_max)
    connection.rollback()
    opening = sum(each.address is None for each in due)
    transactions = -(-len(due) // treasury.capacity("payout"))
    opening_transactions = -(-opening // treasury.capacity("accounts"))
    transaction_lamports = FEE_LAMPORTS * len(treasury.payer.signers) + treasury.priority_lamports
    fee_lamports = transaction_lamports * (transactions + opening_transactions)
    return Plan(
        recipients=len(due),
        amount_pix=sum(each.amount_pix for each in due),
        accounts_to_open=opening,
        transactions=transactions,
        opening_transactions=opening_transactions,
        fee_lamports=fee_lamports,
        rent_lamports=opening * treasury.account_rent,
        marker_lamports=transactions * treasury.marker_rent if settings.marker_accounts else 0,
        lamports_per_recipient=round(transaction_lamports * transactions / len(due), 2) if due else 0.0,
        version=treasury.version,
    )
