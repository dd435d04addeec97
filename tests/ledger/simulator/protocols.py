"""Protocols that are known to be wrong: the simulation must catch each of them, or it proves nothing about ours.

Each changes one decision. Its climate is aimed at the fault, so that few seeds are enough: what a mild world shows in
thousands, a world that is made for it shows in some.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, LiteralString
from unittest.mock import patch

from ledger.journal import book
from ledger.payouts import adoption, batches, owed, payouts, planning, reconcile, signing
from ledger.payouts.batches import Attempt, Batch, BatchLine
from ledger.payouts.rail import ChainRail, Rail
from ledger.payouts.reconcile import Finding, Held
from ledger.risk import stops
from ledger.solana.chain import Blockhash, Chain, Effect, Look, _blockhash, _effect, _epoch
from ledger.solana_rail import evidence, trials, upkeep
from ledger.solana_rail.solana_rail import SolanaRail
from tests.ledger.simulator.climate import DEEDS, FAULTS, Climate, Restoring, Weather


@dataclass(frozen=True)
class Wrong:
    """One of them. `kinds` are what it must be caught by, one of which is enough, within so many `seeds`."""

    name: str
    climate: Climate
    kinds: tuple[str, ...] = ("double", "phantom")
    rail: type[SolanaRail] = SolanaRail
    chain: type[Chain] = Chain
    patches: tuple[tuple[Any, str, Any], ...] = ()
    judged: Mapping[str, int] = field(default_factory=dict)  # settings of what is doubtful, instead of the climate's
    seeds: int = 30

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, value in self.patches:
                stack.enter_context(patch.object(owner, name, value))
            yield


# ── Weather that is aimed ──────────────────────────────────────────────────────────────────────────────────────────

NOTHING: Mapping[str, float] = dict.fromkeys((*FAULTS, *DEEDS), 0.0)
FAIR = Weather(0, 0, 0, 0, 0, 0, 0)
LATE = replace(FAIR, delaying=0.8)  # nearly everything lands late, or never
SMALL = Climate(
    rounds=14, creators=3, wallets=3, nodes=2, crashing=0, losing=0, losing_unsent=0, weather=FAIR, chances=NOTHING
)


def aimed(chances: Mapping[str, float] | None = None, **changes: Any) -> Climate:
    """A small world in which little else goes wrong."""
    return replace(SMALL, **changes, chances={**NOTHING, "earn": 0.7, **(chances or {})})


# ── Signing and sending ────────────────────────────────────────────────────────────────────────────────────────────


def _sends_then_records(rail: ChainRail, _: Sequence[Batch] = ()) -> list[str]:
    """The bytes leave before they are written down: a crash between the two pays again."""
    for batch in batches.planned(rail.connection, rail.settings.batches_live_max):
        for prepared in trials.simulated(rail, [batch]):
            blockhash = rail.chain.latest_blockhash()
            signature, raw = rail.sign_batch(prepared, blockhash)
            rail.chain.send([raw])
            batches.persist(rail.connection, [(batch, signature, raw)], blockhash)
            book.commit(rail.connection)
    return []


def _lets_all_through(_: Rail, waiting: Sequence[Batch], __: Sequence[Batch]) -> list[Batch]:
    """Signs whatever is planned: who was held, sanctioned or given another wallet meanwhile is paid all the same."""
    return list(waiting)


def _sends_all(connection: Any, resend_interval_s: float, _: Collection[str] = ()) -> list[tuple[str, bytes]]:
    """Sends what was signed, whoever was stopped before it left."""
    rows = connection.execute(
        "SELECT signature, raw FROM ledger.attempts WHERE state = 'live'"
        " AND (sent_at IS NULL OR sent_at < now() - make_interval(secs => %s)) ORDER BY signed_at",
        (resend_interval_s,),
    ).fetchall()
    return [(signature, bytes(raw)) for signature, raw in rows]


def _plans_while_frozen(rail: Rail, *, plan: bool = True, as_it_is: Any = payouts.run_once) -> None:
    """Begins new payouts before the chain was compared, and whatever has stopped them."""
    with patch("ledger.risk.stops.frozen", return_value=None):
        as_it_is(rail, plan=True)


def _plans_over_the_day(rail: Rail) -> int:
    """The day's limit is looked at, and never reached."""
    return rail.economics.payout_day_max_pix


