"""The table of ingest jobs, `media.jobs`: creating, submitting, cancelling and retrying jobs, and their JSON documents.

A job is a row in PostgreSQL first and a submission to Ray second: if Ray loses it, the row remains, and `watch` submits
it again. `submissions` fences drivers: a driver that is not of the latest submission ends itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import secrets
import shlex
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

from cluster import jobs as submissions
from cluster import ray_cluster, runtime
from cluster.errors import Rejected, Temporary
from cluster.observability import telemetry
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines.catalog import catalog, creators
from pipelines.jobs import leases
from pipelines.models import names as model_names
from pipelines.models import registry
from pipelines.settings import MODES, IngestSettings
from pipelines.sources import handles, lists, ownership, prefixes, source
from pipelines.sources.handles import Rights

log = logging.getLogger(__name__)

FAILURES_SHOWN_MAX = 100
LISTED_MAX = 200
TOTAL_MAX = 100_000  # rows that a total counts at most
ALIVE_S = 30  # since a driver's last heartbeat
LOOK_S = 1.0  # between checks for more urgent jobs
UNFINISHED = ("queued", "running")
NOTHING_COUNTED = (0,) * 10  # for a job without videos
CATALOGUE = "catalogue"  # the source of a back-fill
# Jobs that speak for a subset of these creators. A job that speaks for any creator is shown only to keys that do so too.
THEIRS = "(%(creators)s::text[] IS NULL OR options->'speaks_for' <@ to_jsonb(%(creators)s::text[]))"

# Other jobs with a live driver, or submitted so lately that their driver may be starting.
AT_WORK = """
FROM media.jobs other WHERE other.finished_at IS NULL AND other.submission_id IS NOT NULL AND other.id <> jobs.id
  AND (other.heartbeat_at > now() - make_interval(secs => %(alive_s)s)
       OR other.submitted_at > now() - make_interval(secs => %(handover_s)s))
"""
# Whether fewer such jobs than allowed are at work, in all and for exactly the same creators.
HAS_ROOM = f"""
SELECT count(*) < %(most)s AND count(*) FILTER (WHERE other.options->'speaks_for' = jobs.options->'speaks_for') < %(each)s
{AT_WORK}"""
# What a job without a live driver waits for: what was noted at its last submission, else Ray.
PLACE = "a free place: no more than {most} jobs are at work at once ([ingest] jobs_at_work_max)"
PLACE_OF_EACH = (
    "a free place: no more than {each} jobs for the same creators are at work at once ([ingest] jobs_at_work_each_max)"
)
CLUSTER_AWAY = "the Ray cluster, which does not answer"
WAITS_FOR = f"""
CASE WHEN finished_at IS NULL AND NOT coalesce(heartbeat_at > now() - make_interval(secs => {ALIVE_S}), false)
     THEN coalesce(report->>'waits_for', CASE WHEN submission_id IS NULL THEN 'the Ray cluster'
                                              ELSE 'its driver, which the Ray cluster starts' END) END
