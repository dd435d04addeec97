"""`pixr ingest` and `pixr jobs`: submit jobs, follow them and print how they stand. Decides nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.context import Context, json_option
from cluster.roles import JOBS

if TYPE_CHECKING:
    from psycopg import Connection

    from pipelines.sources.local_files import Extent
    from pipelines.sources.source import UploadedSource

POLL_S = 0.5


@click.command()
@click.argument("source")
@click.option("--creator", default="", help="Handle of the creator where the manifest names none.")
@click.option("--manifest", default="", help="Manifest (CSV or JSON lines) that is not beside the videos.")
@click.option("--model", default="", help="Encoder: a bundled name, a folder, architecture/tag.")
@click.option("--mode", default="", type=click.Choice(["", "frames", "key-frames", "interval"]), help="How to sample.")
@click.option("--priority", default=0, help="Jobs with a higher one go first: others begin few videos meanwhile.")
@click.option("--follow-links", is_flag=True, help="Take what symbolic links in a folder lead to, also outside of it.")
@click.option("--hidden", is_flag=True, help="Take hidden files and folders too, and those of systems (trash, .git).")
@click.option(
    "--reassign", is_flag=True, help="Also move videos that were shown as another creator's (see pipelines/README.md)."
)
@click.option("--detach", is_flag=True, help="Submit and return.")
@click.option("--dry-run", is_flag=True, help="Only say what there is to do and what it would take.")
@click.option("--contact-sheet", "sheets", default="", help="Folder for one picture a video: its moments.")
@json_option
@click.pass_obj
def ingest(
    context: Context,
    /,
    source: str,
    follow_links: bool,
    hidden: bool,
    detach: bool,
    dry_run: bool,
    sheets: str,
    as_json: bool,
    priority: int,
    reassign: bool,
    **options: str,
) -> None:
    """Make the videos under SOURCE searchable: s3://bucket/prefix, or a local folder or file.

    Exit codes: 0 every video is accounted for (ready, refused for good with its reason, or taken down before), 1 some
    videos or the job failed, 2 nothing was begun, because SOURCE, a manifest or an option is wrong.
    """
    from pipelines.catalog import creators
    from pipelines.jobs import jobs
    from pipelines.models import names as model_names
    from pipelines.sources import lists
    from pipelines.sources.local_files import Extent

    extent = Extent(follow_links=follow_links, hidden=hidden)
    with context.connect(JOBS, autocommit=True) as connection:
        if dry_run:
            _plan(context, connection, source, as_json, extent, **options)
            return
        model_names.require_known(context.settings, connection, options["model"])  # before anything is sent
        sent, origin, manifest = _in_s3(context, connection, source, options.pop("manifest"), as_json, extent)
        if origin:
            lists.remember(connection, sent.uri)
        known = creators.known_handles(connection, [options["creator"]])
        job_options = jobs.Options(origin=origin, manifest=manifest, reassign=reassign, known=known, **options)
        job = jobs.create(context.settings, connection, sent.uri, job_options, priority=priority)
        if detach:
            job["remarks"] = job["remarks"] or sent.remarks  # the job has them once it has read its list
        else:
            job = _follow(context, connection, job["id"], quiet=as_json)
        if sheets:
            _write_sheets(context, connection, job["id"], Path(sheets))
    _show(context, job, as_json)
    raise SystemExit(0 if detach or job["status"] == "succeeded" else 1)


@click.group(invoke_without_command=True)
@click.option("--limit", default=20, help="How many.")
@json_option
@click.pass_context
def jobs(ctx: click.Context, limit: int, as_json: bool) -> None:
    """List ingest jobs, the newest first."""
    if ctx.invoked_subcommand is not None:
        return
    from pipelines.jobs import jobs as table

    context: Context = ctx.obj
    with context.connect(JOBS, autocommit=True) as connection:
        listed = table.listing(connection, limit)
    if as_json:
        context.emit({"jobs": listed})
    else:
        context.console.print(_table(listed))


@jobs.command()
@click.argument("job_id")
@click.option("--contact-sheet", "sheets", default="", help="Folder for one picture a video: its moments.")
@json_option
@click.pass_obj
def show(context: Context, job_id: str, sheets: str, as_json: bool) -> None:
    """Show a job: what became of its videos, what it cost, and why some were refused. Exit code 0 in every state."""
    from pipelines.jobs import jobs as table
    from pipelines.jobs import report

    with context.connect(JOBS, autocommit=True) as connection:
        job = table.get(connection, job_id)
        job["report"] = report.of(context.settings, connection, job)
        if sheets:
            _write_sheets(context, connection, job_id, Path(sheets))
    _show(context, job, as_json)


@jobs.command()
@click.argument("job_id")
@json_option
@click.pass_obj
def cancel(context: Context, job_id: str, as_json: bool) -> None:
    """Stop a job. What it has finished stays searchable."""
    from pipelines.jobs import jobs as table

    with context.connect(JOBS, autocommit=True) as connection:
        job = table.cancel(context.settings, connection, job_id)
    _show(context, job, as_json)


@jobs.command()
@click.argument("job_id")
@click.option("--detach", is_flag=True, help="Submit and return.")
@json_option
@click.pass_obj
def retry(context: Context, job_id: str, detach: bool, as_json: bool) -> None:
    """Submit a new job for the failed and quarantined videos of an older one. Exit codes are those of `pixr ingest`."""
    from pipelines.jobs import jobs as table

    with context.connect(JOBS, autocommit=True) as connection:
        job = table.retry(context.settings, connection, job_id)
        if not detach:
            job = _follow(context, connection, job["id"], quiet=as_json)
    _show(context, job, as_json)
    raise SystemExit(0 if detach or job["status"] == "succeeded" else 1)


def _plan(
    context: Context,
    connection: Connection,
    named: str,
    as_json: bool,
    extent: Extent,
    *,
    manifest: str,
    creator: str,
    model: str,
    mode: str,
) -> None:
    """Print what a job of this source would do."""
    from cluster import runtime
    from cluster.storage import Storage
    from pipelines.catalog import creators
    from pipelines.jobs import estimate, jobs
    from pipelines.models import names as model_names
    from pipelines.sources import source
    from pipelines.sources.remarks import Remarks

    settings = context.settings
    known, is_known = creators.known_handles(connection, [creator]), creators.knows(connection)
    options = jobs.Options(creator, manifest, model, mode, known=known)  # refuses what a job would refuse
    creator = options.creator
    model_names.require_known(settings, connection, model)
    if named.startswith("s3://"):
        storage = Storage(runtime.endpoints(settings).s3)
        source.check(named, storage, settings.s3.ingest_buckets)
        listing = source.listed(
            named,
            storage,
            creator=creator,
            manifest_uri=manifest,
            is_known=is_known,
            own_bucket=settings.s3.bucket,
        )
    else:
        path, beside = Path(named).expanduser(), Path(manifest) if manifest else None
        listing = source.local(path, settings.s3.bucket, beside, extent, creator, is_known=is_known)
    remarks = Remarks()
    remarks.extend(listing.remarks)
    plan = estimate.of(settings, connection, listing.videos, model, remarks)
    if as_json:
        context.emit(plan | {"remarks": remarks.rows()})
        return
    _say_remarks(context, remarks.rows())
    for name, value in plan.items():
        context.console.print(f"{name.replace('_', ' ')}: {'unknown before the first job' if value is None else value}")


def _write_sheets(context: Context, connection: Connection, job_id: str, folder: Path) -> None:
    """Write a contact sheet for each of the job's searchable videos into a folder."""
    from cluster import runtime
    from cluster.storage import Storage
    from pipelines.jobs import jobs
    from pipelines.moments import contact_sheet

    storage = Storage(runtime.endpoints(context.settings).s3)
    folder.mkdir(parents=True, exist_ok=True)
    for video_id, uri in jobs.ready_videos(connection, job_id):
        file = folder / f"{video_id}-{Path(uri).stem}.webp"
        file.write_bytes(contact_sheet.of(connection, storage, video_id))


