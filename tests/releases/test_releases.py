"""What people have goes on: a data folder of an earlier release, started with this code, is whole and counts nothing twice.

The folder was left in the middle of everything: searches in the spool alone, a payout signed and not settled, a job that
had begun. Its links, cookie and keys are as they were given out then.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster import roles, runtime
from cluster.database import database
from tests.cluster.privileges import assert_as_stated
from tests.conftest import until
from tests.releases import folders
from tests.releases.folders import Before
from tests.stack import Stack, running

WITHIN_S = 150.0  # of a loaded machine; most of it is Ray starting a job


@pytest.fixture(scope="module", params=folders.PACKED, ids=lambda packed: str(packed.name).split(".", 1)[0])
def packed(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def before(packed: Path) -> Before:
    return folders.before(packed)


@pytest.fixture(scope="module")
def stack(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = folders.unpack(packed, tmp_path_factory.mktemp("release") / "old data")
    with running(folder, PIXR_POSTGRES_REPLICA_URLS="") as made:
        yield made


def searched(client: httpx.Client, text: str) -> list[dict[str, Any]]:
    answer = client.get("/v1/search", params={"q": text})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["moments"]
    return found


def earnings(stack: Stack) -> dict[str, dict[str, Any]]:
    creators = [str(row[0]) for row in stack.rows("SELECT id FROM media.creators ORDER BY id")]
    with stack.admin as client:
        return {each: client.get(f"/v1/creators/{each}/earnings").json() for each in creators}


def settled(stack: Stack) -> bool:
    """Nobody is owed anything, and what was paid has arrived."""
    found = earnings(stack).values()
    amounts = [tuple(int(each[name]) for name in ("accrued", "paid", "on_chain", "in_flight")) for each in found]
    return all(accrued == paid == on_chain and not flying for accrued, paid, on_chain, flying in amounts)


def folded(stack: Stack) -> int:
    """Searches that the journal has taken in; -1 while some wait for it."""
    recorded, done = stack.rows("SELECT sum(recorded)::int, sum(folded)::int FROM ledger.incarnations")[0]
    return int(done) if recorded == done else -1


def test_everything_that_was_there_is_there(stack: Stack, before: Before) -> None:
    for table, count in before.counts.items():
        assert stack.rows(f"SELECT count(*) FROM {table}")[0][0] >= count, table


def test_what_was_found_then_is_found_now(stack: Stack, before: Before) -> None:
    with stack.admin as client:
        unlisted = client.get(f"/v1/videos/{before.unlisted}").json()["title"]
    expected = [each for each in zip(before.captions, before.titles, strict=False) if each[1] != unlisted]
    assert expected
    with stack.anonymous as client:
        for caption, title in expected:
            assert searched(client, caption)[0]["title"] == title, caption


def test_links_given_out_then_lead_where_they_did(stack: Stack, before: Before) -> None:
    assert len(before.links) >= 4
    with stack.anonymous as client:
        for link in before.links:
            answer = client.get(link, follow_redirects=True)
            assert answer.status_code == 200, (link, answer.text[:200])
            assert answer.headers["content-type"] in ("image/webp", "video/mp4")
            assert len(answer.content) > 100


def test_a_cookie_of_then_is_the_same_viewers(stack: Stack, before: Before) -> None:
    """A name that is not believed is replaced by another."""
    with stack.anonymous as client:
        assert "set-cookie" in client.get("/").headers
    with stack.anonymous as client:
        client.cookies.set("pixr_viewer", before.cookie)
        assert "set-cookie" not in client.get("/").headers


def test_keys_of_then_open_what_they_did(stack: Stack, before: Before) -> None:
    creator = stack.rows("SELECT p.creator_id FROM app.principals p WHERE p.name = 'old-creator'")[0][0]
    opened = {"search": "/v1/search?intent=typing&q=a", "ingest": "/v1/jobs", "admin": "/v1/keys"}
    opened["creator"] = f"/v1/creators/{creator}/earnings"
    for scope, path in opened.items():
        with stack.anonymous as client:
            client.headers["Authorization"] = f"Bearer {before.keys[scope]}"
            assert client.get(path).status_code == 200, scope
            other = "/v1/jobs" if scope in ("search", "creator") else "/v1/keys"
            assert client.get(other).status_code == (200 if scope == "admin" else 403), scope


def test_an_unlisted_video_is_not_shown_to_others(stack: Stack, before: Before) -> None:
    with stack.anonymous as client:
        for caption in before.captions:
            assert before.unlisted not in {each["video_id"] for each in searched(client, caption)}
    with stack.admin as client:
        assert client.get(f"/v1/videos/{before.unlisted}").json()["visibility"] == "unlisted"


def test_the_job_that_had_begun_is_done_once(stack: Stack, before: Before) -> None:
    assert "succeeded" in before.jobs.values()
    (begun,) = (job for job, status in before.jobs.items() if status != "succeeded")
    query = f"SELECT status FROM media.jobs WHERE id = '{begun}'"
    until(lambda: stack.rows(query) == [("succeeded",)], WITHIN_S, "the job has been done")
    assert stack.rows("SELECT status, count(*)::int FROM media.videos GROUP BY 1") == [("ready", 4)]
    twice = "SELECT {0} FROM media.{1} GROUP BY {0} HAVING count(*) > 1"
    assert stack.rows(twice.format("content_hash", "videos")) == []
    assert stack.rows(twice.format("video_id, start_ms", "segments")) == []


def test_what_stood_in_the_spool_is_recorded_once(stack: Stack, before: Before) -> None:
    assert before.spooled
    old = ", ".join(f"'{each}'" for each in before.incarnations)
    query = f"SELECT sum(recorded)::int, sum(folded)::int FROM ledger.incarnations WHERE id IN ({old})"
    wanted = before.recorded + before.spooled
    until(lambda: stack.rows(query) == [(wanted, wanted)], WITHIN_S, f"{wanted} searches of then are folded")
    assert list((stack.settings.data_dir / "spool").glob("*.damaged")) == []


def test_the_payout_that_was_under_way_lands_once(stack: Stack, before: Before) -> None:
    assert "signed" in before.open_batches.values()
    until(lambda: settled(stack), WITHIN_S, "everything of then is paid")
    for batch in before.open_batches:
        states = stack.rows(f"SELECT state FROM ledger.attempts WHERE batch_id = '{batch}'")
        assert [state for (state,) in states if state == "landed"] == ["landed"], states


def test_new_searches_pay(stack: Stack, before: Before) -> None:
    until(lambda: folded(stack) > 0 and settled(stack), WITHIN_S, "everything of before is paid")
    earlier = sum(int(each["paid"]) for each in earnings(stack).values())
    with stack.anonymous as browser:
        browser.get("/")  # takes a cookie, and is nobody who was there before
        assert searched(browser, before.captions[0])
    paid = "what a new viewer's search has earned is paid"
    until(lambda: sum(int(each["paid"]) for each in earnings(stack).values()) > earlier, WITHIN_S, paid)
    until(lambda: folded(stack) > 0 and settled(stack), WITHIN_S, "everything is paid")


def test_the_audit_is_clean(stack: Stack) -> None:
    found = stack.json("audit", "--full")
    assert found["clean"], found


def test_each_part_works_as_its_own_role_and_may_what_is_stated(stack: Stack) -> None:
    """The folder knew one user, a superuser, for all of them."""
    (said,) = stack.json("status")["services"]["postgres"]["notes"].values()
    assert said == "strong: a login of its own for serve, jobs, ledger, reader"
    with database.connect(runtime.role_url(stack.settings, roles.OWNER), autocommit=True) as connection:
        assert_as_stated(connection)
    # Of connections that are kept. The supervisor asks as the owner whether the server is there, and leaves.
    query = (
        "SELECT DISTINCT usename FROM pg_stat_activity"
        " WHERE datname = current_database() AND backend_start < now() - interval '5 s'"
    )
    kept = {(roles.SERVE.name,), (roles.LEDGER.name,)}
    until(lambda: set(stack.rows(query)) == kept, WITHIN_S, "nothing but replicas and the ledger keeps a connection")
