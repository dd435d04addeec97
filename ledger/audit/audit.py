"""The audit: do balances, postings, payouts and the chain agree with each other? Only reads; may run at any time.

The quick audit computes every balance again from the postings, checks the tables against each other, and compares the
treasury with the chain. The full audit also walks the hash chain, computes every accrual again from the recorded
appearances, asks the chain about every payout, and reads the archive. Each finding names what is wrong and where.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection

from cluster.errors import PixrError, Temporary
from ledger.archive import proof
from ledger.archive.shelf import Shelf
from ledger.audit import ages, anchors, credited
from ledger.audit.anchors import Anchor
from ledger.creators import challenges
from ledger.journal import book
from ledger.settings import LedgerSettings
from ledger.solana.chain import Chain, Effect

Conn = Connection[Any]

ATTEMPTS_MAX = 30  # comparisons with the chain, while transactions are under way
PAUSE_S = 0.5  # between them
PAGE_ROWS = 5000
PROBLEMS_MAX = 20  # findings that a check lists
LIMITS = LedgerSettings()


@dataclass(frozen=True)
class Check:
    """One question of the audit and its answer."""

    name: str
    ok: bool
    detail: str  # the findings, or what was checked if there are none


def run(
    connection: Conn,
    chain: Chain | None,
    gas: str | None,
    *,
    full: bool = False,
    limits: LedgerSettings = LIMITS,
    heads: Callable[[], Sequence[Anchor]] | None = None,
    shelf: Shelf | None = None,
) -> list[Check]:
    """Run the checks against one snapshot of the database. Rolls the connection's transaction back.

    Args:
        connection: of a role that may read everything.
        chain: the RPC nodes; None leaves out the checks that ask them.
        gas: the address that pays fees; None if that is the treasury.
        full: also run the checks that take long.
        limits: the settings that say for how long things may be open.
        heads: returns the anchors, as `anchors.listing` does; None leaves out their check.
        shelf: where the archive lies; the full audit reads it. Without one, archived rows are not checked.

    Returns:
        The checks with their answers.
    """
    # Read before the snapshot is taken, so that the snapshot contains the entries of all these anchors.
    kept = None if heads is None else _read_anchors(heads)
    connection.rollback()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    checks = [_balances(connection), _zero_sums(connection), _transfers(connection), _maturing(connection),
              _payouts(connection), _kept(connection), _open(connection, limits), _freezes(connection),
              _credited(connection, full), _plans(connection), _attempts(connection)]  # fmt: skip
    if full:
        checks += [_hash_chain(connection), _accruals(connection), _proofs(connection)]
        if shelf is not None:
            checks.append(_archive(connection, shelf))
    if kept is not None:
        checks.append(_anchored(connection, kept))
    if chain is not None:
        checks += _against_chain(connection, chain, gas)
        if full:
            checks += [_every_payout(connection, chain), _every_attempt(connection, chain)]
    connection.rollback()
    return checks


# ── The journal with itself ────────────────────────────────────────────────────────────────────────────────────────


def _balances(connection: Conn) -> Check:
    """Check that each account's balance is the sum of its postings."""
    rows = connection.execute(
        "SELECT a.id, a.kind, a.balance, (coalesce(sum(p.amount), 0) + coalesce(max(c.amount), 0))::bigint"
        " FROM ledger.accounts a LEFT JOIN ledger.postings p ON p.account_id = a.id"
        " LEFT JOIN ledger.carried c ON c.account_id = a.id GROUP BY a.id ORDER BY a.id"
    ).fetchall()
    wrong = [f"account {number} ({kind}) says {held}, its postings {summed}"
             for number, kind, held, summed in rows if held != summed]  # fmt: skip
    return _check(
        "balances",
        wrong,
        f"{len(rows)} accounts equal the sum of their postings, with what was carried forward of archived ones",
    )


