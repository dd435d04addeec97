"""`pixr index`: plan, build and inspect the vector indexes, and change the model; decides nothing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.context import Context, json_option
from cluster.roles import JOBS, OWNER, READER

if TYPE_CHECKING:
    from psycopg import Connection
    from rich.table import Table

    from pipelines.index.admin import IndexCost, ModelCoverage
    from pipelines.index.vectors import Profile


MEMORY_MAX_MB = 2048
POLL_S = 0.5


@click.group()
def index() -> None:
    """Plan, build and inspect the vector indexes; change the model that searches use."""


@index.command("plan")
@click.option("--rows", type=click.IntRange(1), help="For so many rows (else: as many as there are).")
@click.option("--dimensions", type=click.IntRange(1, 64_000), help="(else: the model's).")
@click.option("--model", default="", help="(else: the active one).")
@click.option("--memory-mb", default=MEMORY_MAX_MB, show_default=True, type=click.IntRange(1), help="To build with.")
@json_option
@click.pass_obj
def plan_command(
    context: Context, rows: int | None, dimensions: int | None, model: str, memory_mb: int, as_json: bool
) -> None:
    """Show what each kind of index would cost; the database is asked only for what is not given."""
    from pipelines.index import admin as index_admin

    if rows is None or dimensions is None:
        with context.connect(READER, autocommit=True) as connection:
            target = index_admin.model(connection, model)
        rows, dimensions = rows or target.rows, dimensions or target.dimensions
    plans = [index_admin.plan(profile, rows, dimensions, memory_mb) for profile in index_admin.PROFILES]
    if as_json:
        context.emit({"plans": [dataclasses.asdict(plan) | {"build_mb": plan.build_mb} for plan in plans]})
    else:
        context.console.print(_plans(plans))


def _plans(plans: list[IndexCost]) -> Table:
    from rich.table import Table

    title = f"{plans[0].rows:,} rows of {plans[0].dimensions:,} dimensions"
    table = Table("profile", "vectors", "index", "build memory", "lists", "verdict", title=title, box=None)
    for plan in plans:
        lists = f"{plan.lists:,}" if plan.lists else ""
        sizes = (_size(plan.heap_bytes), _size(plan.index_bytes), f"{plan.build_mb:,} MB")
        table.add_row(plan.profile, *sizes, lists, plan.refused or "can be built")
    return table


def _size(count: int) -> str:
    """Write a number of bytes in MB or GB (decimal)."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@index.command("build")
@click.option("--model", default="", help="(else: the active one).")
@click.option("--profile", default="hnsw", type=click.Choice(["hnsw", "bit", "ivfflat"]), show_default=True)
@click.option("--memory-mb", default=MEMORY_MAX_MB, show_default=True, type=click.IntRange(1), help="To build with.")
@json_option
@click.pass_obj
def build_command(context: Context, model: str, profile: Profile, memory_mb: int, as_json: bool) -> None:
    """Build an index while searches go on; an existing one is rebuilt."""
    from pipelines.index import admin as index_admin

    with context.connect(OWNER, autocommit=True) as connection, context.connect(OWNER, autocommit=True) as other:
        target = index_admin.model(other, model)
        work = (connection, target, profile, memory_mb)
        name = index_admin.build(*work) if as_json else _build_with_progress(context, other, work)
        built = next(made for made in index_admin.indexes(other, target.id) if made.name == name)
    if as_json:
        context.emit({"index": dataclasses.asdict(built), "model": target.name, "rows": target.rows})
    else:
        context.console.print(f"{name}: {target.rows:,} rows, {_size(built.bytes)}")


