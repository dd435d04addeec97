"""`pixr samples`: write sample videos of the visual world, with a manifest and ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.cli.context import json_option

if TYPE_CHECKING:
    from cluster.cli.context import Context


@click.command("samples")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", type=click.IntRange(1, 10_000), default=12, show_default=True, help="How many videos.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same videos.")
@click.option("--codec", type=click.Choice(("h264", "hevc", "vp9", "av1", "mpeg4")), help="All videos in this codec.")
@click.option("--demo", "as_demo", is_flag=True, help="The demo's set: many codecs and sizes, three broken files.")
@json_option
@click.pass_obj
def samples(
    context: Context, out: Path, count: int, seed: int, codec: str | None, as_demo: bool, as_json: bool
) -> None:
    """Write sample videos into OUT, with manifest.csv and truth.jsonl; they need no network."""
    from dataclasses import replace

    from pipelines.samples import samples as videos

    if as_demo:
        written = videos.demo(out, seed)
    else:
        forms = [replace(form, codec=codec) for form in videos.FORMS] if codec else videos.FORMS
        written = videos.write(out, count, seed, forms=forms)
    if as_json:
        context.emit({"folder": str(out), "files": [sample.file for sample in written]})
        return
    creators = len({sample.creator for sample in written})
    context.console.print(f"{len(written)} files of {creators} creators in {out}, with manifest.csv and truth.jsonl")