def _zero_sums(connection: Conn) -> Check:
    """Check that each entry sums to zero in each asset, and that the numbers of entries have no gap."""
    rows = connection.execute(
        "SELECT p.entry_id, a.asset, sum(p.amount)::bigint FROM ledger.postings p JOIN ledger.accounts a"
        " ON a.id = p.account_id GROUP BY p.entry_id, a.asset HAVING sum(p.amount) <> 0 ORDER BY 1"
    ).fetchall()
    head = connection.execute(
        "SELECT h.entry_id, (SELECT count(*) FROM ledger.entries) FROM ledger.chain_head h"
    ).fetchone()
    assert head is not None
    wrong = [f"entry {entry} sums to {total} {asset}" for entry, asset, total in rows]
    if head[0] != head[1]:
        wrong.append(f"the journal has {head[1]} entries, the last is number {head[0]}")
    return _check("entries", wrong, f"{head[1]} entries sum to zero")


def _transfers(connection: Conn) -> Check:
    """Check that the account `in_flight` holds the sum of the pending transfers."""
    row = connection.execute(
        "SELECT (SELECT balance FROM ledger.accounts WHERE kind = 'in_flight' AND asset = 'PIX'),"
        " (SELECT coalesce(sum(amount_pix), 0)::bigint FROM ledger.transfers WHERE state = 'pending')"
    ).fetchone()
    assert row is not None
    wrong = [] if row[0] == row[1] else [f"in_flight holds {row[0]}, pending transfers come to {row[1]}"]
    return _check("transfers", wrong, f"{row[1]} in flight")


def _maturing(connection: Conn) -> Check:
    """Check that each `maturing` account holds the sum of its buckets."""
    rows = connection.execute(
        "SELECT a.id, a.balance, coalesce(sum(m.amount_pix), 0)::bigint FROM ledger.accounts a"
        " LEFT JOIN ledger.maturing m ON m.account_id = a.id WHERE a.kind = 'maturing' GROUP BY a.id"
        " HAVING a.balance <> coalesce(sum(m.amount_pix), 0)"
    ).fetchall()
    return _check("maturing", [f"account {n} holds {b}, its buckets {s}" for n, b, s in rows], "buckets agree")


def _payouts(connection: Conn) -> Check:
    """Check that each posted payout has one landed attempt, and that its amount was seen on chain."""
    rows = connection.execute(
        "SELECT p.id, t.state, p.amount_pix, p.on_chain_pix, b.state,"
        "   (SELECT count(*) FROM ledger.attempts a WHERE a.batch_id = b.id AND a.state = 'landed')"
        " FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id"
        " JOIN ledger.batches b ON b.id = p.batch_id"
        " WHERE (t.state = 'posted') <> (b.state = 'posted')"
        "       AND NOT (t.state = 'voided' AND coalesce(p.on_chain_pix <> p.amount_pix, false))"  # ended by evidence
        "    OR t.amount_pix <> p.amount_pix"
        "    OR (t.state = 'posted' AND p.on_chain_pix IS DISTINCT FROM p.amount_pix)"
        "    OR (t.state = 'posted' AND NOT EXISTS (SELECT FROM ledger.attempts a"
        "                                           WHERE a.batch_id = b.id AND a.state = 'landed'))"
    ).fetchall()
    counted = connection.execute("SELECT count(*) FROM ledger.payouts").fetchone()
    wrong = [f"payout {n} is {state} with {chain} of {amount} on chain in a batch that is {batch} ({landed} landed)"
             for n, state, amount, chain, batch, landed in rows]  # fmt: skip
    return _check("payouts", wrong, f"{counted[0] if counted else 0} payouts")


def _kept(connection: Conn) -> Check:
    """Check the table of creators who are owed a payout against accounts, and each day's sums against transfers."""
    owed = connection.execute(
        "SELECT coalesce(a.owner, o.creator_id), a.id IS NULL FROM"
        " (SELECT owner, c.id FROM ledger.accounts c, ledger.owed_least WHERE kind = 'payable' AND party = 'creator'"
        "  AND asset = 'PIX' AND balance >= least_pix) a"
        " FULL JOIN ledger.owed o ON o.creator_id = a.owner AND o.account_id = a.id"
        " WHERE a.id IS NULL OR o.creator_id IS NULL ORDER BY 1"
    ).fetchall()
    days = connection.execute(
        "SELECT coalesce(d.period, p.period), coalesce(d.planned_pix, 0), coalesce(p.pix, 0) FROM ledger.payout_days d"
        " FULL JOIN (SELECT p.period, sum(p.amount_pix)::bigint AS pix FROM ledger.payouts p"
        "            JOIN ledger.transfers t ON t.id = p.transfer_id WHERE t.state IN ('pending', 'posted')"
        "            GROUP BY p.period) p ON p.period = d.period"
        " WHERE coalesce(d.planned_pix, 0) <> coalesce(p.pix, 0) ORDER BY 1"
    ).fetchall()
    wrong = [f"creator {n} is {'not ' if spare else ''}owed a payout and the table of those says otherwise"
             for n, spare in owed]  # fmt: skip
    wrong += [f"payouts of {day} come to {summed}, not {said}" for day, said, summed in days]
    return _check("kept beside", wrong, "who is owed a payout and what days come to agree")


