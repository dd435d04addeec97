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

from ledger import adoption, advances, batches, book, owed, packing, rail, reconcile, settling, stops
from ledger.batches import Attempt, Batch, Recipient
from ledger.chain import Blockhash, Chain, Effect, Look, _blockhash, _effect, _epoch
from ledger.payouts import Payouts
from ledger.reconcile import Finding, Held
from tests.ledger.simulator.climate import DEEDS, FAULTS, Climate, Restoring, Weather


@dataclass(frozen=True)
class Wrong:
    """One of them. `kinds` are what it must be caught by, one of which is enough, within so many `seeds`."""

    name: str
    climate: Climate
    kinds: tuple[str, ...] = ("double", "phantom")
    payouts: type[Payouts] = Payouts
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


class SendThenRecord(Payouts):
    """The bytes leave before they are written down: a crash between the two pays again."""

    def sign(self) -> list[str]:
        for batch in batches.planned(self.connection, self.settings.batches_live_max):
            for _, instructions, units in self._simulated([batch]):
                blockhash = self.chain.latest_blockhash()
                raw = self.treasury.signed(instructions, blockhash.hash, units)
                self.chain.send([raw])
                batches.persist(self.connection, [(batch, packing.signature_of(raw), raw)], blockhash)
                book.commit(self.connection)
        return []


class SignsWhoIsStopped(Payouts):
    """Signs whatever is planned: who was held, sanctioned or given another wallet meanwhile is paid all the same."""

    def _let_through(self, waiting: Sequence[Batch]) -> list[Batch]:
        return list(waiting)


def _sends_all(connection: Any, resend_interval_s: float, _: Collection[str] = ()) -> list[tuple[str, bytes]]:
    """Sends what was signed, whoever was stopped before it left."""
    rows = connection.execute(
        "SELECT signature, raw FROM ledger.attempts WHERE state = 'live'"
        " AND (sent_at IS NULL OR sent_at < now() - make_interval(secs => %s)) ORDER BY signed_at",
        (resend_interval_s,),
    ).fetchall()
    return [(signature, bytes(raw)) for signature, raw in rows]


class PlansWhileFrozen(Payouts):
    """Begins new payouts before the chain was compared, and whatever has stopped them."""

    def run_once(self, *, plan: bool = True) -> None:  # noqa: ARG002
        with patch("ledger.stops.frozen", return_value=None):
            super().run_once(plan=True)


class PlansOverTheDay(Payouts):
    """The day's limit is looked at, and never reached."""

    def _left_today(self) -> int:
        return self.economics.payout_day_max_pix


class BlamesForOneNode(Payouts):
    """One node's word that a payout would fail is enough."""

    def _asked_again(self, batch: Batch, raw: bytes, built: int, slot: int) -> int | None:
        found = self.chain.simulate_all([raw], slot)
        self._would_fail(batch, found, 0, built - len(batch.recipients))
        return None


class ReclaimsByTheBook(Payouts):
    """Empties markers of what they were made with, not of what they hold."""

    def _held_by_markers(self, rows: Sequence[tuple[str, str]]) -> list[Recipient]:
        return [Recipient(0, batch, address, self.treasury.marker_rent) for batch, address in rows]


class TakesMarkersForEmpty(Payouts):
    """Finds nothing in any marker, and looks again after as long as any other."""

    def _held_by_markers(self, rows: Sequence[tuple[str, str]]) -> list[Recipient]:
        batches.look_later(self.connection, [batch for batch, _ in rows])
        return []


class BooksTheFeeAlone(Payouts):
    """Books what a transaction cost without the rent that it has paid."""

    def _cost_lines(self, effect: Effect) -> list[tuple[int, int]]:
        costs = super()._cost_lines(effect)
        if not costs:
            return []
        fee = -effect.fee if costs[0][1] < 0 else effect.fee
        return [(costs[0][0], fee), (costs[1][0], -fee)]


class ForgetsMarkers(Payouts):
    """A landed batch's marker is not written down."""

    def _keep_marker(self, batch: Batch) -> None:
        pass


# ── Ends ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class ExpiryAtConfirmed(Payouts):
    """Gives up at the confirmed height, and does not look again."""

    def _expire(self, unseen: Sequence[Attempt]) -> None:
        height = int(self.chain.ask("getEpochInfo", {"commitment": "confirmed"})["blockHeight"])
        for attempt in unseen:
            if height > attempt.last_valid_block_height:
                batches.expire(self.connection, attempt)
                book.commit(self.connection)


class DoneAtConfirmed(Payouts):
    """Takes a confirmed transaction for a fact: a fork undoes it."""

    def _finalized(self, attempt: Attempt, looks: Sequence[Look]) -> Effect | None:
        statuses = [status for look in looks if (status := look.statuses[attempt.signature]) is not None]
        if not any(status.level in ("confirmed", "finalized") for status in statuses):
            return None
        options = {"commitment": "confirmed", "encoding": "json", "maxSupportedTransactionVersion": 1}
        answer = self.chain.ask("getTransaction", attempt.signature, options)
        return _effect(attempt.signature, answer) if answer else None


class LooksFromBefore(Payouts):
    """Looks of nodes that have not come so far count as well: what they have not seen yet is not there."""

    def _looks_since(self, attempts: Sequence[Attempt], slot: int) -> list[Look]:  # noqa: ARG002
        return super()._looks_since(attempts, 0)


class OneOpinion(Payouts):
    """Believes the first node that says anything."""

    @property
    def opinions(self) -> int:
        return 1


class ForgetsWhatWasGivenUp(Payouts):
    """Money goes back though a transaction that was given up may still land."""

    def _never_paid(self, batch: Batch, slot: int) -> bool:
        return not self._marker_exists(batch, slot)


