"""Credited: checks of the audit that earnings and payouts belong to the right creator. Only reads.

All sums of the journal can be right while money is credited to the wrong creator. So these checks compare, creator by
creator:

* each fold's credits with the appearances that the fold took,
* each payout with the account that it was taken from, with the plan of its transaction, and with the wallets that its
  creator has named,
* attempts with the chain's history as the ledger has read it.

Each check returns what is wrong, one sentence for each finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from solders.pubkey import Pubkey

from ledger.accrual.fold import Outcome
from ledger.appearances import spool
from ledger.solana import packing

Conn = Connection[Any]
Ids = NDArray[np.int64]

FETCHED_ROWS = 2000
SLACK_PIX = 0.001  # tolerance for floating point, in base units of PIX

# ── Earned ─────────────────────────────────────────────────────────────────────────────────────────────────────────

TAKEN = """SELECT o.fold_id, o.outcome, b.payload, b.format FROM ledger.outcomes o
    JOIN ledger.appearance_batches b USING (incarnation, seq) ORDER BY o.fold_id"""
BOOKED = """SELECT f.id, f.amount_pix, a.kind, a.party, a.owner, p.amount FROM ledger.folds f
    LEFT JOIN ledger.postings p ON p.entry_id = f.entry_id LEFT JOIN ledger.accounts a ON a.id = p.account_id
    ORDER BY f.id"""


class Taken(NamedTuple):
    """What the funded appearances of one fold earn, in base units of PIX."""

    fold_id: int
    amount_pix: int  # in all
    creators: Ids  # (creators,), ascending
    gross: Ids  # (creators,) what each creator's appearances earn
    counts: Ids  # (creators,) how many appearances that are


def accruals(connection: Conn) -> tuple[list[str], int, int]:
    """Compare each fold's credits with its appearances; return what is wrong, and the numbers of appearances and folds.

    All creators of a fold get the same share of what their appearances earn; the share of each appearance is rounded to
    a base unit. The share is a setting that is not stored with the fold. It is computed as the fold's credits divided
    by its earnings.
    """
    wrong: list[str] = []
    folds = appearances = 0
    taken = _taken(connection)
    ahead = next(taken, None)
    with connection.cursor(name="booked") as cursor:
        cursor.itersize = FETCHED_ROWS
        cursor.execute(BOOKED)
        for fold_id, rows in groupby(cursor, key=itemgetter(0)):
            of_fold = Taken(fold_id, 0, *(np.zeros(0, np.int64) for _ in range(3)))
            if ahead is not None and ahead[0].fold_id == fold_id:
                of_fold, count = ahead
                appearances += count
                ahead = next(taken, None)
            folds += 1
            wrong += _compared(of_fold, list(rows))
    return wrong, appearances, folds


def _taken(connection: Conn) -> Iterator[tuple[Taken, int]]:
    """Yield each fold that took batches, in order, and how many appearances it took, funded or not."""
    with connection.cursor(name="taken") as cursor:
        cursor.itersize = FETCHED_ROWS
        cursor.execute(TAKEN)
        for fold_id, rows in groupby(cursor, key=itemgetter(0)):
            creators, amounts, count = [], [], 0
            for _, outcome, payload, form in rows:
                _, shown = spool.unpack(bytes(payload), form)
                funded = np.frombuffer(outcome, np.uint8) == Outcome.FUNDED
                creators.append(shown["creator_id"][funded].astype(np.int64))
                amounts.append(shown["amount_pix"][funded].astype(np.int64))
                count += len(shown)
            creator, amount = np.concatenate(creators), np.concatenate(amounts)  # (funded appearances,)
            owners, place, counts = np.unique(creator, return_inverse=True, return_counts=True)
            gross = np.zeros(len(owners), np.int64)
            np.add.at(gross, place, amount)
            yield Taken(fold_id, int(amount.sum()), owners, gross, counts.astype(np.int64)), count


def _compared(taken: Taken, rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return what is wrong with a fold, given its rows of the query `BOOKED` and what its appearances earn."""
    fold_id, stated = taken.fold_id, rows[0][1]
    posted = [row for row in rows if row[5] is not None]
    booked = -sum(row[5] for row in posted if row[2] == "reward_pool")
    wrong = []
    if not stated == booked == taken.amount_pix:
        wrong.append(f"fold {fold_id} booked {booked}, says {stated}, its appearances earn {taken.amount_pix}")
    credited: dict[int, int] = {}
    for _, _, _, party, owner, amount in posted:
        if party == "creator":
            credited[owner] = credited.get(owner, 0) + amount
    known = taken.creators.tolist()
    strangers = credited.keys() - set(known)
    wrong += [f"fold {fold_id} credits creator {owner} {credited[owner]}, of whom it took no appearance that earns"
              for owner in sorted(strangers)]  # fmt: skip
    got = np.array([credited.get(owner, 0) for owner in known], np.int64)  # (creators,)
    if not taken.amount_pix:
        return wrong
    share = int(got.sum()) / taken.amount_pix
    # Each appearance rounds by half a unit at most: the creator's own, and through `share` their part of everyone's.
    tolerance = taken.counts / 2 + taken.gross * (int(taken.counts.sum()) / 2 / taken.amount_pix) + SLACK_PIX
    wrong += [f"fold {fold_id} credits creator {known[i]} {got[i]}, whose {taken.counts[i]} appearances earn {taken.gross[i]}"
              f" at a share of {share:.6f}" for i in np.flatnonzero(np.abs(got - share * taken.gross) > tolerance)]  # fmt: skip
    return wrong


