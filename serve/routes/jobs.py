"""`/v1/jobs`: submit an ingest job, see how jobs stand, cancel one. Needs a key of scope ingest.

A key may act for some creators or for all; a job may act for the same creators as the key that submitted it. Queues
jobs and runs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import Response
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import Rejected
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines.catalog import creators
from pipelines.jobs import jobs
from serve.access import keys
from serve.access.keys import Principal
from serve.http import texts
from serve.routes.pages import Cursor, Pages
from serve.routes.routing import Route
from serve.routes.services import Services
from serve.search.response import KEY_CHARS_MAX

JobId = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,64}$", examples=["ingest-20261124-021500-a1b2c3"])]
JobKey = Annotated[
    str | None,
    Header(max_length=KEY_CHARS_MAX, description="Sent again by the same caller with the same key it is the same job."),
]
Text = Annotated[str, Field(max_length=2000, pattern=texts.LINE)]


class JobOptions(BaseModel):
    """How to sample videos, which jobs go first, and whether other creators' videos are moved to the job's creator."""

    model_config = ConfigDict(extra="forbid")
    mode: Literal["", "frames", "key-frames", "interval"] = ""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    reassign: bool = False


class JobRequest(BaseModel):
    """What to ingest: every video under an S3 prefix."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"source": "s3://pixr/incoming/", "creator": "ada"}]}
    )
    source: Annotated[str, Field(min_length=1, max_length=2000, pattern=texts.LINE, examples=["s3://pixr/incoming/"])]
    creator: Annotated[str, Field(max_length=200, pattern=texts.LINE)] = ""
    manifest: Text = ""
    model: Text = ""
    options: JobOptions = JobOptions()


class JobVideos(BaseModel):
    model_config = ConfigDict(extra="allow")
    total: int
    ready: int
    failed: int
    quarantined: int
    removed: Annotated[int, Field(description="Taken down: before, or while the job was at work.")] = 0


class Job(BaseModel):
    """The state of a job, with counts of its videos."""

    model_config = ConfigDict(extra="allow")
    id: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    source: str
    videos: JobVideos
    segments: int
    started_at: str | None
    finished_at: str | None
    waits_for: Annotated[str | None, Field(description="What it waits for while nobody is at work on it.")] = None
    error: str | None
    failures: list[dict[str, Any]]


class Jobs(BaseModel):
    jobs: list[Job]
    total: int
    next_cursor: str | None


def router(services: Services) -> APIRouter:
    """Return the routes over one replica's services."""
    needs_key = Depends(keys.require(services, keys.INGEST))
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[needs_key], route_class=Route)

    pages = Pages(services, "jobs")

    @routes.post("", status_code=202, response_model=Job)
    async def submit(
        request: JobRequest, response: Response, idempotency_key: JobKey = None, caller: Principal = needs_key
    ) -> Any:
        """Submit a job. It is queued at once, starts when the cluster takes it, and acts only for the key's creators.

        If the key is for named creators, source and manifest must be in the key's folders. They may never be in folders
        of Pixr's own.
        """
        settings, storage = services.settings, services.storage
        job = await services.threads.ask(_create, settings, storage, request, caller, idempotency_key)
        response.headers["Location"] = f"/v1/jobs/{job['id']}"
        return job

    @routes.get("", response_model=Jobs)
    async def listing(
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=jobs.LISTED_MAX)] = 20,
        caller: Principal = needs_key,
    ) -> Any:
        """List jobs, the newest first: those that act only for creators whom the key may act for too."""
        place = pages.start(cursor)
        rows, total = await services.threads.ask(_listed, limit + 1, place.after, caller.speaks_for)
        shown, is_more = pages.cut(rows, limit)
        following = pages.cursor_after(place, (shown[-1]["created_at"], shown[-1]["id"])) if is_more else None
        return {"jobs": shown, "total": total, "next_cursor": following}

    @routes.get("/{job_id}", response_model=Job)
    async def read(job_id: JobId, caller: Principal = needs_key) -> Any:
        """Return the state of one job, with the reason of each file that was refused."""
        return await services.threads.ask(jobs.get, job_id, caller.speaks_for)

    @routes.delete("/{job_id}", response_model=Job)
    async def cancel(job_id: JobId, caller: Principal = needs_key) -> Any:
        """Stop a job; videos that it has finished stay. Cancelling may be repeated."""
        return await services.threads.ask(_cancel, services.settings, job_id, caller.speaks_for)

    return routes


def _create(
    connection: Connection[Any],
    settings: Settings,
    storage: Storage,
    request: JobRequest,
    caller: Principal,
    idempotency_key: str | None,
) -> dict[str, Any]:
    """Queue a job in the name of the caller. A job that names no creator is for the key's, if the key has exactly one.

    Raises:
        Rejected: 403, the caller may not give the job a priority above 0; or as `jobs.queue`.
    """
    speaks_for = caller.speaks_for
    only = speaks_for[0] if speaks_for is not None and len(speaks_for) == 1 else ""
    options = jobs.Options(
        creator=request.creator or only,
        manifest=request.manifest,
        model=request.model,
        mode=request.options.mode,
        speaks_for=speaks_for,
        folders=caller.folders_in(settings.s3.ingest_buckets),
        reassign=request.options.reassign,
        known=creators.known_handles(connection, [request.creator]),
    )
    priority = request.options.priority
    if priority > 0 and speaks_for is not None:
        hint = "leave it out, or ask with a key for any creator"
        raise Rejected("only a key for any creator may go ahead of others", status=403, code="not-yours", hint=hint)
    return jobs.queue(
        settings,
        connection,
        request.source,
        options,
        priority=priority,
        storage=storage,
        repeat_key=f"{caller.id} {idempotency_key}" if idempotency_key else "",
    )


def _listed(
    connection: Connection[Any], limit: int, before: Sequence[str], speaks_for: Sequence[str] | None
) -> tuple[list[dict[str, Any]], int]:
    return jobs.listing(connection, limit, before, speaks_for), jobs.count(connection, speaks_for)


def _cancel(
    connection: Connection[Any], settings: Settings, job_id: str, speaks_for: Sequence[str] | None
) -> dict[str, Any]:
    jobs.get(connection, job_id, speaks_for)
    return jobs.cancel(settings, connection, job_id)
