"""What was paid, was forgotten by a restore and comes back with a replica's spool is paid once; what is new is paid too."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from ledger import adoption, audit, review, spool
from ledger.appearances import adopt
from ledger.fold import Fold, mature
from ledger.planning import Planning
from ledger.settings import LedgerSettings
from tests.ledger.chains import Rig, wallet_of
from tests.ledger.snapshots import Snapshot
from tests.ledger.test_fold import change, record, search, shown
from tests.ledger.test_restored import go_back, minted, put_on_one_wallet, total_paid, work

HOUR_S = 3600
SPOOLS = "*.spool2"


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """Where spools lie while their machine is away."""
    folder = tmp_path / "away"
    folder.mkdir()
    return folder


def searched(rig: Rig, away: Path, *searches: bytes, number: UUID | None = None) -> None:
    """A replica has recorded these, and is gone; its spool lies where it is not looked for."""
    here = away.parent / "spool"
    own = spool.Spool(here, number or uuid4())
    for each in searches:
        own.append(each)
    own.close()
    shutil.copy2(own.path, away)
    rig.connection.commit()
    adopt(rig.connection, here)
    fold(rig)


def come_back(rig: Rig, away: Path) -> int:
    """The machine is there again; how many searches an heir has recorded."""
    rig.connection.commit()
    found = adopt(rig.connection, away)
    fold(rig)
    return found


def fold(rig: Rig) -> None:
    accountant = Fold(rig.connection, rig.economics, LedgerSettings())
    while accountant.run_once() is not None:
        pass
    accountant.close()


def advances(rig: Rig) -> dict[int, tuple[int, int]]:
    """What each creator was advanced, and what of it was set off."""
    rows = rig.rows(
        "SELECT creator_id, sum(amount_pix)::bigint, sum(set_off_pix)::bigint FROM ledger.advances GROUP BY 1 ORDER BY 1"
    )
    return {creator: (given, used) for creator, given, used in rows}


def forget(rig: Rig, snapshot: Snapshot) -> None:
    """The database is restored, and what was paid since is adopted."""
    go_back(rig, snapshot)
    work(rig, 14)


def assert_whole(rig: Rig) -> None:
    checks = audit.run(rig.connection, rig.rpc, str(rig.treasury.payer.gas), full=True)
    assert all(check.ok for check in checks), checks


def test_searches_that_come_back_after_what_they_earned_was_adopted_are_not_paid_again(rig: Rig, away: Path) -> None:
    rig.creator(1, 0)
    pool, snapshot = rig.balance("reward_pool"), Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)), search(shown(2, 1, 600)))
    work(rig, 6)
    assert rig.on_chain(1) == 1440
    forget(rig, snapshot)
    assert (minted(rig), advances(rig), rig.freezes()) == (1440, {1: (1440, 0)}, [])
    assert come_back(rig, away) == 2
    work(rig, 8)
    assert (rig.on_chain(1), total_paid(rig), rig.freezes()) == (1440, {1: 1440}, [])
    assert advances(rig) == {1: (1440, 1440)}
    assert pool - rig.balance("reward_pool") == 1600
    assert rig.balance("platform") == 160
    assert_whole(rig)


def test_what_is_shown_after_the_restore_is_paid_whatever_is_open(rig: Rig, away: Path) -> None:
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    forget(rig, snapshot)
    record(rig.connection, search(shown(2, 1, 500)))
    searched(rig, away.parent, search(shown(3, 1, 300)))  # an heir brings it, of a replica that began since
    work(rig, 8)
    assert (rig.on_chain(1), advances(rig)) == (900 + 450 + 270, {1: (900, 0)})
    come_back(rig, away)
    work(rig, 8)
    assert (rig.on_chain(1), advances(rig)) == (900 + 450 + 270, {1: (900, 900)})
    assert_whole(rig)


def test_what_was_not_paid_and_comes_back_first_is_set_off_and_the_rest_is_paid(rig: Rig, away: Path) -> None:
    """Nobody can tell them apart; together it is what was earned."""
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    unpaid = away.parent / "unpaid"
    unpaid.mkdir()
    searched(rig, unpaid, search(shown(2, 1, 700)))
    assert rig.on_chain(1) == 900
    forget(rig, snapshot)
    come_back(rig, unpaid)
    assert advances(rig) == {1: (900, 630)}
    come_back(rig, away)
    assert advances(rig) == {1: (900, 900)}
    work(rig, 8)
    assert (rig.on_chain(1), rig.balance("payable", 1)) == (1530, 0)
    assert_whole(rig)


def test_what_matures_later_is_set_off_before_it_can(rig: Rig, away: Path) -> None:
    """In the buckets of its day, beside what is not set off."""
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    forget(rig, snapshot)
    rig.economics = replace(rig.economics, maturity_s=HOUR_S)
    record(rig.connection, search(shown(2, 1, 500)))
    come_back(rig, away)
    assert (rig.balance("maturing", 1), advances(rig)) == (450, {1: (900, 900)})
    assert_whole(rig)
    change(rig.connection, "UPDATE ledger.maturing SET matures_at = now() - interval '1 hour'")
    mature(rig.connection)
    work(rig, 8)
    assert rig.on_chain(1) == 1350
    assert_whole(rig)


def test_a_payment_is_taken_from_what_came_back_before_it_was_adopted_and_matures_later(rig: Rig, away: Path) -> None:
    """Recorded since the restore: else it would be paid once more when it has matured."""
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    go_back(rig, snapshot)
    rig.economics = replace(rig.economics, maturity_s=72 * HOUR_S)
    come_back(rig, away)
    record(rig.connection, search(shown(2, 1, 500)))
    fold(rig)
    assert rig.balance("maturing", 1) == 1350
    work(rig, 14)
    assert (rig.on_chain(1), total_paid(rig), rig.freezes()) == (900, {1: 900}, [])
    assert (minted(rig), advances(rig), rig.balance("maturing", 1)) == (0, {}, 450)
    assert_whole(rig)


def test_a_restore_that_is_declared_once_more_takes_what_came_back_before(rig: Rig, away: Path) -> None:
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    go_back(rig, snapshot)
    rig.economics = replace(rig.economics, maturity_s=72 * HOUR_S)
    come_back(rig, away)
    for _ in range(2):
        adoption.begin(rig.connection, {"by": "test"})
        rig.connection.commit()
    work(rig, 14)
    assert (rig.on_chain(1), minted(rig), rig.balance("maturing", 1)) == (900, 0, 0)


def test_a_review_takes_back_what_of_the_day_was_not_set_off_and_withholds_the_rest(rig: Rig, away: Path) -> None:
    """As of a day that was paid before it was judged; and gives back no more than it took."""
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    forget(rig, snapshot)
    rig.economics = replace(rig.economics, maturity_s=72 * HOUR_S)
    record(rig.connection, search(shown(2, 1, 500)))
    come_back(rig, away)
    one = np.array([1], np.int64)
    judged = review.Judged(datetime.now(UTC).date(), one, one, 1350 * one, is_over=True, is_known=True)
    pool = rig.balance("reward_pool")
    assert review._act(rig.connection, judged, rig.economics) == 450
    assert (rig.balance("maturing", 1), rig.balance("reward_pool")) == (0, pool + 450)
    assert rig.rows("SELECT captive_pix, reversed_pix FROM ledger.suspicions") == [(1350, 450)]
    assert review._act(rig.connection, replace(judged, doubtful=0 * one), rig.economics) == 0
    assert (rig.balance("maturing", 1), rig.balance("reward_pool")) == (450, pool)
    rig.connection.commit()
    assert_whole(rig)


def test_who_is_paid_at_the_same_wallet_stands_for_the_one_who_was_paid(
    rig: Rig, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an earlier release adoption cannot tell for which of them a payment was."""
    monkeypatch.setattr(Planning, "_sealed_id", lambda self, text, _: self._id(text))
    rig.creator(1, 0)
    put_on_one_wallet(rig, 2, 1, 1)
    work(rig, 6)
    assert rig.on_chain(1) == 1
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 2, 1000)))
    work(rig, 6)
    assert rig.on_chain(1) == 901
    forget(rig, snapshot)
    assert minted(rig) == 900
    come_back(rig, away)
    work(rig, 8)
    assert rig.on_chain(1) == 901
    assert sum(used for _, used in advances(rig).values()) == 900
    assert_whole(rig)


