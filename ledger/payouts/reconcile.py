"""Reconciling: the journal, our attempts and the chain must agree, at one slot.

Every finalized transaction that touches the treasury is read once, oldest first. It is expected to be an attempt of
ours, a deposit (which funds `reward_pool`), or a transaction that changes no balance. Any other transaction freezes
payouts, and so does a balance on chain that differs from the journal's. The freeze names the transaction or the
balances. Knows nothing of how payouts are made.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, LiteralString, NamedTuple

from psycopg import Connection

from cluster.errors import Temporary
from ledger.journal import book
from ledger.payouts.rail import OPINIONS
from ledger.risk import stops
from ledger.solana.chain import Chain, Effect
from ledger.solana.treasury import Treasury

log = logging.getLogger(__name__)

ROUND_MAX = 2_000  # transactions that a round books
PIECE_MAX = 200  # of them in one transaction of the database
DENIED_MAX = 20  # that a node has named and others deny: then what it alone names is left out for so long
DISTRUST_S = 3600.0
AGAIN_SLOTS = 432_000  # a day or two: how far back history is read again where the chain and the journal differ
AGAIN_MAX = 3  # rounds in which that is tried for one difference; then payouts are frozen
AGAIN_PAUSE_S = 3600.0  # after which it is tried once more
DUST_PIX, DUST_LAMPORTS = 10_000, 1_000_000  # base units and lamports below which deposits share an entry
MISMATCH = "the chain and the journal differ"
UNKNOWN = "an unknown transaction took money from the treasury"
# The last payout that had landed by a slot: first of those in the tables, then of those in the archive.
OURS: tuple[LiteralString, ...] = (
    (
        "SELECT a.signature FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id AND b.kind = 'payout'"
        " WHERE a.state = 'landed' AND a.slot <= %s ORDER BY a.slot DESC LIMIT 1"
    ),
    "SELECT signature FROM ledger.past_batches WHERE kind = 'payout' AND slot <= %s ORDER BY slot DESC LIMIT 1",
)

Adopt = Callable[[Effect], bool]


def _nobody(_: Effect) -> bool:
    """Adopt nothing and return False: the default if nothing was restored."""
    return False


@dataclass(frozen=True)
class Finding:
    """The result of a reconciliation.

    `conclusive` is False if nothing follows from it: too few nodes report the same, transactions are not booked yet, or
    the journal knows a newer slot than the one compared.

    `waits_for` is the signature of a transaction that is not booked yet, because it is an attempt of ours that is not
    settled or because nodes disagree about it.
    """

    slot: int
    journal_pix: int
    chain_pix: int
    journal_lamports: int
    chain_lamports: int
    conclusive: bool = True
    problems: tuple[str, ...] = field(default=())
    waits_for: str | None = None
    has_more: bool = False  # transactions than one round takes

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Held:
    """The treasury's balances on chain at a slot, and whether enough nodes report them."""

    slot: int
    pix: int
    lamports: int
    is_agreed: bool


@dataclass
class Distrust:
    """Nodes that are distrusted for a while: other nodes have denied too many of the transactions that they named.

    What only distrusted nodes report is ignored.
    """

    denied: Counter[str] = field(default_factory=Counter)  # by node, since that was last too many
    until: dict[str, float] = field(default_factory=dict)

    def note(self, made_up: Iterable[New]) -> None:
        """Count transactions that enough nodes deny against the nodes that named them."""
        for each in made_up:
            self.denied.update(each.nodes)
        for node in [node for node, count in self.denied.items() if count > DENIED_MAX]:
            log.error("a node names transactions that others deny: it is not believed alone for a while: %s", node)
            self.until[node] = time.monotonic() + DISTRUST_S
            del self.denied[node]

    def believed(self, named: Sequence[New]) -> list[New]:
        """Return the transactions without those that only distrusted nodes name."""
        nobody = {node for node, until in self.until.items() if time.monotonic() < until}
        return [each for each in named if not nobody.issuperset(each.nodes)] if nobody else list(named)