"""


@dataclass(frozen=True)
class Options:
    """What a job was asked to do, besides its source."""

    creator: str = ""  # handle of the creator of videos whose manifest names none
    manifest: str = ""  # URI of the manifest for the whole source; "" for those beside the videos
    model: str = ""  # "" for that of the settings
    mode: str = ""  # sampling mode; "" for that of the settings
    origin: str = ""  # the local path that was uploaded
    speaks_for: Sequence[str] | None = None  # handles of the creators whose videos it may list; None: any
    reassign: bool = False  # whether to move videos that were shown as another creator's
    # Folders that source and manifest must be in if the job speaks for some creators only; None: the usual ones of these.
    folders: Sequence[str] | None = None
    known: InitVar[Collection[str]] = ()  # handles of existing creators, which are valid as they are

    def __post_init__(self, known: Collection[str]) -> None:
        if self.mode and self.mode not in MODES:
            raise Rejected(f"mode {self.mode!r} is unknown", code="bad-mode", hint=f"known: {', '.join(MODES)}")
        if not self.creator:
            return
        if self.creator not in (self.speaks_for or ()):  # those were checked when the key was made
            object.__setattr__(self, "creator", handles.checked([self.creator], known)[0])
        if reason := self.rights().refusal(self.creator):
            raise Rejected(f"creator {self.creator!r}: {reason}", status=403, code="not-yours")

    def rights(self, buckets: Sequence[str] = ()) -> Rights:
        """Return the creators that the job may speak for, and its folders; `buckets` are those that jobs may read."""
        if self.speaks_for is None:
            return Rights(None, self.reassign)
        folders = prefixes.usual(self.speaks_for, buckets) if self.folders is None else tuple(self.folders)
        return Rights(frozenset(self.speaks_for), self.reassign, folders)


def create(
    settings: Settings,
    connection: Connection,
    job_source: str,
    options: Options | None = None,
    *,
    priority: int = 0,
    storage: Storage | None = None,
) -> dict[str, Any]:
    """Create a job and submit it.

    If Ray is away, or as many jobs are at work as allowed, it stays queued and the watch submits it later.

    Args:
        settings: All settings.
        connection: Connection to the primary.
        job_source: S3 prefix or upload list.
        options: What to do, besides the source.
        priority: Jobs with a higher one go first.
        storage: The caller's object store, if it has one: making another takes most of a second of CPU.

    Returns:
        The job's document.

    Raises:
        Rejected: the source is not an S3 URI, its bucket may not be read or does not exist, or the model is unknown.
    """
    options = options or Options()
    _check(settings, connection, job_source, options, storage)
    job_id = _insert(connection, job_source, options, priority)
    connection.commit()
    return _submitted(settings, connection, job_id)


def queue(
    settings: Settings,
    connection: Connection,
    job_source: str,
    options: Options,
    *,
    priority: int = 0,
    storage: Storage | None = None,
    repeat_key: str = "",
) -> dict[str, Any]:
    """Create a job that the watch submits, so that nothing here waits for the cluster. The caller commits.

    A folder that Pixr itself writes is refused as source and as manifest, for any caller.

    Args:
        settings: All settings.
        connection: Connection to the primary.
        job_source: S3 prefix or upload list.
        options: What to do, besides the source.
        priority: Jobs with a higher one go first.
        storage: The caller's object store, if it has one.
        repeat_key: The same key again returns the same job.

    Returns:
        The job's document.

    Raises:
        Rejected: for the reasons of `create`; or 422, because `repeat_key` belongs to a job with other arguments.
    """
    job_id = f"ingest-{hashlib.sha256(repeat_key.encode()).hexdigest()[:32]}" if repeat_key else _new_id("ingest")
    if connection.execute("SELECT FROM media.jobs WHERE id = %s", (job_id,)).fetchone() is None:
        prefixes.require_foreign(job_source, settings.s3.bucket, is_source=True)
        if options.manifest:
            prefixes.require_foreign(options.manifest, settings.s3.bucket, is_source=False)
        _check(settings, connection, job_source, options, storage)
        with contextlib.suppress(psycopg.errors.UniqueViolation), connection.transaction():  # sent twice at once
            _insert(connection, job_source, options, priority, job_id)
    job = get(connection, job_id)
    if (job["source"], _without_folders(job["options"]), job["priority"]) != (
        job_source,
        _without_folders(_said(options)),
        priority,
    ):
        hint = "send a key of its own with each job"
        raise Rejected("this Idempotency-Key was sent with another job", 422, "idempotency-key-reused", hint)
    return job


def _without_folders(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored options without the folders, which are those of the caller's key and may have changed since."""
    return {name: value for name, value in stored.items() if name != "folders"}


def _check(
    settings: Settings, connection: Connection, job_source: str, options: Options, storage: Storage | None = None
) -> None:
    """Refuse a job that would fail at once, for the reasons of `create`."""
    model_names.require_known(settings, connection, options.model)
    storage = storage or Storage(runtime.endpoints(settings).s3)
    rights, own_bucket, uris = options.rights(settings.s3.ingest_buckets), settings.s3.bucket, [job_source]
    ownership.require_open(job_source, rights, own_bucket)  # first, so as not to reveal what exists
    if options.manifest:
        ownership.require_open(options.manifest, rights, own_bucket, is_source=False)
        uris.append(options.manifest)
    lists.require_known(connection, job_source)
    for uri in uris:
        source.check(uri, storage, settings.s3.ingest_buckets)


def _insert(connection: Connection, job_source: str, options: Options, priority: int, job_id: str = "") -> str:
    """Insert a job's row and return its id."""
    job_id = job_id or _new_id("ingest")
    connection.execute(
        "INSERT INTO media.jobs (id, source, options, priority) VALUES (%s, %s, %s, %s)",
        (job_id, job_source, Jsonb(_said(options)), priority),
    )
    return job_id


