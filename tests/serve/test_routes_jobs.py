"""Jobs over HTTP: what a request costs a replica."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import Temporary
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines import jobs
from tests.serve.doors import opened


async def test_a_job_is_submitted_by_the_client_of_the_store_that_the_replica_has(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client reads the models of all of AWS again, half a second of CPU that keeps searches waiting."""
    made: list[Any] = []
    real = Storage.__init__

    def counted(self: Storage, *arguments: Any, **named: Any) -> None:
        made.append(arguments)
        real(self, *arguments, **named)

    def away(*_: Any) -> None:
        raise Temporary("there is no cluster here")

    async with opened(settings) as doors:
        key = doors.key("ingest")
        folder = f"s3://{settings.s3.bucket}/uploads/"
        doors.services.storage.ensure_bucket(settings.s3.bucket)
        doors.services.storage.put_bytes(b"", f"{folder}a.mp4")
        monkeypatch.setattr(Storage, "__init__", counted)
        monkeypatch.setattr(jobs, "submit", away)
        answers = [await doors.http.post("/v1/jobs", json={"source": folder}, headers=key) for _ in range(2)]
    assert [each.status_code for each in answers] == [202, 202]
    assert {each.json()["status"] for each in answers} == {"queued"}
    assert made == []
