"""`pixr docs`: the pages of all settings and of all metrics, written from the code.

It stands in this package because no other package knows the metrics of all packages.
"""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.context import Context
from cluster.errors import Rejected
from cluster.settings import ROOT

SETTINGS_PAGE = ROOT / "configs" / "SETTINGS.md"
METRICS_PAGE = ROOT / "serve" / "METRICS.md"
OF_REPLICAS = """Read at `/metrics` of each replica, by administrators' keys and from the networks of `[search] operators_from`.
The values of a label stand after it, where the code limits them."""
OF_INGEST = """Metrics of Ray, set by the job's driver every few seconds and read at the metrics port of its node. `job` is the
id of the job. `pixr jobs show ID` has the same figures."""


@click.group()
def docs() -> None:
    """Pages that are written from the code: all settings, all metrics."""


@docs.command("settings")
@click.option("--write", is_flag=True, help="Write configs/SETTINGS.md instead of printing the page.")
@click.pass_obj
def settings(context: Context, write: bool) -> None:
    """Every setting: type, default, unit, what is accepted, meaning."""
    _show(context, settings_document(), SETTINGS_PAGE if write else None)


@docs.command("metrics")
@click.option("--write", is_flag=True, help="Write serve/METRICS.md instead of printing the page.")
@click.pass_obj
def metrics(context: Context, write: bool) -> None:
    """Every metric: kind, labels, meaning, and the process that has it."""
    _show(context, metrics_document(), METRICS_PAGE if write else None)


def settings_document() -> str:
    """Return the page of all settings.

    Raises:
        Rejected: a setting has no comment that says what it means.
    """
    from cluster import settings as settings_module
    from cluster.reference import settings_page

    sections = dict(sorted(settings_module.section_types().items()))
    if undescribed := settings_page.undescribed(sections):
        raise Rejected(f"no comment says what these settings mean: {', '.join(undescribed)}")
    return settings_page.page(sections)


def metrics_document() -> str:
    """Return the page of all metrics."""
    from cluster.reference import metrics_page
    from serve.cli.metrics import of_ingest, of_replicas

    return metrics_page.page(
        {
            "Each replica of Serve": (OF_REPLICAS, of_replicas()),
            "Each running ingest job": (OF_INGEST, of_ingest()),
        }
    )


def _show(context: Context, text: str, file: Path | None) -> None:
    if file is None:
        click.echo(text, nl=False)
        return
    file.write_text(text, encoding="utf-8")
    context.console.print(f"wrote {file.relative_to(ROOT)}")