def test_who_was_once_paid_at_the_wallet_of_another_one_has_nothing_set_off_for_them(rig: Rig, away: Path) -> None:
    """The batch's id says that the payment was the other one's."""
    rig.creator(1, 0)
    put_on_one_wallet(rig, 2, 1, 1)
    work(rig, 6)
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 2", (wallet_of(2),))
    rig.creator(2, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    assert (rig.on_chain(1), rig.on_chain(2)) == (901, 0)
    unpaid = away.parent / "unpaid"
    unpaid.mkdir()
    searched(rig, unpaid, search(shown(2, 2, 700)))
    forget(rig, snapshot)
    come_back(rig, unpaid)
    come_back(rig, away)
    work(rig, 8)
    assert (rig.on_chain(1), rig.on_chain(2), advances(rig)) == (901, 630, {1: (900, 900)})
    assert_whole(rig)


def test_each_restore_has_advances_of_its_own(rig: Rig, away: Path) -> None:
    """What was shown between two restores is not set off against what the first one has forgotten."""
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    forget(rig, snapshot)
    assert advances(rig) == {1: (900, 0)}
    second, between = Snapshot(rig.connection), away.parent / "between"
    between.mkdir()
    searched(rig, between, search(shown(2, 1, 500)))
    work(rig, 6)
    assert rig.on_chain(1) == 1350
    go_back(rig, second)
    record(rig.connection, search(shown(3, 1, 100)))
    work(rig, 14)
    assert advances(rig) == {1: (1350, 0)}
    come_back(rig, between)
    assert rig.rows("SELECT set_off_pix FROM ledger.advances ORDER BY freeze_id") == [(0,), (450,)]
    come_back(rig, away)
    fold(rig)
    work(rig, 8)
    assert (rig.on_chain(1), advances(rig)) == (1350 + 90, {1: (1350, 1350)})
    assert_whole(rig)


def test_a_restore_to_before_the_adoption_begins_anew(rig: Rig, away: Path) -> None:
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    kept = away.parent / "kept"
    shutil.copytree(away, kept)
    work(rig, 6)
    forget(rig, snapshot)
    come_back(rig, away)
    assert advances(rig) == {1: (900, 900)}
    go_back(rig, snapshot)
    assert advances(rig) == {}
    work(rig, 14)
    come_back(rig, kept)
    work(rig, 8)
    assert (rig.on_chain(1), minted(rig), advances(rig)) == (900, 900, {1: (900, 900)})
    assert_whole(rig)


@pytest.mark.parametrize("ahead_s", [-2 * HOUR_S, 3 * HOUR_S])
def test_a_replica_whose_clock_is_wrong_has_its_searches_set_off_all_the_same(
    rig: Rig, away: Path, ahead_s: int
) -> None:
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000), at_s=time.time() + ahead_s))
    work(rig, 6)
    forget(rig, snapshot)
    come_back(rig, away)
    work(rig, 8)
    assert (rig.on_chain(1), advances(rig)) == (900, {1: (900, 900)})


