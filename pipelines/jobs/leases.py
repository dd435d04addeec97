"""Leases on videos: which driver works on a video, and how its attempt ended.

All times are the database's. A lease names its owner and carries a fencing token; writes on its behalf check the token,
and change nothing once the lease has passed to another owner. An attempt is counted when it begins, so that a video
that kills its machine is not tried for ever. If an attempt fails because of a dependency, its count is taken back.
Knows SQL and nothing of decoding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from cluster.observability import telemetry
from cluster.resilience import backoff_s
from pipelines.media import NO_FAULT, Failure
from pipelines.settings import IngestSettings

SEARCHABLE = "(status = 'ready' AND pipeline_version IS NOT NULL)"  # ready, and its object has not changed since
STAGED_MAX_AGE = "1 day"


@dataclass(frozen=True)
class Lease:
    """The right to work on a video, with what is needed for it."""

    video_id: int
    token: int  # fencing token
    source_uri: str
    source_etag: str
    source_bytes: int
    attempts: int  # this one included


def claim(
    connection: Connection, video_id: int, owner: str, *, lease_s: int, starts_max: int
) -> Lease | Failure | None:
    """Begin an attempt at a video. If its owner claims it again, return the same lease: a repeated task is one attempt.

    Args:
        connection: Connection to the primary.
        video_id: The video.
        owner: The driver, as "job/submission".
        lease_s: Length of the lease in seconds.
        starts_max: Attempts after which the video is quarantined.

    Returns:
        The lease; a failure if the video was quarantined just now; None if it is leased, finished, or resting.
    """
    with connection.transaction(), connection.cursor(row_factory=class_row(_LeaseRow)) as cursor:
        # The row lock decides between two claims at once.
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
            assert row.lease_token is not None  # a CHECK of the table: owner and token are set together
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
            " status = CASE WHEN status = 'ready' THEN status ELSE 'processing' END"
            " WHERE id = %s RETURNING lease_token",
            (owner, lease_s, video_id),
        ).fetchone()
        assert token is not None
        return row.lease(token[0], began=1)


@dataclass(frozen=True)
class _LeaseRow:
    """The columns of a video that decide a claim."""

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
        """Return the lease with a fencing token; `began` is how many attempts have begun since the row was read."""
        return Lease(self.id, token, self.source_uri, self.source_etag, self.source_bytes, self.attempts + began)


def holds(connection: Connection, lease: Lease) -> bool:
    """Whether the lease is still valid."""
    row = connection.execute(
        "SELECT 1 FROM media.videos WHERE id = %s AND lease_token = %s", (lease.video_id, lease.token)
    ).fetchone()
    return row is not None


def next_token(connection: Connection) -> int:
    """Return a fencing token larger than all before, for work on a video that takes no lease."""
    row = connection.execute("SELECT nextval('media.lease_tokens')").fetchone()
    assert row is not None  # nextval returns a row
    return int(row[0])


def describe(connection: Connection, lease: Lease, facts: Mapping[str, Any]) -> bool:
    """Store what probing found; return False if the lease has ended.

    If the content is another one than before, the video's segments, which are shown until they are replaced, note since
    when they have been shown.
    """
    updated = connection.execute(
        """
        WITH held AS (
            SELECT id, coalesce(content_at, created_at) AS since, content_hash IS DISTINCT FROM %(content_hash)s AS is_other
            FROM media.videos WHERE id = %(video)s AND lease_token = %(token)s FOR UPDATE),
        kept AS (
            UPDATE media.segments s SET shown_since = h.since FROM held h
            WHERE h.is_other AND s.video_id = h.id AND s.shown_since IS NULL)
        UPDATE media.videos v SET content_hash = %(content_hash)s,
            content_at = CASE WHEN h.is_other THEN now() ELSE v.content_at END,
            repost_accepted = v.repost_accepted AND NOT h.is_other,
            container = %(container)s, codec = %(codec)s, width = %(width)s, height = %(height)s, fps = %(fps)s,
            duration_ms = %(duration_ms)s, has_audio = %(has_audio)s, warning = nullif(%(warning)s, '')
        FROM held h WHERE v.id = h.id
        """,
        {**facts, "video": lease.video_id, "token": lease.token},
    )
    return updated.rowcount == 1


def fail(connection: Connection, video_id: int, token: int, failure: Failure, ingest: IngestSettings) -> str | None:
    """End an attempt with a failure.

    A final failure quarantines the video at once. After any other failure the video is queued again, and waits longer
    each time; the failure number `failures_max` quarantines it. Failures that are not the video's fault (`NO_FAULT`) do
    not count. A searchable video stays searchable: if a further attempt at it (for another model or version) is
    refused, only the job records that.

    Args:
        connection: Connection to the primary.
        video_id: The video.
        token: Fencing token of the attempt.
        failure: What went wrong.
        ingest: Says how many failures quarantine a video, and how long it waits after each (`failures_max`,
            `backoff_base_s`, `backoff_max_s`).

    Returns:
        "quarantined" if the video was refused, also if it stays searchable; else its new status, such as "queued"; None
        if the lease has ended.
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
    """End the lease of a refused video, quarantine it unless it is searchable, and record the refusal in its job.

    The job is told at once, since the round may go on for hours.
    """
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
    """End the lease with a failure, set the video's status, and delete what was staged."""
    is_videos_fault = failure.code not in NO_FAULT
    connection.execute(
        "UPDATE media.videos SET status = %s, failures = failures + %s, attempts = greatest(attempts - %s, 0),"
        " error = %s, error_code = %s,"
        " retry_at = CASE WHEN %s > 0 THEN now() + make_interval(secs => %s) END,"
        " lease_owner = NULL, lease_token = NULL, lease_until = NULL WHERE id = %s",
        (
            status,
            int(is_videos_fault),
            int(not is_videos_fault),
            failure.reason,
            failure.code,
            wait_s,
            wait_s,
            video_id,
        ),
    )
    connection.execute("DELETE FROM media.staging WHERE video_id = %s", (video_id,))


