"""From a file to money on chain, with everything real; and the same again, which adds nothing."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cluster.settings import ROOT
from pipelines.samples.samples import Sample
from serve.client import Client
from serve.settings import SearchSettings
from tests.conftest import until
from tests.stack import Stack, family, near_enough

PAID_WITHIN_S = 90.0


def search(stack: Stack, query: str, key: str) -> dict[str, Any]:
    answer = stack.anonymous.get("/v1/search", params={"q": query}, headers={"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def earnings(stack: Stack, creator: str) -> dict[str, Any]:
    answer = stack.admin.get(f"/v1/creators/{creator}/earnings")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def settled(found: dict[str, Any]) -> bool:
    return int(found["in_flight"]) == 0 and int(found["paid"]) == int(found["on_chain"]) > 0


def recorded(stack: Stack) -> tuple[int, int]:
    """Searches that have been recorded, and how many of them the journal has taken in."""
    row = stack.rows(
        "SELECT coalesce(sum(recorded), 0)::bigint, coalesce(sum(folded), 0)::bigint FROM ledger.incarnations"
    )[0]
    return int(row[0]), int(row[1])


def funded(stack: Stack) -> tuple[Any, ...]:
    """What has been earned: journal entries of accruals, appearances that earned, and units."""
    return stack.rows(
        "SELECT (SELECT count(*) FROM ledger.entries WHERE kind = 'accrual'), sum(funded), sum(amount_pix)"
        " FROM ledger.folds"
    )[0]


@pytest.fixture(scope="module")
def shown(stack: Stack, catalogue: list[Sample]) -> list[dict[str, Any]]:
    """The answers to a search for the first shot of some of the videos."""
    captions = [sample.shots[0].caption for sample in catalogue if sample.shots][:5]
    return [search(stack, caption, f"flow-{number}") for number, caption in enumerate(captions)]


def test_good_files_are_searchable_and_bad_ones_quarantined_with_a_reason(
    stack: Stack, catalogue: list[Sample]
) -> None:
    rows = stack.rows("SELECT source_uri, status, error FROM media.videos")
    statuses = {uri.rsplit("/", 1)[1]: (status, error) for uri, status, error in rows}
    for sample in catalogue:
        status, error = statuses[sample.file]
        assert status == ("ready" if sample.shots else "quarantined"), (sample.file, error)
        assert sample.shots or (error and "\n" not in error)


def test_searches_do_not_give_way_to_whatever_else_runs(stack: Stack) -> None:
    replicas = family(stack, "ServeReplica")
    assert {each.nice() for each in replicas} == {0}


def test_the_right_moment_is_found(catalogue: list[Sample], shown: list[dict[str, Any]]) -> None:
    wanted = [sample for sample in catalogue if sample.shots][:5]
    hits = [
        answer["moments"][0]["title"] == sample.title
        and min(answer["moments"][0]["end_ms"], sample.shots[0].end_ms) > answer["moments"][0]["start_ms"]
        for sample, answer in zip(wanted, shown, strict=True)
    ]
    assert sum(hits) >= 4, hits


def test_a_search_comes_in_parts_through_the_proxy(stack: Stack, catalogue: list[Sample]) -> None:
    title = next(sample.title for sample in catalogue if sample.shots)
    with Client(str(stack.anonymous.base_url)) as client:
        parts = list(client.stream(title, intent="typing"))
        assert [name for name, _ in parts] in (["text", "fused"], ["fused"])
        whole = client.search(title, intent="typing")
    assert [each.segment_id for each in parts[-1][1].moments] == [each.segment_id for each in whole.moments]


def test_a_picture_of_as_many_bytes_as_are_allowed_reaches_the_encoder(stack: Stack) -> None:
    """gRPC takes messages of 4 MB unless it is told otherwise; larger pictures were 503, and rested the encoder for others."""
    stream = io.BytesIO()
    Image.frombytes("RGB", (1600, 1600), random.Random(1).randbytes(1600 * 1600 * 3)).save(stream, "PNG")
    assert 7_500_000 < len(stream.getvalue()) < SearchSettings().image_max_bytes
    with Client(str(stack.anonymous.base_url)) as client:
        assert not client.search(image=stream.getvalue(), limit=3, intent="typing").degraded


def test_a_picture_finds_its_moment(stack: Stack, shown: list[dict[str, Any]]) -> None:
    moment = shown[0]["moments"][0]
    picture = stack.anonymous.get(moment["thumbnail_url"], follow_redirects=True).content
    with Client(str(stack.anonymous.base_url)) as client:
        found = client.search(image=picture, limit=3, intent="typing").moments
    assert moment["segment_id"] in [each.segment_id for each in found]


def test_the_moments_shown_are_paid_on_chain(stack: Stack, shown: list[dict[str, Any]]) -> None:
    creators = sorted({moment["creator_id"] for answer in shown for moment in answer["moments"]})
    assert len(creators) == 3
    for creator in creators:
        until(lambda creator=creator: settled(earnings(stack, creator)), PAID_WITHIN_S, f"creator {creator} paid")
    assert stack.json("audit", "--full")["clean"]


def test_a_creator_gets_nine_tenths_of_what_was_shown(stack: Stack, shown: list[dict[str, Any]]) -> None:
    amounts: dict[str, tuple[str, int]] = {}
    for answer in shown:
        near = near_enough(stack, answer["query"])
        assert near  # what words alone have shown earns nothing
        for moment in answer["moments"]:
            amount = moment["relevance_ppm"] * 1000 // 1_000_000 if int(moment["segment_id"]) in near else 0
            creator, before = amounts.get(moment["segment_id"], (moment["creator_id"], 0))
            amounts[moment["segment_id"]] = creator, before or amount
    for creator in {creator for creator, _ in amounts.values()}:
        gross = sum(amount for owner, amount in amounts.values() if owner == creator)
        net = int(earnings(stack, creator)["accrued"])  # of all time, paid or not
        # Largest remainder an appearance: at most one base unit of difference each.
        assert abs(net - gross * 9 // 10) <= len(amounts)


def test_a_repeated_idempotency_key_earns_nothing_new(stack: Stack, shown: list[dict[str, Any]]) -> None:
    searches = len(shown)
    until(lambda: recorded(stack) == (searches, searches), PAID_WITHIN_S, "everything shown is folded")
    before = funded(stack)
    again = search(stack, shown[0]["query"], "flow-0")
    assert [moment["segment_id"] for moment in again["moments"]] == [
        moment["segment_id"] for moment in shown[0]["moments"]
    ]
    searches += 1
    until(lambda: recorded(stack) == (searches, searches), PAID_WITHIN_S, "the repeated search is folded")
    assert funded(stack) == before


def test_a_second_ingest_of_the_same_folder_changes_nothing(
    stack: Stack, catalogue: list[Sample], demo_folder: Path
) -> None:
    before = stack.counts()
    job = stack.json("ingest", str(demo_folder))
    assert job["status"] == "succeeded"
    assert stack.counts() == before


def test_a_thumbnail_and_a_moment_can_be_fetched(stack: Stack, shown: list[dict[str, Any]]) -> None:
    moment = shown[0]["moments"][0]
    thumbnail = stack.anonymous.get(moment["thumbnail_url"], follow_redirects=True)
    assert (thumbnail.status_code, thumbnail.headers["content-type"]) == (200, "image/webp")
    link = moment["play_url"].partition("#")[0]
    part = stack.anonymous.get(link, headers={"Range": "bytes=0-99"}, follow_redirects=True)
    assert (part.status_code, len(part.content)) == (206, 100)


def test_the_readmes_first_search_finds_what_it_names(stack: Stack, catalogue: list[Sample]) -> None:
    text = re.findall(r'pixr search "([^"]+)"', (ROOT / "README.md").read_text(encoding="utf-8"))[0]
    name = text.removeprefix("a ")
    showing = {
        sample.title: [(shot.start_ms, shot.end_ms) for shot in sample.shots if name in shot.concepts]
        for sample in catalogue
        if any(name in shot.concepts for shot in sample.shots)
    }
    found = stack.json("search", text)
    best = found["moments"][0]
    spans = showing[best["title"]]
    assert any(start < best["end_ms"] and best["start_ms"] < end for start, end in spans), best
    assert best["relevance_ppm"] > 500_000
    assert name in stack.pixr("search", text).lower()


def test_what_is_not_there_matches_nothing(stack: Stack, catalogue: list[Sample]) -> None:
    assert catalogue
    for text in ("asdfghjkl", "photosynthesis", "a lighthouse keeper"):
        found = search(stack, text, f"flow-{text}")
        assert (found["moments"], found["nothing_matches"], found["degraded"]) == ([], True, []), text
    assert "Nothing matches “asdfghjkl”" in stack.pixr("search", "asdfghjkl")


def test_everything_is_kept_across_down_and_up(stack: Stack, shown: list[dict[str, Any]]) -> None:
    before = stack.counts()
    stack.pixr("down")
    stack.pixr("up")
    after = stack.counts()
    assert {name: after[name] for name in before if name.startswith("media")} == {
        name: before[name] for name in before if name.startswith("media")
    }
    assert search(stack, shown[0]["query"], "flow-kept")["moments"]
    assert stack.json("audit", "--full")["clean"]


def test_a_second_up_does_nothing(stack: Stack) -> None:
    pids = {name: row["pid"] for name, row in stack.services.items()}
    assert "already up" in stack.pixr("up")
    assert {name: row["pid"] for name, row in stack.services.items()} == pids
