"""Reconciling: the journal, our attempts and the chain must agree, at one slot.

Every finalized transaction that touches the treasury is read once, oldest first: it is an attempt of ours, or it
brings money (a deposit, which funds `reward_pool`), or it changes nothing. Anything else, or a balance on chain that
differs from the journal's, freezes payouts and says where. Knows nothing of how payouts are made.
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
    """Adopt nothing: the default where nothing was restored."""
    return False


@dataclass(frozen=True)
class Finding:
    """What a reconciliation found.

    `conclusive` is False if nothing follows from it: too few nodes report the same, transactions are not booked yet, or the
    journal knows a newer slot than the one compared.
    `waits_for` is the signature of a transaction that is not booked yet: either it is ours and not settled, or nodes disagree.
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
    """What the treasury holds on chain at a slot, and whether enough nodes report it."""

    slot: int
    pix: int
    lamports: int
    is_agreed: bool


@dataclass
class Distrust:
    """Nodes that are not believed alone for a while: too many of the transactions that they named were denied by others."""

    denied: Counter[str] = field(default_factory=Counter)  # by node, since that was last too many
    until: dict[str, float] = field(default_factory=dict)

    def note(self, made_up: Iterable[New]) -> None:
        """Note transactions that enough nodes deny."""
        for each in made_up:
            self.denied.update(each.nodes)
        for node in [node for node, count in self.denied.items() if count > DENIED_MAX]:
            log.error("a node names transactions that others deny: it is not believed alone for a while: %s", node)
            self.until[node] = time.monotonic() + DISTRUST_S
            del self.denied[node]

    def believed(self, named: Sequence[New]) -> list[New]:
        """Leave out the transactions that are named only by nodes which are not believed alone."""
        nobody = {node for node, until in self.until.items() if time.monotonic() < until}
        return [each for each in named if not nobody.issuperset(each.nodes)] if nobody else list(named)


class New(NamedTuple):
    """A transaction that was not read before, with the addresses whose histories contain it, and the nodes that report it."""

    signature: str
    slot: int
    addresses: Sequence[str]
    nodes: Collection[str]


@dataclass
class Difference:
    """The last difference of chain and journal (base units, lamports), and how often history was read again because of it."""

    amounts: tuple[int, int] = (0, 0)
    reads: int = 0
    again_at: float = 0.0

    def may_read(self, finding: Finding) -> bool:
        """Whether the history may be read once more because of this finding; if so, that counts as a read."""
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

    At most `ROUND_MAX` transactions are booked; while there are more, the comparison is not conclusive. Transactions that
    arrive between reading the history and reading the treasury are booked before the two are compared, so that a stranger
    who sends all the time cannot keep the comparison from a conclusion. Before payouts are frozen for a difference, recent
    history is read again: nodes may have left something out.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked.
        treasury: whose transactions and balances are compared.
        adopt: is given a transaction that no attempt knows, and says whether it has booked it.
        opinions: nodes that must say the same before it is believed; all of them where there are fewer.
        difference: remembers from round to round how often history was read again.
        distrust: remembers from round to round which nodes have named transactions that others deny.

    Returns:
        What was found. It is written down, where it is conclusive.

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
    """Book finalized transactions since the last time up to `slot`, piece by piece, oldest first.

    Only nodes that have reached the slot are asked. Otherwise, if one node left a transaction out and a lagging one did not
    know it yet, later ones would be booked before it. A transaction that one node reports and enough others deny is left
    out, unless the history is read because of a difference.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked.
        treasury: whose history is read.
        slot: up to which it is read.
        adopt: is given a transaction that no attempt knows, and says whether it has booked it.
        opinions: nodes that must say the same before it is believed.
        distrust: nodes in it are not believed alone; hears what others deny.
        again: also book what is missing of the last `AGAIN_SLOTS` before the newest slot that was read.

    Returns:
        The signature of a transaction that must be waited for, or None (it is ours and not settled yet, or nodes that still
        have its block do not agree on what it did); and whether all transactions were looked at.
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
    """Book these in one transaction of the database; no node is asked while it is open, so that no other part waits for it.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked.
        treasury: whose transactions these are.
        adopt: is given a transaction that no attempt knows, and says whether it has booked it.
        opinions: nodes that must say the same before it is believed.
        named: the transactions, oldest first.
        distrust: hears of transactions that enough nodes deny, which are left out; without it none is left out.

    Returns:
        The signature of the first that must be waited for, or None where all are booked.
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
        treasury: whose transactions these are.
        named: the transactions, oldest first.
        agreed: what enough nodes say of each; None where they do not.
        opinions: nodes that must say the same before it is believed.

    Returns:
        For each an effect, or why nothing is known; the last may be None or an error.
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

    A transaction is denied if at least `OPINIONS` other nodes, and more than report it, have the block that it should be in
    and do not know it. Otherwise a node that makes transactions up could keep later ones from being booked. An attempt of
    ours is never denied but waited for. If nodes together deny a transaction that has moved money, a difference remains.
    Then the history is read again without denying: so it is booked, or payouts are frozen.
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
    """Return what an old transaction did, when so few nodes still have its block that `opinions` can no longer be asked.

    All nodes that still have the block must report the same; otherwise returns None. Also returns None for a slot before
    those already read, since a transaction that turns up there is made up, and for a transaction that brings money, since
    a single node could make it up.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked.
        treasury: whose transaction it is.
        new: the transaction.
        opinions: nodes that would be needed.
    """
    until = _read_until(connection, treasury)
    connection.commit()
    effect = chain.remembered(new.signature, new.slot, opinions) if new.slot >= until else None
    if effect is not None and any(each > 0 for each in _changes(treasury, effect)):
        return None
    return effect


