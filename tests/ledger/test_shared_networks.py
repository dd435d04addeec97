"""What an operator knows of networks: how many people are behind one, each of whom is worth as much as any other."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection

from cluster.settings import Settings
from ledger import pairs, vouching
from ledger.appearances import Hashes, search_record
from ledger.fold import Fold
from ledger.review import review
from ledger.settings import Economics, LedgerSettings
from ledger.shared_networks import SharedNetworks
from ledger.spool import NO_KEY
from tests.ledger.test_book import fund
from tests.ledger.test_fold import earned, record, shown

CAMPUS, ALONE = "192.0.2.0/24", "198.51.100.0/24"
LISTED = Economics(
    maturity_s=36 * 3600,
    source_day_pix=10_000,
    beside_share_ppm=0,
    shared_networks=(f"{CAMPUS} = 7", "2001:db8::/48=1"),
)


def words(hashes: Hashes, networks: list[str], day: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    origins = [hashes.origin(network, day * 86_400 + 5) for network in networks]
    return np.array([int.from_bytes(origin[:8], "little") for origin in origins], np.uint64)


@pytest.mark.parametrize("day", [20_000, 20_039, 20_940])  # of several periods, in which hashes differ
def test_a_listed_network_is_known_by_its_hash_on_any_day(settings: Settings, day: int) -> None:
    hashes = Hashes(settings)
    days = np.full(3, day, np.uint16)
    sources = pairs.keys_of(words(hashes, [ALONE, CAMPUS, "2001:db8::/48"], day), days)
    assert SharedNetworks(LISTED, hashes).people(sources, days).tolist() == [1, 7, 1]
    assert SharedNetworks.of(settings).people(sources, days).tolist() == [1, 1, 1]
    assert SharedNetworks.of(settings.with_section(LISTED)).people(sources, days).tolist() == [1, 7, 1]


def test_another_list_is_another_rule(settings: Settings) -> None:
    hashes = Hashes(settings)
    longer = dataclasses.replace(LISTED, shared_networks=(f"{CAMPUS} = 8",))
    names = [SharedNetworks(each, hashes).name for each in (Economics(), LISTED, longer)]
    assert len(set(names)) == 3


def test_a_network_of_many_people_is_worth_as_much_as_they(journal: Connection[Any], settings: Settings) -> None:
    fund(journal, 10**12)
    hashes = Hashes(settings)
    for creator, network in ((1, CAMPUS), (2, ALONE)):
        for viewer in range(10):
            looks = [shown(creator * 1000 + n, creator, 1000, f"{network} {viewer}") for n in range(10)]
            record(journal, search_record(looks, NO_KEY, bytes(8), int(time.time() * 1000), hashes.origin(network)))
    accountant = Fold(journal, LISTED, LedgerSettings(), networks=SharedNetworks(LISTED, hashes))
    while accountant.run_once() is not None:
        review(journal, accountant.audience, LISTED)
    assert earned(journal, "maturing") == {1: 90_000, 2: 90_000}
    found = journal.execute("SELECT creator_id, captive_pix FROM ledger.suspicions ORDER BY 1").fetchall()
    assert found == [(1, 27_000), (2, 81_000)]


def test_a_network_of_many_people_is_not_bounded_below_what_they_are_worth(
    journal: Connection[Any], settings: Settings
) -> None:
    fund(journal, 10**12)
    hashes, bounded = Hashes(settings), dataclasses.replace(LISTED, address_day_max_pix=20_000)
    for creator, network in ((1, CAMPUS), (2, ALONE)):
        for viewer in range(10):
            looks = [shown(creator * 1000 + n, creator, 1000, f"{network} {viewer}") for n in range(10)]
            record(journal, search_record(looks, NO_KEY, bytes(8), int(time.time() * 1000), hashes.origin(network)))
    accountant = Fold(journal, bounded, LedgerSettings(fold_batches_max=3), networks=SharedNetworks(bounded, hashes))
    while accountant.run_once() is not None:
        pass
    assert earned(journal, "maturing") == {1: 63_000, 2: 18_000}  # seven people, and one with the network's bound


@pytest.mark.parametrize(
    "wrong",
    [
        "192.0.2.0/24",
        "192.0.2.0/24 = many",
        "192.0.2.0/24 = 0",
        "192.0.2.0/24 = 1000001",
        "192.0.2.1/24 = 7",
        "campus = 7",
    ],
)
def test_a_list_that_is_wrong_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"shared_networks|192|campus"):
        Economics(shared_networks=(wrong,))


@given(st.integers(1, 1_000_000), st.integers(1, 2**62))
def test_what_many_people_are_worth_stays_in_64_bits(people: int, most: int) -> None:
    of = vouching.shares(np.ones(1, np.bool_), np.array([2**62]), np.array([people]), Economics(source_day_pix=most))
    assert 0 <= int(of.vouched[0]) <= min(2**62, most * people)
