"""Jobs over HTTP: what a request costs a replica."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from typing import Any

import pytest

from cluster.settings import Settings
from cluster.storage import Storage
from pipelines.jobs import Options
from serve.settings import SearchSettings
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

    async with opened(settings) as doors:
        key = doors.key("ingest")
        folder = f"s3://{settings.s3.bucket}/incoming/"
        doors.services.storage.ensure_bucket(settings.s3.bucket)
        doors.services.storage.put_bytes(b"", f"{folder}a.mp4")
        monkeypatch.setattr(Storage, "__init__", counted)
        answers = [await doors.http.post("/v1/jobs", json={"source": folder}, headers=key) for _ in range(2)]
    assert [each.status_code for each in answers] == [202, 202]
    assert {each.json()["status"] for each in answers} == {"queued"}
    assert made == []


async def test_a_job_is_made_once_and_said_so_while_the_cluster_stands_still(settings: Settings) -> None:
    quick = dataclasses.replace(settings.section(SearchSettings), thread_timeout_s=5.0)
    with socket.create_server(("127.0.0.1", 0)) as still:  # it takes connections and answers nothing
        url = f"http://127.0.0.1:{still.getsockname()[1]}"
        there = settings.with_section(dataclasses.replace(settings.ray, dashboard_url=url)).with_section(quick)
        async with opened(there) as doors:
            folder = f"s3://{settings.s3.bucket}/incoming/"
            doors.services.storage.ensure_bucket(settings.s3.bucket)
            doors.services.storage.put_bytes(b"", f"{folder}a.mp4")
            mine, other = doors.key("ingest"), doors.key("ingest", "search")

            async def submit(key: dict[str, str], idempotency_key: str, **asked: Any) -> Any:
                headers = {**key, "Idempotency-Key": idempotency_key}
                return await doors.http.post("/v1/jobs", json={"source": folder, **asked}, headers=headers)

            answers = await asyncio.gather(*(submit(mine, "a") for _ in range(4)))
            assert [each.status_code for each in answers] == [202] * 4
            assert len({each.json()["id"] for each in answers}) == 1
            assert answers[0].json()["waits_for"] == "the Ray cluster"
            doors.services.storage.delete(f"{folder}a.mp4")
            assert (await submit(mine, "a")).json() == answers[0].json()  # whatever has become of its source
            reused = await submit(mine, "a", creator="ana")
            assert (reused.status_code, reused.json()["code"]) == (422, "idempotency-key-reused")
            doors.services.storage.put_bytes(b"", f"{folder}a.mp4")
            further = [(await submit(key, name)).json()["id"] for key, name in ((mine, "b"), (other, "a"))]
            assert len({answers[0].json()["id"], *further}) == 3
            assert (await doors.http.get("/v1/jobs", headers=mine)).json()["total"] == 3


async def test_a_key_submits_and_sees_jobs_of_its_own_creators_alone(settings: Settings) -> None:
    async with opened(settings) as doors:
        folder, uploads = f"s3://{settings.s3.bucket}/incoming/", f"s3://{settings.s3.bucket}/uploads/"
        doors.services.storage.ensure_bucket(settings.s3.bucket)
        for uri in (f"{folder}a.mp4", f"{uploads}a.mp4", f"{uploads}lists/{'0' * 32}.jsonl"):
            doors.services.storage.put_bytes(b"", uri)
        any_key, hers, both = (
            doors.key("ingest"),
            doors.key("ingest", creators=["ana"], folders=[folder]),
            doors.key("ingest", creators=["ana", "bo"], folders=[folder]),
        )

        async def submit(key: dict[str, str], **asked: Any) -> Any:
            return await doors.http.post("/v1/jobs", json={"source": folder, **asked}, headers=key)

        refused = await submit(hers, creator="bo")
        assert (refused.status_code, refused.json()["code"]) == (403, "not-yours")
        assert (await submit(hers, source=f"{uploads}lists/{'0' * 32}.jsonl")).json()["code"] == "bad-list"
        of_others = await submit(hers, source=uploads)
        assert (of_others.status_code, of_others.json()["code"]) == (403, "not-yours")
        ahead = await submit(hers, options={"priority": 1})
        assert (ahead.status_code, ahead.json()["detail"]) == (403, "only a key for any creator may go ahead of others")
        whole, odd = f"s3://{settings.s3.bucket}", f"s3://{settings.s3.bucket}//uploads/a.mp4"
        for asked in (
            {"source": whole},
            {"source": f"{whole}/"},
            {"manifest": f"{uploads}a.mp4"},
            {"manifest": f"{whole}/"},
        ):
            refused = await submit(hers, **asked)
            assert (refused.status_code, refused.json()["code"]) == (403, "not-yours"), asked
        for key in (any_key, hers):
            for asked in ({"source": odd}, {"manifest": odd}):
                refused = await submit(key, **asked)
                assert (refused.status_code, refused.json()["code"]) == (422, "bad-address"), asked
        for asked in ({"source": f"{folder}a.mp4?versionId=1"}, {"manifest": f"{folder}manifest.csv?versionId=1"}):
            refused = await submit(any_key, **asked)
            assert (refused.status_code, refused.json()["code"]) == (422, "bad-address"), asked
        assert (await submit(any_key, creator="A\u200bna")).json()["code"] == "bad-creator"
        made = [(await submit(key)).json() for key in (any_key, hers, both)]
        assert [job["options"] for job in made] == [
            {},
            {"creator": "ana", "speaks_for": ["ana"], "folders": [folder]},
            {"speaks_for": ["ana", "bo"], "folders": [folder]},
        ]
        moved = (await submit(any_key, options={"reassign": True})).json()
        assert moved["options"] == {"reassign": True}
        for key, seen in ((any_key, 4), (hers, 1), (both, 2)):
            listed = (await doors.http.get("/v1/jobs", headers=key)).json()
            assert (len(listed["jobs"]), listed["total"]) == (seen, seen)
        for call in (doors.http.get, doors.http.delete):
            assert (await call(f"/v1/jobs/{made[0]['id']}", headers=hers)).status_code == 404
        assert (await doors.http.get(f"/v1/jobs/{made[1]['id']}", headers=hers)).status_code == 200


@pytest.mark.parametrize("folder", ["thumbnails/14/", "ledger/heads/", "frames/1", "uploads", "uploads/lists/"])
async def test_pixrs_own_folders_are_neither_source_nor_manifest_whoever_asks(settings: Settings, folder: str) -> None:
    """With one answer, whether or not something is there."""
    async with opened(settings) as doors:
        bucket = settings.s3.bucket
        doors.services.storage.ensure_bucket(bucket)
        doors.services.storage.put_bytes(b"file\n", f"s3://{bucket}/{folder.rstrip('/')}/there")
        doors.services.storage.put_bytes(b"", f"s3://{bucket}/mallory/a.mp4")
        own = f"s3://{bucket}/mallory/"
        for key in (doors.key("admin"), doors.key("ingest"), doors.key("ingest", creators=["mallory"])):
            seen = set()
            for name in ("there", "gone"):
                uri = f"s3://{bucket}/{folder.rstrip('/')}/{name}"
                for asked in ({"source": uri}, {"source": own, "manifest": uri}):
                    refused = await doors.http.post("/v1/jobs", json=asked, headers=key)
                    assert (refused.status_code, refused.json()["code"]) == (403, "not-yours"), refused.text
                    seen.add(refused.json()["detail"].replace(name, ""))
            whole = await doors.http.post("/v1/jobs", json={"source": f"s3://{bucket}/{folder}"}, headers=key)
            assert (whole.status_code, len(seen)) == (403, 1)


async def test_a_key_names_sources_and_manifests_in_its_folders_alone(settings: Settings) -> None:
    async with opened(settings) as doors:
        bucket = settings.s3.bucket
        doors.services.storage.ensure_bucket(bucket)
        for name in ("mallory/a.mp4", "bruno-plans/q3.mp4", "bruno-plans/manifest.csv", "incoming/m/a.mp4"):
            doors.services.storage.put_bytes(b"", f"s3://{bucket}/{name}")
        usual = doors.key("ingest", creators=["mallory"])
        given = doors.key("ingest", creators=["mallory"], folders=[f"s3://{bucket}/incoming/m/"])
        for key, own, other in ((usual, "mallory", "incoming/m"), (given, "incoming/m", "mallory")):

            async def submit(source: str, manifest: str = "", key: dict[str, str] = key) -> Any:
                asked = {"source": f"s3://{bucket}/{source}", "manifest": manifest and f"s3://{bucket}/{manifest}"}
                return await doors.http.post("/v1/jobs", json=asked, headers=key)

            assert (await submit(own)).status_code == 202
            assert (await submit(f"{own}/a.mp4", f"{own}/a.mp4")).status_code == 202
            assert (await submit(f"{own}/gone/")).status_code == 404  # what is one's own is told
            outside = (
                "bruno-plans/manifest.csv",
                "bruno-plans/gone.csv",
                f"{other}/a.mp4",
                f"{own}-x/",
                "incoming",
                "",
            )
            for name in outside:
                for refused in (await submit(name), await submit(own, name or "gone")):
                    assert (refused.status_code, refused.json()["code"]) == (403, "not-yours"), name
                    assert (
                        "in none of the folders that this key's jobs may name" in refused.json()["detail"] or not name
                    )


async def test_a_job_of_a_release_without_folders_reads_from_the_usual_ones(settings: Settings) -> None:
    asked = Options(creator="ana", speaks_for=["ana"])
    assert asked.rights(settings.s3.ingest_buckets).folders == (f"s3://{settings.s3.ingest_buckets[0]}/ana/",)
    assert asked.rights().folders == ()
    assert Options().rights().folders is None


async def test_a_job_that_is_sent_again_is_the_same_whatever_folders_its_key_has_by_now(settings: Settings) -> None:
    async with opened(settings) as doors:
        folder = f"s3://{settings.s3.bucket}/ana/"
        doors.services.storage.ensure_bucket(settings.s3.bucket)
        doors.services.storage.put_bytes(b"", f"{folder}a.mp4")
        key = {**doors.key("ingest", creators=["ana"]), "Idempotency-Key": "one"}
        first = await doors.http.post("/v1/jobs", json={"source": folder}, headers=key)
        with doors.database() as connection:
            connection.execute("UPDATE media.jobs SET options = options - 'folders'")  # as a release before has left it
        again = await doors.http.post("/v1/jobs", json={"source": folder}, headers=key)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json()["id"] == again.json()["id"]