def _build_with_progress(context: Context, connection: Connection[Any], work: tuple[Any, ...]) -> str:
    """Build in a thread and show the progress; return the index's name. `work` are the arguments of `admin.build`."""
    from concurrent.futures import ThreadPoolExecutor, wait

    from rich.progress import Progress

    from pipelines.index import admin as index_admin

    with ThreadPoolExecutor(1) as threads, Progress(console=context.console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        future = threads.submit(index_admin.build, *work)
        while not wait([future], POLL_S).done:
            if now := index_admin.progress(connection, work[1].id):
                bar.update(task, description=now.phase, completed=now.done, total=now.total or None)
        return future.result()


@index.command("status")
@json_option
@click.pass_obj
def status_command(context: Context, as_json: bool) -> None:
    """Show the models, how much of the catalogue they cover, and their indexes."""
    from rich.table import Table

    from pipelines.index import admin as index_admin

    with context.connect(READER, autocommit=True) as connection:
        models = [(model, index_admin.indexes(connection, model.id)) for model in index_admin.models(connection)]
    if as_json:
        documents = [
            dataclasses.asdict(model)
            | {"indexes": [vars(index) | {"advice": index.advice(model.rows)} for index in indexes]}
            for model, indexes in models
        ]
        context.emit({"models": documents})
        return
    table = Table("model", "dimensions", "used", "rows", "missing", "indexes", box=None)
    for model, indexes in models:
        names = ", ".join(f"{made.name} {_size(made.bytes)}{'' if made.valid else ' (invalid)'}" for made in indexes)
        counts = (f"{model.rows:,}", f"{model.missing:,}")
        table.add_row(model.name, str(model.dimensions), _use(model), *counts, names or "none")
    context.console.print(table)
    for model, indexes in models:
        for made in indexes:
            if advice := made.advice(model.rows):
                context.console.print(f"[yellow]{made.name}: {advice}[/]")


def _use(model: ModelCoverage) -> str:
    """Return what a model is used for: searches, or only vectors of new moments."""
    return "searched" if model.active else "followed" if model.followed else ""


@index.command("backfill")
@click.argument("model")
@click.option("--priority", default=0, help="Jobs with a higher one are resubmitted first.")
@json_option
@click.pass_obj
def backfill_command(context: Context, model: str, priority: int, as_json: bool) -> None:
    """Compute a vector by MODEL for every moment while searches go on, and from then on for new ones (see `pixr jobs`)."""
    from pipelines.index import admin as index_admin
    from pipelines.jobs import jobs
    from pipelines.models import encoder

    with context.connect(JOBS, autocommit=True) as connection:
        if model not in {known.name for known in index_admin.models(connection)}:
            encoder.locate(model)  # refuses an unknown name before a job is created
        job = jobs.backfill(context.settings, connection, model, priority=priority)
    if as_json:
        context.emit({"job": job})
    elif job is None:
        context.console.print(f"{model} has a vector of every moment")
    else:
        context.console.print(f"{job['id']}: {job['videos']['total']:,} videos to embed")


@index.command("repool")
@json_option
@click.pass_obj
def repool_command(context: Context, as_json: bool) -> None:
    """Compute moments and vectors again from stored frame vectors ([ingest] frame_vectors), by today's rules for shots."""
    from cluster import runtime
    from cluster.storage import Storage
    from pipelines import repool
    from pipelines.settings import IngestSettings

    storage, ingest = Storage(runtime.endpoints(context.settings).s3), context.settings.section(IngestSettings)
    with context.connect(JOBS, autocommit=True) as connection:
        report = repool.run(connection, storage, context.settings.s3.bucket, ingest)
    if as_json:
        context.emit(report)
    else:
        context.console.print(
            f"{report['videos']:,} videos with {report['segments']:,} moments; {report['skipped']:,} left as they are"
        )
    for reason in () if as_json else report["refused"]:
        context.console.print(f"  {reason}", style="yellow")
    raise SystemExit(1 if report["refused"] else 0)


@index.command("unfollow")
@click.argument("model")
@click.pass_obj
def unfollow_command(context: Context, model: str) -> None:
    """Stop computing vectors of new moments by MODEL. Existing ones stay."""
    from pipelines.index import admin as index_admin

    with context.connect(JOBS, autocommit=True) as connection:
        index_admin.follow(connection, model, on=False)
    context.console.print(f"{model} is not followed any more")


@index.command("switch")
@click.argument("model")
@click.option("--force", is_flag=True, help="Even where it does not cover the catalogue.")
@json_option
@click.pass_obj
def switch_command(context: Context, model: str, force: bool, as_json: bool) -> None:
    """Make MODEL the one that searches use, at once and for all searches; switch back with the same command.

    Refused while it lacks moments, or while its index finds too few of the nearest ones.
    """
    import asyncio

    from cluster.database import database, logins
    from pipelines.index import admin as index_admin
    from serve.replica import warming
    from serve.settings import SearchSettings

    if not force:
        url = logins.url(context.settings, READER)
        with database.translate(url):
            asyncio.run(warming.require_recall(url, model, context.settings.section(SearchSettings)))
    with context.connect(OWNER, autocommit=True) as connection:
        target = index_admin.switch(connection, model, force=force)
    if as_json:
        context.emit({"model": dataclasses.asdict(target)})
    else:
        context.console.print(f"searches use {target.name}: {target.rows:,} rows, {target.missing:,} missing")
