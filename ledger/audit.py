"""The audit: is every unit where the journal says, and does the chain agree? Only reads; may run at any time.

The quick audit computes every balance again from the postings and compares the treasury with the chain. The full one
also walks the hash chain, computes every accrual again from the recorded appearances, asks the chain about every
payout, and reads the archive. What is found wrong is named with its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import Connection

from cluster.errors import PixrError, Temporary
from ledger import advances, ages, anchors, book, challenges, credited
from ledger.anchors import Kept
from ledger.archive import proof
from ledger.archive.shelf import Shelf
from ledger.chain import Chain, Effect, Unreadable
from ledger.settings import LedgerSettings

Conn = Connection[Any]

ATTEMPTS_MAX = 30
PAUSE_S = 0.5
PAGE_ROWS = 5000
PROBLEMS_MAX = 20
LIMITS = LedgerSettings()


@dataclass(frozen=True)
class Check:
    """One question and its answer; `detail` says where it is wrong, or what was counted."""

    name: str
    ok: bool
    detail: str


def run(
    connection: Conn,
    chain: Chain | None,
    gas: str | None,
    *,
    full: bool = False,
    limits: LedgerSettings = LIMITS,
    heads: Callable[[], Kept] | None = None,
    shelf: Shelf | None = None,
) -> list[Check]:
    """Every check, against one snapshot of the database.

    Args:
        gas: the address that pays fees, if it is known.
        limits: for how long what is open may be so.
        heads: what was kept of the journal outside the database, as `anchors.listing`; nothing is compared without.
        shelf: where the archive lies, which the full audit reads; without one it begins behind it.
    """
    # Before the snapshot, which then holds every entry that was a head by now.
    kept = None if heads is None else _heads_kept(heads)
    connection.rollback()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    checks = [_balances(connection), _zero_sums(connection), _transfers(connection), _maturing(connection),
              _payouts(connection), _kept(connection), _advances(connection), _open(connection, limits), _freezes(connection),
              _credited(connection, full), _plans(connection), _attempts(connection)]  # fmt: skip
    if full:
        checks += [_hash_chain(connection), _accruals(connection), _proofs(connection)]
        if shelf is not None:
            checks.append(_archive(connection, shelf))
    if kept is not None:
        checks.append(_anchored(connection, kept, believe_older=limits.anchors_without_digest))
    if chain is not None:
        checks += _against_chain(connection, chain, gas)
        if full:
            checks += [_every_payout(connection, chain), _every_attempt(connection, chain)]
    connection.rollback()
    return checks


# ── The journal with itself ────────────────────────────────────────────────────────────────────────────────────────


def _balances(connection: Conn) -> Check:
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
    row = connection.execute(
        "SELECT (SELECT balance FROM ledger.accounts WHERE kind = 'in_flight' AND asset = 'PIX'),"
        " (SELECT coalesce(sum(amount_pix), 0)::bigint FROM ledger.transfers WHERE state = 'pending')"
    ).fetchone()
    assert row is not None
    wrong = [] if row[0] == row[1] else [f"in_flight holds {row[0]}, pending transfers come to {row[1]}"]
    return _check("transfers", wrong, f"{row[1]} in flight")


def _maturing(connection: Conn) -> Check:
    rows = connection.execute(
        "SELECT a.id, a.balance, coalesce(sum(m.amount_pix), 0)::bigint FROM ledger.accounts a"
        " LEFT JOIN ledger.maturing m ON m.account_id = a.id WHERE a.kind = 'maturing' GROUP BY a.id"
        " HAVING a.balance <> coalesce(sum(m.amount_pix), 0)"
    ).fetchall()
    return _check("maturing", [f"account {n} holds {b}, its buckets {s}" for n, b, s in rows], "buckets agree")


def _payouts(connection: Conn) -> Check:
    """A posted payout has one landed attempt, and the amount that the chain showed."""
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
    """What the database keeps beside the large tables says the same as they do: who is owed a payout, and days' sums."""
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


def _advances(connection: Conn) -> Check:
    """What was paid before a restore is set off once: the journal has taken back what the advances say."""
    return _check("advances", *advances.check(connection))


def _open(connection: Conn, limits: LedgerSettings) -> Check:
    """What is begun ends; what waits for long waits for a reason that somebody should know. Stops are a person's to end."""
    found = [each for each in ages.measure(connection, limits) if each.state not in ages.STOPS]
    right = f"{sum(each.open for each in found)} things in {len(found)} states, none for too long"
    return _check("open too long", [str(each) for each in found if each.late], right)


def _freezes(connection: Conn) -> Check:
    rows = connection.execute("SELECT reason, detail::text FROM ledger.freezes WHERE released_at IS NULL").fetchall()
    return _check("freezes", [f"payouts are frozen: {reason} {detail}" for reason, detail in rows], "payouts are open")


def _hash_chain(connection: Conn) -> Check:
    """Every entry's hash, computed again from its content and the one before; of those that are not archived."""
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
    """What has left the tables is in the archive, as it was; and comes to what was carried forward."""
    try:
        return _check("archive", *proof.check(connection, shelf))
    except Temporary as error:
        return Check("archive", False, f"the archive cannot be read: {error}")


def _heads_kept(heads: Callable[[], Kept]) -> Kept | PixrError:
    """The heads that were kept, or why they cannot be read."""
    try:
        return heads()
    except PixrError as error:
        return error


