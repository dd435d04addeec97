"""Ids of payouts say whom they pay, to whoever has the secret, and to nobody else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Rejected
from ledger import attribution, batch_ids

CREATORS = st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=60, unique=True).map(sorted)


@given(st.text(max_size=50), CREATORS, st.text(min_size=1, max_size=20))
def test_an_id_is_read_back_from_its_markers_seed(text: str, creators: list[int], secret: str) -> None:
    number = batch_ids.sealed(secret, text, creators)
    seed = batch_ids.seed(secret, number)
    assert batch_ids.BATCH_ID.fullmatch(number)
    assert len(seed) == 32
    assert seed.isascii()
    assert batch_ids.of_seed(secret, seed) == number
    assert batch_ids.is_of(secret, number, creators)


@given(CREATORS, CREATORS)
def test_an_id_is_of_its_own_creators_and_of_its_secret(creators: list[int], others: list[int]) -> None:
    number = batch_ids.sealed("a secret", "a payday", creators)
    assert batch_ids.is_of("a secret", number, others) == (others == creators)
    assert not batch_ids.is_of("another secret", number, creators)
    assert batch_ids.of_seed("another secret", batch_ids.seed("a secret", number)) != number


def test_ids_of_one_payday_with_other_creators_and_of_other_paydays_differ() -> None:
    ids = [
        batch_ids.sealed("a secret", f"day {day}", [creator, 7])
        for day, creator in itertools.product(range(20), (1, 2))
    ]
    assert len({*ids, *(batch_ids.seed("a secret", each) for each in ids)}) == 80
    assert len({each[16:] for each in ids}) == 40


def test_a_seed_of_an_earlier_release_stays_what_it_was_and_is_not_read() -> None:
    seed = batch_ids.seed("a secret", "0" * 32)
    assert seed == "35119d59e7033528760c555b3bc559f6"
    assert batch_ids.of_seed("a secret", seed) is None


def test_creators_are_found_among_all_who_have_named_the_wallets() -> None:
    number = batch_ids.sealed("a secret", "a payday", [3, 5, 9])
    assert attribution.creators_of("a secret", number, [[1, 2, 3], [3, 4, 5], [5, 9, 11]]) == [3, 5, 9]
    assert attribution.creators_of("a secret", number, [[3], [5], [9]]) == [3, 5, 9]
    assert attribution.creators_of("a secret", number, [[3], [5], [8]]) is None
    assert attribution.creators_of("a secret", number, [[3], [], [9]]) is None
    assert attribution.creators_of("a secret", number, [[5], [3], [9]]) is None


def test_a_few_creators_who_have_named_all_wallets_of_a_batch_keep_nobody_from_being_found() -> None:
    creators = list(range(100, 400, 10))
    number = batch_ids.sealed("a secret", "a payday", creators)
    for strangers in ([900, 901, 902], [1, 2, 3], [105, 106, 901]):
        choices = [[*strangers, creator] for creator in creators]
        assert attribution.creators_of("a secret", number, choices) == creators
    crowd = [[creator, *range(1000, 1060)] for creator in creators]
    assert attribution.creators_of("a secret", number, crowd) == creators
    other = batch_ids.sealed("a secret", "a payday", [*creators[:-1], 7])
    with pytest.raises(Rejected, match="too many creators"):
        attribution.creators_of("a secret", other, crowd)