class New(NamedTuple):
    """A transaction that was not read before, the addresses whose histories contain it, and the nodes that name it."""

    signature: str
    slot: int
    addresses: Sequence[str]
    nodes: Collection[str]


@dataclass
class Difference:
    """The last difference of chain and journal (base units, lamports), and how often history was read again for it."""

    amounts: tuple[int, int] = (0, 0)
    reads: int = 0
    again_at: float = 0.0

    def may_read(self, finding: Finding) -> bool:
        """Whether history may be read once more because of this finding. If so, the read is counted."""
        now = (finding.chain_pix - finding.journal_pix, finding.chain_lamports - finding.journal_lamports)
        if now != self.amounts:
            self.amounts, self.reads = now, 0
        if self.reads >= AGAIN_MAX and time.monotonic() < self.again_at:
            return False
        self.reads, self.again_at = self.reads + 1, time.monotonic() + AGAIN_PAUSE_S
        return True


def reconcile(
    connection: Connection[Any],
    chain: Chain,
    treasury: Treasury,
    adopt: Adopt = _nobody,
    opinions: int = OPINIONS,
    difference: Difference | None = None,
    distrust: Distrust | None = None,
) -> Finding:
    """Read what is new on chain, book it, and compare the journal with the treasury; freeze payouts on any difference.

    At most `ROUND_MAX` transactions are booked; if there are more, the comparison is not conclusive. Transactions that
    arrive between reading the history and reading the treasury are booked before the two are compared. So a stranger
    who sends deposits all the time cannot prevent a conclusion. Before payouts are frozen for a difference, recent
    history is read again, since nodes may have left something out.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked.
        treasury: the treasury whose transactions and balances are compared.
        adopt: called with each transaction that belongs to no attempt of ours; returns whether it has booked it.
        opinions: nodes that must report the same before it is believed; all of them if there are fewer nodes.
        difference: remembers from round to round how often history was read again.
        distrust: remembers from round to round which nodes have named transactions that others deny.

    Returns:
        What was found. If it is conclusive, it is also stored.

    Raises:
        Temporary: too few nodes answer.
    """
    distrust = distrust or Distrust()
    reached = chain.finalized_slot(min(opinions, len(chain.nodes)))
    waits_for, is_all = adopt_history(connection, chain, treasury, reached, adopt, opinions, distrust)
    held = _held(chain, treasury, opinions)
    if waits_for is None and is_all:
        waits_for, is_all = adopt_history(connection, chain, treasury, held.slot, adopt, opinions, distrust)
    finding, newest_slot = compare(connection, held)
    is_known = finding.conclusive and waits_for is None and is_all
    if is_known and finding.problems and (difference or Difference()).may_read(finding):
        waits_for, is_all = adopt_history(connection, chain, treasury, held.slot, adopt, opinions, again=True)
        finding, newest_slot = compare(connection, held)
    if not finding.conclusive or waits_for or not is_all or finding.slot < newest_slot:
        return replace(finding, conclusive=False, problems=(), waits_for=waits_for, has_more=not is_all)
    if finding.problems:
        stops.freeze(connection, MISMATCH, {"problems": finding.problems, "slot": finding.slot})
        log.error("payouts are frozen", extra={"problems": list(finding.problems)})
    _write(connection, finding)
    book.commit(connection)
    return finding


def adopt_history(
    connection: Connection[Any],
    chain: Chain,
    treasury: Treasury,
    slot: int,
    adopt: Adopt = _nobody,
    opinions: int = OPINIONS,
    distrust: Distrust | None = None,
    *,
    again: bool = False,
) -> tuple[str | None, bool]:
    """Book finalized transactions from where the last call ended up to `slot`, piece by piece, oldest first.

    Only nodes that have reached the slot are asked. Otherwise a transaction could be missed that one node leaves out
    and a lagging node does not know yet, and later ones would be booked before it. A transaction that one node reports
    and enough others deny is left out, unless `again` is set.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked.
        treasury: the treasury whose history is read.
        slot: the last slot that is read.
        adopt: called with each transaction that belongs to no attempt of ours; returns whether it has booked it.
        opinions: nodes that must report the same before it is believed.
        distrust: the nodes that are not believed alone; it is told which transactions are denied.
        again: because of a difference, also book what is missing of the last `AGAIN_SLOTS` before the newest slot that
            was read.

    Returns:
        The signature of a transaction that must be waited for, or None; and whether all transactions were examined. A
        transaction must be waited for if it is ours and not settled yet, or if nodes that still have its block disagree
        on what it did.
    """
    named, distrust = _new_signatures(connection, chain, treasury, opinions, slot, again=again), distrust or Distrust()
    for _ in range(0, ROUND_MAX, PIECE_MAX):
        named = named if again else distrust.believed(named)  # with what the last piece has shown
        if not named:
            break
        piece, named = named[:PIECE_MAX], named[PIECE_MAX:]
        waits_for = _book_piece(connection, chain, treasury, adopt, opinions, piece, None if again else distrust)
        if waits_for is not None:
            return waits_for, True
    return None, not named