def _open(connection: Conn, limits: LedgerSettings) -> Check:
    """Check that nothing is in a state for too long, except for the states that a person ends (`ages.STOPS`)."""
    measured = [each for each in ages.measure(connection, limits) if each.state not in ages.STOPS]
    right = f"{sum(each.open for each in measured)} things in {len(measured)} states, none for too long"
    return _check("open too long", [str(each) for each in measured if each.late], right)


def _freezes(connection: Conn) -> Check:
    """Check that no freeze stops payouts."""
    rows = connection.execute("SELECT reason, detail::text FROM ledger.freezes WHERE released_at IS NULL").fetchall()
    return _check("freezes", [f"payouts are frozen: {reason} {detail}" for reason, detail in rows], "payouts are open")


def _hash_chain(connection: Conn) -> Check:
    """Check that the hash of each entry that is not archived follows from its content and the entry before."""
    archived = connection.execute(
        "SELECT last, head FROM ledger.archives WHERE kind = 'journal' ORDER BY first DESC LIMIT 1"
    ).fetchone()
    last, previous = (archived[0], bytes(archived[1])) if archived else (0, bytes(32))
    count, wrong = 0, []
    for row in _entries(connection, last):
        number, kind, key, document, lines, occurred_at, prev, hashed, content, reverses, postings = row
        expected = book.entry_hash(previous, number, book.micros(occurred_at), lines, kind, key, document, postings)
        if bytes(prev) != previous or expected != bytes(hashed):
            wrong.append(f"entry {number} ({key}) breaks the hash chain")
        elif book.content_hash(kind, document, postings, reverses) != bytes(content):
            wrong.append(f"entry {number} ({key}) is not what was asked for under its key")
        previous, count = bytes(hashed), count + 1
    head = connection.execute("SELECT hash FROM ledger.chain_head").fetchone()
    if head is None or bytes(head[0]) != previous:
        wrong.append("the head is not the hash of the last entry")
    behind = f" behind the {last} that are archived" if last else ""
    return _check("hash chain", wrong, f"{count} entries{behind}, head {previous.hex()[:16]}")


def _archive(connection: Conn, shelf: Shelf) -> Check:
    """Check that archived rows are unchanged, and that their sums are those that the database carries forward."""
    try:
        return _check("archive", *proof.check(connection, shelf))
    except Temporary as error:
        return Check("archive", False, f"the archive cannot be read: {error}")


def _read_anchors(heads: Callable[[], Sequence[Anchor]]) -> Sequence[Anchor] | PixrError:
    """Return the anchors; if they cannot be read, return the error."""
    try:
        return heads()
    except PixrError as error:
        return error


def _anchored(connection: Conn, kept: Sequence[Anchor] | PixrError) -> Check:
    """Check that the journal has not been rewritten since its anchors were written."""
    if isinstance(kept, PixrError):
        return Check("anchors", False, f"the heads that were kept cannot be read: {kept}")
    wrong, forgotten = anchors.compare(connection, kept)
    more = f", {forgotten} of entries that restores have forgotten" if forgotten else ""
    return _check("anchors", wrong, f"{len(kept)} heads that were kept are in the journal{more}")


def _entries(connection: Conn, last: int) -> Iterator[tuple[Any, ...]]:
    """Yield the entries after `last`, each with its postings as they are hashed."""
    while True:
        rows = connection.execute(
            "SELECT e.id, e.kind, e.key, e.document, e.lines, e.occurred_at, e.prev_hash, e.hash,"
            " e.content, e.reverses,"
            " (SELECT string_agg(int8send(account_id) || int8send(amount), ''::bytea ORDER BY line)"
            "  FROM ledger.postings WHERE entry_id = e.id)"
            " FROM ledger.entries e WHERE e.id > %s ORDER BY e.id LIMIT %s",
            (last, PAGE_ROWS),
        ).fetchall()
        if not rows:
            return
        yield from ((*row[:10], bytes(row[10] or b"")) for row in rows)
        last = rows[-1][0]