def _said(options: Options) -> dict[str, Any]:
    """Return options as they are stored, without empty ones; a `speaks_for` or `folders` that is an empty list is kept."""
    stored = {key: value for key, value in vars(options).items() if value}
    bounds = {"speaks_for": options.speaks_for, "folders": options.folders}
    return stored | {name: list(bound) for name, bound in bounds.items() if bound is not None}


def _new_id(kind: str) -> str:
    """Return a new id of a kind of job."""
    return f"{kind}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def _submitted(settings: Settings, connection: Connection, job_id: str) -> dict[str, Any]:
    """Submit a job if the cluster answers, and return its document."""
    try:
        submit(settings, connection, job_id)
    except Temporary as error:
        log.warning("job waits for the cluster: %s", error, extra={"job_id": job_id})
    return get(connection, job_id)


def backfill(settings: Settings, connection: Connection, model: str, *, priority: int = 0) -> dict[str, Any] | None:
    """Create a job that gives every searchable video the vectors of a model; segments keep their ids and stay visible.

    Args:
        settings: All settings.
        connection: Connection to the primary.
        model: Name of the model.
        priority: Jobs with a higher one go first.

    Returns:
        The job's document; None, and no job, if no vectors are missing.
    """
    job_id = _new_id("backfill")
    with connection.transaction():
        connection.execute(
            "INSERT INTO media.jobs (id, source, options, priority, listed) VALUES (%s, %s, %s, %s, true)",
            (job_id, CATALOGUE, Jsonb({"model": model}), priority),
        )
        lacking = catalog.add_lacking(connection, job_id, model)
        if lacking:
            connection.execute("UPDATE media.jobs SET total = %s WHERE id = %s", (lacking, job_id))
        else:
            connection.execute("DELETE FROM media.jobs WHERE id = %s", (job_id,))
    return _submitted(settings, connection, job_id) if lacking else None


def fill_followed(settings: Settings, connection: Connection, model: str) -> None:
    """Create back-fill jobs for the models in use (active or followed), except `model`, whose job has just ended."""
    for name in registry.names_in_use(connection, except_name=model):
        job = backfill(settings, connection, name)
        if job is not None:
            log.info("model %s follows with job %s", name, job["id"])


def submit(settings: Settings, connection: Connection, job_id: str) -> bool:
    """Hand an unfinished job to Ray under a new submission number; return False if too many jobs are at work.

    Until Ray has accepted it, the job names a submission that Ray does not know yet (see `watch`).

    Raises:
        Temporary: the cluster does not answer; the number is used up all the same.
    """
    ingest = settings.section(IngestSettings)
    bounds = {"most": ingest.jobs_at_work_max, "each": ingest.jobs_at_work_each_max}
    parameters = {"id": job_id, "alive_s": ALIVE_S, "handover_s": ingest.handover_max_s, **bounds}
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('media.jobs at work'))")  # one submission at a time
        row = connection.execute(
            "UPDATE media.jobs SET submissions = submissions + 1, submitted_at = now(), report = report - 'waits_for',"
            f" submission_id = id || '-' || (submissions + 1) WHERE id = %(id)s AND finished_at IS NULL AND ({HAS_ROOM})"
            " RETURNING submission_id, submissions",
            parameters,
        ).fetchone()
        if row is None:
            _note_place(connection, parameters)
    connection.commit()
    if row is None:
        return False
    try:
        submissions.submit(
            dashboard(settings),
            f"{shlex.quote(sys.executable)} -m pipelines.ingest --job {job_id} --submission {row[1]}",
            row[0],
            metadata={"pixr_job": job_id},
            env={key: value for key, value in ray_cluster.environment(settings).items() if key.startswith("PIXR_")},
        )
    except Temporary:
        connection.execute(
            "UPDATE media.jobs SET submission_id = NULL, report = report || %s WHERE id = %s AND submissions = %s",
            (Jsonb({"waits_for": CLUSTER_AWAY}), job_id, row[1]),
        )
        connection.commit()
        raise
    return True


