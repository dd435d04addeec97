"""Bounds of searches, days and the pool: what reaches one exactly still earns, the next unit does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from psycopg import Connection

from ledger import book
from ledger.fold import Outcome
from tests.ledger.test_book import fund
from tests.ledger.test_fold import DEMO, assert_whole, earned, folded, record, search, shown

Conn = Connection[Any]
FREE = dataclasses.replace(DEMO, search_appearances_max=0, search_amount_max_pix=0)
CAPPED, REPEATED, UNFUNDED, UNEARNED = Outcome.CAPPED, Outcome.REPEATED_KEY, Outcome.UNFUNDED, Outcome.UNEARNED


@pytest.mark.parametrize("key", [b"k" * 16, bytes(8) + b"k" * 8, b"k" * 8 + bytes(8), bytes(15) + b"\1"])
def test_the_first_search_with_a_key_counts_and_no_other(journal: Conn, key: bytes) -> None:
    fund(journal, 100_000)
    record(journal, search(shown(1)), search(shown(2), key=key), search(shown(3), shown(4), key=key), search(shown(5)))
    assert folded(journal) == [0, 0, REPEATED, REPEATED, 0]
    record(journal, search(shown(6), key=key), search(shown(7), key=b"another key is 16"[:16]))
    assert folded(journal)[5:] == [REPEATED, 0]
    assert earned(journal) == {1: 4 * 900}


def test_a_search_whose_key_is_known_spends_nothing_of_any_bound(journal: Conn) -> None:
    fund(journal, 2000)
    bounded = dataclasses.replace(FREE, segment_day_max_pix=1000)
    record(journal, search(shown(1), key=b"k" * 16), search(shown(2), key=b"k" * 16), search(shown(2, who="w")))
    assert folded(journal, bounded) == [0, REPEATED, 0]


def test_a_search_of_just_as_many_appearances_earns_with_all_of_them(journal: Conn) -> None:
    fund(journal, 100_000)
    three = dataclasses.replace(FREE, search_appearances_max=3)
    record(
        journal,
        search(*(shown(n) for n in (1, 2, 3))),
        search(*(shown(n) for n in (4, 5, 6, 7))),
        search(shown(8)),
        search(*(shown(n) for n in (9, 10, 11))),
    )
    assert folded(journal, three) == [0] * 3 + [0, 0, 0, CAPPED] + [0] + [0] * 3


def test_a_search_of_just_as_much_earns_all_of_it(journal: Conn) -> None:
    fund(journal, 100_000)
    little = dataclasses.replace(FREE, search_amount_max_pix=1500)
    record(
        journal,
        search(shown(1), shown(2, amount=500)),
        search(shown(3), shown(4, amount=501), shown(5, amount=1)),
        search(shown(6), shown(7, amount=500), shown(8, amount=1)),
        search(shown(9)),
    )
    assert folded(journal, little) == [0, 0, 0, CAPPED, CAPPED, 0, 0, CAPPED, 0]
    assert_whole(journal)


def test_both_bounds_of_a_search_hold_together(journal: Conn) -> None:
    fund(journal, 100_000)
    both = dataclasses.replace(FREE, search_appearances_max=2, search_amount_max_pix=1500)
    record(journal, search(shown(1, amount=700), shown(2, amount=800), shown(3, amount=1)), search(shown(4), shown(5)))
    assert folded(journal, both) == [0, 0, CAPPED, 0, CAPPED]


def test_what_is_worth_nothing_stays_unearned_whatever_is_bounded(journal: Conn) -> None:
    fund(journal, 1000)
    bounded = dataclasses.replace(FREE, segment_day_max_pix=1000)
    record(
        journal, search(shown(1, amount=0), shown(2, amount=0, who="w")), search(shown(1)), search(shown(3, amount=0))
    )
    assert folded(journal, bounded) == [UNEARNED, UNEARNED, 0, UNEARNED]


@pytest.mark.parametrize("name", ["viewer_day_max_pix", "segment_day_max_pix", "creator_day_max_pix"])
def test_a_day_that_is_just_full_has_earned_all_of_it(journal: Conn, name: str) -> None:
    fund(journal, 100_000)
    bounded = dataclasses.replace(FREE, **{name: 2000})

    def one(number: int, amount: int) -> bytes:
        segment = 1 if name == "segment_day_max_pix" else number
        creator = number if name == "viewer_day_max_pix" else 1
        return search(shown(segment, creator, amount, who="v" if name == "viewer_day_max_pix" else f"v{number}"))

    record(journal, one(1, 900), one(2, 1000), one(3, 101), one(4, 100), one(5, 1))
    assert folded(journal, bounded) == [
        0,
        0,
        CAPPED,
        CAPPED,
        CAPPED,
    ]  # in the order they came, on top of what came before
    record(journal, one(6, 101))
    record(journal, one(7, 100))
    assert sorted(folded(journal, bounded)[5:]) == [0, CAPPED]
    record(journal, one(8, 1))
    assert folded(journal, bounded)[7:] == [CAPPED]
    assert sum(earned(journal).values()) == 1800
    assert_whole(journal)


def test_a_pool_that_is_just_enough_pays_all_and_ends_empty(journal: Conn) -> None:
    fund(journal, 2500)
    record(journal, search(shown(1), shown(2, 2), shown(3, 3, amount=500)), search(shown(4, 4, amount=1)))
    assert folded(journal, FREE) == [0, 0, 0, UNFUNDED]
    assert book.balance(journal, book.account(journal, "reward_pool")) == 0
    assert_whole(journal)


def test_what_the_pool_cannot_pay_keeps_what_comes_after_it_waiting_too(journal: Conn) -> None:
    """First come, first funded: a small one does not slip past a large one that was refused."""
    fund(journal, 1500)
    record(journal, search(shown(1), shown(2, 2), shown(3, 3, amount=100)))
    assert folded(journal, FREE) == [0, UNFUNDED, UNFUNDED]
