"""Reconciling: the journal, our attempts and the chain must tell one story, at one slot.

Every finalized transaction that touches the treasury is read once, oldest first: it is an attempt of ours, or it
brings money (a deposit, which funds `reward_pool`), or it changes nothing. Anything else, or a balance on chain that
is not the journal's, freezes payouts and says where. Knows nothing of how payouts are made.

Strangers write in that history what they like, so nothing in it is waited for without an end but what is ours. A
transaction that nodes agree on and nobody here can read is passed over after a while, and named by the log. It stops
nothing: had it moved money, the balances differ, and then it is read again, and payouts are frozen with its name, until a
release that can read it, or an order that corrects the journal. To freeze for every such one would let strangers do that.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, LiteralString, NamedTuple

from psycopg import Connection

from cluster.errors import Temporary
from ledger import book, stops
from ledger.chain import WHOLE_MAX, Chain, Effect, Named, Unreadable
from ledger.rail import OPINIONS
from ledger.treasury import Treasury

log = logging.getLogger(__name__)

ROUND_MAX = 2_000  # transactions that a round books
PIECE_MAX = 200  # of them in one transaction of the database
DENIED_MAX = 20  # that a node has named and others deny: then what it alone names is left out for so long
DISTRUST_S = 3600.0
UNREAD_S = 600.0  # that transactions which cannot be read are waited for: it may be the nodes' trouble, not theirs
UNREAD_MAX = 10  # of them that a difference names
AGAIN_SLOTS = 432_000  # a day or two: how far back is read again where the chain and the journal differ
AGAIN_MAX = 3  # rounds in which that is tried for one difference: then payouts are frozen, and it is tried once in
AGAIN_PAUSE_S = 3600.0
DUST_PIX, DUST_LAMPORTS = 10_000, 1_000_000  # base units and lamports below which deposits share an entry
MISMATCH = "the chain and the journal differ"
UNKNOWN = "an unknown transaction took money from the treasury"
# The last payout that had landed by a slot: of those that are in the tables, and else of those that are archived.
OURS: tuple[LiteralString, ...] = (
    (
        "SELECT a.signature FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id AND b.kind = 'payout'"
        " WHERE a.state = 'landed' AND a.slot <= %s ORDER BY a.slot DESC LIMIT 1"
    ),
    "SELECT signature FROM ledger.past_batches WHERE kind = 'payout' AND slot <= %s ORDER BY slot DESC LIMIT 1",
)

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
    has_more: bool = False  # than one round takes

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Held:
    """What the treasury holds on chain at a slot, and whether as many nodes say so as it needs."""

    slot: int
    pix: int
    lamports: int
    is_agreed: bool


@dataclass
class Unread:
    """Transactions that are there and that nobody here can read."""

    since: float | None = None  # when the first was met of those that there were lately
    met_at: float = 0.0
    passed: dict[str, None] = field(default_factory=dict)  # the last that were passed over

    def may_pass(self) -> bool:
        """Whether such have been waited for long enough; who sends one after the other does not begin the time again."""
        now = time.monotonic()
        if self.since is None or now - self.met_at > DISTRUST_S:
            self.since = now
        self.met_at = now
        return now - self.since >= UNREAD_S

    def pass_over(self, signature: str) -> None:
        if signature not in self.passed:
            log.error("a transaction that nobody can read is passed over: %s", signature)
        self.passed[signature] = None
        for old in list(self.passed)[:-UNREAD_MAX]:
            del self.passed[old]


@dataclass
class Distrust:
    """Nodes that have named more transactions which others deny than a mistake explains; and what none of them explains."""

    denied: Counter[str] = field(default_factory=Counter)  # by node, since that was last too many
    until: dict[str, float] = field(default_factory=dict)
    unread: Unread = field(default_factory=Unread)

    def note(self, made_up: Iterable[New]) -> None:
        """Others deny these."""
        for each in made_up:
            self.denied.update(each.nodes)
        for node in [node for node, count in self.denied.items() if count > DENIED_MAX]:
            log.error("a node names transactions that others deny: it is not believed alone for a while: %s", node)
            self.until[node] = time.monotonic() + DISTRUST_S
            del self.denied[node]

    def believed(self, named: Sequence[New]) -> list[New]:
        """Those of these that another node names, too, or one that is believed alone."""
        nobody = {node for node, until in self.until.items() if time.monotonic() < until}
        return [each for each in named if not nobody.issuperset(each.nodes)] if nobody else list(named)


class New(NamedTuple):
    """A transaction that was not read before, as histories have it: of which addresses, and by which nodes."""

    signature: str
    slot: int
    addresses: Sequence[str]
    nodes: Collection[str]


class News(NamedTuple):
    """What was not read before, oldest first: all that is from slot `since` to slot `until`."""

    named: list[New]
    since: int
    until: int


class Passed(NamedTuple):
    """In place of what a transaction did, which cannot be read."""


@dataclass
class Difference:
    """By how much the chain and the journal have differed lately, and how often history was read again for that."""

    amounts: tuple[int, int] = (0, 0)
    reads: int = 0
    again_at: float = 0.0

    def may_read(self, finding: Finding) -> bool:
        """Whether history is to be read again, which then counts as done."""
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
    """Read what is new on chain, book deposits, compare; freeze on any difference. `adopt` may know the unknown.

    What a transaction did is believed when `opinions` nodes say it, or all of them where there are fewer. At most
    `ROUND_MAX` transactions are booked; while there are more, nothing is compared conclusively. What comes between reading
    the history and the treasury is booked before they are compared, so that strangers cannot keep it from an end. Before
    payouts are frozen for a difference, what was read of late is read again: nodes may have left something out. `difference`
    remembers from round to round how often that was tried, `distrust` which nodes have made transactions up.
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
        waits_for, is_all = adopt_history(connection, chain, treasury, held.slot, adopt, opinions, distrust, again=True)
        finding, newest_slot = compare(connection, held)
    if not finding.conclusive or waits_for or not is_all or finding.slot < newest_slot:
        return replace(finding, conclusive=False, problems=(), waits_for=waits_for, has_more=not is_all)
    if finding.problems:
        unread = (f"transaction {each} was passed over: it cannot be read" for each in distrust.unread.passed)
        finding = replace(finding, problems=(*finding.problems, *unread))
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

    Only nodes that have reached the slot are asked: what one that lags does not know yet, another one could leave out, and
    what comes after it would be read before it. `again`: also what is missing of the last `AGAIN_SLOTS` before.

    What a node names and enough others deny is left out, and where it has done that too often all that it alone names; but not
    where history is read again for a difference. What cannot be read is passed over in time.

    Returns the signature of one that must be waited for, where there is one (it is ours and not settled yet, or the nodes
    that still have its block have not yet agreed on what it did), and whether all were looked at.
    """
    distrust = distrust or Distrust()
    news = _new_signatures(connection, chain, treasury, opinions, slot, again=again)
    named = news.named
    for _ in range(0, ROUND_MAX, PIECE_MAX):
        named = named if again else distrust.believed(named)  # with what the last piece has shown
        if not named:
            break
        piece, named = named[:PIECE_MAX], named[PIECE_MAX:]
        before = named[0].slot if named else WHOLE_MAX
        reading = Reading(connection, chain, treasury, opinions, distrust, news.since, news.until, again)
        waits_for = _book_piece(reading, adopt, piece, before)
        if waits_for is not None:
            return waits_for, True
    return None, not named and news.until >= slot


@dataclass(frozen=True)
class Reading:
    """By whom a piece of the history is read, and between which slots anything in it is new."""

    connection: Connection[Any]
    chain: Chain
    treasury: Treasury
    opinions: int
    distrust: Distrust
    since: int
    until: int
    again: bool  # for a difference: nothing is denied

    @property
    def needed(self) -> int:
        return min(self.opinions, len(self.chain.nodes))


def _book_piece(reading: Reading, adopt: Adopt, named: Sequence[New], before: int) -> str | None:
    """Book these in one transaction of the database; the signature of one that must be waited for, where there is one.

    `before`: the slot from which on others follow. No node is asked while the transaction is open, nor is anybody kept
    waiting by what a node does not say.
    """
    connection = reading.connection
    told = reading.chain.effects([each.signature for each in named], reading.needed, mint=reading.treasury.mint)
    effects = _effects(reading, [(each, did) for each, did in zip(named, told, strict=True)])
    connection.commit()
    booking = Booking(connection, reading.treasury, adopt)
    for each, effect in effects:
        booking.come_to(each.slot)
        if isinstance(effect, Passed):
            booking.pass_over(each)
            continue
        if isinstance(effect, Effect) and booking.take(effect, each):
            continue
        booking.finish()  # what comes before it stays booked
        if isinstance(effect, Temporary):
            raise effect
        return each.signature
    booking.come_to(before)
    booking.finish()
    return None


Told = Effect | Temporary | Passed | None


def _effects(reading: Reading, told: Sequence[tuple[New, Told]]) -> list[tuple[New, Told]]:
    """What each did, up to the first of which that cannot be said; `told` is what enough nodes say. Without what a node has
    made up.
    """
    found: list[tuple[New, Told]] = []
    may_pass: bool | None = None
    for each, effect in _believed(reading, told):
        known = _remembered(reading, each) if effect is None else _fitting(reading, effect)
        if isinstance(known, Unreadable) and (effect is None or len(each.nodes) >= reading.needed):
            may_pass = _may_pass(reading) if may_pass is None else may_pass
            if may_pass and not _ours(reading.connection, [each.signature]):
                reading.distrust.unread.pass_over(each.signature)
                known = Passed()
        found.append((each, known))
        if not isinstance(known, (Effect, Passed)):
            break
        if isinstance(known, Effect):
            reading.distrust.unread.passed.pop(each.signature, None)
    return found


def _fitting(reading: Reading, effect: Told) -> Told:
    """What was done, where the journal can hold it: a mint can make more than that."""
    if isinstance(effect, Effect) and any(abs(each) > WHOLE_MAX for each in _changes(reading.treasury, effect)):
        return Unreadable(f"transaction {effect.signature} moves more than the journal can hold")
    return effect


def _may_pass(reading: Reading) -> bool:
    """Whether what cannot be read is passed over by now.

    Where nodes tell nothing that can be read, also of what was, the trouble is theirs, and is waited for.
    """
    return (reading.distrust.unread.may_pass() or reading.again) and _can_read(reading)


def _can_read(reading: Reading) -> bool:
    """Whether nodes tell of the last transaction that was read in a way that can be read."""
    row = reading.connection.execute(
        "SELECT signature FROM ledger.chain_transactions ORDER BY slot DESC LIMIT 1"
    ).fetchone()
    reading.connection.commit()
    if row is None:
        return True
    (effect,) = reading.chain.effects([row[0]], reading.needed, mint=reading.treasury.mint)
    return not isinstance(effect, Temporary)


def _believed(reading: Reading, told: Sequence[tuple[New, Told]]) -> list[tuple[New, Told]]:
    """The same without what nodes have made up: others deny it, or it is of another time, in which it was read. The former only
    where nothing is read again.
    """
    made_up = {
        each
        for each, effect in told
        if isinstance(effect, Effect) and not reading.since <= effect.slot <= reading.until
    }
    if not reading.again:
        unknown = [each for each, effect in told if effect is None]
        made_up |= _denied(reading.connection, reading.chain, unknown)
        reading.distrust.note(made_up)
    return [(each, effect) for each, effect in told if each not in made_up]


def _ours(connection: Connection[Any], signatures: Sequence[str]) -> set[str]:
    """Those of our own that have landed or may still be settled. What was given up and whose batch has ended is not."""
    rows = connection.execute(
        "SELECT a.signature FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id"
        " WHERE a.signature = ANY(%s) AND NOT (a.state = 'expired' AND b.ended_at IS NOT NULL)",
        (list(signatures),),
    ).fetchall()
    connection.commit()
    return {row[0] for row in rows}


def _denied(connection: Connection[Any], chain: Chain, unknown: Sequence[New]) -> set[New]:
    """Of these transactions those that a node has made up: `OPINIONS` others, and more than name one, have the block that it
    is said to be in, and know of none.

    Who makes them up could else keep the rest from being booked for as long as it is asked. Never one of ours that has landed
    or that settling is to end, which is waited for; one that was given up, of a batch that has ended, could be named for ever.
    Nodes that together deny what has moved money leave a difference, as each of ours does, by its fee alone; for that history
    is read again, and nothing is denied: it is booked, or payouts are frozen.
    """
    ours = _ours(connection, [each.signature for each in unknown]) if unknown else set()
    strange = [each for each in unknown if each.signature not in ours]
    looks = chain.looks([each.signature for each in strange], reach=True) if strange else []
    found = set()
    for each in strange:
        able = [look for look in looks if look.node not in each.nodes and look.first_slot <= each.slot <= look.slot]
        denying = [look for look in able if look.statuses[each.signature] is None]
        if len(denying) >= max(OPINIONS, len(each.nodes) + 1):
            found.add(each)
            log.info("transaction %s is named by a node and denied by others", each.signature)
    return found


def _remembered(reading: Reading, new: New) -> Told:
    """What a transaction did by fewer nodes than `opinions`; None while not enough of those say it that can.

    Who no longer has that block may abstain, but not for one before what was read: then the slot is made up. Where fewer
    than `opinions` are left, what brings money is waited for: else one of them alone could make it up.
    """
    until = _read_until(reading.connection, reading.treasury)
    reading.connection.commit()
    if new.slot < until:
        return None
    try:
        effect = reading.chain.remembered(new.signature, new.slot, reading.needed, mint=reading.treasury.mint)
    except Temporary as error:
        return error
    if effect is None or effect.slot != new.slot:  # not the one that a node has named
        return None
    return None if any(each > 0 for each in _changes(reading.treasury, effect)) else effect


def _read_until(connection: Connection[Any], treasury: Treasury) -> int:
    """The newest slot that was read of the treasury's histories; 0 where nothing was."""
    row = connection.execute(
        "SELECT coalesce(max(slot), 0) FROM ledger.chain_cursors WHERE address = ANY(%s)", (_addresses(treasury),)
    ).fetchone()
    assert row is not None  # of an aggregate
    return int(row[0])