def _read_until(connection: Connection[Any], treasury: Treasury) -> int:
    """Return the newest slot up to which the treasury's histories were read; 0 if none was read."""
    row = connection.execute(
        "SELECT coalesce(max(slot), 0) FROM ledger.chain_cursors WHERE address = ANY(%s)", (_addresses(treasury),)
    ).fetchone()
    assert row is not None  # of an aggregate
    return int(row[0])


def _addresses(treasury: Treasury) -> list[str]:
    """Return the addresses whose histories are read: the treasury's token account, and the payer of fees."""
    return sorted({treasury.token_account, str(treasury.payer.gas)})


def _changes(treasury: Treasury, effect: Effect) -> tuple[int, int]:
    """Return by how much a transaction has changed the treasury's base units, and the lamports of its payer of fees."""
    pix = effect.tokens.get(treasury.token_account, 0)
    return pix, effect.lamports.get(str(treasury.payer.gas), 0)


def _held(chain: Chain, treasury: Treasury, opinions: int) -> Held:
    """Return what most nodes report that the treasury holds at `finalized`, and the oldest slot of these reports."""
    opinions = min(opinions, len(chain.nodes))
    slots: dict[tuple[int, int], list[int]] = {}  # of the nodes that say the same, by what they say
    for slot, (token, gas) in chain.all_accounts([treasury.token_account, str(treasury.payer.gas)], opinions=opinions):
        held = (int.from_bytes(token.data[64:72], "little") if token else 0, gas.lamports if gas else 0)
        slots.setdefault(held, []).append(slot)
    (pix, lamports), agreeing = max(slots.items(), key=lambda each: len(each[1]))
    return Held(min(agreeing), pix, lamports, len(agreeing) >= opinions)


def compare(connection: Connection[Any], held: Held) -> tuple[Finding, int]:
    """Compare what the treasury holds by the journal with what it holds on chain.

    The journal is read in one statement, since payouts may go on meanwhile. Not conclusive if too few nodes report the same.

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

    A report by one node is enough, so that no single node can hide what has moved money. If nodes report different slots for a
    transaction, the slot that most of them report counts.

    Args:
        connection: of the ledger. It is committed.
        chain: the nodes that are asked, of which those count that have reached the slot.
        treasury: whose histories are read.
        opinions: nodes that must answer.
        slot: up to which histories are read.
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
    """Return the signature of our last payout that landed up to a slot, from where history is read again; None: all is read."""
    for query in OURS:
        row = connection.execute(query, (slot,)).fetchone()
        if row is not None:
            return str(row[0])
    return None


class Booking:
    """The treasury's transactions of one piece of its history, booked in their order and committed together.

    Small deposits share one entry, since strangers can send thousands of them. The entry names the first and the last of
    them, and each of them names the entry (`chain_transactions.entry_id`).
    """

    def __init__(self, connection: Connection[Any], treasury: Treasury, adopt: Adopt) -> None:
        self._connection, self._treasury, self._adopt = connection, treasury, adopt
        self._dust: list[tuple[Effect, int, int]] = []
        self._cursors: dict[str, tuple[str, int]] = {}

    def take(self, effect: Effect, addresses: Sequence[str]) -> bool:
        """Book one transaction. Returns False if it is an attempt of ours that must be settled first."""
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
        """Book a transaction other than a small deposit; `state` is that of its attempt, None where no attempt knows it."""
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
        """Book the small deposits that were put aside, move the cursors, and commit."""
        if self._dust:
            _note(self._connection, self._dust, "deposit", _book_deposit(self._connection, self._dust))
        for address, (signature, slot) in self._cursors.items():
            _move_cursor(self._connection, address, signature, slot)
        self._dust, self._cursors = [], {}
        book.commit(self._connection)


def is_dust(pix: int, lamports: int) -> bool:
    """Whether a deposit is so small that it needs no entry of its own."""
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