def _note_place(connection: Connection, parameters: Mapping[str, Any]) -> None:
    """Note in the report which limit an unfinished job waits for."""
    texts = {"all": PLACE.format(**parameters), "own": PLACE_OF_EACH.format(**parameters)}
    connection.execute(
        "UPDATE media.jobs SET report = report || jsonb_build_object('waits_for', place) FROM"
        f" (SELECT id, CASE WHEN (SELECT count(*) >= %(most)s {AT_WORK}) THEN %(all)s::text ELSE %(own)s END AS place"
        "  FROM media.jobs WHERE id = %(id)s AND finished_at IS NULL) found"
        " WHERE jobs.id = found.id AND report->>'waits_for' IS DISTINCT FROM place",
        {**parameters, **texts},
    )


def dashboard(settings: Settings) -> str:
    """Return the URL of Ray's job server, and set this process's environment to authenticate with it."""
    os.environ.update(ray_cluster.environment(settings))
    return runtime.endpoints(settings).ray_dashboard_url


def begin(connection: Connection, job_id: str, submission: int) -> tuple[str, Options]:
    """Start a driver's work: mark the job as running, and return its source and options.

    Raises:
        Rejected: the job is unknown, finished, or taken over by a later submission; or another release stored options
            that this one refuses, and the job has failed for that reason.
    """
    row = connection.execute(
        "UPDATE media.jobs SET status = 'running', started_at = coalesce(started_at, now()), heartbeat_at = now()"
        " WHERE id = %s AND finished_at IS NULL AND NOT cancel AND submissions <= %s RETURNING source, options",
        (job_id, submission),
    ).fetchone()
    connection.commit()
    if row is None:
        raise Rejected(f"job {job_id} is not there to be run by submission {submission}")
    try:
        return row[0], _options(connection, row[1])
    except Rejected as refused:
        finish(connection, job_id, submission, "failed", str(refused))
        connection.commit()
        raise


def _options(connection: Connection, stored: Mapping[str, Any]) -> Options:
    """Return the options of a job from their stored form.

    Raises:
        Rejected: an option is refused, or only another release knows it.
    """
    if unknown := sorted(stored.keys() - {option.name for option in dataclasses.fields(Options)}):
        raise Rejected(f"this release knows no option {unknown[0]!r} of a job", code="bad-option")
    return Options(**stored, known=creators.known_handles(connection, [stored.get("creator", "")]))


def beat(connection: Connection, job_id: str, submission: int) -> bool:
    """Record a driver's heartbeat; return False if it must stop, because it was cancelled or taken over."""
    updated = connection.execute(
        "UPDATE media.jobs SET heartbeat_at = now()"
        " WHERE id = %s AND finished_at IS NULL AND NOT cancel AND submissions = %s",
        (job_id, submission),
    )
    return updated.rowcount == 1


def note(connection: Connection, job_id: str, seen: Mapping[str, Any]) -> None:
    """Add what the driver has seen to a job's report."""
    connection.execute("UPDATE media.jobs SET report = report || %s WHERE id = %s", (Jsonb(dict(seen)), job_id))


def is_outranked(connection: Connection, job_id: str) -> bool:
    """Whether a running job of higher priority has videos waiting to be started."""
    row = connection.execute(
        """
        SELECT EXISTS (
            SELECT FROM media.jobs mine JOIN media.jobs other ON other.priority > mine.priority
            WHERE mine.id = %s AND other.finished_at IS NULL AND other.heartbeat_at > now() - make_interval(secs => %s)
              AND EXISTS (SELECT FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id
                          WHERE j.job_id = other.id AND j.outcome IS NULL AND v.lease_token IS NULL
                            AND (v.retry_at IS NULL OR v.retry_at <= now())))
        """,
        (job_id, ALIVE_S),
    ).fetchone()
    return row == (True,)


def give_way(connection: Connection, job_id: str, timeout_s: float) -> None:
    """Wait while a job is outranked, for `timeout_s` at most, so that even the least urgent job makes progress."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and is_outranked(connection, job_id):
        time.sleep(LOOK_S)


def mark_listed(connection: Connection, job_id: str) -> None:
    """Mark a job's source as listed, and store the number of its videos."""
    connection.execute(
        "UPDATE media.jobs SET listed = true, total = (SELECT count(*) FROM media.job_videos WHERE job_id = %s)"
        " WHERE id = %s",
        (job_id, job_id),
    )


def is_listed(connection: Connection, job_id: str) -> bool:
    """Whether a job's source has been listed."""
    row = connection.execute("SELECT listed FROM media.jobs WHERE id = %s", (job_id,)).fetchone()
    return bool(row and row[0])


