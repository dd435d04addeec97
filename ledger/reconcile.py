"""Reconciling: the journal, our attempts and the chain must tell one story, at one slot.

Every finalized transaction that touches the treasury is read once, oldest first: it is an attempt of ours, or it
brings money (a deposit, which funds `reward_pool`), or it changes nothing. Anything else, or a balance on chain that
is not the journal's, freezes payouts and says where. Knows nothing of how payouts are made.
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
from ledger import book, stops
from ledger.chain import Chain, Effect
from ledger.rail import OPINIONS
from ledger.treasury import Treasury

log = logging.getLogger(__name__)

ROUND_MAX = 2_000  # transactions that a round books
PIECE_MAX = 200  # of them in one transaction of the database
DENIED_MAX = 20  # that a node has named and others deny: then what it alone names is left out for so long
DISTRUST_S = 3600.0
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
class Distrust:
    """Nodes that have named more transactions which others deny than a mistake explains."""

    denied: Counter[str] = field(default_factory=Counter)  # by node, since that was last too many
    until: dict[str, float] = field(default_factory=dict)

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

    Only nodes that have reached the slot are asked: what one that lags does not know yet, another one could leave out, and
    what comes after it would be read before it. `again`: also what is missing of the last `AGAIN_SLOTS` before.

    What a node names and enough others deny is left out, and where it has done that too often all that it alone names; but not
    where history is read again for a difference.

    Returns the signature of one that must be waited for, where there is one (it is ours and not settled yet, or the nodes
    that still have its block have not yet agreed on what it did), and whether all were looked at.
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
    """Book these in one transaction of the database; the signature of one that must be waited for, where there is one.

    `distrust` hears what others deny; without it nothing is denied. No node is asked while the transaction is open, nor is
    anybody kept waiting by what a node does not say.
    """
    told = chain.effects([each.signature for each in named], min(opinions, len(chain.nodes)))
    if distrust is not None:
        denied = _denied(connection, chain, [each for each, effect in zip(named, told, strict=True) if effect is None])
        distrust.note(denied)
        told = [effect for each, effect in zip(named, told, strict=True) if each not in denied]
        named = [each for each in named if each not in denied]
    effects = _effects(connection, chain, treasury, named, told, opinions)
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
    told: Sequence[Effect | Temporary | None],
    opinions: int,
) -> list[Effect | Temporary | None]:
    """What each did, up to the first of which that cannot be said; `told` is what enough nodes say."""
    opinions = min(opinions, len(chain.nodes))
    found: list[Effect | Temporary | None] = []
    for each, effect in zip(named, told, strict=True):
        known = effect
        if known is None:
            known = _remembered(connection, chain, treasury, each, opinions)
        if isinstance(known, Effect) and known.slot != each.slot:  # not the one that a node has named
            known = None
        found.append(known)
        if not isinstance(known, Effect):
            break
    return found


def _denied(connection: Connection[Any], chain: Chain, unknown: Sequence[New]) -> set[New]:
    """Of these transactions those that a node has made up: `OPINIONS` others, and more than name one, have the block that it
    is said to be in, and know of none.

    Who makes them up could else keep the rest from being booked for as long as it is asked. Never one of ours, which is waited
    for. Nodes that together deny what has moved money leave a difference; for that history is read again, and nothing is
    denied: it is booked, or payouts are frozen.
    """
    query = "SELECT signature FROM ledger.attempts WHERE signature = ANY(%s)"
    ours = {row[0] for row in connection.execute(query, ([each.signature for each in unknown],))}
    connection.commit()
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


def _remembered(
    connection: Connection[Any], chain: Chain, treasury: Treasury, new: New, opinions: int
) -> Effect | None:
    """What a transaction did by fewer nodes than `opinions`; None while not enough of those say it that can.

    Who no longer has that block may abstain, but not for one before what was read: then the slot is made up. Where fewer
    than `opinions` are left, what brings money is waited for: else one of them alone could make it up.
    """
    until = _read_until(connection, treasury)
    connection.commit()
    effect = chain.remembered(new.signature, new.slot, opinions) if new.slot >= until else None
    if effect is not None and any(each > 0 for each in _changes(treasury, effect)):
        return None
    return effect


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
) -> list[New]:
    """Finalized transactions up to `slot` that were not read before, oldest first, by any node that has reached it; of
    several slots of one it is the one that most name.

    Any node's word that there is one counts, so that none of them alone can hide what has moved money.
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
            # A node that has lost `until` names all it has, also what is archived. What is older than what was read is either
            # made up or was left out, which shows as a difference.
            if max(forgotten + 1, since) <= each.slot <= slot:
                claims[each.signature, each.slot] += 1
                named.setdefault(each.signature, {})[address] = None
                nodes.setdefault(each.signature, set()).add(each.node)
    slots = {signature: at for (signature, at), _ in sorted(claims.items(), key=lambda claim: claim[1])}
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
        self._cursors: dict[str, tuple[str, int]] = {}

    def take(self, effect: Effect, addresses: Sequence[str]) -> bool:
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
        for address in addresses:
            self._cursors[address] = (effect.signature, effect.slot)
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
        """Book what was put aside, move the cursors, and commit."""
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
