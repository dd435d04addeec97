"""A signed link opens its object at the real store for the host it was signed for, and nothing else."""

from __future__ import annotations

import time

import httpx
import pytest

from cluster import presign
from cluster.runtime import S3Endpoint
from cluster.storage import Storage

KEY = "films/a clip+1 (é).mp4"
DATA = bytes(range(256)) * 40


@pytest.fixture
def stored(s3: S3Endpoint) -> str:
    storage = Storage(s3)
    storage.ensure_bucket("presigned")
    storage.put_bytes(DATA, f"s3://presigned/{KEY}", "application/octet-stream")
    return f"/presigned/{KEY}"


def asked(
    s3: S3Endpoint, link: str, method: str = "GET", host: str = "pixr.example:8000", **headers: str
) -> httpx.Response:
    return httpx.request(method, s3.url + link, headers={"Host": host, **headers})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_link_opens_the_object_with_the_type_it_names(s3: S3Endpoint, stored: str, method: str) -> None:
    overrides = {"response-content-type": "video/mp4", "response-cache-control": "private, max-age=60"}
    link = presign.path_and_query(
        s3, "pixr.example:8000", stored, expires_s=60, now_s=time.time(), method=method, overrides=overrides
    )
    answer = asked(s3, link, method)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    assert answer.headers["cache-control"] == "private, max-age=60"
    assert int(answer.headers["content-length"]) == len(DATA)
    assert answer.content == (DATA if method == "GET" else b"")


def test_the_store_answers_ranges_and_what_a_browser_has(s3: S3Endpoint, stored: str) -> None:
    link = presign.path_and_query(s3, "pixr.example:8000", stored, expires_s=60, now_s=time.time())
    part = asked(s3, link, Range="bytes=100-199")
    assert (part.status_code, part.content) == (206, DATA[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(DATA)}"
    assert asked(s3, link, **{"If-None-Match": part.headers["etag"]}).status_code == 304
    assert asked(s3, link, Range=f"bytes={len(DATA)}-").status_code == 416


def test_a_link_opens_nothing_else(s3: S3Endpoint, stored: str) -> None:
    now_s = time.time()
    link = presign.path_and_query(s3, "pixr.example:8000", stored, expires_s=60, now_s=now_s)
    assert asked(s3, link, host="elsewhere.example").status_code == 403
    assert asked(s3, link, "HEAD").status_code == 403
    assert asked(s3, link.replace("films/", "other/")).status_code == 403
    assert asked(s3, link + "&response-content-type=text/html").status_code == 403


def test_a_link_lives_for_what_it_is_given_at_most_and_two_thirds_of_it_at_least(s3: S3Endpoint, stored: str) -> None:
    now_s = time.time()

    def answer(age_s: float) -> int:
        link = presign.path_and_query(s3, "pixr.example:8000", stored, expires_s=600, now_s=now_s - age_s)
        return asked(s3, link).status_code

    assert [answer(age_s) for age_s in (0, 390, 601)] == [200, 200, 403]


def test_a_link_stays_the_same_for_a_while() -> None:
    s3 = S3Endpoint("http://127.0.0.1:1", "key", "secret")
    links = {presign.path_and_query(s3, "h", "/b/k", expires_s=300, now_s=1200.0 + n) for n in (0, 50, 99)}
    assert len(links) == 1
    assert presign.path_and_query(s3, "h", "/b/k", expires_s=300, now_s=1300.0) not in links