def settle(connection: Connection, job_id: str, model_id: int) -> None:
    """Write the outcome of finished videos into the job, whichever job finished them."""
    connection.execute(
        """
        UPDATE media.job_videos j SET
            outcome = CASE WHEN v.status = 'ready' THEN 'ready' ELSE v.status END,
            segments = CASE WHEN v.status = 'ready'
                            THEN (SELECT count(*) FROM media.segments s WHERE s.video_id = v.id) ELSE 0 END,
            error = CASE WHEN v.status <> 'ready' THEN v.error END,
            error_code = CASE WHEN v.status <> 'ready' THEN v.error_code END
        FROM media.videos v, media.jobs o
        WHERE j.job_id = %(job)s AND o.id = j.job_id AND v.id = j.video_id AND j.outcome IS NULL
          AND v.lease_token IS NULL
          AND (v.status IN ('quarantined', 'failed', 'removed') OR (v.status = 'ready' AND v.ready_at >= o.created_at
               AND EXISTS (SELECT FROM media.embeddings e WHERE e.video_id = v.id AND e.model_id = %(model)s)))
        """,
        {"job": job_id, "model": model_id},
    )


def open_videos(connection: Connection, job_id: str) -> tuple[list[int], int, float]:
    """Return the videos that can be started now, how many must wait, and for at least how many seconds."""
    rows = connection.execute(
        "SELECT v.id, v.lease_until > now(), extract(epoch FROM greatest(v.retry_at, v.lease_until) - now())::float8"
        " FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id"
        " WHERE j.job_id = %s AND j.outcome IS NULL ORDER BY j.position",
        (job_id,),
    ).fetchall()
    ready = [row[0] for row in rows if row[2] is None or row[2] <= 0]
    waits = [row[2] for row in rows if row[2] is not None and row[2] > 0]
    return ready, len(waits), min(waits, default=0.0)


def ready_videos(connection: Connection, job_id: str) -> list[tuple[int, str]]:
    """Return ids and URIs of a job's searchable videos, in the order of work."""
    return connection.execute(
        "SELECT v.id, v.source_uri FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id"
        " WHERE j.job_id = %s AND j.outcome IN ('ready', 'skipped') ORDER BY j.position",
        (job_id,),
    ).fetchall()


def finish(connection: Connection, job_id: str, submission: int, status: str, error: str | None) -> None:
    """End a job; only a driver of the latest submission can.

    Args:
        connection: Connection to the primary.
        job_id: The job.
        submission: Number of the driver's submission.
        status: "succeeded" or "failed".
        error: Why it failed, which is shortened to one public line.
    """
    error = telemetry.public_line(error) if error else error
    connection.execute(
        "UPDATE media.jobs SET status = %s, finished_at = now(), error = %s"
        " WHERE id = %s AND finished_at IS NULL AND submissions <= %s",
        (status, error, job_id, submission),
    )


def cancel(settings: Settings, connection: Connection, job_id: str) -> dict[str, Any]:
    """Stop a job and return its document; cancelling again changes nothing.

    Finished videos stay, and videos being worked on are free for another job.
    """
    row = connection.execute(
        "UPDATE media.jobs SET cancel = true, status = 'cancelled', finished_at = now()"
        " WHERE id = %s AND finished_at IS NULL RETURNING submission_id",
        (job_id,),
    ).fetchone()
    connection.commit()
    if row is not None:
        try:
            if row[0]:
                submissions.stop(dashboard(settings), row[0])
        except Temporary as error:  # the driver sees `cancel` at its next heartbeat
            log.warning("cancelled, but Ray does not answer: %s", error, extra={"job_id": job_id})
        leases.release(connection, job_id)
        connection.commit()
    return get(connection, job_id)