def _book_piece(
    connection: Connection[Any],
    chain: Chain,
    treasury: Treasury,
    adopt: Adopt,
    opinions: int,
    named: Sequence[New],
    distrust: Distrust | None,
) -> str | None:
    """Book these transactions in one transaction of the database.

    No node is asked while that is open, so that no other part waits for it.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked.
        treasury: the treasury whose transactions these are.
        adopt: called with each transaction that belongs to no attempt of ours; returns whether it has booked it.
        opinions: nodes that must report the same before it is believed.
        named: the transactions, oldest first.
        distrust: is told which transactions enough nodes deny; these are left out. Without it none is left out.

    Returns:
        The signature of the first transaction that must be waited for; None if all are booked.
    """
    agreed = chain.effects([each.signature for each in named], min(opinions, len(chain.nodes)))
    if distrust is not None:
        denied = _denied(
            connection, chain, [each for each, effect in zip(named, agreed, strict=True) if effect is None]
        )
        distrust.note(denied)
        agreed = [effect for each, effect in zip(named, agreed, strict=True) if each not in denied]
        named = [each for each in named if each not in denied]
    effects = _effects(connection, chain, treasury, named, agreed, opinions)
    connection.commit()
    booking = Booking(connection, treasury, adopt)
    for each, effect in zip(named, effects, strict=False):
        if isinstance(effect, Effect) and booking.take(effect, each.addresses):
            continue
        booking.finish()  # what comes before it stays booked
        if isinstance(effect, Temporary):
            raise effect
        return each.signature
    booking.finish()
    return None


def _effects(
    connection: Connection[Any],
    chain: Chain,
    treasury: Treasury,
    named: Sequence[New],
    agreed: Sequence[Effect | Temporary | None],
    opinions: int,
) -> list[Effect | Temporary | None]:
    """Return what each transaction did, up to the first one whose effect is not certain.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked.
        treasury: the treasury whose transactions these are.
        named: the transactions, oldest first.
        agreed: for each the effect that enough nodes report; None if too few report the same; or the error of asking.
        opinions: nodes that must report the same before it is believed.

    Returns:
        The effects, in order; the last one is None or an error if the effect of that transaction is not certain.
    """
    opinions = min(opinions, len(chain.nodes))
    effects: list[Effect | Temporary | None] = []
    for each, effect in zip(named, agreed, strict=True):
        known = effect
        if known is None:
            known = _remembered(connection, chain, treasury, each, opinions)
        if isinstance(known, Effect) and known.slot != each.slot:  # not the one that a node has named
            known = None
        effects.append(known)
        if not isinstance(known, Effect):
            break
    return effects


