"""The dry run: what is done, what is left, and what that would take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from psycopg import Connection

from cluster.cli.context import Context
from cluster.database import database
from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines.catalog import catalog
from pipelines.cli import ingest
from pipelines.jobs import estimate
from pipelines.media import PIPELINE_VERSION
from pipelines.sources import remarks, source
from pipelines.sources.listed import Listed
from pipelines.sources.remarks import Remarks

VIDEOS = [Listed(f"s3://b/{name}.mp4", "e", 1_000_000, "ana", name) for name in ("done", "bad", "changed", "new")]


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    with database.connect(settings.postgres.url, autocommit=True) as opened:
        opened.execute("SELECT media.register_model('m', 3, 'f')")
        opened.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
        yield opened


def test_before_the_first_job_nothing_is_known(settings: Settings, connection: Connection) -> None:
    plan = estimate.of(settings, connection, VIDEOS, "m")
    assert (plan["videos"], plan["to_ingest"], plan["done_before"], plan["estimate"]) == (4, 4, 0, None)


def test_what_is_done_or_refused_is_not_to_be_done_and_the_rest_is_judged_by_it(
    settings: Settings, connection: Connection
) -> None:
    catalog.register(connection, "j", VIDEOS[:3], 1)
    connection.execute(
        "UPDATE media.videos SET status = 'ready', ready_at = now(), pipeline_version = %s, duration_ms = 3600000"
        " WHERE source_uri ~ 'done|changed'",
        (PIPELINE_VERSION,),
    )
    connection.execute(
        "INSERT INTO media.embeddings SELECT 1, id, id, creator_id, 0, 1, now(), '[1,0,0]' FROM media.videos"
    )
    connection.execute(
        "UPDATE media.videos SET status = 'quarantined', error = 'e', error_code = 'c' WHERE source_uri ~ 'bad'"
    )
    connection.execute(
        "UPDATE media.job_videos SET outcome = 'ready', frames = 9, bytes = 1000000, decode_seconds = 60,"
        " embed_seconds = 6 WHERE video_id = 1"
    )
    changed = Listed("s3://b/changed.mp4", "another", 1_000_000, "ana", "changed")
    before = connection.execute("SELECT * FROM media.videos ORDER BY id").fetchall()
    plan = estimate.of(settings, connection, [*VIDEOS[:2], changed, VIDEOS[3]], "m")
    assert (plan["done_before"], plan["refused_before"], plan["to_ingest"], plan["to_ingest_bytes"]) == (
        1,
        1,
        2,
        2_000_000,
    )
    assert plan["estimate"] == {
        "hours_of_video": 2.0, "decode_cpu_seconds": 120.0, "embed_seconds": 12.0, "cost_usd": 0.0015
    }  # fmt: skip
    nothing = estimate.of(settings, connection, VIDEOS[:1], "m")
    assert (nothing["to_ingest"], nothing["estimate"]) == (0, dict.fromkeys(plan["estimate"], 0.0))
    assert connection.execute("SELECT * FROM media.videos ORDER BY id").fetchall() == before
    assert estimate.of(settings, connection, VIDEOS, "another model")["done_before"] == 0


def test_what_was_taken_down_is_said_to_be_so_whatever_its_content_is_now(
    settings: Settings, connection: Connection
) -> None:
    catalog.register(connection, "j", VIDEOS[:2], 1)
    connection.execute(
        "UPDATE media.videos SET status = 'quarantined', error = 'e', error_code = 'c' WHERE source_uri ~ 'bad'"
    )
    row = connection.execute("SELECT id FROM media.videos WHERE source_uri ~ 'done'").fetchone()
    assert row is not None
    catalog.remove(connection, row[0])
    another = Listed("s3://b/done.mp4", "another", 2, "ana", "done")
    for video in (VIDEOS[0], another):
        noted = Remarks()
        plan = estimate.of(settings, connection, [video, *VIDEOS[1:]], "m", noted)
        assert (plan["taken_down_before"], plan["refused_before"], plan["to_ingest"]) == (1, 1, 2)
        assert [remarks.line(row) for row in noted.rows()] == ["taken down: done.mp4: it stays so"]


def test_a_local_folder_is_known_by_its_content(clips: Path, settings: Settings, connection: Connection) -> None:
    [video] = source.local(clips / "cuts.mp4", "pixr", None, creator="bruno").videos
    assert video.size == (clips / "cuts.mp4").stat().st_size
    assert video.creator == "bruno"
    catalog.register(connection, "j", [Listed(video.source_uri, "from S3", video.size, "bruno", "x")], 1)
    connection.execute("UPDATE media.videos SET status = 'quarantined', error = 'e', error_code = 'c'")
    assert estimate.of(settings, connection, [video], "m")["refused_before"] == 1


def test_a_dry_run_prints_the_plan_and_makes_no_job(clips: Path, deployment: Settings) -> None:
    context = Context(deployment.path)
    context.__dict__["settings"] = deployment
    ran = CliRunner().invoke(ingest, [str(clips / "cuts.mp4"), "--dry-run", "--json"], obj=context)
    assert ran.exit_code == 0, ran.output
    plan = json.loads(ran.stdout)
    assert (plan["videos"], plan["to_ingest"], plan["taken_down_before"], plan["estimate"]) == (1, 1, 0, None)
    refused = CliRunner().invoke(ingest, ["s3://elsewhere/x", "--dry-run"], obj=context)
    assert isinstance(refused.exception, Rejected)
    with database.connect(deployment.postgres.url, autocommit=True) as opened:
        assert opened.execute("SELECT count(*) FROM media.jobs").fetchone() == (0,)
        assert opened.execute("SELECT count(*) FROM media.videos").fetchone() == (0,)