def _addresses(treasury: Treasury) -> list[str]:
    """Those whose histories are read: whose tokens are paid out, and who pays the fees."""
    return sorted({treasury.token_account, str(treasury.payer.gas)})


def _changes(treasury: Treasury, effect: Effect) -> tuple[int, int]:
    """By how much a transaction has changed the treasury's tokens, and the lamports of who pays its fees."""
    pix = effect.tokens.get(treasury.token_account, 0)
    return pix, effect.lamports.get(str(treasury.payer.gas), 0)


def _held(chain: Chain, treasury: Treasury, opinions: int) -> Held:
    """What the treasury holds on chain, finalized; `slot` is the oldest at which as many nodes as say the same say it."""
    opinions = min(opinions, len(chain.nodes))
    slots: dict[tuple[int, int], list[int]] = {}
    for at, (token, gas) in chain.all_accounts([treasury.token_account, str(treasury.payer.gas)], opinions=opinions):
        held = (int.from_bytes(token.data[64:72], "little") if token else 0, gas.lamports if gas else 0)
        if held[0] > WHOLE_MAX:
            raise Temporary(f"a node says that the treasury holds {held[0]} base units, more than the journal can")
        slots.setdefault(held, []).append(at)
    (pix, lamports), said = max(slots.items(), key=lambda each: len(each[1]))
    return Held(min(said), pix, lamports, len(said) >= opinions)


