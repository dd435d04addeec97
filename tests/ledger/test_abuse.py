"""A click farm among honest viewers: it earns next to nothing, and they lose next to nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from cluster import database
from cluster.settings import Settings
from ledger import batches, book, stops
from ledger.actor import Ledger
from ledger.fold import Fold
from ledger.review import review
from ledger.settings import Economics, LedgerSettings
from tests.ledger.test_book import fund
from tests.ledger.test_fold import assert_whole, earned, record, search, shown

ECONOMICS = Economics(anonymous_weight_ppm=1_000_000)  # the worst case: whoever has no key earns in full
HONEST_CREATORS, FARMERS = range(1, 61), range(901, 904)
SEGMENTS_EACH = 40
HONEST_VIEWERS, BOTS = 400, 600


def moment(creator: int, number: int) -> int:
    return creator * 1000 + number % SEGMENTS_EACH


def honest(rng: random.Random) -> Iterator[bytes]:
    """People who look for many things, now and then for one creator only, and sometimes see the farm's moments too."""
    everybody = [*HONEST_CREATORS, *FARMERS]
    for viewer in range(HONEST_VIEWERS):
        fan = viewer % 20 == 0
        favourite = rng.choice(list(HONEST_CREATORS))
        for _ in range(rng.randint(1, 8)):
            makers = [favourite] * 20 if fan else rng.choices(everybody, k=20)
            yield search(
                *(shown(moment(c, rng.randrange(99)), c, rng.randint(300, 1000), f"honest {viewer}") for c in makers)
            )


def farm(rng: random.Random) -> Iterator[bytes]:
    """Bots with an address or a key each, who search for the farm's own moments again and again."""
    for bot in range(BOTS):
        creator = rng.choice(list(FARMERS))
        for _ in range(3):
            yield search(
                *(shown(moment(creator, n), creator, 1000, f"bot {bot}") for n in rng.sample(range(SEGMENTS_EACH), 20))
            )


def uncapped(searches: list[bytes]) -> int:
    """What these appearances would earn their creators if every one counted."""
    from ledger import spool

    _, rows = spool.unpack(spool.pack(searches).payload, spool.FORMAT)
    return int(rows["amount_pix"].astype(int).sum()) * 9 // 10


def run(connection: Connection[Any], searches: list[bytes], economics: Economics) -> dict[int, int]:
    """In many folds, each reviewed, as the actor does; what is in creators' accounts at the end."""
    number, at = None, 0
    accountant = Fold(connection, economics, LedgerSettings(fold_batches_max=3))
    for start in range(0, len(searches), 100):
        part = searches[start : start + 100]
        number = record(connection, *part, incarnation=number, seq=at)
        at += len(part)
    while accountant.run_once() is not None:
        review(connection, accountant.audience, economics)
    return earned(connection, "maturing")


def test_a_click_farm_earns_a_hundredth_and_honest_creators_lose_no_more(
    journal: Connection[Any], postgres_url: str
) -> None:
    rng = random.Random(5)
    fund(journal, 10**12)
    people, bots = list(honest(rng)), list(farm(rng))
    everything = [*people, *bots]
    rng.shuffle(everything)
    got = run(journal, everything, ECONOMICS)
    farmed = sum(got.get(creator, 0) for creator in FARMERS)
    kept = sum(got.get(creator, 0) for creator in HONEST_CREATORS)
    # Beside the farm, the farmers' moments were also found by honest people: that much is theirs.
    fair = fair_shares(people)
    farm_gain = farmed - sum(fair.get(creator, 0) for creator in FARMERS)
    assert farm_gain <= uncapped(bots) // 100, (farm_gain, uncapped(bots))
    honest_fair = sum(fair.get(creator, 0) for creator in HONEST_CREATORS)
    assert kept >= honest_fair * 99 // 100, (kept, honest_fair)
    held = {row[0] for row in journal.execute("SELECT creator_id FROM ledger.holds WHERE released_at IS NULL")}
    assert held == set(FARMERS)
    assert_whole(journal)


def fair_shares(people: list[bytes]) -> dict[int, int]:
    """What honest people alone earn each creator: every viewer and moment once."""
    import numpy as np

    from ledger import money, spool

    heads, rows = spool.unpack(spool.pack(people).payload, spool.FORMAT)
    viewers = np.repeat(heads["viewer"], heads["count"].astype(int))
    seen: set[tuple[bytes, int]] = set()
    found: dict[int, int] = {}
    for viewer, row in zip(viewers, rows, strict=True):
        pair = bytes(viewer), int(row["segment_id"])
        if pair not in seen:
            seen.add(pair)
            part = money.parts_of(ECONOMICS, int(row["amount_pix"]))[0]
            found[int(row["creator_id"])] = found.get(int(row["creator_id"]), 0) + part
    return found


def test_a_creator_cannot_be_ruined_by_clicking(journal: Connection[Any]) -> None:
    """Bots that click for somebody else: he keeps what his own audience has earned him."""
    rng = random.Random(6)
    fund(journal, 10**12)
    people = list(honest(rng))
    bots = [search(*(shown(moment(7, n), 7, 1000, f"bot {bot}") for n in range(20))) for bot in range(300)]
    got = run(journal, [*people, *bots], ECONOMICS)
    assert got[7] >= fair_shares(people)[7] * 99 // 100