def _in_s3(
    context: Context, connection: Connection, named: str, manifest: str, quiet: bool, extent: Extent
) -> tuple[UploadedSource, str, str]:
    """Upload a source that is a local path; return what a job can read in its place.

    Returns:
        The source in S3, the local path that it was made from ("" if it was in S3 already), and the URI of the manifest
        ("" for a local path, since the rows are uploaded with the videos).
    """
    from cluster import folders, runtime
    from cluster.errors import Rejected
    from cluster.settings import EMBEDDED
    from cluster.storage import Storage
    from pipelines.catalog import creators
    from pipelines.sources import source

    if named.startswith("s3://"):
        if manifest and not manifest.startswith("s3://"):
            raise Rejected("the manifest of an S3 source must be in S3 too", hint="upload it beside the videos")
        return source.UploadedSource(named, []), "", manifest
    storage = Storage(runtime.endpoints(context.settings).s3)
    with context.console.status("uploading", spinner="dots") as status:

        def progress(name: str, done: int, total: int) -> None:
            if not quiet:
                status.update(f"uploading {done + 1} of {total}: {name}" if name else "uploaded")

        def require_room(size: int) -> None:
            if context.settings.s3.url == EMBEDDED:
                folders.require_space(context.settings.data_dir, context.settings.s3.free_space_min_mb, size)

        local = Path(manifest) if manifest else None
        path, bucket = Path(named).expanduser(), context.settings.s3.bucket
        is_known = creators.knows(connection)
        sent = source.upload(
            path, storage, bucket, local, progress, extent, is_known=is_known, require_room=require_room
        )
    return sent, str(Path(named).expanduser().resolve()), ""


