"""What is said by the hundred is written once in a while, with how often it was left out."""

from __future__ import annotations

import logging

import pytest

from cluster.observability import seldom
from cluster.observability.seldom import Seldom


def test_a_text_is_written_once_and_then_with_how_often_it_came(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 100.0
    monkeypatch.setattr("cluster.observability.seldom.time.monotonic", lambda: now_s)
    said = Seldom(logging.getLogger("test"), every_s=1.0)
    for number in range(50):
        said.warning("it is full", f"request {number}")
    said.warning("another thing")
    now_s = 101.5
    said.warning("it is full", "the last")
    assert [record.message for record in caplog.records] == [
        "it is full", "another thing", "it is full (and 49 times more before)",
    ]  # fmt: skip
    assert [record.request_id for record in caplog.records] == ["request 0", "", "the last"]


def test_texts_without_end_take_no_memory() -> None:
    said = Seldom(logging.getLogger("test"))
    for number in range(3 * seldom.TEXTS_MAX):
        said.warning(f"text {number}")
        assert len(said._written) <= seldom.TEXTS_MAX