def _anchored(connection: Conn, kept: Kept | PixrError, *, believe_older: bool) -> Check:
    """The journal still is what it was when its heads were kept outside the database.

    Heads with the deployment's digest decide; those of releases before do while `believe_older`.
    """
    if isinstance(kept, PixrError):
        return Check("anchors", False, f"the heads that were kept cannot be read: {kept}")
    wrong, forgotten = anchors.compare(connection, kept.ours)
    older, forgotten_older = anchors.compare(connection, kept.older)
    if believe_older:
        wrong += [f"{each} (it has no digest: see [ledger] anchors_without_digest)" for each in older]
    right = len(kept.ours) + len(kept.older) - forgotten - forgotten_older - len(older)
    said = [f"{right} heads that were kept are in the journal"]
    if forgotten + forgotten_older:
        said.append(f"{forgotten + forgotten_older} of entries that restores have forgotten")
    if kept.older:
        differ = f", of which {len(older)} differ, the first: {older[0]}" if older and not believe_older else ""
        said.append(f"{len(kept.older)} without a digest, of a release before{differ}")
    if kept.others:
        said.append(f"{kept.others} objects there are none of this ledger's, the first: {kept.first_other}")
    found = _check("anchors", wrong, ", ".join(said))
    return replace(found, detail=f"{found.detail}; {said[-1]}") if wrong and kept.others else found


def _entries(connection: Conn, last: int) -> Iterator[tuple[Any, ...]]:
    """Entries after `last`, each with its postings as they are hashed."""
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
    """Each fold's money, computed again from the appearances it took and what became of each; and whom it was credited."""
    wrong, appearances, folds = credited.accruals(connection)
    aside = connection.execute("SELECT count(*) FROM ledger.set_aside WHERE looked_at IS NULL").fetchone()
    unread = f", {aside[0]} damaged batches set aside" if aside and aside[0] else ""
    return _check("accruals", wrong, f"{appearances} appearances in {folds} folds{unread}")


def _credited(connection: Conn, full: bool) -> Check:
    """Each payout was taken from its creator's account and goes to a wallet that they have named."""
    wrong = credited.owners(connection, derive=full)
    return _check("credited", wrong, "every payout was its creator's and goes to a wallet that they named")


def _plans(connection: Conn) -> Check:
    return _check("plans", credited.plans(connection), "transactions pay what their payouts say")


def _attempts(connection: Conn) -> Check:
    return _check("attempts", credited.attempts(connection), "attempts are what the chain's history shows")


def _proofs(connection: Conn) -> Check:
    """What creators' wallets have signed is still what was asked of them, and theirs."""
    rows = connection.execute(
        "SELECT w.creator_id, w.wallet, p.creator_id, p.wallet, p.message, p.signature FROM ledger.wallets w"
        " JOIN ledger.wallet_proofs p ON p.nonce = w.proof ORDER BY w.creator_id"
    ).fetchall()
    wrong = [f"wallet {wallet} of creator {creator} has no proof of its own"
             for creator, wallet, whose, proven, message, signature in rows
             if (creator, wallet) != (whose, proven) or f"creator {creator}." not in message
             or not challenges.verifies(wallet, message, signature)]  # fmt: skip
    return _check("wallet proofs", wrong, f"{len(rows)} wallets are proven")


# ── The journal with the chain ─────────────────────────────────────────────────────────────────────────────────────


def _against_chain(connection: Conn, chain: Chain, gas: str | None) -> list[Check]:
    """The treasury's balances, both sides; while payments are on their way we look again."""
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
    """What finalized transactions up to `slot` have changed that the journal has not booked yet."""
    found: set[str] = set()
    for address in addresses.values():
        row = connection.execute(
            "SELECT signature, forgotten_slot FROM ledger.chain_cursors WHERE address = %s", (address,)
        ).fetchone()
        until, forgotten = row or (None, 0)  # a node that has lost `until` names all it has, also what is archived
        named = chain.history(address, until).named
        found |= {each.signature for each in named if forgotten < each.slot <= slot}
    booked = connection.execute(
        "SELECT signature FROM ledger.chain_transactions WHERE signature = ANY(%(all)s)"
        " UNION SELECT signature FROM ledger.attempts WHERE state IN ('landed', 'failed') AND signature = ANY(%(all)s)"
        " UNION SELECT signature FROM ledger.past_batches WHERE signature = ANY(%(all)s)",
        {"all": list(found)},
    ).fetchall()
    found -= {row[0] for row in booked}
    return [_change(effect, addresses) for signature in found if (effect := _effect(chain, signature)) is not None]


def _effect(chain: Chain, signature: str) -> Effect | None:
    """What a transaction did; nothing that is known where it cannot be read: then balances tell whether it has."""
    try:
        return chain.effect(signature)
    except Unreadable:
        return None


def _change(effect: Effect, addresses: dict[str, str]) -> dict[str, int]:
    return {"PIX": effect.tokens.get(addresses["PIX"], 0), "SOL": effect.lamports.get(addresses["SOL"], 0)}


def _every_payout(connection: Conn, chain: Chain) -> Check:
    """Each settled batch's transaction paid every recipient exactly, on chain, without error."""
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
        wanted: dict[str, int] = {}
        for address, amount in zip(accounts, amounts, strict=True):
            wanted[address] = wanted.get(address, 0) + amount
        wrong += [f"{signature} paid {address} {effect.tokens.get(address, 0)}, not {amount}"
                  for address, amount in wanted.items() if effect.tokens.get(address, 0) != amount]  # fmt: skip
    return _check("payouts on chain", wrong, f"{len(rows)} transactions")


def _every_attempt(connection: Conn, chain: Chain) -> Check:
    """What was given up has moved nothing on chain, and what failed is there, and has not paid."""
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
    more = f"; and {len(wrong) - PROBLEMS_MAX} more" if len(wrong) > PROBLEMS_MAX else ""
    return Check(name, not wrong, "; ".join(wrong[:PROBLEMS_MAX]) + more if wrong else right)
