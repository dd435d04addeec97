"""Reconciling: the journal, our attempts and the chain must tell one story, at one slot.

Every finalized transaction that touches the treasury is read once, oldest first: it is an attempt of ours, or it
brings money (a deposit, which funds `reward_pool`), or it changes nothing. Anything else, or a balance on chain that
is not the journal's, freezes payouts and says where. Knows nothing of how payouts are made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg import Connection

from ledger import book, stops
from ledger.chain import Chain, Effect
from ledger.rail import OPINIONS
from ledger.treasury import Treasury

log = logging.getLogger(__name__)

MISMATCH = "the chain and the journal differ"
UNKNOWN = "an unknown transaction took money from the treasury"


Adopt = Callable[[Effect], bool]


def _nobody(_: Effect) -> bool:
    """Nothing is adopted where nothing was restored."""
    return False


@dataclass(frozen=True)
class Finding:
    """What a reconciliation found. `conclusive` is false when the chain moved on while we looked.

    `waits_for` is the signature of a transaction that is not booked yet: ours and not settled, or nodes do not agree on it.
    """

    slot: int
    journal_pix: int
    chain_pix: int
    journal_lamports: int
    chain_lamports: int
    conclusive: bool = True
    problems: tuple[str, ...] = field(default=())
    waits_for: str | None = None

    @property
    def ok(self) -> bool:
        return not self.problems


def reconcile(
    connection: Connection[Any], chain: Chain, treasury: Treasury, adopt: Adopt = _nobody, opinions: int = OPINIONS
) -> Finding:
    """Read what is new on chain, book deposits, compare; freeze on any difference. `adopt` may know the unknown.

    What a transaction did is believed when `opinions` nodes say it, or all of them where there are fewer.
    """
    waits_for = adopt_history(connection, chain, treasury, adopt, opinions)
    finding = replace(compare(connection, chain, treasury, opinions), waits_for=waits_for)
    if not finding.conclusive or waits_for or finding.slot < _newest_slot(connection):
        return replace(finding, conclusive=False, problems=())
    if _moved_on(connection, chain, treasury, finding.slot, opinions):
        return replace(finding, conclusive=False, problems=())
    if finding.problems:
        stops.freeze(connection, MISMATCH, {"problems": finding.problems, "slot": finding.slot})
        log.error("payouts are frozen", extra={"problems": list(finding.problems)})
    _write(connection, finding)
    book.commit(connection)
    return finding


def adopt_history(
    connection: Connection[Any], chain: Chain, treasury: Treasury, adopt: Adopt = _nobody, opinions: int = OPINIONS
) -> str | None:
    """Book finalized transactions since the last time; the signature of one that must be waited for, where there is one.

    It is ours and not settled yet, or the nodes that still have its block have not yet agreed on what it did.
    """
    for signature, slot, addresses in _new_signatures(connection, chain, treasury, opinions):
        effect = _effect(connection, chain, treasury, signature, slot, addresses, opinions)
        if effect is None or not _adopt(connection, treasury, effect, adopt):
            connection.rollback()
            return signature
        for address in addresses:
            _move_cursor(connection, address, signature, effect.slot)
        book.commit(connection)
    return None


def _effect(
    connection: Connection[Any],
    chain: Chain,
    treasury: Treasury,
    signature: str,
    slot: int,
    addresses: Sequence[str],
    opinions: int,
) -> Effect | None:
    """What a transaction did; None while not enough nodes say it, or it is not of the `slot` that one node has named.

    Who no longer has that block may abstain, but not for one before what was read: then the slot is made up. Where fewer
    than `opinions` are left, what brings money is waited for: else one of them alone could make it up.
    """
    opinions = min(opinions, len(chain.nodes))
    effect = chain.effect(signature, opinions)
    if effect is None and slot >= _read_until(connection, addresses):
        effect = chain.remembered(signature, slot, opinions)
        if effect is not None and any(each > 0 for each in _changes(treasury, effect)):
            return None
    return effect if effect is not None and effect.slot == slot else None


def _read_until(connection: Connection[Any], addresses: Sequence[str]) -> int:
    """The newest slot that was read of these addresses' histories; 0 where nothing was."""
    row = connection.execute(
        "SELECT coalesce(max(slot), 0) FROM ledger.chain_cursors WHERE address = ANY(%s)", (list(addresses),)
    ).fetchone()
    assert row is not None  # of an aggregate
    return int(row[0])


def _changes(treasury: Treasury, effect: Effect) -> tuple[int, int]:
    """By how much a transaction has changed the treasury's tokens, and the lamports of who pays its fees."""
    pix = effect.tokens.get(treasury.token_account, 0)
    return pix, effect.lamports.get(str(treasury.payer.gas), 0)


def _newest_slot(connection: Connection[Any]) -> int:
    """The newest slot the journal knows of: a node that has not reached it shows an older treasury."""
    row = connection.execute(
        "SELECT greatest((SELECT max(slot) FROM ledger.attempts), (SELECT max(slot) FROM ledger.chain_cursors), 0)"
    ).fetchone()
    return int(row[0]) if row else 0


def _moved_on(connection: Connection[Any], chain: Chain, treasury: Treasury, slot: int, opinions: int) -> bool:
    """Whether the chain holds transactions that are not booked, by any node that has reached `slot`."""
    return bool(_new_signatures(connection, chain, treasury, opinions, slot))