def _accruals(connection: Conn) -> Check:
    """Check that each fold has booked what its funded appearances earn, and credited the creators they belong to."""
    wrong, appearances, folds = credited.accruals(connection)
    aside = connection.execute("SELECT count(*) FROM ledger.set_aside").fetchone()
    unread = f", {aside[0]} damaged batches set aside" if aside and aside[0] else ""
    return _check("accruals", wrong, f"{appearances} appearances in {folds} folds{unread}")


def _credited(connection: Conn, full: bool) -> Check:
    """Check that each payout was taken from its creator's account and goes to a wallet that the creator has named."""
    wrong = credited.owners(connection, derive=full)
    return _check("credited", wrong, "every payout is its creator's")


def _plans(connection: Conn) -> Check:
    """Check that the plan of each transaction pays exactly what its payouts say."""
    return _check("plans", credited.plans(connection), "transactions pay what their payouts say")


def _attempts(connection: Conn) -> Check:
    """Check that attempts and entries agree with the chain's history as the ledger has read it."""
    return _check("attempts", credited.attempts(connection), "attempts are what the chain's history shows")


def _proofs(connection: Conn) -> Check:
    """Check that each proven wallet has a proof of its own: a valid signature of a message with wallet and creator."""
    rows = connection.execute(
        "SELECT w.creator_id, w.wallet, p.creator_id, p.wallet, p.message, p.signature FROM ledger.wallets w"
        " JOIN ledger.wallet_proofs p ON p.nonce = w.proof ORDER BY w.creator_id"
    ).fetchall()
    wrong = [f"wallet {wallet} of creator {creator} has no proof of its own"
             for creator, wallet, proof_creator, proof_wallet, message, signature in rows
             if (creator, wallet) != (proof_creator, proof_wallet) or f"creator {creator}." not in message
             or not challenges.verifies(wallet, message, signature)]  # fmt: skip
    return _check("wallet proofs", wrong, f"{len(rows)} wallets are proven")


# ── The journal with the chain ─────────────────────────────────────────────────────────────────────────────────────


def _against_chain(connection: Conn, chain: Chain, gas: str | None) -> list[Check]:
    """Check that the treasury's balances in PIX and SOL are the same on chain and in the journal.

    If they differ while transactions are under way, they are compared again, up to `ATTEMPTS_MAX` times.
    """
    row = connection.execute("SELECT treasury, token_account FROM ledger.chain").fetchone()
    if row is None:
        return [Check("chain", True, "no treasury yet")]
    addresses = {"PIX": row[1], "SOL": gas or row[0]}
    checks: list[Check] = []
    for _ in range(ATTEMPTS_MAX):
        checks = _compare_once(connection, chain, addresses)
        if all(check.ok for check in checks):
            break
        time.sleep(PAUSE_S)
        connection.rollback()  # a new snapshot
    return checks


def _compare_once(connection: Conn, chain: Chain, addresses: dict[str, str]) -> list[Check]:
    """Compare the balances at one slot, allowing for finalized transactions that are not booked yet."""
    slot, (token, payer) = chain.accounts(list(addresses.values()))
    held = {"PIX": int.from_bytes(token.data[64:72], "little") if token else 0, "SOL": payer.lamports if payer else 0}
    rows = connection.execute("SELECT asset, -balance FROM ledger.accounts WHERE kind = 'chain'").fetchall()
    ahead = _not_booked(connection, chain, addresses, slot)
    checks = []
    for asset, journal in rows:
        expected = journal + sum(change[asset] for change in ahead)
        note = f", {len(ahead)} transactions not booked yet" if ahead else ""
        detail = f"chain {held[asset]}, journal {expected} at slot {slot}{note}"
        checks.append(Check(f"chain {asset}", held[asset] == expected, detail))
    return sorted(checks, key=lambda check: check.name)