def give_up(
    connection: Connection, job_id: str, reason: str = "the job ended before it was read", owner: str = ""
) -> None:
    """Fail the videos of a job that are still unfinished; those without an error get `reason`.

    Args:
        connection: Connection to the primary.
        job_id: The job.
        reason: Reason for videos that have none.
        owner: A driver whose leased videos are failed too, in the same statement, so that its late tasks lose their
            leases.
    """
    connection.execute(
        "UPDATE media.videos v SET status = 'failed', error = coalesce(v.error, %(reason)s),"
        " error_code = coalesce(v.error_code, 'unfinished'), lease_owner = NULL, lease_token = NULL, lease_until = NULL"
        " FROM media.job_videos j WHERE j.job_id = %(job)s AND j.video_id = v.id AND j.outcome IS NULL"
        " AND (v.status = 'queued' OR (v.status = 'processing' AND v.lease_owner = %(owner)s))",
        {"reason": telemetry.public_line(reason), "job": job_id, "owner": owner},
    )


def renew(connection: Connection, owner: str, lease_s: int) -> None:
    """Extend all leases of an owner."""
    connection.execute(
        "UPDATE media.videos SET lease_until = now() + make_interval(secs => %s) WHERE lease_owner = %s",
        (lease_s, owner),
    )


def release(connection: Connection, job_id: str, except_owner: str = "") -> None:
    """End the leases of a job's drivers, except `except_owner`, so that their late writes change nothing.

    The caller must know that these drivers are dead.
    """
    connection.execute(
        "UPDATE media.videos SET lease_owner = NULL, lease_token = NULL, lease_until = NULL,"
        " status = CASE WHEN status = 'processing' THEN 'queued' ELSE status END"
        " WHERE lease_owner LIKE %s AND lease_owner <> %s",
        (job_id + "/%", except_owner),
    )
    # What was staged under an ended lease can never be used.
    connection.execute(
        "DELETE FROM media.staging s USING media.videos v WHERE v.id = s.video_id"
        " AND v.lease_token IS DISTINCT FROM s.lease_token AND s.created_at < now() - %s::interval",
        (STAGED_MAX_AGE,),
    )


def put_back(connection: Connection, owner: str) -> int:
    """End the leases of an owner that no longer works on them; return how many. Their attempts stay counted."""
    updated = connection.execute(
        "UPDATE media.videos SET lease_owner = NULL, lease_token = NULL, lease_until = NULL,"
        " status = CASE WHEN status = 'processing' THEN 'queued' ELSE status END WHERE lease_owner = %s",
        (owner,),
    )
    return updated.rowcount
