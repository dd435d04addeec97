"""The books of ingest jobs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from psycopg import Connection, Cursor
from psycopg.types.json import Jsonb

from cluster import database, runtime
from cluster.cli import Context
from cluster.errors import Rejected, Temporary
from cluster.runtime import S3Endpoint
from cluster.settings import S3Settings, Settings
from cluster.storage import Storage
from pipelines import catalog, cli, ingest, jobs, leases, lists, model_names
from pipelines.jobs import Options
from pipelines.leases import Lease
from pipelines.listed import Listed
from pipelines.manifest import Entry
from pipelines.settings import ModelSettings


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    with database.connect(settings.postgres.url, autocommit=True) as opened:
        yield opened


def test_a_source_that_cannot_be_read_makes_no_job(settings: Settings, connection: Connection) -> None:
    runtime.port(settings, "solana", 8899)
    runtime.port(settings, "ray", 6379)
    runtime.port(settings, "ray-dashboard", 8265)
    for uri, code in (("s3://elsewhere/x", "bucket-not-allowed"), ("/etc", "bad-request"), ("s3://", "bad-request")):
        with pytest.raises(Rejected) as caught:
            jobs.create(settings, connection, uri)
        assert caught.value.code == code
    assert jobs.listing(connection) == []


def test_a_job_whose_source_is_refused_by_now_is_not_retried_and_its_videos_stay_as_they_are(
    settings: Settings, connection: Connection
) -> None:
    runtime.port(settings, "solana", 8899)
    runtime.port(settings, "ray", 6379)
    runtime.port(settings, "ray-dashboard", 8265)
    begin(connection, "before", 0)
    connection.execute("UPDATE media.jobs SET source = 's3://elsewhere/x', status = 'failed', finished_at = now()")
    connection.execute(
        "UPDATE media.videos SET status = 'quarantined', error = 'no video', error_code = 'x', attempts = 3"
    )
    with pytest.raises(Rejected) as caught:
        jobs.retry(settings, connection, "before")
    assert caught.value.code == "bucket-not-allowed"
    found = connection.execute("SELECT status, error, attempts FROM media.videos").fetchall()
    assert found == [("quarantined", "no video", 3)]
    assert [job["id"] for job in jobs.listing(connection)] == ["before"]


def test_an_unknown_job_is_not_found(connection: Connection) -> None:
    with pytest.raises(Rejected) as caught:
        jobs.get(connection, "none")
    assert caught.value.status == 404


def test_a_list_of_jobs_costs_the_same_few_questions_however_long_it_is(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO media.jobs (id, source) SELECT 'job-' || n, 's3://b/' FROM generate_series(1, 200) AS n"
    )
    asked = 0

    class Counted(Cursor[Any]):
        def execute(self, *arguments: Any, **named: Any) -> Any:
            nonlocal asked
            asked += 1
            return super().execute(*arguments, **named)

    connection.cursor_factory = Counted
    assert len(jobs.listing(connection, 200)) == 200
    assert asked <= 5


def test_options_are_checked() -> None:
    with pytest.raises(Rejected, match="mode"):
        Options(mode="everything")


@pytest.mark.parametrize(
    ("videos", "words"),
    [
        ({"total": 3, "ready": 2, "failed": 0, "quarantined": 1}, None),
        ({"total": 4, "ready": 2, "failed": 0, "quarantined": 1, "removed": 1}, None),
        ({"total": 2, "ready": 0, "failed": 0, "quarantined": 2}, None),
        ({"total": 3, "ready": 2, "failed": 0, "quarantined": 0}, "1 of 3 videos are neither ready nor refused"),
        ({"total": 3, "ready": 2, "failed": 1, "quarantined": 0}, "1 of 3 videos could not be ingested"),
    ],
)
def test_every_video_must_be_accounted_for(videos: dict[str, int], words: str | None) -> None:
    assert jobs.reconcile({"videos": {"removed": 0, **videos}}) == words


def test_help_says_how_a_job_ends_of_which_every_video_was_refused() -> None:
    said = " ".join(CliRunner().invoke(cli.ingest, ["--help"]).output.split())
    assert "0 every video is accounted for (ready, refused for good with its reason" in said


def begin(connection: Connection, name: str, priority: int) -> None:
    connection.execute(
        "INSERT INTO media.jobs (id, source, priority, status, heartbeat_at) VALUES (%s, 's3://b', %s, 'running', now())",
        (name, priority),
    )
    connection.execute("SELECT media.register_model('m', 3, 'f')")
    catalog.register(connection, name, [Listed(f"s3://b/{name}.mp4", "e", 1, "ana", name)], 1)


def test_a_job_gives_way_to_one_of_higher_priority_while_that_has_videos_to_begin(connection: Connection) -> None:
    begin(connection, "calm", 0)
    begin(connection, "also-calm", 0)
    assert not jobs.is_outranked(connection, "calm")
    begin(connection, "urgent", 5)
    assert jobs.is_outranked(connection, "calm")
    assert not jobs.is_outranked(connection, "urgent")
    row = connection.execute("SELECT id FROM media.videos WHERE source_uri = 's3://b/urgent.mp4'").fetchone()
    assert row is not None
    assert isinstance(leases.claim(connection, row[0], "urgent/1", lease_s=60, starts_max=9), Lease)
    assert not jobs.is_outranked(connection, "calm")  # its last video is begun


def test_a_job_whose_driver_is_dead_holds_nobody_up(connection: Connection) -> None:
    begin(connection, "calm", 0)
    begin(connection, "urgent", 5)
    connection.execute("UPDATE media.jobs SET heartbeat_at = now() - interval '1 hour' WHERE id = 'urgent'")
    assert not jobs.is_outranked(connection, "calm")


def test_giving_way_ends_in_time(connection: Connection) -> None:
    begin(connection, "calm", 0)
    begin(connection, "urgent", 5)
    began = time.monotonic()
    jobs.give_way(connection, "calm", 1.5)
    assert 1.5 <= time.monotonic() - began < 10
    connection.execute(
        "UPDATE media.jobs SET status = 'cancelled', cancel = true, finished_at = now() WHERE id = 'urgent'"
    )
    began = time.monotonic()
    jobs.give_way(connection, "calm", 60)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["/etc", "../../etc", "hf-hub:evil/model", "~/model", "ViT-B-32/laion2b_s34b_b79k"])
def test_a_model_that_nobody_has_named_makes_no_job(settings: Settings, connection: Connection, name: str) -> None:
    for port in ("solana", "ray", "ray-dashboard"):
        runtime.port(settings, port, 8265)
    with pytest.raises(Rejected) as caught:
        jobs.create(settings, connection, "s3://pixr/x", Options(model=name))
    assert (caught.value.status, caught.value.code) == (422, "unknown-model")
    assert "pixr-emoji" in caught.value.hint
    assert jobs.listing(connection) == []


def test_known_models_are_those_of_the_settings_the_bundled_and_the_registered_ones(
    settings: Settings, connection: Connection
) -> None:
    own = dataclasses.replace(settings.section(ModelSettings), name="/srv/own", allowed=("hf-hub:good/model",))
    ours = settings.with_section(own)
    connection.execute("SELECT media.register_model('used/before', 3, 'f')")
    for name in ("", "/srv/own", "hf-hub:good/model", "pixr-emoji", "used/before"):
        model_names.require_known(ours, connection, name)
    with pytest.raises(Rejected) as caught:
        model_names.require_known(ours, connection, "/srv/other")
    assert "/srv/own" not in caught.value.hint


def test_a_jobs_error_is_one_line_without_places_and_secrets(connection: Connection) -> None:
    begin(connection, "j", 0)
    said = (
        '\x1b[36mray::_facts()\x1b[39m (pid=7, ip=127.0.0.1)\n  File "/srv/pixr/pipelines/encoder.py", line 3\n'
        "S3 at http://127.0.0.1:9000/x failed on s3://pixr/a/b.mp4: postgresql://pixr:hunter2@db:5432/pixr"
    )
    jobs.finish(connection, "j", 9, "failed", said)
    error = jobs.get(connection, "j")["error"]
    assert "s3://pixr/a/b.mp4" in error
    assert not [part for part in ("\n", "\x1b", "/srv", "127.0.0.1", "9000", "hunter2", "db:5432") if part in error]


def test_what_is_left_out_of_a_source_stands_in_its_job(connection: Connection) -> None:
    begin(connection, "j", 0)
    remark = {"kind": "left out", "reason": "why", "count": 1, "names": ["a.wmv"]}
    jobs.note(connection, "j", {"remarks": [remark]})
    assert jobs.get(connection, "j")["remarks"] == [remark]


def test_a_video_that_was_taken_down_is_no_failure_of_a_job(connection: Connection) -> None:
    begin(connection, "j", 0)
    catalog.remove(connection, 1)
    connection.execute("INSERT INTO media.jobs (id, source) VALUES ('k', 's3://b')")
    for job_id in ("j", "k"):
        catalog.register(connection, job_id, [Listed("s3://b/j.mp4", "e", 1, "ana", "j")], 1)
        jobs.settle(connection, job_id, 1)
        jobs.mark_listed(connection, job_id)
        job = jobs.get(connection, job_id)
        assert job["videos"] == {"total": 1, "ready": 0, "failed": 0, "quarantined": 0, "skipped": 0, "removed": 1}
        assert (job["progress"]["left"], job["failures"], jobs.reconcile(job)) == (0, [], None)


def test_jobs_of_other_creators_are_not_shown(connection: Connection) -> None:
    for name, options in (("any", {}), ("hers", {"speaks_for": ["ana"]}), ("both", {"speaks_for": ["ana", "bo"]})):
        connection.execute(
            "INSERT INTO media.jobs (id, source, options) VALUES (%s, 's3://b', %s)", (name, Jsonb(options))
        )
    for speaks_for, names in ((None, {"any", "hers", "both"}), (["ana"], {"hers"}), (["bo", "ana"], {"hers", "both"})):
        assert {job["id"] for job in jobs.listing(connection, speaks_for=speaks_for)} == names
        assert jobs.count(connection, speaks_for) == len(names)
        for name in {"any", "hers", "both"} - names:
            with pytest.raises(Rejected, match="no job"):
                jobs.get(connection, name, speaks_for)


def test_a_job_of_another_release_that_this_one_refuses_ends_with_the_reason(
    connection: Connection,
) -> None:
    for name in ("j", "k"):
        options = Jsonb({"creator": f"Al\u200bice of {name}"})
        connection.execute("INSERT INTO media.jobs (id, source, options) VALUES (%s, 's3://b', %s)", (name, options))
    connection.execute("INSERT INTO media.creators (handle, name) VALUES (%s, '')", ("Al\u200bice of k",))
    with pytest.raises(Rejected, match="not seen"):
        jobs.begin(connection, "j", 1)
    job = jobs.get(connection, "j")
    assert (job["status"], job["finished_at"] is None) == ("failed", False)
    assert "U+200B, which is not seen" in job["error"]
    connection.execute("INSERT INTO media.jobs (id, source, options) VALUES ('newer', 's3://b', '{\"dub\": \"de\"}')")
    with pytest.raises(Rejected, match="no option 'dub'"):
        jobs.begin(connection, "newer", 1)
    assert [job_id for job_id, *_ in jobs.unfinished(connection)] == ["k"]
    assert jobs.begin(connection, "k", 1)[1].creator == "Al\u200bice of k"  # who is there already goes on


def test_a_job_is_listed_when_uploads_of_what_was_taken_down_are_deleted(
    connection: Connection, s3: S3Endpoint, bucket: str
) -> None:
    """A driver that dies, or finds no store, in between leaves that to the next one."""

    class Away(Storage):
        def delete(self, uri: str) -> None:
            raise Temporary(f"the object store does not answer for {uri}")

    storage, upload = Storage(s3), f"s3://{bucket}/uploads/00/{0:064x}/a.mp4"
    begin(connection, "first", 0)
    connection.execute("UPDATE media.videos SET source_uri = %s", (upload,))
    catalog.remove(connection, 1)
    storage.put_bytes(b"1", upload)
    listing = lists.write(storage, bucket, [lists.Row(upload, Entry("a.mp4", creator="ana"))], [])
    lists.remember(connection, listing)
    connection.execute("INSERT INTO media.jobs (id, source) VALUES ('again', %s)", (listing,))
    with pytest.raises(Temporary):
        ingest.list_source(connection, Away(s3), S3Settings(bucket=bucket), "again", listing, Options(), 1)
    assert (jobs.is_listed(connection, "again"), storage.exists(upload)) == (False, True)
    ingest.list_source(connection, storage, S3Settings(bucket=bucket), "again", listing, Options(), 1)
    assert (jobs.is_listed(connection, "again"), storage.exists(upload)) == (True, False)
    assert jobs.get(connection, "again")["videos"]["removed"] == 1


@pytest.mark.parametrize("folders", [None, ["s3://{}/ana/"], ["s3://{}/v/ana/"], []])
def test_a_driver_lists_what_is_in_the_folders_of_a_jobs_key(
    connection: Connection, s3: S3Endpoint, bucket: str, folders: list[str] | None
) -> None:
    """Whatever stands in the row: a release before this one kept no folders there."""
    storage, at = Storage(s3), S3Settings(bucket=bucket, ingest_buckets=(bucket,))
    named = None if folders is None else [folder.format(bucket) for folder in folders]
    options = Options(creator="ana", speaks_for=["ana"], folders=named)
    for number, folder in enumerate(("ana", "v/ana")):
        storage.put_bytes(folder.encode(), f"s3://{bucket}/{folder}/a.mp4")
        job_id, uri = f"of-{number}", f"s3://{bucket}/{folder}/"
        connection.execute("INSERT INTO media.jobs (id, source) VALUES (%s, %s)", (job_id, uri))
        if uri in (named if named is not None else [f"s3://{bucket}/ana/"]):
            ingest.list_source(connection, storage, at, job_id, uri, options, 1)
            assert jobs.get(connection, job_id)["videos"]["total"] == 1
        else:
            with pytest.raises(Rejected, match="in none of the folders"):
                ingest.list_source(connection, storage, at, job_id, uri, options, 1)


@pytest.mark.parametrize(
    ("outcome", "advice"),
    [("failed", "with `pixr jobs retry j`"), ("quarantined", "next `pixr ingest` takes a mended file")],
)
def test_only_what_may_succeed_next_time_is_said_to_be_tried_again(
    connection: Connection, capsys: pytest.CaptureFixture[str], outcome: str, advice: str
) -> None:
    connection.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
    catalog.register(connection, "j", [Listed("s3://b/j.mp4", "e", 1, "ana", "j")], 1)
    connection.execute("UPDATE media.job_videos SET outcome = %s, error = 'why', error_code = 'damaged'", (outcome,))
    cli._show(Context(None), jobs.get(connection, "j"), False)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{outcome}: j.mp4: why {'try what failed again' if outcome == 'failed' else 'what is quarantined'}" in said
    assert advice in said
