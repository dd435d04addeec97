"""The watch over ingest jobs: submits queued jobs, urgent ones first, and resubmits those that Ray has lost.

Runs beside the cluster as the service `jobs` (`python -m pipelines.jobs.watch`). PostgreSQL knows which jobs are
unfinished, Ray knows which of their drivers are alive; a job without a driver is submitted again, a bounded number of
times, with backoff. It also deletes jobs that ended long ago (`retention`). Knows no video.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path

from psycopg import Connection, OperationalError

from cluster import jobs as submissions
from cluster import settings as settings_module
from cluster.database import database, logins
from cluster.errors import Rejected, Temporary
from cluster.jobs import Submission
from cluster.observability import telemetry
from cluster.roles import JOBS
from cluster.settings import Settings
from pipelines.jobs import jobs, leases, retention
from pipelines.settings import IngestSettings

log = logging.getLogger(__name__)

BACKOFF_MAX_S = 60.0
BACKOFF_BASE_S = 2.0
RETENTION_LOOK_S = 600.0  # between checks for jobs to delete, once none are left


def beat_path(settings: Settings) -> Path:
    """Return the file that is touched after each round, by which the supervisor sees that the watch is alive."""
    return settings.data_dir / "run" / "jobs.beat"


def look(settings: Settings, connection: Connection) -> list[str]:
    """Check every unfinished job once; return the ids of those that were submitted."""
    submitted = []
    ingest = settings.section(IngestSettings)
    submissions_max = ingest.submissions_max
    for job_id, submission_id, count, age_s, has_begun in jobs.unfinished(connection):
        state = submissions.status(jobs.dashboard(settings), submission_id) if submission_id else Submission.LOST
        if state.alive:
            continue
        if count and age_s < min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2**count):
            continue
        if submission_id and state is Submission.LOST and not has_begun and age_s < ingest.handover_max_s:
            continue  # it is still being submitted, which takes Ray long on a busy machine
        if count > submissions_max:
            leases.release(connection, job_id)
            reason = f"its driver died {count} times; `pixr jobs retry {job_id}` tries again"
            jobs.finish(connection, job_id, count, "failed", reason)
            log.error("job given up", extra={"job_id": job_id})
            continue
        if jobs.submit(settings, connection, job_id):
            submitted.append(job_id)
            level = logging.WARNING if count else logging.INFO
            log.log(level, "job submitted", extra={"job_id": job_id, "submission": count + 1})
    return submitted


def main() -> None:
    """Check the jobs until SIGTERM."""
    telemetry.configure("jobs")
    settings = settings_module.load()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    delete_at = 0.0
    while not stop.wait(settings.section(IngestSettings).watch_interval_s):
        try:
            with database.connect(logins.url(settings, JOBS), autocommit=True) as connection:
                look(settings, connection)
                if time.monotonic() >= delete_at:
                    is_more = retention.delete_some(connection, settings.section(IngestSettings).jobs_keep_d)
                    delete_at = 0.0 if is_more else time.monotonic() + RETENTION_LOOK_S
        except (Temporary, Rejected, OperationalError) as error:
            log.warning("cannot look: %s", error)
        beat_path(settings).parent.mkdir(parents=True, exist_ok=True)
        beat_path(settings).touch()


if __name__ == "__main__":
    main()