def _denied(connection: Connection[Any], chain: Chain, unknown: Sequence[New]) -> set[New]:
    """Return the transactions among `unknown` that a node has made up.

    A transaction is denied if at least `OPINIONS` nodes have the block that it should be in and do not know it, and
    fewer nodes report it. Otherwise a node that makes up transactions could keep later ones from being booked.
    An attempt of ours is never denied; it is waited for. If nodes together deny a transaction that has moved money, a
    difference between chain and journal remains. Then the history is read again and nothing is denied, so that the
    transaction is booked or payouts are frozen.
    """
    query = "SELECT signature FROM ledger.attempts WHERE signature = ANY(%s)"
    ours = {row[0] for row in connection.execute(query, ([each.signature for each in unknown],))}
    connection.commit()
    strange = [each for each in unknown if each.signature not in ours]
    looks = chain.looks([each.signature for each in strange], reach=True) if strange else []
    denied = set()
    for each in strange:
        able = [look for look in looks if look.node not in each.nodes and look.first_slot <= each.slot <= look.slot]
        denying = [look for look in able if look.statuses[each.signature] is None]
        if len(denying) >= max(OPINIONS, len(each.nodes) + 1):
            denied.add(each)
            log.info("transaction %s is named by a node and denied by others", each.signature)
    return denied


def _remembered(
    connection: Connection[Any], chain: Chain, treasury: Treasury, new: New, opinions: int
) -> Effect | None:
    """Return what an old transaction did, if fewer than `opinions` nodes still have its block.

    All nodes that still have the block must report the same; otherwise the result is None. It is also None for a slot
    before those already read, since a transaction that appears there is made up; and for a transaction that brings
    money, since a single node could make it up.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked.
        treasury: the treasury whose transaction it is.
        new: the transaction.
        opinions: nodes that would have to report the same if they still had the block.
    """
    until = _read_until(connection, treasury)
    connection.commit()
    effect = chain.remembered(new.signature, new.slot, opinions) if new.slot >= until else None
    if effect is not None and any(each > 0 for each in _changes(treasury, effect)):
        return None
    return effect


def _read_until(connection: Connection[Any], treasury: Treasury) -> int:
    """Return the slot up to which all histories of the treasury were read; 0 if none was read."""
    row = connection.execute(
        "SELECT coalesce(max(slot), 0) FROM ledger.chain_cursors WHERE address = ANY(%s)", (_addresses(treasury),)
    ).fetchone()
    assert row is not None  # of an aggregate
    return int(row[0])


def _addresses(treasury: Treasury) -> list[str]:
    """Return the addresses whose histories are read: the treasury's token account, and the account that pays fees."""
    return sorted({treasury.token_account, str(treasury.payer.gas)})


def _changes(treasury: Treasury, effect: Effect) -> tuple[int, int]:
    """Return by how much a transaction has changed the treasury's base units, and the lamports of its fee payer."""
    pix = effect.tokens.get(treasury.token_account, 0)
    return pix, effect.lamports.get(str(treasury.payer.gas), 0)


def _held(chain: Chain, treasury: Treasury, opinions: int) -> Held:
    """Return the treasury's balances at `finalized` as most nodes report them, and the oldest slot of these reports."""
    opinions = min(opinions, len(chain.nodes))
    slots: dict[tuple[int, int], list[int]] = {}  # of the nodes that say the same, by what they say
    for slot, (token, gas) in chain.all_accounts([treasury.token_account, str(treasury.payer.gas)], opinions=opinions):
        held = (int.from_bytes(token.data[64:72], "little") if token else 0, gas.lamports if gas else 0)
        slots.setdefault(held, []).append(slot)
    (pix, lamports), agreeing = max(slots.items(), key=lambda each: len(each[1]))
    return Held(min(agreeing), pix, lamports, len(agreeing) >= opinions)


def compare(connection: Connection[Any], held: Held) -> tuple[Finding, int]:
    """Compare what the treasury holds by the journal with what it holds on chain.

    The journal is read in one statement, since payouts may go on meanwhile. The finding is not conclusive if too few
    nodes report the same.

    Returns:
        What was found, and the newest slot that the journal knows of.
    """
    row = connection.execute(
        "SELECT -max(balance) FILTER (WHERE asset = 'PIX'), -max(balance) FILTER (WHERE asset = 'SOL'),"
        " greatest((SELECT max(slot) FROM ledger.attempts), (SELECT max(slot) FROM ledger.chain_cursors), 0)"
        " FROM ledger.accounts WHERE kind = 'chain' AND party = '' AND owner = 0"
    ).fetchone()
    connection.commit()
    assert row is not None  # of an aggregate
    journal_pix, journal_lamports, newest_slot = row
    problems = []
    if journal_pix != held.pix:
        problems.append(f"the treasury holds {held.pix} PIX units on chain and {journal_pix} in the journal")
    if journal_lamports != held.lamports:
        problems.append(f"the payer holds {held.lamports} lamports on chain and {journal_lamports} in the journal")
    finding = Finding(
        held.slot, journal_pix, held.pix, journal_lamports, held.lamports, held.is_agreed, tuple(problems)
    )
    return finding, newest_slot