def _blames_for_one_node(rail: ChainRail, batch: Batch, raw: bytes, built: int, slot: int) -> int | None:
    """One node's word that a payout would fail is enough."""
    trials._would_fail(rail, batch, rail.chain.simulate_all([raw], slot), 0, built - len(batch.recipients))
    return None


def _reclaims_by_the_book(rail: ChainRail, rows: Sequence[tuple[str, str]]) -> list[BatchLine]:
    """Empties markers of what they were made with, not of what they hold."""
    return [BatchLine(0, batch, address, rail.treasury.marker_rent) for batch, address in rows]


def _takes_markers_for_empty(rail: ChainRail, rows: Sequence[tuple[str, str]]) -> list[BatchLine]:
    """Finds nothing in any marker, and looks again after as long as any other."""
    batches.look_later(rail.connection, [batch for batch, _ in rows])
    return []


class BooksTheFeeAlone(SolanaRail):
    """Books what a transaction cost without the rent that it has paid."""

    def cost_lines(self, effect: Effect) -> list[tuple[int, int]]:
        costs = super().cost_lines(effect)
        if not costs:
            return []
        fee = -effect.fee if costs[0][1] < 0 else effect.fee
        return [(costs[0][0], fee), (costs[1][0], -fee)]


class ForgetsMarkers(SolanaRail):
    """A landed batch's marker is not written down."""

    def note_made(self, batch: Batch) -> None:
        if batch.kind != "payout":
            super().note_made(batch)


# ── Ends ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class ExpiryAtConfirmed(SolanaRail):
    """Gives up at the confirmed height, and does not look again."""

    def expired(self, unseen: Sequence[Attempt]) -> Iterator[Attempt]:
        height = int(self.chain.ask("getEpochInfo", {"commitment": "confirmed"})["blockHeight"])
        return (attempt for attempt in unseen if height > attempt.last_valid_block_height)


class DoneAtConfirmed(SolanaRail):
    """Takes a confirmed transaction for a fact: a fork undoes it."""

    def outcome(self, attempt: Attempt, seen: Sequence[Look]) -> Effect | None:
        statuses = [status for look in seen if (status := look.statuses[attempt.signature]) is not None]
        if not any(status.level in ("confirmed", "finalized") for status in statuses):
            return None
        options = {"commitment": "confirmed", "encoding": "json", "maxSupportedTransactionVersion": 1}
        answer = self.chain.ask("getTransaction", attempt.signature, options)
        return _effect(attempt.signature, answer) if answer else None


def _looks_from_before(
    rail: ChainRail, attempts: Sequence[Attempt], _: int, as_it_is: Any = evidence.looks_since
) -> list[Look]:
    """Looks of nodes that have not come so far count as well: what they have not seen yet is not there."""
    found: list[Look] = as_it_is(rail, attempts, 0)
    return found


class OneOpinion(SolanaRail):
    """Believes the first node that says anything."""

    @property
    def opinions(self) -> int:
        return 1


class ForgetsWhatWasGivenUp(SolanaRail):
    """Money goes back though a transaction that was given up may still land."""

    def may_give_back(self, batch: Batch, slot: int | None = None) -> bool:
        at = self.chain.finalized_height(self.opinions)[1] if slot is None else slot
        return not evidence.marker_exists(self, batch, at)


def _always_long_ago(_: ChainRail, __: Sequence[Attempt]) -> bool:
    """Heights alone say that time is over, which is what nodes say."""
    return True


class ResolvesTooSoon(SolanaRail):
    """Who asks for an end gets one, though the transaction may still land."""

    def require_expired(self, batch: Batch, open_ended: Sequence[Attempt]) -> int:  # noqa: ARG002
        return 0


# ── Nodes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class HighestHeight(Chain):
    """The boldest node says how late it is."""

    def finalized_height(self, opinions: int = 1) -> tuple[int, int]:
        answers: list[tuple[int, int]] = self.ask_all(
            "getEpochInfo", {"commitment": "finalized"}, least=opinions, read=_epoch
        )
        return max(answers)


class ShortestBlockhash(Chain):
    """Of the blockhashes that nodes name, the one that lives shortest."""

    def latest_blockhash(self, opinions: int = 1) -> Blockhash:
        answers: list[Blockhash] = self.ask_all(
            "getLatestBlockhash", {"commitment": "confirmed"}, least=opinions, read=_blockhash
        )
        return min(answers, key=lambda each: each.last_valid_block_height)


def _over_at_once(attempt: Attempt, height: int) -> bool:
    """Days taken for seconds: what is a week old is over, and so is what is seven seconds old."""
    return height > attempt.last_valid_block_height or attempt.age_s > batches.LINEAGE_DAYS