# ── Planned ────────────────────────────────────────────────────────────────────────────────────────────────────────

DIFFERS = """
    WITH planned AS (
        SELECT b.id, (r->>0)::bigint AS creator_id, r->>1 AS wallet, (r->>3)::bigint AS amount_pix
        FROM ledger.batches b, jsonb_array_elements(b.plan->'recipients') r WHERE b.kind = 'payout')
    SELECT coalesce(q.id, p.batch_id), coalesce(q.creator_id, p.creator_id), q.amount_pix, q.wallet, p.amount_pix, p.wallet
    FROM planned q FULL JOIN ledger.payouts p ON p.batch_id = q.id AND p.creator_id = q.creator_id
    WHERE (q.amount_pix, q.wallet) IS DISTINCT FROM (p.amount_pix, p.wallet) ORDER BY 1, 2"""
SUMS = """
    SELECT b.id, b.count, b.amount_pix, s.count, s.amount_pix FROM ledger.batches b
    CROSS JOIN LATERAL (SELECT count(*) AS count, coalesce(sum((r->>3)::bigint), 0)::bigint AS amount_pix
                        FROM jsonb_array_elements(b.plan->'recipients') r) s
    WHERE b.count <> s.count OR b.kind = 'payout' AND b.amount_pix <> s.amount_pix ORDER BY b.id"""


def plans(connection: Conn) -> list[str]:
    """Compare the plan of each payout transaction with its payouts: creators, wallets and amounts must be the same."""
    wrong = [f"batch {batch} plans {planned} to creator {creator} at {to}, the payout is {paid} at {at}"
             for batch, creator, planned, to, paid, at in connection.execute(DIFFERS)]  # fmt: skip
    wrong += [f"batch {batch} says {count} recipients and {amount}, its plan {planned} and {sum_pix}"
              for batch, count, amount, planned, sum_pix in connection.execute(SUMS)]  # fmt: skip
    return wrong


# ── Paid ───────────────────────────────────────────────────────────────────────────────────────────────────────────

OTHERS = """
    SELECT p.id, p.creator_id, s.kind, s.party, s.owner FROM ledger.payouts p
    JOIN ledger.transfers t ON t.id = p.transfer_id JOIN ledger.accounts s ON s.id = t.source
    JOIN ledger.accounts g ON g.id = t.target
    WHERE (s.kind, s.party, s.owner, g.kind) IS DISTINCT FROM ('payable', 'creator', p.creator_id, 'chain') ORDER BY p.id"""
UNTAKEN = """
    SELECT t.pending_entry, t.source, t.amount_pix, coalesce(q.amount_pix, 0) FROM (
        SELECT pending_entry, source, sum(amount_pix)::bigint AS amount_pix FROM ledger.transfers GROUP BY 1, 2) t
    LEFT JOIN LATERAL (SELECT -sum(p.amount)::bigint AS amount_pix FROM ledger.postings p
                       WHERE p.entry_id = t.pending_entry AND p.account_id = t.source) q ON true
    WHERE q.amount_pix IS DISTINCT FROM t.amount_pix ORDER BY 1, 2"""
NEVER_NAMED = """
    SELECT p.id, p.creator_id, p.wallet FROM ledger.payouts p WHERE NOT EXISTS (
        SELECT FROM ledger.wallet_changes w WHERE (w.creator_id, w.new_wallet) = (p.creator_id, p.wallet)) ORDER BY p.id"""
ADDRESSES = """
    SELECT DISTINCT r->>1, r->>2 FROM ledger.batches b, jsonb_array_elements(b.plan->'recipients') r
    WHERE b.kind = 'payout' AND r->>2 <> '' ORDER BY 1"""