def test_admirers_are_no_farm(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    few = [search(*(shown(moment(1, n), 1, 1000, f"fan {fan}") for n in range(10))) for fan in range(19)]
    assert run(journal, few, ECONOMICS) == {1: 19 * 10 * 900}
    assert journal.execute("SELECT count(*) FROM ledger.suspicions").fetchone() == (0,)


def test_what_has_matured_is_held_and_not_taken(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    economics = Economics(maturity_s=0)
    searches = [search(*(shown(moment(901, n), 901, 1000, f"bot {bot}") for n in range(10))) for bot in range(30)]
    run(journal, searches, economics)
    assert earned(journal) == {901: 30 * 10 * 900}
    reasons = [row[0] for row in journal.execute("SELECT reason FROM ledger.holds WHERE creator_id = 901")]
    assert len(reasons) == 1
    assert "fan-in" in reasons[0]
    assert batches.due(journal, Economics(payout_min_pix=1), "mint", 10) == []


def test_nobody_is_judged_where_that_is_switched_off(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    searches = [search(*(shown(moment(901, n), 901, 1000, f"bot {bot}") for n in range(10))) for bot in range(30)]
    assert run(journal, searches, Economics(captive_share_ppm=0)) == {901: 30 * 10 * 900}
    assert book.balance(journal, book.account(journal, "platform")) == 30 * 10 * 100


DAY_S = 86_400
BRISK = Economics(velocity_ratio=3, velocity_min_pix=9_000, captive_share_ppm=0)


def day(creator: int, moments: int, days_ago: int = 0) -> Iterator[bytes]:
    """A creator's day: so many moments seen, each by somebody else, worth 900 to him."""
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
        *day(1, 10, 1), *day(1, 31),  # more than three times the day before
        *day(2, 10, 1), *day(2, 30),  # three times, no more
        *day(3, 10, 2), *day(3, 1, 1), *day(3, 30),  # the better one of two days counts
        *day(4, 10),  # from nothing to the least that is looked at
        *day(5, 9),  # from nothing, and too little to look at
        *day(6, 20, 1), *day(6, 1),  # slower
    ]  # fmt: skip
    got = run(journal, searches, BRISK)
    assert held_for_velocity(journal) == [1, 4]
    assert got[1] == 41 * 900


def test_who_was_looked_at_is_not_held_again_for_the_same_day(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    run(journal, list(day(4, 10)), BRISK)
    (held,) = stops.in_force(journal)
    stops.release(journal, held.name, "ana")
    journal.commit()
    run(journal, list(day(4, 11)), BRISK)  # the eleventh is new
    assert held_for_velocity(journal) == []
    assert earned(journal, "maturing")[4] == 11 * 900


def test_where_nothing_was_earned_nothing_is_judged(journal: Connection[Any]) -> None:
    assert run(journal, [search(shown(1, 1, 0))], BRISK) == {}
    assert stops.in_force(journal) == []


def test_nobody_is_held_for_velocity_where_that_is_switched_off(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    run(journal, list(day(4, 10)), Economics(velocity_ratio=0, velocity_min_pix=0))
    assert stops.in_force(journal) == []


class Unpaid(Ledger):
    """A ledger that folds and reviews; its payouts are of no concern here."""

    def _pay(self, connection: Connection[Any]) -> None:
        pass


def test_earnings_are_reviewed_every_so_often_and_none_is_forgotten(settings: Settings) -> None:
    own = settings.with_section(Economics()).with_section(LedgerSettings(review_interval_s=1000))
    ledger = Unpaid(own)
    ledger.open()

    def suspects(connection: Connection[Any]) -> list[int]:
        found = connection.execute("SELECT creator_id FROM ledger.suspicions ORDER BY creator_id").fetchall()
        connection.commit()
        return [row[0] for row in found]

    with database.connect(settings.postgres.url) as connection:
        book.hold_epoch(connection, ledger.epoch)
        fund(connection, 10**12)
        for creator, known in ((901, [901]), (902, [901])):
            bots = [
                search(*(shown(moment(creator, n), creator, 1000, f"bot {creator} {bot}") for n in range(10)))
                for bot in range(30)
            ]
            record(connection, *bots)
            assert ledger.tick()
            assert suspects(connection) == known  # the second one's turn has not come
        ledger._review_at = 0.0
        assert not ledger.tick()
        assert suspects(connection) == [901, 902]
    ledger.close()


def test_pairs_are_merged_and_the_old_forgotten(journal: Connection[Any]) -> None:
    fund(journal, 10**12)
    now = time.time()
    for number in range(15):
        accountant = Fold(journal, ECONOMICS, LedgerSettings())
        record(journal, search(shown(number, 1, who=f"v{number}"), at_s=now - 900_000 if number == 0 else now))
        accountant.run_once()
    assert len(accountant.audience._runs) < 13
    assert sum(len(run.viewers) for run in accountant.audience._runs) == 14


@pytest.mark.parametrize("name", ["captive_share_ppm", "fan_in_share_ppm"])
def test_shares_of_the_review_are_shares(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Economics(**{name: 1_000_001})