def compare(connection: Connection[Any], held: Held) -> tuple[Finding, int]:
    """The journal's view of the treasury beside the chain's; and the newest slot that the journal knows of.

    All of the journal is read at one moment: payouts may go on meanwhile. Inconclusive where too few nodes say the same.
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
) -> News:
    """Finalized transactions up to `slot` that were not read before, oldest first, by any node that has reached it.

    Any node's word that there is one counts, so that none of them alone can hide what has moved money. Where there are more
    than are read at once, those are left out that come later than all is read of every address.
    """
    opinions, read_until = min(opinions, len(chain.nodes)), _read_until(connection, treasury)
    since, until, forgotten_max = 0 if again else read_until, slot, 0
    told: list[tuple[str, int, list[Named]]] = []
    for address in _addresses(treasury):
        row = connection.execute(
            "SELECT signature, slot, forgotten_slot FROM ledger.chain_cursors WHERE address = %s", (address,)
        ).fetchone()
        last, at, forgotten = row or (None, 0, 0)
        if again:
            last = _ours_before(connection, at - AGAIN_SLOTS)
        connection.commit()
        slot_min, until_slot = max(slot, at), None if again else at
        history = chain.history(address, last, slot_min, opinions, until_slot=until_slot)
        # A node that has lost `last` names all it has, also what is archived. What is older than what was read is either
        # made up or was left out, which shows as a difference.
        told.append((address, max(forgotten + 1, since), history.named))
        until, forgotten_max = min(until, history.slot_max), max(forgotten_max, forgotten)
    claims: dict[str, dict[int, set[str]]] = {}
    addresses: dict[str, dict[str, None]] = {}
    for address, least, named in told:
        for each in named:
            if least <= each.slot <= until:
                claims.setdefault(each.signature, {}).setdefault(each.slot, set()).add(each.node)
                addresses.setdefault(each.signature, {})[address] = None
    known = connection.execute(
        "SELECT signature FROM ledger.chain_transactions WHERE signature = ANY(%(all)s)"
        " UNION SELECT signature FROM ledger.past_batches WHERE signature = ANY(%(all)s)",
        {"all": list(claims)},
    ).fetchall()
    connection.commit()
    for (signature,) in known:
        del claims[signature]
    new = [
        New(signature, _slot_of(slots, opinions), tuple(addresses[signature]), frozenset().union(*slots.values()))
        for signature, slots in claims.items()
    ]
    return News(sorted(new, key=lambda each: each.slot), max(since, forgotten_max + 1), until)


def _slot_of(claims: Mapping[int, Collection[str]], opinions: int) -> int:
    """The slot that most nodes name, once each, where that are enough; else the lowest: it comes before none that is later.

    What it did tells the slot that is true, and until then no cursor moves beyond this one.
    """
    most = max(len(nodes) for nodes in claims.values())
    return min(slot for slot, nodes in claims.items() if len(nodes) == most or most < opinions)


def _ours_before(connection: Connection[Any], slot: int) -> str | None:
    """The last payout of ours that had landed by a slot: history is read again from there on, or all of it."""
    for query in OURS:
        row = connection.execute(query, (slot,)).fetchone()
        if row is not None:
            return str(row[0])
    return None


class Booking:
    """The treasury's transactions of one piece of its history, booked in their order and committed together.

    What strangers send by the thousand comes to one entry for many: it names the first and the last, and every one of them
    names it (`chain_transactions.entry_id`).
    """

    def __init__(self, connection: Connection[Any], treasury: Treasury, adopt: Adopt) -> None:
        self._connection, self._treasury, self._adopt = connection, treasury, adopt
        self._dust: list[tuple[Effect, int, int]] = []
        self._taken: list[tuple[New, int]] = []  # each with the slot that must be reached before a cursor is at it
        self._slot = 0

    def come_to(self, slot: int) -> None:
        """Nothing that follows is from before this slot."""
        self._slot = slot

    def pass_over(self, new: New) -> None:
        """Leave one unread."""
        self._taken.append((new, new.slot))

    def take(self, effect: Effect, new: New) -> bool:
        """Book one; False when it is ours and still to be settled, or something of it must be waited for."""
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
        is_in_order = effect.slot == new.slot  # else others of its slot may follow that come before it
        self._taken.append((new._replace(slot=effect.slot), effect.slot if is_in_order else effect.slot + 1))
        return True

    def _one(self, effect: Effect, pix: int, lamports: int, state: str | None) -> None:
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
        """Book what was put aside, move the cursors as far as nothing is left out, and commit."""
        if self._dust:
            _note(self._connection, self._dust, "deposit", _book_deposit(self._connection, self._dust))
        last: dict[str, New] = {}
        for each, reached in self._taken:
            if reached <= self._slot:
                last |= {name: each for name in each.addresses if name not in last or each.slot >= last[name].slot}
        for address, each in last.items():
            _move_cursor(self._connection, address, each.signature, each.slot)
        self._dust, self._taken = [], [(each, reached) for each, reached in self._taken if reached > self._slot]
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
    """Tokens fund `reward_pool`; lamports are the platform's, for fees and rent."""
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