def _not_booked(connection: Conn, chain: Chain, addresses: dict[str, str], slot: int) -> list[dict[str, int]]:
    """Return changes by asset, one dict for each finalized transaction up to `slot` that is not booked yet."""
    signatures: set[str] = set()
    for address in addresses.values():
        row = connection.execute(
            "SELECT signature, forgotten_slot FROM ledger.chain_cursors WHERE address = %s", (address,)
        ).fetchone()
        until, forgotten = row or (None, 0)  # a node that does not know `until` lists all it has, also what is archived
        signatures |= {each.signature for each in chain.history(address, until) if forgotten < each.slot <= slot}
    booked = connection.execute(
        "SELECT signature FROM ledger.chain_transactions WHERE signature = ANY(%(all)s)"
        " UNION SELECT signature FROM ledger.attempts WHERE state IN ('landed', 'failed') AND signature = ANY(%(all)s)"
        " UNION SELECT signature FROM ledger.past_batches WHERE signature = ANY(%(all)s)",
        {"all": list(signatures)},
    ).fetchall()
    signatures -= {row[0] for row in booked}
    effects = [effect for signature in signatures if (effect := chain.effect(signature)) is not None]
    return [_change(effect, addresses) for effect in effects]


def _change(effect: Effect, addresses: dict[str, str]) -> dict[str, int]:
    return {"PIX": effect.tokens.get(addresses["PIX"], 0), "SOL": effect.lamports.get(addresses["SOL"], 0)}


def _every_payout(connection: Conn, chain: Chain) -> Check:
    """Check that each settled batch's transaction is on chain without an error, and paid every recipient exactly."""
    rows = connection.execute(
        "SELECT a.signature, a.slot, array_agg(r->>2), array_agg(coalesce(p.on_chain_pix, (r->>3)::bigint))"
        " FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id"
        "   CROSS JOIN jsonb_array_elements(b.plan->'recipients') r"
        "   LEFT JOIN ledger.payouts p ON p.batch_id = b.id AND p.creator_id = (r->>0)::bigint"
        " WHERE a.state = 'landed' AND b.kind = 'payout'"
        "   AND r->>2 <> (SELECT token_account FROM ledger.chain)"  # of earlier releases; it got nothing
        " GROUP BY a.signature, a.slot ORDER BY a.slot"
    ).fetchall()
    wrong = []
    for signature, slot, accounts, amounts in rows:
        effect = chain.effect(signature)
        if effect is None or effect.error is not None or effect.slot != slot:
            wrong.append(f"transaction {signature} is not on chain at slot {slot}")
            continue
        due: dict[str, int] = {}  # base units of PIX by token account
        for address, amount in zip(accounts, amounts, strict=True):
            due[address] = due.get(address, 0) + amount
        wrong += [f"{signature} paid {address} {effect.tokens.get(address, 0)}, not {amount}"
                  for address, amount in due.items() if effect.tokens.get(address, 0) != amount]  # fmt: skip
    return _check("payouts on chain", wrong, f"{len(rows)} transactions")


def _every_attempt(connection: Conn, chain: Chain) -> Check:
    """Check that no expired attempt has succeeded on chain, and that every failed attempt is on chain.

    A failed attempt of a payout must also have an error there.
    """
    rows = connection.execute(
        "SELECT a.signature, a.state, b.kind FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id"
        " WHERE a.state IN ('failed', 'expired') ORDER BY a.signed_at, a.signature"
    ).fetchall()
    wrong = []
    for signature, state, kind in rows:
        effect = chain.effect(signature)
        if effect is None and state == "failed":
            wrong.append(f"transaction {signature} is failed, and is not on chain")
        elif effect is not None and effect.error is None and (state == "expired" or kind == "payout"):
            wrong.append(f"transaction {signature} is {state}, and is on chain without an error")
    return _check("attempts on chain", wrong, f"{len(rows)} transactions that did not pay")


def _check(name: str, wrong: list[str], right: str) -> Check:
    """Make a check: ok with the detail `right` if `wrong` is empty, else not ok with the first findings."""
    more = f"; and {len(wrong) - PROBLEMS_MAX} more" if len(wrong) > PROBLEMS_MAX else ""
    return Check(name, not wrong, "; ".join(wrong[:PROBLEMS_MAX]) + more if wrong else right)