class GivesBackByHeights(Payouts):
    """Heights alone say that time is over, which is what nodes say."""

    def _is_long_ago(self, attempts: Sequence[Attempt]) -> bool:  # noqa: ARG002
        return True


class ResolvesTooSoon(Payouts):
    """Who asks for an end gets one, though the transaction may still land."""

    def _require_never(self, batch: Batch, attempts: Sequence[Attempt], effects: Any) -> tuple[int, int]:  # noqa: ARG002
        return 0, 0


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


def _thaws_at_once(payouts: Payouts, finding: Any) -> bool:
    """Lets payouts go on after a restore as soon as the journal and the chain agree."""
    if finding.conclusive and finding.ok:
        stops.thaw(payouts.connection, adoption.RESTORED)
        book.commit(payouts.connection)
    return finding.ok


def _sets_nothing_off(*_: Any, **__: Any) -> advances.SetOff:
    """Pays what comes back after a restore, whatever was paid of it."""
    return advances.SetOff()


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
RETURNING = replace(
    BACK, is_folding=True, rounds=40, keeping=0.15, going_back=0.06, weather=FAIR,
    chances={**BACK.chances, "watch": 0.9, "leap": 0.4, "come back": 0.3},
)  # fmt: skip
SEARCHED = aimed({"watch": 0.9, "buy audience": 0.0}, is_folding=True, rounds=20)
BOUGHT = aimed({"watch": 0.5, "buy audience": 0.4}, is_folding=True, rounds=20, judged={"velocity_ratio": 0})
STORY = aimed({"leap": 0.3}, nodes=3, liars=2, tells_story=True, weather=replace(FAIR, dropping=0.3), rounds=20)
GIVEN_UP = (
    "double",
    "phantom",
    "unexplained",
)  # or that what was given up has landed, which no node of ours can bring about
WRONG: tuple[Wrong, ...] = (
    Wrong("SendThenRecord", TORN, ("double", "unexplained"), payouts=SendThenRecord),
    Wrong("ExpiryAtConfirmed", aimed(TURMOIL, is_marked=False, weather=replace(LATE, delaying=0.95), rounds=24),
          payouts=ExpiryAtConfirmed),
    Wrong("DoneAtConfirmed", aimed({"fork": 0.7}, is_marked=False), payouts=DoneAtConfirmed),
    Wrong("LooksFromBefore", BEHIND, payouts=LooksFromBefore),
    Wrong("OneOpinion", LIARS, payouts=OneOpinion),
    Wrong("HighestHeight", SLOW, GIVEN_UP, chain=HighestHeight),
    Wrong("ShortestBlockhash", SLOW, GIVEN_UP, chain=ShortestBlockhash),
    Wrong("OverAtOnce", replace(LIARS, liars=0),
          patches=((settling, "is_over", _over_at_once), (rail, "is_over", _over_at_once))),
    Wrong("ResolvesTooSoon", replace(LIARS, liars=0, chances={**LIARS.chances, "resolve": 0.7}), payouts=ResolvesTooSoon),
    Wrong("ForgetsWhatWasGivenUp", PLOTS, payouts=ForgetsWhatWasGivenUp),
    Wrong("GivesBackByHeights", CALLED_BACK, payouts=GivesBackByHeights),
    Wrong("WithoutLineage", HELPED, patches=((batches, "lineage", _no_lineage), (batches, "lineage_of", _no_lineage_of))),
    Wrong("SignsWhoIsStopped", SANCTIONED, ("stopped",), payouts=SignsWhoIsStopped),
    Wrong("SendsToWhoIsStopped", KEPT_BACK, ("stopped",), patches=((batches, "due_to_send", _sends_all),)),
    Wrong("PaysTheOldWallet", STOPS, ("stopped",), patches=((batches, "STOPPED", _without_wallet(batches.STOPPED)),)),
    Wrong("PlansWhileFrozen", replace(BACK, is_marked=False), payouts=PlansWhileFrozen),
    Wrong("ThawsAtOnce", replace(BACK, is_marked=False), patches=((adoption, "end", _thaws_at_once),)),
    Wrong("PaysWhatComesBack", RETURNING, ("double",), patches=((advances, "set_off", _sets_nothing_off),)),
    Wrong("PlansOverTheDay", aimed(day_max_pix=13_000), ("over",), payouts=PlansOverTheDay),
    Wrong("BlamesForOneNode", aimed(nodes=3, liars=1), ("unexplained",), payouts=BlamesForOneNode),
    Wrong("ReclaimsByTheBook", GIFTS, ("rent",), payouts=ReclaimsByTheBook),
    Wrong("ForgetsMarkers", aimed(), ("rent",), payouts=ForgetsMarkers),
    Wrong("TakesMarkersForEmpty", aimed(marker_retention_s=60), ("rent",), payouts=TakesMarkersForEmpty),
    Wrong("BooksTheFeeAlone", aimed(), ("booked", "unexplained"), payouts=BooksTheFeeAlone),
    Wrong("NeverDiffers", STORY, ("double", "phantom", "lost", "booked"), patches=((reconcile, "compare", _never_differs),)),
    Wrong("JudgesEverybody", SEARCHED, ("unexplained",), judged=ALL_DOUBTFUL),
    Wrong("HoldsEveryDay", SEARCHED, ("unexplained",), judged=ALL_LEAPS),
    Wrong("PaysWhatIsDoubtful", BOUGHT, ("stopped",),
          patches=((owed, "ALL", _pays_doubtful(owed.ALL)), (owed, "NAMED", _pays_doubtful(owed.NAMED)),
                   (batches, "STOPPED", _pays_doubtful(batches.STOPPED)))),
)  # fmt: skip
