"""What an earlier release gave away or noted is recognised: cookies, cursors, links, and hashes of viewers and searches.

A viewer whose hash changes is a new one, and earns again; a cookie, cursor or link that is not recognised is lost to the person
who has it. The texts here were made before the code that makes them was touched, and stay: a new format is read beside them.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import Request

from cluster import runtime
from cluster import settings as settings_module
from cluster.database import fingerprints
from cluster.settings import Settings
from ledger.appearances.appearances import Hashes
from serve.access import keys, viewers
from serve.media import links
from serve.search import cursors
from serve.search.cursors import Ranked
from serve.search.query import Query

SECRET = "a key of 2026"
KEY = SECRET.encode()
NOW_S = 1_800_000_000.0  # 15 January 2027
LATER_S = 1_810_000_000.0  # 10 May 2027, when hashes of viewers change one by one

NAME = "Zm9vYmFyYmF6cXV4MDEyMw"
COOKIE = f"{NAME}.ae46803f6c037bc9ed6ee169"
OF_MOMENTS = "YknaoGeEOCjEzsgVgAHdK3gBY2y56pnNAASaIAII2CEUiLS_-ZqXgZldqlCCCSzYYAeiWBjBHAjh4MTPwAAADC0GUg"
OF_VIDEOS = "Yrs_fXJ1xuVj-1mi5GkoeHgBY2q56pnNAARaIAII2CEUiLS_-ZqXgRkAT4kEVA"
OF_A_LIST = (  # until the year 2100
    "PPTTmxcwgZ7VLPbofjNU-1s0MTAyNDQ0ODAwLCJ2aWRlb3MiLCI3Iix7InN0YXR1cyI6InJlYWR5Iiwib3JkZXIiOiJuZXdlc3QifSxbIjIwMjYtMTEtMz"
    "BUMDg6MDA6MDBaIiw3XV0"
)
LINK = "/media/videos/7?expires=1800022200&signature=SJAP4Oo8RPcyEu1qORlMiTFu"
PRIVATE_LINK = "/media/thumbnails/9?expires=1800022200&private=1&signature=X3AjU1bDlmgm0DyjL8O8uMj1"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = settings_module.load(environ={"PIXR_DATA_DIR": str(tmp_path)})
    for name in fingerprints.SHARED:
        runtime.replace_private(runtime.secret_path(made, name), SECRET)
    return made


def test_a_browser_stays_the_viewer_that_it_was() -> None:
    request = Request(
        {"type": "http", "headers": [(b"cookie", f"pixr_viewer={COOKIE}".encode())], "client": ("::1", 1)}
    )
    viewer = viewers.of(request, None, KEY)
    assert (viewer.kind, viewer.identity) == ("cookie", NAME)


def test_a_cookie_is_made_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.access.viewers.secrets.token_urlsafe", lambda _: NAME)
    assert viewers.new_cookie(KEY) == COOKIE


def test_the_cursor_of_a_search_leads_on() -> None:
    """Compression may come out otherwise with another zlib, so what is held is that a cursor is read."""
    first = Ranked(7, 0.5, 912_345, ("vector", "text"))
    others = [Ranked(9_000_000_007, 0.25, 0, ("some_words",)), Ranked(1, 0.0, 1_000_000, ())]
    assert cursors.unpack(OF_MOMENTS, KEY, NOW_S + 900) == ([first, *others], 41, False)
    assert cursors.unpack(OF_VIDEOS, KEY, NOW_S + 900) == ([first], 42, True)


def test_the_cursor_of_a_list_leads_on_and_is_made_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    filters, after = {"status": "ready", "order": "newest"}, ["2026-11-30T08:00:00Z", 7]
    assert cursors.unpack_place("videos", "7", OF_A_LIST, KEY) == (filters, after)
    monkeypatch.setattr("serve.search.cursors.time.time", lambda: 4_102_444_800.5 - 900)
    assert cursors.pack_place("videos", "7", filters, after, KEY, 900) == OF_A_LIST


@pytest.mark.parametrize(
    ("link", "path", "private"), [(LINK, "/media/videos/7", False), (PRIVATE_LINK, "/media/thumbnails/9", True)]
)
def test_a_link_opens_and_is_made_as_it_was(settings: Settings, link: str, path: str, private: bool) -> None:
    query = parse_qs(urlsplit(link).query)
    links.check(settings, path, int(query["expires"][0]), query["signature"][0], private=private, now_s=NOW_S)
    assert links.signed(settings, path, private=private, now_s=NOW_S) == link


@pytest.mark.parametrize(
    ("kind", "identity", "together", "one_by_one"),
    [
        ("key", "7", "2f8e6b8898fefb2f7657e7de7d464731", "8d29891b6834308d38912bb8bade9ed0"),
        ("cookie", NAME, "09a75c5fbb354f8c2623a6482f9e2f04", "40d79c0946f449612d58cdf01620c8e7"),
        ("address", "192.0.2.7", "9cdf3b49ce68806202706f9d4fea19a3", "2a632124288e2228471480e63b0be115"),
    ],
)
def test_a_viewer_keeps_their_hash(
    settings: Settings, kind: str, identity: str, together: str, one_by_one: str
) -> None:
    hashes = Hashes(settings)
    assert hashes.viewer(kind, identity, NOW_S).hex() == together
    assert hashes.viewer(kind, identity, LATER_S).hex() == one_by_one


def test_a_network_an_idempotency_key_and_a_request_keep_their_hashes(settings: Settings) -> None:
    hashes = Hashes(settings)
    assert hashes.origin("192.0.2.0/24", NOW_S).hex() == "9594af950d5bb230a49997b360bd4bf2"
    assert hashes.key("7", "order 41").hex() == "4300bc91e75b334f082b43d28e7fe60a"
    assert hashes.request("a dog").hex() == "7ad437612f4849d6"


def test_a_search_keeps_the_identity_under_which_an_idempotency_key_knows_it() -> None:
    """It is a hash of the names and values of all fields: a new field changes it, and repeats during an upgrade are refused."""
    asked = Query(
        limit=20, text="A Dog at the beach", negative=("snow",), segment_id=7, vector_weight=1.0, text_weight=0.7
    )
    assert asked.identity == "643180234ba9b8c8ff2222b9ae04df35ea9a3d42bea139924a4ae90409f84355"


def test_secrets_and_api_keys_keep_what_the_database_knows_them_by(settings: Settings) -> None:
    assert fingerprints.of(settings)["prints"] == [
        "3662b0b5d330cc7246891544f597d2ac",
        "f30892474fc2828754513de85b812b1e",
        "539e4d8f9d29a840a90c0f23dde21d0a",
        "546b0725032163c064631d88f234f388",
    ]
    assert runtime.redis_prefix(settings) == "pixr:a12bb378665c:"
    assert keys.digest("pixr_abc").hex() == "f7f662ea4512b2232d8544dbb692b390315caab56731fdb610b12000755fb120"