def owners(connection: Conn, *, derive: bool) -> list[str]:
    """Check that each payout was taken from its creator's account and goes to a wallet that the creator has named.

    With `derive`, also check that each token account belongs to its wallet; this takes 50 µs for each account.
    """
    wrong = [f"payout {number} of creator {creator} is taken from account {kind} of {party or 'nobody'} {owner}"
             for number, creator, kind, party, owner in connection.execute(OTHERS)]  # fmt: skip
    wrong += [f"entry {entry} takes {taken} from account {source}, its payouts come to {amount}"
              for entry, source, amount, taken in connection.execute(UNTAKEN)]  # fmt: skip
    wrong += [f"payout {number} goes to {wallet}, which creator {creator} has never named"
              for number, creator, wallet in connection.execute(NEVER_NAMED)]  # fmt: skip
    bound = connection.execute("SELECT mint FROM ledger.chain").fetchone()
    if derive and bound is not None:
        wrong += [f"token account {address} is not that of wallet {wallet}"
                  for wallet, address in connection.execute(ADDRESSES)
                  if not _is_account_of(address, wallet, bound[0])]  # fmt: skip
    return wrong


def _is_account_of(address: str, wallet: str, mint: str) -> bool:
    try:
        return str(packing.token_account(Pubkey.from_string(wallet), Pubkey.from_string(mint))) == address
    except ValueError:
        return False


# ── On chain, as it was found ──────────────────────────────────────────────────────────────────────────────────────

# A payout appears in the history of both addresses that are read (treasury and fee payer), so it must be known up to the
# greater slot; other transactions appear in that of the fee payer alone.
UNREAD = """
    SELECT a.signature, a.state, a.slot FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id
    CROSS JOIN (SELECT min(slot) AS least, max(slot) AS most FROM ledger.chain_cursors) c
    WHERE a.state IN ('landed', 'failed') AND a.slot < CASE WHEN b.kind = 'payout' THEN c.most ELSE c.least END
      AND NOT EXISTS (SELECT FROM ledger.chain_transactions t WHERE t.signature = a.signature) ORDER BY a.slot"""
NOT_OURS = """
    SELECT c.signature, c.delta_pix, a.state, p.amount_pix FROM ledger.chain_transactions c
    LEFT JOIN ledger.attempts a ON a.signature = c.signature
    LEFT JOIN LATERAL (SELECT coalesce(sum(on_chain_pix), 0)::bigint AS amount_pix FROM ledger.payouts
                       WHERE batch_id = a.batch_id) p ON true
    WHERE c.kind = 'attempt' AND c.delta_pix <> 0
      AND (a.state IS DISTINCT FROM 'landed' OR a.slot IS DISTINCT FROM c.slot OR p.amount_pix <> -c.delta_pix)
    ORDER BY c.slot"""
OTHERWISE_BOOKED = """
    SELECT c.kind, min(c.signature), sum(c.delta_pix)::bigint, sum(c.delta_lamports)::bigint, p.pix, p.lamports
    FROM ledger.chain_transactions c
    LEFT JOIN LATERAL (
        SELECT -coalesce(sum(q.amount) FILTER (WHERE a.asset = 'PIX'), 0)::bigint AS pix,
               -coalesce(sum(q.amount) FILTER (WHERE a.asset = 'SOL'), 0)::bigint AS lamports
        FROM ledger.postings q JOIN ledger.accounts a ON a.id = q.account_id AND a.kind = 'chain'
        WHERE q.entry_id = c.entry_id) p ON true
    WHERE c.kind IN ('deposit', 'withdrawal') AND c.entry_id IS NOT NULL GROUP BY c.entry_id, c.kind, p.pix, p.lamports
    HAVING (sum(c.delta_pix), sum(c.delta_lamports)) IS DISTINCT FROM (p.pix, p.lamports)"""


def attempts(connection: Conn) -> list[str]:
    """Compare attempts and entries with the chain's history as the ledger has read it."""
    wrong = [f"transaction {signature} is {state} at slot {slot}, and the chain's history that was read has it not"
             for signature, state, slot in connection.execute(UNREAD)]  # fmt: skip
    wrong += [f"transaction {signature} took {-delta} from the treasury; its attempt is {state or 'none'}, payouts got {got}"
              for signature, delta, state, got in connection.execute(NOT_OURS)]  # fmt: skip
    wrong += [f"the {kind} of {signature} moved {pix} base units and {lamports} lamports, its entry {booked} and {cost}"
              for kind, signature, pix, lamports, booked, cost in connection.execute(OTHERWISE_BOOKED)]  # fmt: skip
    return wrong
