"""Leases on videos: who works on one, and how that ended.

All instants are the database's. A lease names its owner and carries a fencing token; whatever is written on its behalf
names the token and finds nothing when the lease has passed on. An attempt is counted when it begins, so that a video
that takes its machine down is not tried for ever; one that a dependency ended is not counted after all. Knows SQL and
nothing of decoding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from cluster import telemetry
from cluster.errors import Rejected
from cluster.resilience import backoff_s
from pipelines.media import NO_FAULT, Failure
from pipelines.settings import IngestSettings

SEARCHABLE = "(status = 'ready' AND pipeline_version IS NOT NULL)"  # its moments are those of the object as it is
STAGED_MAX_AGE = "1 day"


@dataclass(frozen=True)
class Lease:
    """The right to work on a video, and what is needed for it."""

    video_id: int
    token: int
    source_uri: str
    source_etag: str
    source_bytes: int
    attempts: int


def claim(
    connection: Connection, video_id: int, owner: str, *, lease_s: int, starts_max: int
) -> Lease | Failure | None:
    """Begin an attempt. None: another one is at work on it, it is done, or its time has not come.

    The same owner asking again gets the lease it has: a task that is repeated is no new attempt.
    """
    with connection.transaction(), connection.cursor(row_factory=class_row(_Row)) as cursor:
        # The lock decides between two that ask at once.
        row = cursor.execute(
            f"SELECT id, status, {SEARCHABLE} AS searchable, attempts, lease_owner, lease_token,"
            " source_uri, source_etag, source_bytes, coalesce(lease_until > now(), false) AS leased,"
            " coalesce(retry_at > now(), false) AS resting"
            " FROM media.videos WHERE id = %s FOR UPDATE",
            (video_id,),
        ).fetchone()
        if row is None or row.status in ("removed", "quarantined", "failed"):
            return None
        if row.leased and row.lease_owner == owner:
            assert row.lease_token is not None  # owner and token come and go together: a CHECK says so
            return row.lease(row.lease_token)
        if row.leased or row.resting:
            return None
        if row.attempts >= starts_max:
            failure = Failure("lost-too-often", f"{row.attempts} attempts were cut short without an answer", final=True)
            _refuse(connection, video_id, failure, owner, searchable=row.searchable)
            return failure
        token = cursor.connection.execute(
            "UPDATE media.videos SET attempts = attempts + 1, lease_owner = %s,"
            " lease_token = nextval('media.lease_tokens'), lease_until = now() + make_interval(secs => %s),"
            " probed_hash = NULL, status = CASE WHEN status = 'ready' THEN status ELSE 'processing' END"
            " WHERE id = %s RETURNING lease_token",
            (owner, lease_s, video_id),
        ).fetchone()
        assert token is not None
        return row.lease(token[0], began=1)


@dataclass(frozen=True)
class _Row:
    id: int
    status: str
    searchable: bool
    attempts: int
    lease_owner: str | None
    lease_token: int | None
    source_uri: str
    source_etag: str
    source_bytes: int
    leased: bool
    resting: bool

    def lease(self, token: int, began: int = 0) -> Lease:
        return Lease(self.id, token, self.source_uri, self.source_etag, self.source_bytes, self.attempts + began)


def holds(connection: Connection, lease: Lease) -> bool:
    """Whether a lease is still that of its video."""
    row = connection.execute(
        "SELECT 1 FROM media.videos WHERE id = %s AND lease_token = %s", (lease.video_id, lease.token)
    ).fetchone()
    return row is not None


def next_token(connection: Connection) -> int:
    """A token larger than all before it, for work on a video that takes no lease."""
    row = connection.execute("SELECT nextval('media.lease_tokens')").fetchone()
    assert row is not None  # of a sequence
    return int(row[0])


def describe(connection: Connection, lease: Lease, facts: Mapping[str, Any]) -> bool:
    """Write what probing found; False when the lease has passed on. The content is the video's with its moments alone.

    Raises:
        Rejected: this attempt has found another content before.
    """
    done = connection.execute(
        """
        WITH held AS (
            SELECT id, content_hash, coalesce(content_at, created_at) AS since FROM media.videos
            WHERE id = %(video)s AND lease_token = %(token)s
              AND coalesce(probed_hash, %(content_hash)s::text) IS NOT DISTINCT FROM %(content_hash)s FOR UPDATE),
        had AS (
            INSERT INTO media.contents (video_id, content_hash, since)
            SELECT id, hash, min(since)
            FROM (SELECT id, content_hash AS hash, since FROM held WHERE content_hash IS NOT NULL
                  UNION ALL SELECT id, %(content_hash)s, now() FROM held) h
            GROUP BY id, hash ON CONFLICT DO NOTHING)
        UPDATE media.videos v SET probed_hash = %(content_hash)s,
            container = %(container)s, codec = %(codec)s, width = %(width)s, height = %(height)s, fps = %(fps)s,
            duration_ms = %(duration_ms)s, has_audio = %(has_audio)s, warning = nullif(%(warning)s, '')
        FROM held h WHERE v.id = h.id
        """,
        {**facts, "video": lease.video_id, "token": lease.token},
    )
    if not done.rowcount and holds(connection, lease):
        raise Rejected(f"{lease.source_uri} changed while it was read", code="changed")
    return done.rowcount == 1


def fail(connection: Connection, video_id: int, token: int, failure: Failure, ingest: IngestSettings) -> str | None:
    """End an attempt with an error; the video's new status, or None when the lease has passed on.

    What trying again cannot mend is quarantined at once, other errors after `failures_max` of them, each tried again
    later than the one before (`backoff_base_s`, `backoff_max_s`); a dependency that was away is nobody's failure. A
    video whose moments can be searched stays as it is, whatever a further look at it (for another model, or by another
    version) came to: then only the job has refused it.
    """
    failure = dataclasses.replace(failure, reason=telemetry.public_line(failure.reason))
    with connection.transaction():
        row = connection.execute(
            f"SELECT failures, status, {SEARCHABLE}, lease_owner FROM media.videos"
            " WHERE id = %s AND lease_token = %s FOR UPDATE",
            (video_id, token),
        ).fetchone()
        if row is None:
            return None
        failures, status, searchable, owner = row
        if failure.final or (failure.code not in NO_FAULT and failures + 1 >= ingest.failures_max):
            _refuse(connection, video_id, failure, owner, searchable=searchable)
            return "quarantined"
        if status != "ready":
            status = "queued"
        wait_s = backoff_s(failures + 1, ingest.backoff_base_s, ingest.backoff_max_s)
        _end(connection, video_id, failure, status, wait_s)
        return str(status)


def _refuse(connection: Connection, video_id: int, failure: Failure, owner: str, *, searchable: bool) -> None:
    """For good: said in the job at once, though its round may go on for hours."""
    connection.execute(
        "UPDATE media.job_videos SET outcome = 'quarantined', error = %s, error_code = %s"
        " WHERE job_id = %s AND video_id = %s",
        (failure.reason, failure.code, owner.rpartition("/")[0], video_id),
    )
    if not searchable:
        _end(connection, video_id, failure, "quarantined", 0.0)
        return
    connection.execute(
        "UPDATE media.videos SET retry_at = NULL, lease_owner = NULL, lease_token = NULL, lease_until = NULL WHERE id = %s",
        (video_id,),
    )
    connection.execute("DELETE FROM media.staging WHERE video_id = %s", (video_id,))


def _end(connection: Connection, video_id: int, failure: Failure, status: str, wait_s: float) -> None:
    of_video = failure.code not in NO_FAULT
    connection.execute(
        "UPDATE media.videos SET status = %s, failures = failures + %s, attempts = greatest(attempts - %s, 0),"
        " error = %s, error_code = %s,"
        " retry_at = CASE WHEN %s > 0 THEN now() + make_interval(secs => %s) END,"
        " lease_owner = NULL, lease_token = NULL, lease_until = NULL WHERE id = %s",
        (status, int(of_video), int(not of_video), failure.reason, failure.code, wait_s, wait_s, video_id),
    )
    connection.execute("DELETE FROM media.staging WHERE video_id = %s", (video_id,))


def give_up(
    connection: Connection, job_id: str, reason: str = "the job ended before it was read", owner: str = ""
) -> None:
    """Videos of a job that stay unfinished are failed, for the reason they have or this one.

    With `owner` those too that it has leased: in the same statement, so that a task of its that comes late finds a video
    failed, or has its lease taken.
    """
    connection.execute(
        "UPDATE media.videos v SET status = 'failed', error = coalesce(v.error, %(reason)s),"
        " error_code = coalesce(v.error_code, 'unfinished'), lease_owner = NULL, lease_token = NULL, lease_until = NULL"
        " FROM media.job_videos j WHERE j.job_id = %(job)s AND j.video_id = v.id AND j.outcome IS NULL"
        " AND (v.status = 'queued' OR (v.status = 'processing' AND v.lease_owner = %(owner)s))",
        {"reason": telemetry.public_line(reason), "job": job_id, "owner": owner},
    )


def renew(connection: Connection, owner: str, lease_s: int) -> None:
    """Keep what an owner works on."""
    connection.execute(
        "UPDATE media.videos SET lease_until = now() + make_interval(secs => %s) WHERE lease_owner = %s",
        (lease_s, owner),
    )


def release(connection: Connection, job_id: str, except_owner: str = "") -> None:
    """Free what earlier drivers of a job, known to be dead, had leased. Their late writes find no lease."""
    connection.execute(
        "UPDATE media.videos SET lease_owner = NULL, lease_token = NULL, lease_until = NULL,"
        " status = CASE WHEN status = 'processing' THEN 'queued' ELSE status END"
        " WHERE lease_owner LIKE %s AND lease_owner <> %s",
        (job_id + "/%", except_owner),
    )
    # What was staged under leases that ended can never be used.
    connection.execute(
        "DELETE FROM media.staging s USING media.videos v WHERE v.id = s.video_id"
        " AND v.lease_token IS DISTINCT FROM s.lease_token AND s.created_at < now() - %s::interval",
        (STAGED_MAX_AGE,),
    )


def put_back(connection: Connection, owner: str) -> int:
    """Free what an owner has leased and no longer works on; returns how many videos. They count as begun."""
    done = connection.execute(
        "UPDATE media.videos SET lease_owner = NULL, lease_token = NULL, lease_until = NULL,"
        " status = CASE WHEN status = 'processing' THEN 'queued' ELSE status END WHERE lease_owner = %s",
        (owner,),
    )
    return done.rowcount
