"""Jobs that ended long ago are forgotten, some rows at a time; what they made stays."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import Connection

from cluster.database import database
from cluster.settings import Settings
from pipelines.jobs import retention
from pipelines.settings import IngestSettings


def job(connection: Connection[Any], name: str, days: int | None, videos: int, source: str = "s3://none") -> None:
    """A job that ended so many days ago, or has not, with so many videos."""
    connection.execute(
        "INSERT INTO media.jobs (id, source, status, finished_at) VALUES (%s, %s, %s, now() - make_interval(days => %s))",
        (name, source, "running" if days is None else "succeeded", days),
    )
    connection.execute(
        "WITH c AS (INSERT INTO media.creators (handle, name) VALUES (%(name)s, %(name)s) RETURNING id),"
        " v AS (INSERT INTO media.videos (creator_id, source_uri)"
        "       SELECT c.id, %(name)s || n FROM c, generate_series(1, %(n)s) n RETURNING id)"
        " INSERT INTO media.job_videos (job_id, video_id, position) SELECT %(name)s, id, 1 FROM v",
        {"name": name, "n": videos},
    )


def test_jobs_are_deleted_by_age_and_their_videos_stay(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "DELETED_MAX", 3)
    url = settings.postgres.url.replace("//pixr:", "//pixr_jobs:")  # as the part that does it may
    with (
        database.connect(settings.postgres.url, autocommit=True) as connection,
        database.connect(url, autocommit=True) as own,
    ):
        job(connection, "oldest", 400, 5)
        job(connection, "old", 181, 2, "s3://pixr/uploads/lists/old.jsonl")
        job(connection, "young", 179, 2, "s3://pixr/uploads/lists/young.jsonl")
        job(connection, "at-work", None, 2)
        connection.execute(
            "INSERT INTO media.lists (uri, created_at) SELECT format('s3://pixr/uploads/lists/%s.jsonl', n),"
            " now() - interval '300 days' FROM unnest(ARRAY['old', 'young', 'nobodys']) n"
        )
        assert not retention.delete_some(own, 0)
        assert [retention.delete_some(own, 180) for _ in range(4)] == [True, True, False, False]
        left = connection.execute(
            "SELECT j.id, count(v)::int FROM media.jobs j LEFT JOIN media.job_videos v ON v.job_id = j.id GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert left == [("at-work", 2), ("young", 2)]
        assert connection.execute("SELECT count(*)::int FROM media.videos").fetchone() == (11,)
        lists = connection.execute("SELECT uri FROM media.lists").fetchall()
        assert lists == [("s3://pixr/uploads/lists/young.jsonl",)]


def test_a_job_is_kept_for_no_negative_time() -> None:
    with pytest.raises(ValueError, match="jobs_keep_d"):
        IngestSettings(jobs_keep_d=-1)
