"""Jobs whose driver died are submitted again, a bounded number of times."""

from __future__ import annotations

import dataclasses
import secrets

import pytest
from click.testing import CliRunner
from psycopg import Connection
from psycopg.types.json import Jsonb

from cluster.cli.context import Context
from cluster.errors import Temporary
from cluster.settings import Settings
from pipelines import cli
from pipelines.jobs import jobs, watch
from pipelines.settings import IngestSettings


def lost_job(connection: Connection, submissions: int) -> str:
    """A job whose submission the cluster does not know."""
    job_id = f"lost-{secrets.token_hex(4)}"
    connection.execute(
        "INSERT INTO media.jobs (id, source, status, submissions, submission_id, submitted_at)"
        " VALUES (%s, 's3://none', 'running', %s, %s, now() - interval '1 hour')",
        (job_id, submissions, f"{job_id}-{submissions}"),
    )
    return job_id


def test_a_lost_job_is_submitted_again_once(deployment: Settings, connection: Connection) -> None:
    job_id = lost_job(connection, 1)
    assert watch.look(deployment, connection) == [job_id]
    assert watch.look(deployment, connection) == []
    assert jobs.get(connection, job_id)["submissions"] == 2
    jobs.cancel(deployment, connection, job_id)


def test_a_job_that_keeps_dying_is_given_up_with_a_way_on(deployment: Settings, connection: Connection) -> None:
    job_id = lost_job(connection, deployment.section(IngestSettings).submissions_max + 1)
    assert watch.look(deployment, connection) == []
    job = jobs.get(connection, job_id)
    assert job["status"] == "failed"
    assert f"pixr jobs retry {job_id}" in job["error"]


def test_an_older_driver_ends_itself(deployment: Settings, connection: Connection) -> None:
    job_id = lost_job(connection, 3)
    assert not jobs.beat(connection, job_id, 2)
    assert jobs.beat(connection, job_id, 3)
    jobs.finish(connection, job_id, 2, "succeeded", None)
    assert jobs.get(connection, job_id)["status"] == "running"


def waiting_job(connection: Connection, priority: int = 0, speaks_for: str = "") -> str:
    """A job that nobody has submitted yet."""
    job_id = f"waits-{secrets.token_hex(4)}"
    connection.execute(
        "INSERT INTO media.jobs (id, source, options, priority) VALUES (%s, 's3://none', %s, %s)",
        (job_id, Jsonb({"speaks_for": [speaks_for]} if speaks_for else {}), priority),
    )
    return job_id


def at_work(connection: Connection, speaks_for: str = "") -> str:
    """A job whose driver has just shown that it lives, though the cluster does not know it: not submitted again so soon."""
    job_id = waiting_job(connection, speaks_for=speaks_for)
    connection.execute(
        "UPDATE media.jobs SET status = 'running', submissions = 5, submission_id = id || '-5', submitted_at = now(),"
        " heartbeat_at = now() WHERE id = %s",
        (job_id,),
    )
    return job_id


def over(connection: Connection, *job_ids: str) -> None:
    connection.execute(
        "UPDATE media.jobs SET finished_at = now(), status = 'cancelled' WHERE id = ANY(%s)", (list(job_ids),)
    )


def test_no_more_jobs_are_at_work_than_may_be_and_the_urgent_one_is_next(
    deployment: Settings, connection: Connection
) -> None:
    busy = [at_work(connection) for _ in range(deployment.section(IngestSettings).jobs_at_work_max)]
    patient, urgent = waiting_job(connection), waiting_job(connection, priority=5)
    assert watch.look(deployment, connection) == []
    assert not jobs.submit(deployment, connection, patient)
    said = f"a free place: no more than {len(busy)} jobs are at work at once ([ingest] jobs_at_work_max)"
    assert [jobs.get(connection, each)["waits_for"] for each in (patient, urgent, busy[0])] == [said, said, None]
    over(connection, busy[0])
    assert watch.look(deployment, connection) == [urgent]
    assert jobs.get(connection, urgent)["waits_for"] == "its driver, which the Ray cluster starts"
    assert watch.look(deployment, connection) == []
    jobs.cancel(deployment, connection, urgent)
    assert watch.look(deployment, connection) == [patient]
    jobs.cancel(deployment, connection, patient)
    over(connection, *busy)


def test_a_job_says_that_it_waits_for_the_cluster(deployment: Settings, connection: Connection) -> None:
    away = deployment.with_section(dataclasses.replace(deployment.ray, dashboard_url="http://127.0.0.1:1"))
    job_id = waiting_job(connection)
    assert jobs.get(connection, job_id)["waits_for"] == "the Ray cluster"
    with pytest.raises(Temporary):
        jobs.submit(away, connection, job_id)
    said = "the Ray cluster, which does not answer"
    assert [job["waits_for"] for job in jobs.listing(connection)] == [said]
    context = Context(None)
    context.__dict__["settings"] = deployment
    shown = CliRunner().invoke(cli.jobs, ["show", job_id], obj=context)
    assert f"waits for {said}" in " ".join(shown.output.split())
    beat = "UPDATE media.jobs SET status = 'running', heartbeat_at = now() - make_interval(secs => %s)"
    for silent_s, waits_for in ((0, None), (3600, said)):
        connection.execute(beat, (silent_s,))
        assert jobs.get(connection, job_id)["waits_for"] == waits_for
    over(connection, job_id)
    assert jobs.get(connection, job_id)["waits_for"] is None


def test_who_speaks_for_some_creators_leaves_room_for_others(deployment: Settings, connection: Connection) -> None:
    each = deployment.section(IngestSettings).jobs_at_work_each_max
    busy = [at_work(connection, "ana") for _ in range(each)]
    hers, his = waiting_job(connection, speaks_for="ana"), waiting_job(connection, speaks_for="bo")
    assert watch.look(deployment, connection) == [his]
    assert "jobs for the same creators are at work at once" in jobs.get(connection, hers)["waits_for"]
    over(connection, *busy)
    assert watch.look(deployment, connection) == [hers]
    for job_id in (hers, his):
        jobs.cancel(deployment, connection, job_id)


def test_a_job_that_is_being_handed_over_is_not_submitted_a_second_time(
    deployment: Settings, connection: Connection
) -> None:
    """On a busy machine Ray takes longer to take a submission than a lost one is waited for."""
    job_id = lost_job(connection, 1)
    aged = "UPDATE media.jobs SET submitted_at = now() - make_interval(secs => %s), heartbeat_at = %s WHERE id = %s"
    handover_s = deployment.section(IngestSettings).handover_max_s
    connection.execute(aged, (handover_s / 2, None, job_id))
    assert watch.look(deployment, connection) == []
    connection.execute("UPDATE media.jobs SET submission_id = NULL WHERE id = %s", (job_id,))  # Ray did not take it
    assert watch.look(deployment, connection) == [job_id]
    jobs.cancel(deployment, connection, job_id)
    begun = lost_job(connection, 1)  # its driver was there: Ray has forgotten it
    connection.execute(aged, (handover_s / 2, "now", begun))
    assert watch.look(deployment, connection) == [begun]
    jobs.cancel(deployment, connection, begun)