def _follow(context: Context, connection: Connection, job_id: str, quiet: bool) -> dict[str, Any]:
    """Show progress until the job is over; Ctrl-C leaves the job running."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from pipelines.jobs import jobs

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[line]}"), TimeElapsedColumn())
    with Progress(*columns, console=context.console, disable=quiet, transient=True) as progress:
        bar = progress.add_task(job_id, line="waiting for the cluster", total=None)
        while True:
            job = jobs.get(connection, job_id)
            if job["finished_at"]:
                return job
            videos, done = job["videos"], job["videos"]["total"] - job["progress"]["left"]
            if job["waits_for"]:
                progress.update(bar, line=f"waits for {job['waits_for']}")
            elif job["listed"]:
                progress.update(bar, total=videos["total"], completed=done, line=_line(job))
            time.sleep(POLL_S)


def _line(job: dict[str, Any]) -> str:
    """Return the progress of a job on one line."""
    videos, progress = job["videos"], job["progress"]
    done = videos["total"] - progress["left"]
    eta = f", {progress['eta_s']:.0f} s left" if progress["eta_s"] else ""
    return f"{done}/{videos['total']} videos, {job['segments']} segments, {progress['frames_per_s']:.0f} frames/s{eta}"


def _show(context: Context, job: dict[str, Any], as_json: bool) -> None:
    """Print how a job stands."""
    if as_json:
        context.emit(job)
        return
    videos = job["videos"]
    context.console.print(
        f"[bold]{job['id']}[/bold] {job['status']}: {videos['ready']} of {videos['total']} videos ready"
        f" ({videos['skipped']} were before), {videos['quarantined']} quarantined, {videos['failed']} failed,"
        + (f" {videos['removed']} taken down," if videos["removed"] else "")
        + f" {job['segments']} segments"
        + (f" in {job['seconds']:.1f} s" if job["seconds"] else "")
    )
    if job["waits_for"]:
        context.console.print(f"  waits for {job['waits_for']}", style="yellow", markup=False, soft_wrap=True)
    if job["error"]:
        context.console.print(f"  {job['error']}", style="red", markup=False)
    _say_remarks(context, job["remarks"])
    for failure in job["failures"]:
        name = failure["source_uri"].rpartition("/")[2]
        context.console.print(f"  {failure['outcome']}: {name}: {failure['reason']}", style="yellow", markup=False)
    if videos["failed"]:
        context.console.print(f"  try what failed again with `pixr jobs retry {job['id']}`", style="dim")
    elif job["failures"]:
        context.console.print(
            "  what is quarantined stays out as it is; the next `pixr ingest` takes a mended file", style="dim"
        )
    for name, value in (job.get("report") or {}).items():
        context.console.print(f"  {name.replace('_', ' ')}: {value}")


def _say_remarks(context: Context, rows: list[dict[str, Any]]) -> None:
    """Print remarks, one line a reason."""
    from pipelines.sources import remarks

    for row in rows:
        context.console.print(f"  {remarks.line(row)}", style="yellow", markup=False, soft_wrap=True)


def _table(listed: list[dict[str, Any]]) -> Any:
    """Return jobs as a table."""
    from rich.table import Column, Table

    name = Column("job", min_width=max((len(job["id"]) for job in listed), default=0))  # never cut: commands take it
    columns = ("status", "ready", "refused", "failed", "segments", "seconds", "source")
    table = Table(name, *columns, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for job in listed:
        videos = job["videos"]
        ready = f"{videos['ready']}/{videos['total']}"
        seconds = f"{job['seconds']:.1f}" if job["seconds"] else ""
        where = job["options"].get("origin") or job["source"]
        counts = (str(videos["quarantined"]), str(videos["failed"]), str(job["segments"]))
        table.add_row(job["id"], job["status"], ready, *counts, seconds, where)
    return table
