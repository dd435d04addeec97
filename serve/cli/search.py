"""`pixr search`: calls the HTTP interface and prints the answer; decides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.cli.context import Context, json_option

if TYPE_CHECKING:
    from rich.table import Table

    from serve.client_values import Answer

LIMIT = 10


@click.command()
@click.argument("text", default="")
@click.option("--image", default="", help="Like this picture, too: a file, or its address in the store (s3://…).")
@click.option("--limit", default=LIMIT, show_default=True, type=click.IntRange(1, 100), help="How many moments.")
@json_option
@click.pass_obj
def search(context: Context, text: str, image: str, limit: int, as_json: bool) -> None:
    """Find moments by what they show: TEXT in plain words, a picture, or both.

    When nothing matches, the command says so and exits with 0: that is an answer, not an error.
    """
    from cluster import runtime
    from cluster.door import certificate
    from cluster.embedded import supervisor
    from cluster.errors import Temporary
    from serve.client import Client

    if not text and not image:
        raise click.UsageError("say what to look for: a text, or --image")
    picture = _picture(image)
    url = runtime.serve_url(context.settings)
    supervisor.require_running(context.settings)
    with Client(url, verify=certificate.trust(context.settings)) as client:
        try:
            answer = client.search(text, image=picture, limit=limit)
        except Temporary as error:
            raise Temporary(f"{error.detail}; see `pixr status`, start with `pixr up`") from error
    if as_json:
        context.emit(answer.document)
        return
    if answer.moments:
        context.console.print(_moments(text or image, answer))
    else:
        context.console.print(_nothing(text or image, answer), markup=False)
    if answer.degraded:
        context.console.print(f"skipped: {', '.join(answer.degraded)}", style="yellow")


def _picture(image: str) -> bytes | str:
    """Return a picture's address in the store, or the bytes of a file."""
    if image.startswith("s3://") or not image:
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{image}: {error.strerror}", param_hint="--image") from error


def _nothing(text: str, answer: Answer) -> str:
    """Return the sentence for an answer without moments, and what to try."""
    if answer.nothing_matches:
        return f"Nothing matches “{text}”. Try other words, fewer words, or the name of something that is seen."
    return f"Nothing found for “{text}” with what can be asked at present. Try again in a moment."


def _moments(text: str, answer: Answer) -> Table:
    """Make the table of an answer's moments."""
    from rich.markup import escape
    from rich.table import Table

    from pipelines.media import time_code

    title = f"“{escape(text)}”: {len(answer.moments)} moments in {answer.took_ms:.0f} ms"
    table = Table("#", "title", "from", "to", "relevance", "matched", "creator", title=title, box=None)
    table.title_justify = "left"
    for rank, moment in enumerate(answer.moments, 1):
        table.add_row(
            str(rank),
            escape(moment.title),
            time_code(moment.start_ms),
            time_code(moment.end_ms),
            f"{moment.relevance_ppm / 10_000:.0f} %",
            " + ".join(moment.matched).replace("_", " "),
            escape(moment.creator),
        )
    return table
