"""What viewers watched is forgotten after a while, what is watched most is not; and what the ledger keeps can be seen."""

from __future__ import annotations

import pytest

from cluster.database import database
from cluster.settings import Settings
from serve import retention
from serve.settings import SearchSettings
from tests.serve.doors import fill, opened


def test_events_are_deleted_by_age_some_at_a_time_and_figures_stay(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = fill(settings)
    monkeypatch.setattr(retention, "DELETED_MAX", 3)
    with database.connect(settings.postgres.url) as connection:
        for viewer, days in enumerate([200, 100, 95, 91, 89, 0]):
            connection.execute(
                "INSERT INTO app.watch_events (viewer, segment_id, kind, at)"
                " VALUES (%s, %s, 'play', now() - make_interval(days => %s))",
                (bytes([viewer]) * 16, shelf.moments[0], days),
            )
        connection.commit()
        heat = connection.execute("SELECT segment_id, heat FROM app.watched").fetchall()
        assert not retention.delete_some(connection, 0)
        assert [retention.delete_some(connection, 90) for _ in range(3)] == [True, False, False]
        connection.commit()
        left = connection.execute(
            "SELECT extract(day FROM now() - at)::int FROM app.watch_events ORDER BY at"
        ).fetchall()
        assert [days for (days,) in left] == [89, 0]
        assert connection.execute("SELECT segment_id, heat FROM app.watched").fetchall() == heat


def test_one_replica_at_a_time_deletes(settings: Settings) -> None:
    fill(settings)
    with database.connect(settings.postgres.url) as one, database.connect(settings.postgres.url) as two:
        one.execute("SELECT pg_advisory_xact_lock(%s)", (retention.LOCK,))
        assert not retention.delete_some(two, 90)


def test_events_are_kept_for_longer_than_a_viewer_counts_once() -> None:
    assert SearchSettings(watch_events_keep_d=0).watch_events_keep_d == 0
    with pytest.raises(ValueError, match="watch_events_keep_d"):
        SearchSettings(watch_events_keep_d=7)


async def test_what_the_ledger_keeps_is_among_the_metrics(settings: Settings) -> None:
    fill(settings)
    with database.connect(settings.postgres.url) as connection:
        connection.execute(
            "INSERT INTO ledger.retention (name, keep_d, oldest_at, parts, bytes)"
            " VALUES ('folds', 30, now() - interval '2 days', 4, 5000), ('chain', 0, NULL, 0, 0)"
        )
    async with opened(settings) as doors:
        text = (await doors.http.get("/metrics", headers=doors.key("admin"))).text
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("pixr_ledger_"))
    assert float(found['pixr_ledger_keep_seconds{what="folds"}']) == 30 * 86_400
    assert 172_800 <= float(found['pixr_ledger_oldest_seconds{what="folds"}']) < 173_400
    assert float(found['pixr_ledger_archive_parts{what="folds"}']) == 4
    assert float(found['pixr_ledger_oldest_seconds{what="chain"}']) == 0
