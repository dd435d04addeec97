"""The pages of settings and metrics are what the code says; `make docs` writes them."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from cluster.cli.context import Context
from cluster.settings import ROOT
from serve.cli import docs
from serve.cli.metrics import of_ingest, of_replicas

READMES = [
    ROOT / "README.md",
    *(ROOT / package / "README.md" for package in ("cluster", "pipelines", "serve", "ledger")),
]


def test_the_page_of_settings_says_what_the_code_says() -> None:
    assert docs.SETTINGS_PAGE.read_text(encoding="utf-8") == docs.settings_document(), "`make docs`"


def test_the_page_of_metrics_says_what_the_code_says() -> None:
    assert docs.METRICS_PAGE.read_text(encoding="utf-8") == docs.metrics_document(), "`make docs`"


def test_every_metric_has_a_meaning() -> None:
    assert [metric.name for metric in (*of_replicas(), *of_ingest()) if not metric.meaning] == []


def test_labels_are_named_with_their_values_where_the_code_limits_them() -> None:
    by_name = {metric.name: metric for metric in of_replicas()}
    assert by_name["pixr_pool_connections"].labels == {"state": ["used", "idle", "waiting", "replaced"]}
    assert by_name["pixr_recall_at_10"].labels == {"model": ()}
    assert by_name["pixr_searches_total"].kind == "counter"


def test_readmes_name_no_metric_that_is_not_there() -> None:
    known = {metric.name for metric in of_replicas()}
    named = {
        name for file in READMES for name in re.findall(r"`(pixr_[a-z0-9_]+)[`{]", file.read_text(encoding="utf-8"))
    }
    roles = {"pixr_serve", "pixr_jobs", "pixr_ledger", "pixr_reader"}
    assert named - known - roles == set()


@pytest.mark.parametrize("command", ["settings", "metrics"])
def test_without_write_a_page_is_printed_and_no_file_changes(command: str) -> None:
    result = CliRunner().invoke(docs.docs, [command], obj=Context(None), catch_exceptions=False)
    page = {"settings": docs.SETTINGS_PAGE, "metrics": docs.METRICS_PAGE}[command]
    assert result.output == page.read_text(encoding="utf-8")