def retry(settings: Settings, connection: Connection, job_id: str) -> dict[str, Any]:
    """Create a job with the source and options of an older one; return the new job's document.

    Videos of the older job that failed, were quarantined or were not finished are queued again.

    Raises:
        Rejected: the job is unknown, still at work, or a back-fill (create a new one instead); or `create` would refuse
            its source now. Nothing has changed then.
    """
    older = get(connection, job_id)
    if older["source"] == CATALOGUE:
        hint = f"`pixr index backfill {older['options']['model']}` takes up what is missing"
        raise Rejected(f"job {job_id} is a back-fill", status=409, code="back-fill", hint=hint)
    if older["status"] in UNFINISHED:
        detail = f"job {job_id} is still {older['status']}"
        raise Rejected(detail, status=409, code="not-finished", hint="cancel it first")
    row = connection.execute("SELECT source, options, priority FROM media.jobs WHERE id = %s", (job_id,)).fetchone()
    assert row is not None  # `get` has just found it
    options = _options(connection, row[1])
    _check(settings, connection, row[0], options)
    with connection.transaction():
        rows = connection.execute(
            "SELECT video_id FROM media.job_videos WHERE job_id = %s"
            " AND (outcome IS NULL OR outcome IN ('failed', 'quarantined'))",
            (job_id,),
        ).fetchall()
        catalog.requeue(connection, [video_id for (video_id,) in rows])
        new_id = _insert(connection, row[0], options, row[2])
    connection.commit()
    return _submitted(settings, connection, new_id)


