"""`pixr keys`: create, list, rotate and revoke API keys, in the database; decides nothing."""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.context import Context, json_option
from cluster.roles import SERVE

DAY_S = 86_400


@click.group()
def keys() -> None:
    """API keys: who may call, and what they may do."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, help="search, ingest, creator or admin; can be repeated."
)
@click.option("--creator", "creator_id", type=click.IntRange(1), help="Whose things a key of scope creator opens.")
@click.option(
    "--for", "creators", multiple=True, help="Handle that a key of scope ingest may speak for; can be repeated."
)
@click.option(
    "--for-any", is_flag=True, help="A key of scope ingest may speak for every creator, and set first wallets."
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    help="S3 folder that jobs of a key with --for may name; can be repeated (else: called as its creators).",
)
@click.option("--expires-days", type=click.FloatRange(0, min_open=True), help="(else: it does not expire).")
@json_option
@click.pass_obj
def create(
    context: Context,
    name: str,
    scopes: tuple[str, ...],
    creator_id: int | None,
    creators: tuple[str, ...],
    for_any: bool,
    folders: tuple[str, ...],
    expires_days: float | None,
    as_json: bool,
) -> None:
    """Create a key for NAME, a program or a person. The key is shown once; only its hash is stored."""
    from cluster.errors import Rejected
    from pipelines.sources import prefixes
    from serve.access import keys as key_table

    seconds = None if expires_days is None else max(1, int(expires_days * DAY_S))
    if for_any and creators:
        raise Rejected("--for names creators and --for-any all of them", code="bad-creators", hint="give one of them")
    speaks_for = key_table.ANY if for_any else creators or None
    named = prefixes.checked(folders, context.settings.s3) or None
    with context.connect(SERVE) as connection:
        number, token = key_table.create(
            connection,
            name,
            scopes,
            creator_id=creator_id,
            creators=speaks_for,
            folders=named,
            expires_in_s=seconds,
        )
        _show_new(context, key_table.one(connection, number), token, as_json)


@keys.command("list")
@json_option
@click.pass_obj
def list_command(context: Context, as_json: bool) -> None:
    """List keys, the newest first, without the secrets."""
    from rich.markup import escape
    from rich.table import Table

    from serve.access import keys as key_table

    with context.connect(SERVE) as connection:
        rows = key_table.listing(connection)
    if as_json:
        context.emit([row.document(context.settings.s3.ingest_buckets) for row in rows])
        return
    table = Table("id", "name", "scopes", "creator", "made", "ends", box=None, header_style="dim")
    for row in rows:
        ends = "revoked" if row.revoked_at else f"{row.expires_at:%Y-%m-%d %H:%M}" if row.expires_at else ""
        creator = ", ".join(row.creators or ()) or str(row.creator_id or "")
        made = f"{row.created_at:%Y-%m-%d %H:%M}"
        table.add_row(str(row.id), escape(row.name), " ".join(row.scopes), escape(creator), made, ends)
    context.console.print(table if rows else "no keys yet")


@keys.command("rotate")
@click.argument("key_id", type=click.IntRange(1))
@click.option("--grace-hours", type=click.FloatRange(0), default=24.0, show_default=True, help="The old one lives on.")
@json_option
@click.pass_obj
def rotate(context: Context, key_id: int, grace_hours: float, as_json: bool) -> None:
    """Create a key to replace KEY_ID. The old key works for a while longer, so that its users can change over."""
    from serve.access import keys as key_table

    with context.connect(SERVE) as connection:
        number, token = key_table.rotate(connection, key_id, grace_s=int(grace_hours * 3600))
        _show_new(context, key_table.one(connection, number), token, as_json)


@keys.command("revoke")
@click.argument("key_id", type=click.IntRange(1))
@click.pass_obj
def revoke(context: Context, key_id: int) -> None:
    """Revoke a key; it stops working within seconds."""
    from serve.access import keys as key_table

    with context.connect(SERVE) as connection:
        key_table.revoke(connection, key_id)
    context.console.print(f"key {key_id} is revoked")


def _show_new(context: Context, key: Any, token: str, as_json: bool) -> None:
    """Print a new key; only the key itself goes to standard output, so that a script can read it."""
    document = key.document(context.settings.s3.ingest_buckets)
    if as_json:
        context.emit(document | {"key": token})
        return
    click.echo(token)
    if document["folders"] is not None:
        folders = ", ".join(document["folders"]) or "none of its own: make it with --folder"
        context.console.print(f"its jobs read from {folders}", style="dim", markup=False)
    context.console.print(f"key {key.id} of {key.name}: keep it, it is not shown again", style="dim", markup=False)
