"""What is kept under a computed name, in the database or on chain, keeps it: another release must find it again.

Another mix of bits would forget what viewers have seen and what a day came to, and pay again; another marker would guard
nothing; another hash would break the journal's chain.
"""

from __future__ import annotations

import numpy as np
import pytest

from ledger.accrual import caps, seen
from ledger.journal import book
from ledger.journal.book import Entry
from ledger.solana import packing
from ledger.solana.packing import Payer
from tests.ledger.chains import Key

DAYS = np.array([20_000, 20_001], np.uint16)


def test_what_a_viewer_has_seen_is_found_by_later_releases() -> None:
    viewers = np.array([[1, 2], [2**63, 7]], np.uint64)
    keys = seen.keys_of(viewers, np.array([0, 1, 1]), np.array([5, 5, 2**40], np.int64))
    assert keys.tolist() == [4578681782811104544, 10434300071098178603, 4551345035845471132]


@pytest.mark.parametrize(
    ("subjects", "keys"),
    [
        (np.array([5, 6], np.int64), [7184533376511290091, 15716133215588678818]),
        (np.array([[1, 2], [3, 4]], np.uint64), [6452416624494154242, 12394345411493735748]),
    ],
)
def test_what_a_day_came_to_is_found_by_later_releases(subjects: np.ndarray, keys: list[int]) -> None:  # type: ignore[type-arg]
    assert caps.keys_of(subjects, DAYS).tolist() == keys


def test_keys_of_many_pairs_are_all_different() -> None:
    segments = np.arange(200_000, dtype=np.int64)
    viewers = np.array([[0, 0], [1, 0], [0, 1], [2**32, 0]], np.uint64)
    keys = seen.keys_of(viewers, np.repeat(np.arange(4), len(segments)), np.tile(segments, 4))
    assert len(np.unique(keys)) == len(keys)


def test_a_batch_has_the_marker_that_earlier_releases_gave_it() -> None:
    payer = Payer(*(Key(name).pubkey for name in ("gas", "treasury", "account", "mint")), 6)
    mark = packing.marker(payer, "0" * 32, "secret", 890_880)
    assert (str(mark.address), mark.seed, mark.lamports) == (
        "9WAHSF4XkAM2oM5V2vUxSshLY9dcvfAGcyvBcMCAiQxf", "9a0caa934c7740b386994e0de309fced", 890_880,
    )  # fmt: skip


def test_an_entry_has_the_hash_that_earlier_releases_gave_it() -> None:
    hashed = book.entry_hash(b"\1" * 32, 7, 1_700_000_000_000_000, 2, "deposit", "a key", "{}", b"\0" * 32)
    assert hashed.hex() == "5ddade2d6c0d683aa4da9f026741d5151a0767f83d5c4b1c60363d93c53c84b0"
    content = Entry("deposit", "key", [(1, -5), (2, 5)], {"a": 1}).content
    assert content.hex() == "59c8e58e6e4d2a93dd762107a1d14061dd6c9f71e15920561a086c4aba73b3ea"