def get(connection: Connection, job_id: str, speaks_for: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a job's document, as `GET /v1/jobs/{id}` shows it.

    Raises:
        Rejected: the job does not exist, or speaks for creators outside `speaks_for`.
    """
    documents = _documents(connection, [job_id])
    if not documents or not _is_theirs(documents[0], speaks_for):
        raise Rejected(f"there is no job {job_id!r}", status=404, code="not-found", hint="`pixr jobs` lists them")
    return documents[0]


def _is_theirs(job: Mapping[str, Any], speaks_for: Sequence[str] | None) -> bool:
    """Whether a job may be shown to a key that speaks for these creators: the condition `THEIRS`."""
    if speaks_for is None:
        return True
    job_creators = job["options"].get("speaks_for")
    return job_creators is not None and set(job_creators) <= set(speaks_for)


def listing(
    connection: Connection, limit: int = 20, before: Sequence[str] = (), speaks_for: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """List jobs, the newest first.

    Args:
        connection: Connection to the primary.
        limit: Jobs at most.
        before: Creation time and id of the last job of the page before.
        speaks_for: Lists only jobs that speak for a subset of these creators; None lists all.

    Returns:
        The jobs' documents.
    """
    condition = "AND (created_at, id) < (%(at)s::timestamptz, %(id)s)" if before else ""
    cursor = {"at": before[0], "id": before[1]} if before else {}
    rows = connection.execute(
        f"SELECT id FROM media.jobs WHERE {THEIRS} {condition} ORDER BY created_at DESC, id DESC LIMIT %(limit)s",
        {"creators": _array(speaks_for), "limit": max(1, min(limit, LISTED_MAX + 1)), **cursor},
    ).fetchall()
    return _documents(connection, [row[0] for row in rows])


def _array(speaks_for: Sequence[str] | None) -> list[str] | None:
    """Return handles as a list for PostgreSQL."""
    return None if speaks_for is None else list(speaks_for)


def count(connection: Connection, speaks_for: Sequence[str] | None = None) -> int:
    """Count the jobs that `listing` shows, up to `TOTAL_MAX`."""
    parameters = {"creators": _array(speaks_for), "most": TOTAL_MAX}
    query = f"SELECT count(*) FROM (SELECT FROM media.jobs WHERE {THEIRS} LIMIT %(most)s) counted"
    row = connection.execute(query, parameters).fetchone()
    assert row is not None  # a count returns a row
    return int(row[0])


def _documents(connection: Connection, job_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the documents of jobs in the order of their ids, with three queries for any number of them."""
    rows = connection.execute(
        "SELECT id, source, options, status, priority, submissions, total, listed, created_at, started_at, finished_at,"
        " error, extract(epoch FROM coalesce(finished_at, now()) - started_at)::float8, coalesce(report->'remarks', '[]'),"
        f" {WAITS_FOR} FROM media.jobs WHERE id = ANY(%s)"
        " ORDER BY array_position(%s, id)",
        (list(job_ids), list(job_ids)),
    ).fetchall()
    counted, failures = _counted(connection, job_ids), _failures(connection, job_ids)
    return [_document(row, counted.get(row[0], NOTHING_COUNTED), failures.get(row[0], [])) for row in rows]


def _document(row: Sequence[Any], counted: Sequence[int], failures: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the document of a job from its row, the counts of its videos and its first failures."""
    names = ("id", "source", "options", "status", "priority", "submissions", "total", "listed", "created_at",
             "started_at", "finished_at", "error", "seconds", "remarks", "waits_for")  # fmt: skip
    job = dict(zip(names, row, strict=True))
    total = job.pop("total")
    job["videos"], job["segments"], job["progress"] = _counts(counted, total, job["seconds"])
    for name in ("created_at", "started_at", "finished_at"):
        job[name] = job[name].isoformat() if job[name] else None
    job["failures"] = failures
    return job


def _counted(connection: Connection, job_ids: Sequence[str]) -> dict[str, Sequence[int]]:
    """Map job ids to the counts of the job's videos, in the order that `_counts` reads."""
    rows = connection.execute(
        "SELECT job_id, count(*), count(*) FILTER (WHERE outcome IN ('ready', 'skipped')),"
        " count(*) FILTER (WHERE outcome = 'skipped'), count(*) FILTER (WHERE outcome = 'failed'),"
        " count(*) FILTER (WHERE outcome = 'removed'), count(*) FILTER (WHERE outcome = 'quarantined'),"
        " coalesce(sum(segments), 0)::bigint, coalesce(sum(frames), 0)::bigint, coalesce(sum(bytes), 0)::bigint,"
        " count(*) FILTER (WHERE outcome IS NOT NULL AND outcome <> 'skipped')"
        " FROM media.job_videos WHERE job_id = ANY(%s) GROUP BY job_id",
        (list(job_ids),),
    )
    return {row[0]: row[1:] for row in rows}


def _counts(counted: Sequence[int], total: int, seconds: float | None) -> tuple[dict[str, int], int, dict[str, Any]]:
    """Return a job's counts of videos, its segments and its progress."""
    known, ready, skipped, failed, removed, quarantined, segments, frames, size, worked = counted
    total = max(total, known)
    left = total - ready - failed - quarantined - removed
    eta_s = round(seconds / worked * left, 1) if seconds and worked and left else (0.0 if not left else None)
    videos = {"total": total, "ready": ready, "failed": failed, "quarantined": quarantined, "skipped": skipped}
    videos["removed"] = removed  # taken down, before or meanwhile, which is not a failure
    rate = round(frames / seconds, 1) if seconds else 0.0
    return videos, segments, {"frames": frames, "frames_per_s": rate, "bytes": size, "left": left, "eta_s": eta_s}


def _failures(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Map job ids to the first failures of the job."""
    rows = connection.execute(
        "SELECT j.job_id, v.id::text, v.source_uri, v.title, j.outcome, j.error_code, j.error"
        " FROM unnest(%s::text[]) asked (id) CROSS JOIN LATERAL (SELECT * FROM media.job_videos WHERE job_id = asked.id"
        "   AND outcome IN ('failed', 'quarantined') ORDER BY position LIMIT %s) j"
        " JOIN media.videos v ON v.id = j.video_id ORDER BY j.position",
        (list(job_ids), FAILURES_SHOWN_MAX),
    ).fetchall()
    names = ("video_id", "source_uri", "title", "outcome", "code", "reason")
    failures: dict[str, list[dict[str, Any]]] = {}
    for job_id, *row in rows:
        failures.setdefault(job_id, []).append(dict(zip(names, row, strict=True)))
    return failures


def unfinished(connection: Connection) -> list[tuple[str, str | None, int, float, bool]]:
    """Return the unfinished jobs, urgent ones first.

    Each is a tuple: id, submission id, number of submissions, seconds since the last submission, and whether the driver
    of that submission has begun.
    """
    return connection.execute(
        "SELECT id, submission_id, submissions, coalesce(extract(epoch FROM now() - submitted_at), 1e9)::float8,"
        " coalesce(heartbeat_at >= submitted_at, false)"
        " FROM media.jobs WHERE finished_at IS NULL ORDER BY priority DESC, created_at"
    ).fetchall()


def reconcile(job: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a finished job's counts, or None: a video is not accounted for, or has failed."""
    videos = job["videos"]
    accounted = videos["ready"] + videos["failed"] + videos["quarantined"] + videos["removed"]
    if accounted != videos["total"]:
        return f"{videos['total'] - accounted} of {videos['total']} videos are neither ready nor refused"
    if videos["failed"]:
        return f"{videos['failed']} of {videos['total']} videos could not be ingested"
    return None


def section(settings: Settings, options: Options) -> IngestSettings:
    """Return the ingest settings with the job's own mode."""
    ingest = settings.section(IngestSettings)
    return dataclasses.replace(ingest, mode=options.mode) if options.mode else ingest
