"""Totals that are updated pair by pair equal those of all pairs at once, in little memory, also after a restart."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg import Connection

from ledger.accrual import audience, caps, pairs, runfiles, runstore, totals
from ledger.accrual.audience import Audience
from ledger.accrual.caps import DAY_S, Caps
from ledger.accrual.fold import Fold, Outcome
from ledger.accrual.pairs import Pairs
from ledger.accrual.totals import Judgement
from ledger.journal import book
from ledger.risk.review import review
from ledger.settings import PPM, Economics, LedgerSettings
from tests.ledger.accrual.test_fold import DEMO, change, fund, record, search, shown

RULES = Economics(source_day_pix=400, beside_pair_pix=120)
Parts = tuple[
    int, int, int, int, int
]  # earned, vouched, doubtful, beside, and of how many sources there is a doubtful part
Shown = tuple[int, int, int, int]  # viewer, creator, day, gross; the creator's part is nine tenths


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files of a handful of rows, and take three sources at a time."""
    monkeypatch.setattr(runstore, "MEMORY_ROWS_MAX", 40)
    monkeypatch.setattr(runstore, "MEMORY_RUNS_MAX", 2)
    monkeypatch.setattr(runstore, "READ_ROWS", 25)
    monkeypatch.setattr(runfiles, "BLOCK_ROWS", 16)
    monkeypatch.setattr(audience, "VIEWERS_MAX", 3)
    monkeypatch.setattr(totals, "PIECE_KEYS", 4)


def as_pairs(rows: list[Shown]) -> Pairs:
    viewers, creators, days, gross = (np.array([row[n] for row in rows]) for n in range(4))
    hashes = [int.from_bytes(hashlib.sha256(b"%d" % viewer).digest()[:8], "little") for viewer in viewers]
    return Pairs(
        np.array(hashes, np.uint64),
        creators.astype(np.int64),
        days.astype(np.uint16),
        gross.astype(np.int64),
        gross * 9 // 10,
    )


def part_of(amount: int, ppm: int) -> int:
    return amount // PPM * ppm + amount % PPM * ppm // PPM