def _new_signatures(
    connection: Connection[Any], chain: Chain, treasury: Treasury, opinions: int, slot: int, *, again: bool
) -> list[New]:
    """Return finalized transactions up to `slot` that were not read before, oldest first.

    The report of one node is enough, so that no other node can hide a transaction. If nodes report different slots for
    a transaction, the slot that most of them report counts.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes; those that have not reached `slot` are not asked.
        treasury: the treasury whose histories are read.
        opinions: nodes that must answer.
        slot: the last slot that is read.
        again: also return what is missing of the last `AGAIN_SLOTS` before the newest slot that was read.
    """
    claims: Counter[tuple[str, int]] = Counter()
    named: dict[str, dict[str, None]] = {}
    nodes: dict[str, set[str]] = {}
    since = 0 if again else _read_until(connection, treasury)
    for address in _addresses(treasury):
        row = connection.execute(
            "SELECT signature, slot, forgotten_slot FROM ledger.chain_cursors WHERE address = %s", (address,)
        ).fetchone()
        until, read_until, forgotten = row or (None, 0, 0)
        if again:
            until = _ours_before(connection, read_until - AGAIN_SLOTS)
        connection.commit()
        for each in chain.history(address, until, max(slot, read_until), min(opinions, len(chain.nodes))):
            # A node that has lost `until` names all it has, also what is archived. A transaction older than what was read is
            # either made up, or was left out, which shows as a difference.
            if max(forgotten + 1, since) <= each.slot <= slot:
                claims[each.signature, each.slot] += 1
                named.setdefault(each.signature, {})[address] = None
                nodes.setdefault(each.signature, set()).add(each.node)
    slots = {signature: slot for (signature, slot), _ in sorted(claims.items(), key=lambda claim: claim[1])}
    known = connection.execute(
        "SELECT signature FROM ledger.chain_transactions WHERE signature = ANY(%(all)s)"
        " UNION SELECT signature FROM ledger.past_batches WHERE signature = ANY(%(all)s)",
        {"all": list(slots)},
    ).fetchall()
    connection.commit()
    for (signature,) in known:
        del slots[signature]
    return [
        New(signature, slots[signature], tuple(named[signature]), frozenset(nodes[signature]))
        for signature in sorted(slots, key=slots.__getitem__)
    ]


def _ours_before(connection: Connection[Any], slot: int) -> str | None:
    """Return the signature of our last payout that landed up to a slot: history is read again from there.

    None: all of it is read.
    """
    for query in OURS:
        row = connection.execute(query, (slot,)).fetchone()
        if row is not None:
            return str(row[0])
    return None