def test_a_spool_that_was_copied_is_as_old_as_its_searches(rig: Rig, away: Path) -> None:
    """Its file is younger than the restore."""
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    forget(rig, snapshot)
    for path in away.glob(SPOOLS):
        path.touch()
    come_back(rig, away)
    assert advances(rig) == {1: (900, 900)}


def test_investors_and_the_platform_have_their_parts_which_the_restore_forgot(rig: Rig, away: Path) -> None:
    rig.creator(1, 0)
    rig.connection.execute("INSERT INTO ledger.segment_stakes (segment_id, investor_id, pix_invested) VALUES (1, 9, 5)")
    rig.connection.commit()
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    parts = rig.rows("SELECT owner, balance FROM ledger.accounts WHERE party = 'investor' AND balance > 0")
    work(rig, 6)
    forget(rig, snapshot)
    come_back(rig, away)
    assert rig.rows("SELECT owner, balance FROM ledger.accounts WHERE party = 'investor' AND balance > 0") == parts
    assert rig.balance("platform") + sum(balance for _, balance in parts) == 100
    assert_whole(rig)


def test_the_audit_finds_advances_that_the_journal_does_not_know(rig: Rig, away: Path) -> None:
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    searched(rig, away, search(shown(1, 1, 1000)))
    work(rig, 6)
    forget(rig, snapshot)
    change(rig.connection, "UPDATE ledger.advances SET set_off_pix = 100")
    (found,) = [each for each in audit.run(rig.connection, None, None) if not each.ok]
    assert (found.name, found.detail) == ("advances", "100 of the advances are set off, the journal has set off 0")
    change(rig.connection, "UPDATE ledger.advances SET set_off_pix = 0, amount_pix = 5000")
    (found,) = [each for each in audit.run(rig.connection, None, None) if not each.ok]
    assert found.name == "advances"
