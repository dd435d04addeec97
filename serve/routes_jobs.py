"""`/v1/jobs`: submit an ingest job, see how jobs stand, cancel one. Needs a key of scope ingest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import Response
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines import creators, jobs
from serve import keys, texts
from serve.answering import KEY_CHARS_MAX
from serve.keys import Principal
from serve.pages import Cursor, Pages
from serve.routing import Route
from serve.services import Services

JobId = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,64}$", examples=["ingest-20261124-021500-a1b2c3"])]
JobKey = Annotated[
    str | None,
    Header(max_length=KEY_CHARS_MAX, description="Sent again by the same caller with the same key it is the same job."),
]
Text = Annotated[str, Field(max_length=2000, pattern=texts.LINE)]


class JobOptions(BaseModel):
    """How to sample a video, which jobs go first, and whether videos move that were shown as another creator's."""

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
    """How a job stands."""

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
    """The routes over one deployment's services."""
    needs_key = Depends(keys.require(services, keys.INGEST))
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[needs_key], route_class=Route)

    pages = Pages(services, "jobs")

    @routes.post("", status_code=202, response_model=Job)
    async def submit(
        request: JobRequest, response: Response, idempotency_key: JobKey = None, caller: Principal = needs_key
    ) -> Any:
        """Submit a job. It is queued at once, runs when the cluster has taken it, and speaks for the key's creators alone.

        Source and manifest are in folders of the key, where it is for named creators; in none of Pixr's own for anybody.
        """
        job = await services.threads.ask(_create, services, request, caller, idempotency_key)
        response.headers["Location"] = f"/v1/jobs/{job['id']}"
        return job

    @routes.get("", response_model=Jobs)
    async def listing(
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=jobs.LISTED_MAX)] = 20,
        caller: Principal = needs_key,
    ) -> Any:
        """The newest jobs first: those that speak for no other creators than the key."""
        place = pages.begun(cursor)
        found, total = await services.threads.ask(_listed, limit + 1, place.after, caller.speaks_for)
        shown, more = pages.cut(found, limit)
        following = pages.next(place, (shown[-1]["created_at"], shown[-1]["id"])) if more else None
        return {"jobs": shown, "total": total, "next_cursor": following}

    @routes.get("/{job_id}", response_model=Job)
    async def read(job_id: JobId, caller: Principal = needs_key) -> Any:
        """How one job stands, with the reasons of what was refused."""
        return await services.threads.ask(jobs.get, job_id, caller.speaks_for)

    @routes.delete("/{job_id}", response_model=Job)
    async def cancel(job_id: JobId, caller: Principal = needs_key) -> Any:
        """Stop a job; what it has finished stays. Cancelling again is no error."""
        return await services.threads.ask(_cancel, services.settings, job_id, caller.speaks_for)

    return routes


def _create(
    connection: Connection[Any], services: Services, request: JobRequest, caller: Principal, idempotency_key: str | None
) -> dict[str, Any]:
    speaks_for = caller.speaks_for
    only = speaks_for[0] if speaks_for is not None and len(speaks_for) == 1 else ""  # of whom else would it speak
    asked = jobs.Options(
        creator=request.creator or only,
        manifest=request.manifest,
        model=request.model,
        mode=request.options.mode,
        speaks_for=speaks_for,
        folders=caller.folders_in(services.settings.s3.ingest_buckets),
        reassign=request.options.reassign,
        known=creators.known_handles(connection, [request.creator]),
    )
    priority, storage = request.options.priority, services.storage
    if priority > 0 and speaks_for is not None:
        hint = "leave it out, or ask with a key for any creator"
        raise Rejected("only a key for any creator may go ahead of others", status=403, code="not-yours", hint=hint)
    return jobs.queue(
        services.settings,
        connection,
        request.source,
        asked,
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