class Booking:
    """The booking of one piece of the treasury's history: its transactions in order, committed together.

    Small deposits share one entry, since strangers can send thousands of them. The entry names the first and the last
    of them, and each of them names the entry (`chain_transactions.entry_id`).
    """

    def __init__(self, connection: Connection[Any], treasury: Treasury, adopt: Adopt) -> None:
        self._connection, self._treasury, self._adopt = connection, treasury, adopt
        self._dust: list[tuple[Effect, int, int]] = []
        self._cursors: dict[str, tuple[str, int]] = {}

    def take(self, effect: Effect, addresses: Sequence[str]) -> bool:
        """Book one transaction. Returns False, without booking it, if it is an attempt of ours that is not settled."""
        pix, lamports = _changes(self._treasury, effect)
        row = self._connection.execute(
            "SELECT a.state, b.ended_at IS NULL FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id"
            " WHERE a.signature = %s",
            (effect.signature,),
        ).fetchone()
        if row is not None and (row[0] == "live" or (row[0] == "expired" and row[1])):
            return False  # settling comes first, also of what was given up too early
        if row is None and is_dust(pix, lamports):
            self._dust.append((effect, pix, lamports))
        else:
            self._one(effect, pix, lamports, row and row[0])
        for address in addresses:
            self._cursors[address] = (effect.signature, effect.slot)
        return True

    def _one(self, effect: Effect, pix: int, lamports: int, state: str | None) -> None:
        """Book a transaction that is not a small deposit; `state` is that of its attempt, None if it is not ours."""
        entry_id = None
        if state is not None:
            kind = "attempt" if state in ("landed", "failed") else "unknown"
        elif pix < 0 or lamports < 0:
            self.finish()  # who adopts may ask a node, and nobody waits for that
            kind = ("attempt" if pix else "neutral") if self._adopt(effect) else "unknown"
        else:
            kind = "deposit" if pix or lamports else "neutral"
            entry_id = _book_deposit(self._connection, [(effect, pix, lamports)])
        if kind == "unknown":
            stops.freeze(self._connection, UNKNOWN, {"signature": effect.signature, "pix": pix, "lamports": lamports})
        _note(self._connection, [(effect, pix, lamports)], kind, entry_id)

    def finish(self) -> None:
        """Book the small deposits that were collected, move the cursors, and commit."""
        if self._dust:
            _note(self._connection, self._dust, "deposit", _book_deposit(self._connection, self._dust))
        for address, (signature, slot) in self._cursors.items():
            _move_cursor(self._connection, address, signature, slot)
        self._dust, self._cursors = [], {}
        book.commit(self._connection)


def is_dust(pix: int, lamports: int) -> bool:
    """Whether a transaction is a deposit so small that it needs no entry of its own."""
    return 0 <= pix < DUST_PIX and 0 <= lamports < DUST_LAMPORTS and (pix > 0 or lamports > 0)


def _note(
    connection: Connection[Any], done: Sequence[tuple[Effect, int, int]], kind: str, entry_id: int | None
) -> None:
    connection.execute(
        "INSERT INTO ledger.chain_transactions (signature, slot, delta_pix, delta_lamports, kind, entry_id)"
        " SELECT t.*, %s, %s FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[]) t ON CONFLICT DO NOTHING",
        (kind, entry_id, [effect.signature for effect, _, _ in done], [effect.slot for effect, _, _ in done],
         [pix for _, pix, _ in done], [lamports for _, _, lamports in done]),
    )  # fmt: skip


def _book_deposit(connection: Connection[Any], deposits: Sequence[tuple[Effect, int, int]]) -> int | None:
    """Book deposits: tokens fund `reward_pool`, lamports are the platform's, for fees and rent. Returns the entry, if any."""
    pix, lamports = sum(pix for _, pix, _ in deposits), sum(lamports for _, _, lamports in deposits)
    lines: list[tuple[int, int]] = []
    if pix:
        lines += [(book.account(connection, "chain"), -pix), (book.account(connection, "reward_pool"), pix)]
    if lamports:
        chain, platform = book.account(connection, "chain", "SOL"), book.account(connection, "platform", "SOL")
        lines += [(chain, -lamports), (platform, lamports)]
    if not lines:
        return None
    first, last = deposits[0][0], deposits[-1][0]
    key, document = f"deposit:{first.signature}", {"signature": first.signature, "slot": first.slot}
    if len(deposits) > 1:
        digest = hashlib.sha256("".join(effect.signature for effect, _, _ in deposits).encode()).hexdigest()
        document |= {"transactions": len(deposits), "last": last.signature, "sha256": digest}
    return book.post(connection, book.Entry("deposit", key, lines, document)).id


def _move_cursor(connection: Connection[Any], address: str, signature: str, slot: int) -> None:
    connection.execute(
        "INSERT INTO ledger.chain_cursors (address, signature, slot) VALUES (%s, %s, %s)"
        " ON CONFLICT (address) DO UPDATE SET signature = excluded.signature, slot = excluded.slot"
        " WHERE excluded.slot >= chain_cursors.slot",  # what was left out and is read again moves none back
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
