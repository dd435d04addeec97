"""A click farm among honest viewers: the farm earns next to nothing, and honest creators lose next to nothing."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from psycopg import Connection

from cluster.database import database
from cluster.settings import Settings
from ledger.accrual import velocity
from ledger.accrual.fold import Fold, mature
from ledger.appearances import spool
from ledger.appearances.appearances import search_record
from ledger.creators import earnings
from ledger.journal import book
from ledger.payouts import owed
from ledger.risk import stops
from ledger.risk.review import FAN_IN, JUDGED_AFTER_S, begin, review
from ledger.rounds import Epoch, Folding
from ledger.settings import PPM, Economics, LedgerSettings
from tests.ledger.accrual.test_fold import assert_whole, change, earned, open_incarnation, record, search, shown
from tests.ledger.journal.test_book import fund
from tests.ledger.simulator.ground import CLOCK

DAY_S = 86_400
NOW_MS = int(time.time() * 1000)
ECONOMICS = Economics(anonymous_weight_ppm=1_000_000)  # the worst case: whoever has no key earns in full
AT_ONCE = Economics(maturity_s=36 * 3600, source_day_pix=30_000)  # what matures so soon is judged as it goes
NARROW = dataclasses.replace(
    ECONOMICS, source_day_pix=30_000
)  # so that a few hundred looks are more than a source's day
FARMED = 48_000 * 9 // 10  # what counts by it of a farm of one network: its bound, and six tenths of it beside
HONEST_CREATORS, FARMERS = range(1, 61), range(901, 904)
SEGMENTS_EACH = 40
HONEST_VIEWERS, COOKIES = 400, 700


def moment(creator: int, number: int) -> int:
    return creator * 1000 + number % SEGMENTS_EACH


def honest(rng: random.Random) -> Iterator[bytes]:
    """Yield searches of people who look at many creators, some at one only, and sometimes see the farm's moments, too."""
    everybody = [*HONEST_CREATORS, *FARMERS]
    for viewer in range(HONEST_VIEWERS):
        fan = viewer % 20 == 0
        favourite = rng.choice(list(HONEST_CREATORS))
        for _ in range(rng.randint(1, 8)):
            makers = [favourite] * 20 if fan else rng.choices(everybody, k=20)
            yield search(
                *(shown(moment(c, rng.randrange(99)), c, rng.randint(300, 1000), f"honest {viewer}") for c in makers)
            )


def farm() -> Iterator[bytes]:
    """Yield searches of a farm: a network for each farmer, with hundreds of cookies that show the farm's own moments."""
    for creator in FARMERS:
        yield from clicks(creator, COOKIES, networks=1, looks=SEGMENTS_EACH, first=creator - 900)


def clicks(
    creator: int, viewers: int, networks: int, looks: int = 4, *, first: int = 1, at_s: float | None = None
) -> Iterator[bytes]:
    """Yield searches of viewers without a key, from `networks` networks, who look at one creator's moments only."""
    at_ms = int((time.time() if at_s is None else at_s) * 1000)
    for viewer in range(viewers):
        origin = bytes([first + viewer % networks]) * 16
        moments = [shown(moment(creator, 30 + n), creator, 1000, f"cookie {viewer}") for n in range(looks)]
        yield search_record(moments, spool.NO_KEY, bytes(8), at_ms, origin)


def uncapped(searches: list[bytes]) -> int:
    """Return what these appearances would earn their creators if every one counted."""
    _, rows = spool.unpack(spool.pack(searches).payload, spool.FORMAT)
    return int(rows["amount_pix"].astype(int).sum()) * 9 // 10


def by_day(searches: list[bytes]) -> Iterator[tuple[float, list[bytes]]]:
    """Yield parts of at most 100 searches of one day, in order, each with the time of its last search."""

    def day_of(each: bytes) -> float:
        return int(np.frombuffer(each, spool.SEARCH, 1)["at_ms"][0]) // 1000 // DAY_S

    for _, some in itertools.groupby(searches, day_of):
        same = list(some)
        for start in range(0, len(same), 100):
            part = same[start : start + 100]
            yield int(np.frombuffer(part[-1], spool.SEARCH, 1)["at_ms"][0]) / 1000, part


@contextmanager
def clock_at(connection: Connection[Any], at_s: float, owner: Connection[Any] | None = None) -> Iterator[None]:
    """Stop the clock that the ledger reads from the database at `at_s`; `owner` is a connection that may make functions."""
    with (owner or connection).transaction():
        (owner or connection).execute(CLOCK)
    connection.execute("SELECT set_config('sim.now', %s, false)", (datetime.fromtimestamp(at_s, UTC).isoformat(),))
    connection.execute("SET search_path = sim, pg_catalog")
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute("SET search_path = public")
        connection.commit()