def _no_lineage(_: Any, batch_ids: Sequence[str]) -> dict[str, list[str]]:
    return {batch_id: [] for batch_id in batch_ids}


def _no_lineage_of(_: Any, __: Collection[int]) -> dict[int, list[str]]:
    return {}


def _thaws_at_once(rail: ChainRail, finding: Any) -> bool:
    """Lets payouts go on after a restore as soon as the journal and the chain agree."""
    if finding.conclusive and finding.ok:
        stops.thaw(rail.connection, adoption.RESTORED)
        book.commit(rail.connection)
    return finding.ok


def _never_differs(_: Any, held: Held) -> tuple[Finding, int]:
    """Whatever the chain holds is what the journal says."""
    return Finding(held.slot, held.pix, held.pix, held.lamports, held.lamports), 0


def _pays_doubtful(query: LiteralString) -> LiteralString:
    changed = query.replace("ledger.withheld(o.creator_id)", "0").replace("ledger.withheld(s.creator_id)", "0")
    assert changed != query
    return changed


def _without_wallet(query: str) -> str:
    changed = query.replace("w.wallet IS DISTINCT FROM s.wallet OR w.hold_until > now()\n        OR EXISTS", "EXISTS")
    assert changed != query
    return changed


OURS = Wrong("ours", Climate())
# Settings by which everybody's own viewers are taken for bought, and every day for a leap.
ALL_DOUBTFUL: Mapping[str, int] = {"source_day_pix": 1, "beside_share_ppm": 0, "fan_in_trust_ppm": 0}
ALL_LEAPS: Mapping[str, int] = {"velocity_min_pix": 1, "velocity_ratio": 1}
TURMOIL = {"leap": 0.4, "fork": 0.25}
LIARS = aimed({"leap": 0.4}, nodes=3, liars=1, is_marked=False, weather=replace(LATE, silent=0.3), rounds=20)
BALANCED = replace(FAIR, dropping=0.9, delaying=0.1, lagging=0.5, lag_min=105, lag_max=110, changing=1.0)
BEHIND = aimed(nodes=1, is_marked=False, weather=BALANCED, rounds=40)  # one URL for nodes of which half are behind
TORN = aimed({**TURMOIL, "earn": 0.95}, is_marked=False, crashing=0.004, losing=0.008, losing_unsent=0.008, rounds=40)
SLOW = replace(LIARS, weather=replace(FAIR, dropping=0.5, delaying=0.5, silent=0.1, lying=0.8))  # nothing lands at once
PLOTS = aimed({"leap": 0.1, "hold": 0.3, "release": 0.3}, plots=0.4, rounds=24, creators=4, wallets=4)
CALLED_BACK = replace(
    PLOTS, creators=1, wallets=1, rounds=40, weather=replace(FAIR, delaying=0.9),
    chances={**PLOTS.chances, "hold": 0.4, "release": 0.6, "leap": 0.0, "put in order": 0.7},
)  # fmt: skip
HELPED = replace(CALLED_BACK, plots_in_order=True)
STOPS = aimed(
    {"hold": 0.3, "release": 0.5, "new wallet": 0.5, "sanction": 0.05, "pardon": 0.3, "leap": 0.3, "earn": 0.95,
     "refuse to sign": 0.4, "put in order": 0.4},  # batches wait between their plan and their signature
    is_screened=True, creators=5, wallets=5, rounds=36, wallet_hold_s=60,
)  # fmt: skip
# What else stops is asked about once more when a batch is signed; the screening is not.
SANCTIONED = replace(
    STOPS, creators=20, wallets=20,
    chances={**STOPS.chances, "sanction": 0.9, "pardon": 0.1, "hold": 0.0, "new wallet": 0.0},
)  # fmt: skip
KEPT_BACK = replace(  # the connection is lost between signature and sending
    STOPS, losing_unsent=0.3, wallet_hold_s=20,
    chances={**STOPS.chances, "hold": 0.5, "release": 0.7, "sanction": 0.0, "refuse to sign": 0.0},
)  # fmt: skip
GIFTS = aimed({"lamports": 0.6, "leap": 0.4}, marker_retention_s=20)
BACK = aimed({"leap": 0.2}, restoring=Restoring.DOCUMENTED, keeping=0.4, going_back=0.2, weather=LATE, rounds=20)
SEARCHED = aimed({"watch": 0.9, "buy audience": 0.0}, is_folding=True, rounds=20)
BOUGHT = aimed({"watch": 0.5, "buy audience": 0.4}, is_folding=True, rounds=20, judged={"velocity_ratio": 0})
STORY = aimed({"leap": 0.3}, nodes=3, liars=2, tells_story=True, weather=replace(FAIR, dropping=0.3), rounds=20)
# The last: what was given up has landed all the same, which no node of ours can bring about.
GIVEN_UP = ("double", "phantom", "unexplained")
WRONG: tuple[Wrong, ...] = (
    Wrong("SendThenRecord", TORN, ("double", "unexplained"), patches=((signing, "sign", _sends_then_records),)),
    Wrong("ExpiryAtConfirmed", aimed(TURMOIL, is_marked=False, weather=LATE), rail=ExpiryAtConfirmed),
    Wrong("DoneAtConfirmed", aimed({"fork": 0.7}, is_marked=False), rail=DoneAtConfirmed),
    Wrong("LooksFromBefore", BEHIND, patches=((evidence, "looks_since", _looks_from_before),)),
    Wrong("OneOpinion", LIARS, rail=OneOpinion),
    Wrong("HighestHeight", SLOW, GIVEN_UP, chain=HighestHeight),
    Wrong("ShortestBlockhash", SLOW, GIVEN_UP, chain=ShortestBlockhash),
    Wrong("OverAtOnce", replace(LIARS, liars=0),
          patches=((evidence, "is_past_validity", _over_at_once),)),
    Wrong("ResolvesTooSoon", replace(LIARS, liars=0, chances={**LIARS.chances, "resolve": 0.7}), rail=ResolvesTooSoon),
    Wrong("ForgetsWhatWasGivenUp", PLOTS, rail=ForgetsWhatWasGivenUp),
    Wrong("GivesBackByHeights", CALLED_BACK, patches=((evidence, "_is_long_ago", _always_long_ago),)),
    Wrong("WithoutLineage", HELPED, patches=((batches, "lineage", _no_lineage), (batches, "lineage_of", _no_lineage_of))),
    Wrong("SignsWhoIsStopped", SANCTIONED, ("stopped",), patches=((signing, "let_through", _lets_all_through),)),
    Wrong("SendsToWhoIsStopped", KEPT_BACK, ("stopped",), patches=((batches, "due_to_send", _sends_all),)),
    Wrong("PaysTheOldWallet", STOPS, ("stopped",), patches=((batches, "STOPPED", _without_wallet(batches.STOPPED)),)),
    Wrong("PlansWhileFrozen", replace(BACK, is_marked=False), patches=((payouts, "run_once", _plans_while_frozen),)),
    Wrong("ThawsAtOnce", replace(BACK, is_marked=False), patches=((adoption, "end", _thaws_at_once),)),
    Wrong("PlansOverTheDay", aimed(day_max_pix=13_000), ("over",), patches=((planning, "left_today", _plans_over_the_day),)),
    Wrong("BlamesForOneNode", aimed(nodes=3, liars=1), ("unexplained",),
          patches=((trials, "_asked_again", _blames_for_one_node),)),
    Wrong("ReclaimsByTheBook", GIFTS, ("rent",), patches=((upkeep, "_held_by_markers", _reclaims_by_the_book),)),
    Wrong("ForgetsMarkers", aimed(), ("rent",), rail=ForgetsMarkers),
    Wrong("TakesMarkersForEmpty", aimed(marker_retention_s=60), ("rent",),
          patches=((upkeep, "_held_by_markers", _takes_markers_for_empty),)),
    Wrong("BooksTheFeeAlone", aimed(), ("booked", "unexplained"), rail=BooksTheFeeAlone),
    Wrong("NeverDiffers", STORY, ("double", "phantom", "lost", "booked"), patches=((reconcile, "compare", _never_differs),)),
    Wrong("JudgesEverybody", SEARCHED, ("unexplained",), judged=ALL_DOUBTFUL),
    Wrong("HoldsEveryDay", SEARCHED, ("unexplained",), judged=ALL_LEAPS),
    Wrong("PaysWhatIsDoubtful", BOUGHT, ("stopped",),
          patches=((owed, "ALL", _pays_doubtful(owed.ALL)), (owed, "NAMED", _pays_doubtful(owed.NAMED)),
                   (batches, "STOPPED", _pays_doubtful(batches.STOPPED)))),
)  # fmt: skip