def within(amounts: dict[int, int], most: int) -> dict[int, int]:
    whole = sum(amounts.values())
    return amounts if whole <= most else {key: part_of(amount, most * PPM // whole) for key, amount in amounts.items()}


def reckoned(rows: list[Shown], rules: Economics = RULES) -> dict[tuple[int, int], Parts]:
    """Compute the parts by day and creator from all rows at once, source by source."""
    gross: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    found: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for viewer, creator, day, amount in rows:
        gross[day, viewer][creator] += amount
        found[day, creator][0] += amount * 9 // 10
    for (day, _), amounts in gross.items():
        vouched = within(amounts, rules.source_day_pix)
        doubtful = {creator: amount - vouched[creator] for creator, amount in amounts.items()}
        beside = {creator: min(amount, rules.beside_pair_pix) for creator, amount in doubtful.items()}
        for creator in amounts:
            parts = (vouched[creator], doubtful[creator], beside[creator], int(doubtful[creator] > 0))
            for place, value in enumerate(parts, 1):
                found[day, creator][place] += value
    return {key: (parts[0], parts[1], parts[2], parts[3], parts[4]) for key, parts in found.items()}


def told(judgement: Judgement) -> dict[tuple[int, int], Parts]:
    """Return the days to judge with their parts, without days that have neither earnings nor parts."""
    found: dict[tuple[int, int], Parts] = {}
    for each in judgement.totals():
        columns = (each.days, each.creators, each.net, each.vouched, each.doubtful, each.beside, each.viewers)
        for day, creator, *parts in zip(*(column.tolist() for column in columns), strict=True):
            if any(parts):
                found[day, creator] = (parts[0], parts[1], parts[2], parts[3], parts[4])
    return found


def today_of(connection: Connection[Any]) -> int:
    return book.clock_s(connection) // DAY_S


def random_rows(rng: random.Random, today: int, count: int) -> list[Shown]:
    return [
        (
            rng.randrange(12),
            rng.choice([1, 1, 1, 2, 3, 4, 5, 6]),
            today - rng.choice([0, 0, 0, 1, 2]),
            rng.randrange(1, 200),
        )
        for _ in range(count)
    ]


def opened(connection: Connection[Any], folder: Path | None, rules: Economics = RULES) -> Audience:
    made = Audience(rules, folder)
    made.load(connection)
    connection.commit()
    return made


def opened_again(connection: Connection[Any], before: Audience, folder: Path | None) -> Audience:
    for store in (before.judged_pairs, before.unjudged_pairs, before.totals):
        store.close()
    return opened(connection, folder)


def hear(connection: Connection[Any], known: Audience, rows: list[Shown]) -> None:
    kept = known.remember(connection, as_pairs(rows), today_of(connection))
    connection.commit()
    known.accept(kept)


def judged(connection: Connection[Any], known: Audience) -> dict[tuple[int, int], Parts]:
    judgement = known.judge(today_of(connection), today_of(connection))
    assert judgement is not None
    keep(connection, known, judgement)
    return told(judgement)


def standing(known: Audience) -> dict[tuple[int, int], Parts]:
    """Return all totals."""
    nothing = runfiles.Run(runfiles.rows_of(), totals.TOTALS.empty())
    return told(Judgement(known.totals.runs, nothing, range(1, 2**16), nothing.keys, 0))


def keep(connection: Connection[Any], known: Audience, judgement: Judgement) -> None:
    kept = known.keep(connection, judgement)
    connection.commit()
    known.judged(judgement, kept)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("on_disk", [True, False])
def test_what_was_judged_step_by_step_is_what_everything_comes_to(
    journal: Connection[Any], tmp_path: Path, small: None, seed: int, on_disk: bool
) -> None:
    rng, today = random.Random(seed), today_of(journal)
    folder = tmp_path / "runs" if on_disk else None
    known, everything = opened(journal, folder), []
    latest: dict[tuple[int, int], Parts] = {}
    for _ in range(12):
        for _ in range(rng.randrange(1, 5)):
            rows = random_rows(rng, today, rng.randrange(1, 40))
            hear(journal, known, rows)
            everything += rows
            if rng.random() < 0.2:  # the process ends here, with some that nobody has judged
                known = opened_again(journal, known, folder)
        found = judged(journal, known)
        latest |= found
        expected = reckoned(everything)
        assert {key: expected[key] for key in found} == found
        if rng.random() < 0.3:
            known = opened_again(journal, known, folder)
    assert latest == standing(known) == reckoned(everything)
    assert known.judge(today, today) is None


def test_only_what_has_changed_is_judged_and_little_is_read(journal: Connection[Any], tmp_path: Path) -> None:
    today, known = today_of(journal), opened(journal, tmp_path)
    hear(journal, known, [(viewer, viewer % 50, today, 100) for viewer in range(5_000)])
    assert len(judged(journal, known)) == 50
    hear(journal, known, [(7, 7, today, 100), (8, 7, today, 100)])
    assert set(judged(journal, known)) == {(today, 7)}


def test_a_day_is_compared_with_the_best_of_the_days_before(journal: Connection[Any], tmp_path: Path) -> None:
    today, rules, nobody = today_of(journal), Economics(source_day_pix=0), np.zeros(0, np.int64)
    known = opened(journal, tmp_path, rules)
    hear(
        journal, known, [(1, 1, today - 2, 500), (1, 1, today - 1, 300), (1, 2, today - 8, 900), (1, 3, today - 9, 900)]
    )
    judged(journal, known)
    hear(journal, known, [(1, creator, today, 100) for creator in (1, 2, 3)])
    judgement = known.judge(today, today)
    assert judgement is not None
    (found,) = judgement.totals()
    before = judgement.best_before(found.keys, nobody, rules)
    assert dict(zip(found.creators.tolist(), before.tolist(), strict=True)) == {1: 450, 2: 810, 3: 0}


def test_a_day_is_judged_when_it_is_over_and_again_where_something_of_it_comes_late(
    journal: Connection[Any], tmp_path: Path
) -> None:
    today, known = today_of(journal), opened(journal, tmp_path)
    hear(journal, known, [(1, 1, today - 1, 100), (1, 1, today, 100), (2, 2, today, 100)])
    before = known.judge(today - 1, today - 1)
    assert before is not None
    assert set(told(before)) == {(today - 1, 1)}
    assert known.is_unjudged
    keep(journal, known, before)
    assert known.judge(today - 1, today - 1) is None
    known = opened_again(journal, known, tmp_path)  # what is over meanwhile is judged by the next process
    assert known.is_unjudged
    over = known.judge(today, today)
    assert over is not None
    assert set(told(over)) == {(today, 1), (today, 2)}
    keep(journal, known, over)
    assert not known.is_unjudged
    hear(journal, known, [(3, 1, today - 1, 100)])
    late = known.judge(today, today)
    assert late is not None
    assert set(told(late)) == {(today - 1, 1), (today, 1)}  # and the day that is measured by it


def test_a_day_that_is_judged_as_it_goes_is_judged_once_more_when_it_is_over(
    journal: Connection[Any], tmp_path: Path
) -> None:
    today, known = today_of(journal), opened(journal, tmp_path)
    hear(journal, known, [(1, 1, today, 100)])
    as_it_goes = known.judge(today - 1, today + 1)
    assert as_it_goes is not None
    assert set(told(as_it_goes)) == {(today, 1)}
    keep(journal, known, as_it_goes)
    known = opened_again(journal, known, tmp_path)
    assert known.judge(today - 1, today + 1) is None
    over = known.judge(today, today + 1)
    assert over is not None
    assert set(told(over)) == {(today, 1)}


def test_other_rules_count_everything_again(journal: Connection[Any], tmp_path: Path) -> None:
    today, stricter = today_of(journal), dataclasses.replace(RULES, source_day_pix=50)
    rows = random_rows(random.Random(1), today, 200)
    known = opened(journal, tmp_path)
    hear(journal, known, rows)
    judged(journal, known)
    known = opened(journal, tmp_path, stricter)
    assert judged(journal, known) == {}  # days that were judged by the rules of before are not judged again
    assert standing(known) == reckoned(rows, stricter)
    again = opened(journal, tmp_path, stricter)
    assert again.judge(today, today) is None
    assert standing(again) == reckoned(rows, stricter)
    hear(journal, again, [(99, 1, today, 10)])
    assert set(judged(journal, again)) == {(today, 1)}


def test_what_an_older_version_has_merged_since_is_counted_again(
    journal: Connection[Any], tmp_path: Path, small: None
) -> None:
    """An older version deletes rows and writes one in their place, with judged and unjudged pairs."""
    today, rng = today_of(journal), random.Random(2)
    rows = [random_rows(rng, today, 30) for _ in range(4)]
    known = opened(journal, tmp_path)
    for some in rows[:3]:
        hear(journal, known, some)
    judged(journal, known)
    hear(journal, known, rows[3])
    merged = as_pairs([*itertools.chain(*rows)])
    journal.execute("DELETE FROM ledger.pair_runs")
    columns = [pairs._narrow(getattr(merged, name), kind).tobytes() for name, kind in pairs.NAMES.items()]
    journal.execute(
        "INSERT INTO ledger.pair_runs (viewers, creators, days, gross, net) VALUES (%s, %s, %s, %s, %s)", columns
    )
    journal.commit()
    known = opened(journal, tmp_path)
    judged(journal, known)
    assert standing(known) == reckoned([*itertools.chain(*rows)])
    assert journal.execute("SELECT count(*), max(length(days)) / 2 FROM ledger.pair_runs").fetchone() == (5, 25)
    assert opened(journal, tmp_path).judge(today, today) is None


def test_pairs_and_totals_that_are_too_old_are_forgotten_but_not_unjudged_pairs(
    journal: Connection[Any], tmp_path: Path, small: None
) -> None:
    today, known = today_of(journal), opened(journal, tmp_path)
    counted = "SELECT (SELECT count(*) FROM ledger.pair_runs), (SELECT count(*) FROM ledger.total_runs)"
    for turn in range(3):
        kept = known.remember(journal, as_pairs([(turn, 1, today - 10, 100)]), today - 10)
        known.accept(kept)
    known.accept(known.remember(journal, as_pairs([(9, 1, today, 100)]), today))
    assert journal.execute(counted).fetchone() == (4, 0)
    judged(journal, known)
    for turn in range(2):
        known.accept(known.remember(journal, as_pairs([(turn, 2, today, 100)]), today))
        judged(journal, known)
    assert journal.execute(counted).fetchone() == (3, 3)
    assert opened(journal, tmp_path).judge(today, today) is None


def blocks(accountant: Fold) -> Iterator[runstore.RunStore]:
    yield accountant._seen.store
    yield from (cap.store for cap in accountant._caps)
    yield from (accountant.audience.judged_pairs, accountant.audience.unjudged_pairs, accountant.audience.totals)


def test_everything_that_folds_remember_lies_in_files(journal: Connection[Any], tmp_path: Path, small: None) -> None:
    fund(journal, 10**9)
    numbers = itertools.count(1)
    accountant = Fold(journal, DEMO, LedgerSettings(), tmp_path)
    for _ in range(14):
        record(
            journal, *(search(shown(number, number % 7, who=f"v{number}")) for number in itertools.islice(numbers, 15))
        )
        accountant.run_once()
        review(journal, accountant.audience, DEMO)
    accountant.close()
    assert {path.suffix for path in tmp_path.iterdir()} >= {
        ".keys",
        ".viewer",
        ".segment",
        ".creator",
        ".pairs",
        ".totals",
    }
    for store in blocks(accountant):
        assert store.in_memory() <= (runstore.BEHIND + 1) * runstore.MEMORY_ROWS_MAX


def test_bounds_of_a_day_hold_over_files_and_when_these_are_lost(
    journal: Connection[Any], tmp_path: Path, small: None
) -> None:
    fund(journal, 10**9)
    bounded, folder = Economics(maturity_s=0, segment_day_max_pix=3_000), tmp_path / "seen"

    def look(names: range) -> list[int]:
        record(journal, *(search(shown(segment, 1, 1000, f"{name}")) for name in names for segment in range(20)))
        accountant = Fold(journal, bounded, LedgerSettings(), folder)
        while accountant.run_once() is not None:
            pass
        accountant.close()
        (row,) = journal.execute("SELECT outcome FROM ledger.outcomes ORDER BY fold_id DESC LIMIT 1").fetchall()
        return list(bytes(row[0]))

    for turn in range(3):
        assert set(look(range(turn, turn + 1))) == {Outcome.FUNDED}
    assert list(folder.glob("*.segment"))
    assert set(look(range(3, 4))) == {Outcome.CAPPED}
    for file in folder.iterdir():
        file.unlink()
    assert set(look(range(4, 5))) == {Outcome.CAPPED}


def test_a_large_row_of_an_older_version_is_read_piece_by_piece(
    journal: Connection[Any], tmp_path: Path, small: None
) -> None:
    today = today_of(journal)
    keys = np.arange(1, 101, dtype=np.uint64)
    change(
        journal,
        "INSERT INTO ledger.day_runs (kind, keys, days, amounts) VALUES ('creator', %s, %s, %s)",
        keys.tobytes(), np.full(100, today, "<u2").tobytes(), np.arange(100, dtype="<i8").tobytes(),
    )  # fmt: skip
    known = Caps("creator", 1, tmp_path)
    known.load(journal)
    assert len(known.store.runs) == 1
    asked = np.array([1, 50, 100, 101], np.uint64)
    assert caps.sums(known.store.runs, asked, 1).tolist() == [0, 49, 99, 0]