def day_after(connection: Connection[Any], days: int = 1) -> float:
    """Return the time at which the database's day has ended and is due to be judged."""
    midnight_s = book.clock_s(connection) // DAY_S * DAY_S
    connection.commit()
    return midnight_s + days * DAY_S + JUDGED_AFTER_S + 60


def run(connection: Connection[Any], searches: list[bytes], economics: Economics) -> dict[int, int]:
    """Fold searches in many folds with a review after each, and one after the day; return what creators have maturing."""
    number, at = None, 0
    accountant = Fold(connection, economics, LedgerSettings(fold_batches_max=3))
    for at_s, part in by_day(searches):
        number = record(connection, *part, incarnation=number, seq=at, recorded_s=at_s)
        at += len(part)
    while accountant.run_once() is not None:
        review(connection, accountant.audience, economics)
    with clock_at(connection, day_after(connection)):
        review(connection, accountant.audience, economics)
    return earned(connection, "maturing")


def test_a_click_farm_earns_next_to_nothing_and_honest_creators_lose_no_more_than_a_hundredth(
    journal: Connection[Any], postgres_url: str
) -> None:
    rng = random.Random(5)
    fund(journal, 10**12)
    people, bots = list(honest(rng)), list(farm())
    everything = [*people, *bots]
    rng.shuffle(everything)
    got = run(journal, everything, ECONOMICS)
    farmed = sum(got.get(creator, 0) for creator in FARMERS)
    kept = sum(got.get(creator, 0) for creator in HONEST_CREATORS)
    # Beside the farm, the farmers' moments were also found by honest people: that much is theirs, and a share beside it.
    fair = fair_shares(people)
    found = sum(fair.get(creator, 0) for creator in FARMERS)
    gain, owned = farmed - found, len(FARMERS) * ECONOMICS.source_day_pix * 9 // 10
    rounded = 2_000  # for each appearance that people have found up to one unit
    assert 0 < gain <= (owned + found) * ECONOMICS.beside_share_ppm // PPM + owned + rounded
    assert owned * (PPM + ECONOMICS.beside_share_ppm) // PPM <= uncapped(bots) // 50
    honest_fair = sum(fair.get(creator, 0) for creator in HONEST_CREATORS)
    assert kept >= honest_fair * 99 // 100, (kept, honest_fair)
    assert {creator for creator, taken in taken_back(journal).items() if taken > 0} == set(FARMERS)
    assert stops.in_force(journal) == []  # nothing of it is left that a person would have to look at
    assert_whole(journal)


def taken_back(connection: Connection[Any]) -> dict[int, int]:
    query = "SELECT creator_id, sum(reversed_pix)::bigint FROM ledger.suspicions GROUP BY creator_id"
    return dict(connection.execute(query).fetchall())


def fair_shares(people: list[bytes]) -> dict[int, int]:
    """Return what honest people alone earn each creator: every viewer and moment once."""
    import numpy as np

    from ledger import money

    heads, rows = spool.unpack(spool.pack(people).payload, spool.FORMAT)
    viewers = np.repeat(heads["viewer"], heads["count"].astype(int))
    seen: set[tuple[bytes, int]] = set()
    found: dict[int, int] = {}
    shares = (ECONOMICS.creator_share_ppm, PPM - ECONOMICS.creator_share_ppm)
    for viewer, row in zip(viewers, rows, strict=True):
        pair = bytes(viewer), int(row["segment_id"])
        if pair not in seen:
            seen.add(pair)
            part, _ = money.split(int(row["amount_pix"]), shares)
            found[int(row["creator_id"])] = found.get(int(row["creator_id"]), 0) + part
    return found


def test_a_creator_cannot_be_ruined_by_clicking(journal: Connection[Any]) -> None:
    """Bots click for a creator who is not theirs: the creator keeps what their own audience has earned them."""
    rng = random.Random(6)
    fund(journal, 10**12)
    people = list(honest(rng))
    bots = [search(*(shown(moment(7, n), 7, 1000, f"bot {bot}") for n in range(20))) for bot in range(300)]
    got = run(journal, [*people, *bots], ECONOMICS)
    assert got[7] >= fair_shares(people)[7] * 99 // 100


