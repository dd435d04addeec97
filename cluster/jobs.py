"""Programs submitted to a Ray cluster through its job submission API. Knows entry points, not what they do.

Ray neither retries a job nor keeps it across a restart of the cluster; whoever submits keeps the books.
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
    """How Ray sees a submission; `LOST` when the cluster no longer knows it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def alive(self) -> bool:
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
    """Hand a command line to the cluster; submitting an id again is no second run.

    `metadata` and `env` are readable by anybody who can see the cluster: never put a secret there.

    Raises:
        Temporary: the cluster does not answer.
        Rejected: it runs another version of Ray or Python.
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
    """How a submission stands."""
    with _client(dashboard_url) as client:
        found = [job for job in client.list_jobs() if job.submission_id == submission_id]
        return Submission(found[0].status.value.lower()) if found else Submission.LOST


def stop(dashboard_url: str, submission_id: str) -> bool:
    """Ask a submission to end; False when there was nothing to end."""
    if not status(dashboard_url, submission_id).alive:
        return False
    with _client(dashboard_url) as client:
        return bool(client.stop_job(submission_id))


def logs(dashboard_url: str, submission_id: str) -> str:
    """What its driver printed."""
    with _client(dashboard_url) as client:
        return str(client.get_job_logs(submission_id))


@contextmanager
def _client(dashboard_url: str) -> Iterator[JobSubmissionClient]:
    import requests
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(dashboard_url)
    except (ConnectionError, requests.RequestException) as error:
        detail = f"the Ray cluster at {urls.shown(dashboard_url)} does not answer"
        raise Temporary(detail, 2.0, public="the Ray cluster does not answer") from error


def _require_same_ray(client: JobSubmissionClient) -> None:
    import ray

    theirs = client._do_request("GET", "/api/version").json()["ray_version"]  # the client has no public call for it
    if theirs != ray.__version__:
        hint = "install the cluster's version here, or ours there"
        raise Rejected(f"the cluster runs Ray {theirs}, this program Ray {ray.__version__}", hint=hint)
