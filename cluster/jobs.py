"""Programs submitted to a Ray cluster through its job submission API.

Ray neither retries a job nor keeps it across a restart of the cluster, so the caller has to keep a record of its
submissions. Knows command lines, not what they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

from cluster import urls
from cluster.errors import Rejected, Temporary

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


class Submission(StrEnum):
    """The state of a submission in Ray; `LOST` when the cluster no longer knows it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def alive(self) -> bool:
        """Whether the submission is waiting or running."""
        return self in (Submission.PENDING, Submission.RUNNING)


def submit(
    dashboard_url: str,
    entrypoint: str,
    submission_id: str,
    *,
    metadata: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    cpus: float = 0.0,
) -> None:
    """Submit a command line to the cluster; submitting the same id again does nothing.

    Args:
        dashboard_url: The cluster's dashboard, e.g. `http://127.0.0.1:8265`.
        entrypoint: The command line, run by a shell on a node of the cluster.
        submission_id: An id that the caller chose; unique in the cluster.
        metadata: Texts shown beside the job. Never a secret: everyone who can see the cluster can read them.
        env: Variables added to the job's environment. Never a secret, for the same reason.
        cpus: Logical CPUs that the driver reserves.

    Raises:
        Temporary: the cluster does not answer.
        Rejected: the cluster runs another version of Ray.
    """
    with _client(dashboard_url) as client:
        _require_same_ray(client)
        if any(job.submission_id == submission_id for job in client.list_jobs()):
            return  # a duplicate id would be an HTTP 500
        client.submit_job(
            entrypoint=entrypoint,
            submission_id=submission_id,
            metadata=dict(metadata or {}),
            runtime_env={"env_vars": dict(env)} if env else None,
            entrypoint_num_cpus=cpus,
        )


def status(dashboard_url: str, submission_id: str) -> Submission:
    """Return the state of a submission."""
    with _client(dashboard_url) as client:
        jobs = [job for job in client.list_jobs() if job.submission_id == submission_id]
        return Submission(jobs[0].status.value.lower()) if jobs else Submission.LOST


def stop(dashboard_url: str, submission_id: str) -> bool:
    """Ask a submission to end; return False if it has ended already, or if the cluster does not know it."""
    if not status(dashboard_url, submission_id).alive:
        return False
    with _client(dashboard_url) as client:
        return bool(client.stop_job(submission_id))


def logs(dashboard_url: str, submission_id: str) -> str:
    """Return what the job's driver printed."""
    with _client(dashboard_url) as client:
        return str(client.get_job_logs(submission_id))


@contextmanager
def _client(dashboard_url: str) -> Iterator[JobSubmissionClient]:
    """Yield a client of the cluster; connection errors inside become `Temporary`."""
    import requests
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(dashboard_url)
    except (ConnectionError, requests.RequestException) as error:
        detail = f"the Ray cluster at {urls.shown(dashboard_url)} does not answer"
        raise Temporary(detail, 2.0, public="the Ray cluster does not answer") from error


def _require_same_ray(client: JobSubmissionClient) -> None:
    """Raise `Rejected` when the cluster runs another version of Ray than this program."""
    import ray

    theirs = client._do_request("GET", "/api/version").json()["ray_version"]  # the client has no public call for it
    if theirs != ray.__version__:
        hint = "install the cluster's version here, or ours there"
        raise Rejected(f"the cluster runs Ray {theirs}, this program Ray {ray.__version__}", hint=hint)