def test_admirers_are_no_farm(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    few = [search(*(shown(moment(1, n), 1, 1000, f"fan {fan}") for n in range(10))) for fan in range(10)]
    assert run(journal, few, ECONOMICS) == {1: 10 * 10 * 900}
    assert journal.execute("SELECT count(*) FROM ledger.suspicions").fetchone() == (0,)


def test_what_has_matured_is_held_and_not_taken(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    run(journal, list(clicks(901, 30, 1, 10)), dataclasses.replace(NARROW, maturity_s=0))
    assert earned(journal) == {901: 30 * 10 * 900}
    reasons = [row[0] for row in journal.execute("SELECT reason FROM ledger.holds WHERE creator_id = 901")]
    assert len(reasons) == 1
    assert "fan-in" in reasons[0]
    assert due_to(journal, 901) == FARMED


def test_without_a_bound_of_sources_no_day_is_judged(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    assert run(journal, list(clicks(901, 30, 1, 10)), Economics(source_day_pix=0)) == {901: 30 * 10 * 900}
    assert book.balance(journal, book.account(journal, "platform")) == 30 * 10 * 100


def audience(creator: int) -> list[bytes]:
    """Return searches of real viewers, who look at this creator's moments among others'; worth 90,000 to the creator."""
    return [search(shown(moment(creator, n), creator, 1000, f"p {viewer}"), shown(moment(8, n), 8, 1000, f"p {viewer}"),
                   shown(moment(9, n), 9, 1000, f"p {viewer}"))
            for viewer in range(10) for n in range(10)]  # fmt: skip


def test_cookies_of_one_network_are_one_source(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    economics = dataclasses.replace(NARROW, maturity_s=0)
    run(journal, [*audience(7), *clicks(7, viewers=60, networks=1)], economics)
    assert due_to(journal, 7) == 130_000 * 16 // 10 * 9 // 10
    run(journal, list(clicks(7, viewers=70, networks=70)), economics)  # ten more, with a network each
    assert due_to(journal, 7) == 170_000 * 16 // 10 * 9 // 10


def due_to(connection: Connection[Any], creator: int) -> int:
    connection.execute(
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, repeat('1', 32), 'creator')"
        " ON CONFLICT DO NOTHING",
        (creator,),
    )
    found = {each.creator_id: each.amount_pix for each in owed.due(connection, Economics(payout_min_pix=1), "m", 99)}
    connection.commit()
    return found.get(creator, 0)


def test_a_creator_who_is_clicked_at_is_paid_what_others_have_earned_them(journal: Connection[Any]) -> None:
    """Only the griefer's clicks are held; after a person has released the hold more of them count, up to a bound."""
    fund(journal, 10**12)
    economics = dataclasses.replace(NARROW, maturity_s=0)
    counts = pytest.approx(130_000 * 16 // 10 * 9 // 10, abs=3)
    run(journal, [*audience(7), *clicks(7, viewers=30, networks=1)], economics)
    (held,) = stops.in_force(journal)
    assert (held.creator_id, held.reason) == (7, FAN_IN)
    assert due_to(journal, 7) == counts
    run(journal, list(clicks(7, viewers=35, networks=1)), economics)  # and goes on
    assert len(stops.in_force(journal)) == 1
    assert due_to(journal, 7) == counts
    stops.release(journal, held.name, "ana")
    assert due_to(journal, 7) == earned(journal)[7]
    run(journal, list(clicks(7, viewers=39, networks=1)), dataclasses.replace(economics, fan_in_trust_ppm=PPM))
    assert stops.in_force(journal) == []
    run(journal, list(clicks(7, viewers=41, networks=1)), economics)
    assert len(stops.in_force(journal)) == 1
    assert due_to(journal, 7) == pytest.approx(
        130_000 * 18 // 10 * 9 // 10, abs=3
    )  # what is beyond the bound of trust waits


def test_a_family_keeps_what_it_earns_however_many_click_beside_it(journal: Connection[Any]) -> None:
    """Bots that look at a small creator, whose own viewers look at no other creator either, cost that creator nothing."""
    fund(journal, 10**12)
    family = [search(*(shown(moment(1, n), 1, 1000, f"friend {each}") for n in range(9))) for each in range(11)]
    got = run(journal, [*clicks(1, 30, 1), *family, *audience(7)], NARROW)
    assert got[1] == (99_000 + 30_000) * 16 // 10 * 9 // 10
    assert due_to(journal, 1) == 0  # not matured
    assert journal.execute("SELECT reversed_pix = captive_pix FROM ledger.suspicions").fetchall() == [(True,)]
    assert_whole(journal)


def test_a_ring_shares_what_its_sources_are_worth(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    people = list(honest(random.Random(7)))
    ring = [each for creator in (981, 982) for each in clicks(creator, 50, networks=1, looks=10)]
    got = run(journal, [*people, *ring], dataclasses.replace(ECONOMICS, source_day_pix=100_000))
    assert (got[981], got[982]) == (72_000, 72_000)  # of 450,000 each
    assert {creator: taken_back(journal)[creator] for creator in (981, 982)} == {981: 378_000, 982: 378_000}


def test_a_day_that_bots_have_filled_pays_what_people_would_have_earned(journal: Connection[Any]) -> None:
    """A griefer fills the cap of a creator's day first; what is taken back of that is not the creator's loss."""
    fund(journal, 10**12)
    economics = dataclasses.replace(NARROW, creator_day_max_pix=400_000, beside_share_ppm=0)
    got = run(journal, [*clicks(7, 50, 1, 10), *audience(7)], economics)
    assert got[7] == (100_000 + 30_000) * 9 // 10  # with all that the audience has shown, of which nothing was funded
    assert journal.execute("SELECT captive_pix, reversed_pix FROM ledger.suspicions").fetchall() == [(243_000, 243_000)]
    assert_whole(journal)


@pytest.mark.parametrize("bound", ["segment_day_max_pix", "creator_day_max_pix"])
def test_a_bound_that_one_client_has_filled_costs_the_creator_nothing(journal: Connection[Any], bound: str) -> None:
    """Where money flows at once, too: each look of other people at what is full lets more of it be paid, as it comes."""
    fund(journal, 10**12)
    economics = dataclasses.replace(NARROW, maturity_s=0, **{bound: 200_000})
    accountant = Fold(journal, economics, LedgerSettings())

    def show(searches: Iterable[bytes]) -> None:
        record(journal, *searches)
        while accountant.run_once() is not None:
            pass
        review(journal, accountant.audience, economics)

    show(
        search_record([shown(7, 7, 1000, f"cookie {n}")], spool.NO_KEY, bytes(8), NOW_MS, b"n" * 16) for n in range(400)
    )
    filled = earned(journal)[7]
    assert filled == 200_000 * 9 // 10
    assert due_to(journal, 7) == 30_000 * 16 // 10 * 9 // 10  # its source's day, and what counts beside that
    people = 40
    for viewer in range(people):
        show([search(shown(7, 7, 1000, f"key {viewer}"))])
        assert earned(journal)[7] == filled  # the moment's own day is full
        assert due_to(journal, 7) == (30_000 + 1_000 * (viewer + 1)) * 16 // 10 * 9 // 10
        assert earnings.of(journal, 7).withheld == filled - due_to(journal, 7)
    assert_whole(journal)


def test_nothing_is_due_of_what_no_review_has_seen(journal: Connection[Any]) -> None:
    """Where money flows at once: between a fold and its review a payout would take what does not count."""
    fund(journal, 10**12)
    economics = dataclasses.replace(NARROW, maturity_s=0)
    begin(journal)
    accountant = Fold(journal, economics, LedgerSettings())
    counts = 30_000 * 9 // 10
    for part in range(3):
        record(journal, *clicks(901, 10 * (part + 1), 1, 10, first=1 + part))
        while accountant.run_once() is not None:
            pass
        assert due_to(journal, 901) == part * counts * 16 // 10
        again = journal.execute("SELECT parked_until FROM ledger.owed WHERE creator_id = 901").fetchone()
        assert again == (None,)  # it is looked at again at once
        if part == 1:  # the ledger is started again in between
            accountant = Fold(journal, economics, LedgerSettings())
        review(journal, accountant.audience, economics)
        assert due_to(journal, 901) == (part + 1) * counts * 16 // 10
    assert_whole(journal)


def test_a_review_that_finds_nothing_has_seen_what_there_is(journal: Connection[Any]) -> None:
    """Else what the last fold of all has earned would wait for somebody to search."""
    fund(journal, 10**12)
    economics = dataclasses.replace(NARROW, maturity_s=0)
    accountant = Fold(journal, economics, LedgerSettings())
    begin(journal)
    record(journal, *clicks(901, 10, 1, 10))
    while accountant.run_once() is not None:
        pass
    assert due_to(journal, 901) == 0
    review(journal, accountant.audience, economics)
    due = due_to(journal, 901)
    assert due > 0
    journal.execute("UPDATE ledger.reviewed SET entry_id = 0")  # as where what was folded left nothing to judge
    journal.commit()
    assert due_to(journal, 901) < due
    review(journal, accountant.audience, economics)
    assert due_to(journal, 901) == due


def test_appearances_that_a_full_cap_refused_count_in_their_viewers_day(journal: Connection[Any]) -> None:
    """Otherwise one viewer could fill a creator's cap and still use their own cap on others."""
    fund(journal, 10**12)
    economics = Economics(segment_day_max_pix=1000, viewer_day_max_pix=2000)
    record(journal, search(shown(1, 1, who="first")))
    record(journal, search(shown(1, 1, who="v"), shown(2, 2, who="v")))
    record(journal, search(shown(3, 3, who="v")))
    accountant = Fold(journal, economics, LedgerSettings(fold_batches_max=1))
    while accountant.run_once() is not None:
        pass
    assert set(earned(journal, "maturing")) == {1, 2}


def test_a_day_is_judged_when_it_is_over(journal: Connection[Any]) -> None:
    """One network comes in the morning, all others later: nothing is taken back before the whole day is known."""
    fund(journal, 10**12)
    economics = dataclasses.replace(NARROW, beside_share_ppm=PPM)
    accountant = Fold(journal, economics, LedgerSettings())
    fans = list(clicks(7, 10, 1, 10))
    for some in (fans, audience(7)):
        record(journal, *some)
        accountant.run_once()
        assert review(journal, accountant.audience, economics) == 0
        assert accountant.audience.is_unjudged
    with clock_at(journal, day_after(journal) - 120):
        assert review(journal, accountant.audience, economics) == 0
        assert accountant.audience.is_unjudged
    with clock_at(journal, day_after(journal)):
        assert review(journal, accountant.audience, economics) == 0
    assert earned(journal, "maturing")[7] == 180_000
    assert not accountant.audience.is_unjudged


def test_a_day_is_judged_by_a_ledger_that_starts_after_it(journal: Connection[Any]) -> None:
    """The process that folded the day has ended before the day did."""
    fund(journal, 10**12)
    record(journal, *clicks(901, 30, 1, 10))
    Fold(journal, NARROW, LedgerSettings()).run_once()
    with clock_at(journal, day_after(journal)):
        heir = Fold(journal, NARROW, LedgerSettings())
        assert review(journal, heir.audience, NARROW) == 30 * 10 * 900 - FARMED
        assert review(journal, heir.audience, NARROW) == 0
    assert earned(journal, "maturing") == {901: FARMED}


def test_where_a_day_is_judged_as_it_goes_nothing_is_taken_before_it_is_over(journal: Connection[Any]) -> None:
    """A creator whom one network looks at in the morning may be looked at from everywhere in the evening."""
    fund(journal, 10**12)
    economics = dataclasses.replace(AT_ONCE, beside_share_ppm=PPM)
    accountant = Fold(journal, economics, LedgerSettings())
    record(journal, *clicks(7, 10, 1, 10))
    accountant.run_once()
    assert review(journal, accountant.audience, economics) == 0
    assert [each.reason for each in stops.in_force(journal)] == [FAN_IN]
    record(journal, *audience(7))
    accountant.run_once()
    review(journal, accountant.audience, economics)
    with clock_at(journal, day_after(journal)):
        assert review(journal, accountant.audience, economics) == 0
    assert earned(journal, "maturing")[7] == 180_000
    assert journal.execute("SELECT DISTINCT captive_pix - reversed_pix FROM ledger.suspicions").fetchall() == [(0,)]


def test_what_was_taken_back_and_counts_after_all_comes_back(journal: Connection[Any]) -> None:
    """A replica's spool is adopted a day late, with what others have looked at: the example in the docstring of `review`."""
    fund(journal, 10**12)
    economics = dataclasses.replace(NARROW, beside_share_ppm=PPM)
    accountant = Fold(journal, economics, LedgerSettings())
    record(journal, *clicks(7, 10, 1, 10))
    accountant.run_once()
    with clock_at(journal, day_after(journal)):
        assert review(journal, accountant.audience, economics) == 36_000
    assert earned(journal, "maturing")[7] == 54_000
    record(journal, *audience(7))
    accountant.run_once()
    with clock_at(journal, day_after(journal)):
        assert review(journal, accountant.audience, economics) == 0
    assert earned(journal, "maturing")[7] == 180_000
    assert journal.execute("SELECT captive_pix, reversed_pix FROM ledger.suspicions").fetchall() == [(0, 0)]
    assert_whole(journal)


def test_a_leap_does_not_stop_payouts_of_earlier_earnings(journal: Connection[Any]) -> None:
    """Money of the leap itself matures later, and is withheld from then on."""
    fund(journal, 10**12)
    paid = book.accounts_of(journal, "payable", "creator", [1])[1]
    book.post(journal, book.Entry("earned", "before", [(book.account(journal, "reward_pool"), -9_000), (paid, 9_000)]))
    journal.commit()
    run(journal, list(day(1, 31)), BRISK)
    assert held_for_velocity(journal) == [1]
    withheld = "SELECT ledger.withheld(1)"
    assert due_to(journal, 1) == 9_000
    with clock_at(journal, day_after(journal, 2)):
        journal.execute("UPDATE ledger.leaps SET matures_at = now() - interval '1 s'")
        assert journal.execute(withheld).fetchone() == (31 * 900 - 8_100,)


def test_totals_computed_again_hold_no_creator_with_steady_days(journal: Connection[Any]) -> None:
    """The days before the oldest day that is kept are unknown: after an upgrade, or with other rules, it is no leap."""
    fund(journal, 10**12)
    searches = [each for days_ago in (3, 2, 1) for each in day(1, 20, days_ago)]
    run(journal, searches, BRISK)
    for table in ("holds", "leaps", "total_runs"):  # as of a release before
        change(journal, f"DELETE FROM ledger.{table}")
    run(journal, [search(shown(1, 2))], BRISK)
    assert held_for_velocity(journal) == []


def test_what_was_doubtful_and_is_no_longer_is_held_no_more(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    economics = dataclasses.replace(NARROW, maturity_s=0, beside_share_ppm=PPM)
    run(journal, list(clicks(7, 10, 1, 10)), economics)
    assert due_to(journal, 7) == 54_000
    accountant = Fold(journal, economics, LedgerSettings())
    record(journal, *audience(7))
    accountant.run_once()
    review(journal, accountant.audience, economics)
    assert due_to(journal, 7) == 180_000


def test_only_earnings_of_the_judged_day_are_taken_back(journal: Connection[Any]) -> None:
    """A farm's day yesterday costs nothing of today's earnings, whether yesterday's are immature or paid.

    At noon: what is folded in a day's first minutes ripens in one bucket with what was late of the day before.
    """
    fund(journal, 10**12)
    noon_s = time.time() // DAY_S * DAY_S + DAY_S / 2
    accountant, yesterday_s = Fold(journal, AT_ONCE, LedgerSettings()), noon_s - DAY_S
    for creator in (901, 902):
        bots = clicks(creator, 30, 1, 10, first=creator - 900, at_s=yesterday_s)
        record(journal, *bots, recorded_s=yesterday_s)
    with clock_at(journal, yesterday_s):
        accountant.run_once()
    with clock_at(journal, noon_s):
        account = book.accounts_of(journal, "maturing", "creator", [902])[902]
        journal.execute("UPDATE ledger.maturing SET matures_at = now() WHERE account_id = %s", (account,))
        mature(journal)
        looks = [(moment(c, n), c, 1000, f"p {n}") for n in range(20) for c in (901, 902, 8, 9)]
        honest = [search(*(shown(*each) for each in looks[at : at + 4]), at_s=noon_s) for at in range(0, 80, 4)]
        record(journal, *honest, recorded_s=noon_s)
        accountant.run_once()
    with clock_at(journal, noon_s + DAY_S / 2 + JUDGED_AFTER_S):
        assert review(journal, accountant.audience, AT_ONCE) == 30 * 10 * 900 - FARMED
        assert due_to(journal, 902) == FARMED  # the rest of what has matured of yesterday's waits
    got = earned(journal, "maturing")
    assert (got[901], got[902]) == (20 * 900 + FARMED, 20 * 900)
    assert_whole(journal)


BRISK = Economics(velocity_ratio=3, velocity_min_pix=8_100, source_day_pix=0, maturity_s=36 * 3600)


def day(creator: int, moments: int, days_ago: int = 0) -> Iterator[bytes]:
    """Yield a creator's day: `moments` moments, each seen by another viewer and worth 900 to the creator."""
    at_s = time.time() - days_ago * DAY_S
    for n in range(moments):
        yield search(shown(creator * 1000 + n, creator, 1000, f"{creator} {n} {days_ago}"), at_s=at_s)


def held_for_velocity(connection: Connection[Any]) -> list[int]:
    rows = connection.execute(
        "SELECT creator_id FROM ledger.holds WHERE reason LIKE 'velocity on 20%' AND released_at IS NULL ORDER BY 1"
    ).fetchall()
    connection.commit()
    return [row[0] for row in rows]


def test_a_leap_is_held_and_nothing_of_it_is_taken(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    searches = [
        *day(1, 9, 2), *day(1, 10, 1), *day(1, 31),  # more than three times the day before
        *day(2, 9, 2), *day(2, 10, 1), *day(2, 30),  # three times, no more
        *day(3, 9, 3), *day(3, 10, 2), *day(3, 1, 1), *day(3, 30),  # the best one of the days before counts
        *day(4, 10),  # from nothing to the least that is looked at
        *day(5, 9),  # from nothing, and too little to look at
        *day(6, 9, 2), *day(6, 20, 1), *day(6, 1),  # slower
        *day(7, 10, 1),  # yesterday, in its last minutes
    ]  # fmt: skip
    got = run(journal, searches, BRISK)
    run(journal, list(day(8, 10, 2)), BRISK)  # longer ago, by another replica, and folded only now
    assert held_for_velocity(journal) == [1, 4, 7, 8]
    assert got[1] == 50 * 900


def test_a_day_leaps_if_it_is_many_times_the_best_of_the_days_before() -> None:
    earned, before = np.array([8_101, 8_100, 27_003, 27_000, 30_000]), np.array([0, 0, 9_000, 9_000, 20_000])
    found = velocity.leaps(np.arange(95, 100), np.arange(5), earned, before, BRISK)
    assert [(each.day, each.creator_id, each.above_pix) for each in found] == [(95, 0, 1), (97, 2, 3)]


def test_a_farm_in_a_backlog_of_days_is_paid_no_more_than_on_its_day(journal: Connection[Any]) -> None:
    """What has not matured is taken back, however late it was folded; there is nothing to hold."""
    fund(journal, 10**12)
    accountant, long_ago_s = Fold(journal, NARROW, LedgerSettings()), time.time() - 6 * DAY_S
    record(journal, *clicks(901, 30, 1, 10, at_s=long_ago_s), recorded_s=long_ago_s)
    record(journal, search(shown(moment(8, 1), 8, 1000, "p")))
    accountant.run_once()
    assert review(journal, accountant.audience, NARROW) == 30 * 10 * 900 - FARMED
    assert stops.in_force(journal) == []
    assert earned(journal, "maturing") == {901: FARMED, 8: 900}
    assert_whole(journal)


@pytest.mark.parametrize("late_s", [1200, 86_400, 40 * 3600])
def test_what_comes_late_is_taken_back_of_its_own_day_and_of_no_other(journal: Connection[Any], late_s: int) -> None:
    """A replica's spool is adopted a day later, or a minute after midnight: a farm's day, and an honest creator's."""
    fund(journal, 10**12)
    noon_s = time.time() // DAY_S * DAY_S + DAY_S / 2
    evening_s = noon_s + DAY_S / 2 - 60
    accountant = Fold(journal, NARROW, LedgerSettings())
    with clock_at(journal, evening_s + late_s):
        bots = clicks(901, 30, 1, 10, at_s=evening_s)
        people = [search(shown(moment(902, n), 902, 1000, f"p {n}"), at_s=evening_s) for n in range(20)]
        for some in (bots, people):
            number = open_incarnation(journal)
            change(
                journal, "UPDATE ledger.incarnations SET started_at = to_timestamp(%s) WHERE id = %s", noon_s, number
            )
            record(journal, *some, incarnation=number, adopted=True, recorded_s=evening_s + late_s)
        today = clicks(902, 30, 1, 10, first=2, at_s=evening_s + late_s)
        record(journal, *today, recorded_s=evening_s + late_s)
        while accountant.run_once() is not None:
            pass
    taken = 30 * 10 * 900 - FARMED
    with clock_at(journal, max(evening_s + late_s, noon_s + DAY_S / 2 + JUDGED_AFTER_S) + 60):
        assert review(journal, accountant.audience, NARROW) == taken
        assert stops.in_force(journal) == []
    assert earned(journal, "maturing") == {901: FARMED, 902: 20 * 900 + 30 * 10 * 900}
    with clock_at(journal, noon_s + 4 * DAY_S):
        assert review(journal, accountant.audience, NARROW) > 0
    got = earned(journal, "maturing")
    assert got[901] == FARMED
    assert 20 * 900 + FARMED <= got[902] < 20 * 900 + 30 * 10 * 900
    assert_whole(journal)


def test_a_backlog_is_judged_once_and_then_too_old(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    accountant, long_ago_s = Fold(journal, ECONOMICS, LedgerSettings()), time.time() - 6 * DAY_S
    record(journal, search(shown(1, 1), at_s=long_ago_s), recorded_s=long_ago_s)
    accountant.run_once()
    today = book.clock_s(journal) // DAY_S
    assert accountant.audience.judge(today, today) is not None
    for _ in range(2):
        assert review(journal, accountant.audience, ECONOMICS) == 0
    assert accountant.audience.judge(today - 1, today - 1) is None


def test_a_released_creator_is_not_held_again_for_the_same_day(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    run(journal, list(day(4, 10)), BRISK)
    (held,) = stops.in_force(journal)
    stops.release(journal, held.name, "ana")
    journal.commit()
    run(journal, list(day(4, 11)), BRISK)  # the eleventh is new
    assert held_for_velocity(journal) == []
    assert earned(journal, "maturing")[4] == 11 * 900


def test_what_is_in_proportion_is_paid_and_what_is_above_waits(journal: Connection[Any]) -> None:
    """A creator who is pushed loses nothing by it: three times a usual day is paid, as without the push."""
    fund(journal, 10**12)
    economics = dataclasses.replace(BRISK, maturity_s=0)
    run(journal, [*day(1, 10, 1), *day(1, 45)], economics)
    yesterday, held = sorted(stops.in_force(journal), key=lambda each: each.reason)
    assert (earned(journal)[1], due_to(journal, 1)) == (55 * 900, 8_100 + 30 * 900)
    stops.release(journal, held.name, "ana")
    assert due_to(journal, 1) == 8_100 + 45 * 900
    stops.release(journal, yesterday.name, "ana")
    assert due_to(journal, 1) == 55 * 900


def test_a_day_that_leaps_no_longer_is_held_no_more(journal: Connection[Any]) -> None:
    """Appearances of the day before come late."""
    fund(journal, 10**12)
    economics = dataclasses.replace(BRISK, maturity_s=0)
    run(journal, list(day(1, 20)), economics)
    assert due_to(journal, 1) == 8_100
    run(journal, list(day(1, 9, 1)), economics)
    assert due_to(journal, 1) == 29 * 900


def test_where_nothing_was_earned_nothing_is_judged(journal: Connection[Any]) -> None:
    assert run(journal, [search(shown(1, 1, 0))], BRISK) == {}
    assert stops.in_force(journal) == []


def test_without_a_velocity_ratio_no_creator_is_held_for_velocity(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    run(journal, list(day(4, 10)), Economics(velocity_ratio=0, velocity_min_pix=0))
    assert stops.in_force(journal) == []


def test_earnings_are_reviewed_every_so_often_and_none_is_forgotten(settings: Settings) -> None:
    own = settings.with_section(AT_ONCE).with_section(LedgerSettings(review_interval_s=1000))
    folding = Folding(own, Epoch())
    assert not folding.round()
    folding._review_at = 0.0

    def suspects(connection: Connection[Any]) -> list[int]:
        found = connection.execute("SELECT creator_id FROM ledger.suspicions ORDER BY creator_id").fetchall()
        connection.commit()
        return [row[0] for row in found]

    with database.connect(settings.postgres.url) as connection:
        book.hold_epoch(connection, folding.epoch.number)
        fund(connection, 10**12)
        for creator, known in ((901, [901]), (902, [901])):
            record(connection, *clicks(creator, 30, 1, 10, first=creator - 900))
            assert folding.round()
            assert suspects(connection) == known  # the second one's turn has not come
        folding._review_at = 0.0
        assert not folding.round()
        assert suspects(connection) == [901, 902]
    folding.close()


def test_a_day_is_judged_when_it_is_over_also_where_nothing_was_shown_since(settings: Settings) -> None:
    epoch = Epoch()
    folding = Folding(settings.with_section(NARROW), epoch)
    assert not folding.round()
    with database.connect(settings.postgres.url) as connection:
        book.hold_epoch(connection, epoch.number)
        fund(connection, 10**12)
        record(connection, *clicks(901, 30, 1, 10))
        assert folding.round()
        assert folding._connection is not None
        with clock_at(folding._connection, day_after(connection), owner=connection):
            folding._review_at = 0.0
            assert not folding.round()
        assert earned(connection, "maturing") == {901: FARMED}
    folding.close()


@pytest.mark.parametrize("name", ["beside_share_ppm", "fan_in_trust_ppm"])
def test_a_share_of_the_review_above_a_whole_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Economics(**{name: 1_000_001})