def compare(connection: Connection[Any], chain: Chain, treasury: Treasury, opinions: int = OPINIONS) -> Finding:
    """The journal's view of the treasury beside the chain's, both finalized.

    Inconclusive where not as many nodes say the same of the chain; `slot` is the oldest at which they say it.
    """
    opinions = min(opinions, len(chain.nodes))
    slots: dict[tuple[int, int], list[int]] = {}
    for at, (token, gas) in chain.all_accounts([treasury.token_account, str(treasury.payer.gas)], opinions=opinions):
        held = (int.from_bytes(token.data[64:72], "little") if token else 0, gas.lamports if gas else 0)
        slots.setdefault(held, []).append(at)
    (chain_pix, chain_lamports), said = max(slots.items(), key=lambda each: len(each[1]))
    slot = min(said)
    journal_pix = -book.balance(connection, book.account(connection, "chain"))
    journal_lamports = -book.balance(connection, book.account(connection, "chain", "SOL"))
    problems = []
    if journal_pix != chain_pix:
        problems.append(f"the treasury holds {chain_pix} PIX units on chain and {journal_pix} in the journal")
    if journal_lamports != chain_lamports:
        problems.append(f"the payer holds {chain_lamports} lamports on chain and {journal_lamports} in the journal")
    is_agreed = len(said) >= opinions
    return Finding(slot, journal_pix, chain_pix, journal_lamports, chain_lamports, is_agreed, tuple(problems))


def _new_signatures(
    connection: Connection[Any], chain: Chain, treasury: Treasury, opinions: int, slot_min: int = 0
) -> list[tuple[str, int, list[str]]]:
    """Finalized signatures that were not read before, oldest first, each with its slot and the addresses that name it.

    Any node's word that there is one counts, so that none of them alone can hide what has moved money.
    """
    slots: dict[str, int] = {}
    named: dict[str, list[str]] = {}
    for address in sorted({treasury.token_account, str(treasury.payer.gas)}):
        row = connection.execute(
            "SELECT signature, slot FROM ledger.chain_cursors WHERE address = %s", (address,)
        ).fetchone()
        until, read_until = row or (None, 0)
        most = max(slot_min, read_until)
        for signature, slot in chain.history(address, until, most, min(opinions, len(chain.nodes))):
            slots[signature] = slot
            named.setdefault(signature, []).append(address)
    known = connection.execute(
        "SELECT signature FROM ledger.chain_transactions WHERE signature = ANY(%s)", (list(slots),)
    ).fetchall()
    connection.commit()
    for (signature,) in known:
        del slots[signature]
    return [(signature, slots[signature], named[signature]) for signature in sorted(slots, key=slots.__getitem__)]


def _adopt(connection: Connection[Any], treasury: Treasury, effect: Effect, adopt: Adopt) -> bool:
    """One transaction of the treasury's history; False when it is ours and still to be settled."""
    pix, lamports = _changes(treasury, effect)
    row = connection.execute(
        "SELECT a.state, b.ended_at IS NULL FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id"
        " WHERE a.signature = %s",
        (effect.signature,),
    ).fetchone()
    if row is not None and (row[0] == "live" or (row[0] == "expired" and row[1])):
        return False  # settling comes first, also of what was given up too early
    entry_id = None
    if row is not None:
        kind = "attempt" if row[0] in ("landed", "failed") else "unknown"
    elif pix < 0 or lamports < 0:
        kind = ("attempt" if pix else "neutral") if adopt(effect) else "unknown"
    else:
        kind = "deposit" if pix or lamports else "neutral"
        entry_id = _book_deposit(connection, effect, pix, lamports)
    if kind == "unknown":
        stops.freeze(connection, UNKNOWN, {"signature": effect.signature, "pix": pix, "lamports": lamports})
    connection.execute(
        "INSERT INTO ledger.chain_transactions (signature, slot, delta_pix, delta_lamports, kind, entry_id)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (effect.signature, effect.slot, pix, lamports, kind, entry_id),
    )
    return True


def _book_deposit(connection: Connection[Any], effect: Effect, pix: int, lamports: int) -> int | None:
    """Tokens fund `reward_pool`; lamports are the platform's, for fees and rent."""
    lines: list[tuple[int, int]] = []
    if pix:
        lines += [(book.account(connection, "chain"), -pix), (book.account(connection, "reward_pool"), pix)]
    if lamports:
        chain, platform = book.account(connection, "chain", "SOL"), book.account(connection, "platform", "SOL")
        lines += [(chain, -lamports), (platform, lamports)]
    if not lines:
        return None
    document = {"signature": effect.signature, "slot": effect.slot}
    return book.post(connection, book.Entry("deposit", f"deposit:{effect.signature}", lines, document)).id


def _move_cursor(connection: Connection[Any], address: str, signature: str, slot: int) -> None:
    connection.execute(
        "INSERT INTO ledger.chain_cursors (address, signature, slot) VALUES (%s, %s, %s)"
        " ON CONFLICT (address) DO UPDATE SET signature = excluded.signature, slot = excluded.slot",
        (address, signature, slot),
    )


def _write(connection: Connection[Any], finding: Finding) -> None:
    from psycopg.types.json import Jsonb

    connection.execute(
        "INSERT INTO ledger.reconciliations"
        " (slot, ok, journal_pix, chain_pix, journal_lamports, chain_lamports, detail)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (finding.slot, finding.ok, finding.journal_pix, finding.chain_pix, finding.journal_lamports,
         finding.chain_lamports, Jsonb({"problems": list(finding.problems)})),
    )  # fmt: skip
