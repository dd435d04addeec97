"""A link opens what it was signed for until it expires; a range is the part that was asked for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import settings as settings_module
from cluster.errors import Rejected
from cluster.settings import Settings
from serve import media
from serve.settings import SearchSettings

NOW_S = 1_800_000_000.0
PATH = "/media/videos/7"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_module.load(environ={"PIXR_DATA_DIR": str(tmp_path)})


def parts(link: str) -> tuple[int, str]:
    query = parse_qs(urlsplit(link).query)
    return int(query["expires"][0]), query["signature"][0]


def test_a_link_opens_what_it_names_until_it_expires(settings: Settings) -> None:
    expires_s, signature = parts(media.signed(settings, PATH, now_s=NOW_S))
    lasts_s = settings.section(SearchSettings).link_expires_s
    media.check(settings, PATH, expires_s, signature, private=False, now_s=NOW_S + lasts_s)
    with pytest.raises(Rejected, match="expired"):
        media.check(settings, PATH, expires_s, signature, private=False, now_s=NOW_S + lasts_s + 601)


@pytest.mark.parametrize(
    ("path", "later_s", "private"), [("/media/videos/8", 0, False), (PATH, 1, False), (PATH, 0, True)]
)
def test_a_link_opens_nothing_else(settings: Settings, path: str, later_s: int, private: bool) -> None:
    expires_s, signature = parts(media.signed(settings, PATH, now_s=NOW_S))
    with pytest.raises(Rejected, match="not signed"):
        media.check(settings, path, expires_s + later_s, signature, private=private, now_s=NOW_S)


def test_the_same_moment_keeps_its_link_for_a_while(settings: Settings) -> None:
    start_s = NOW_S // 600 * 600
    assert media.signed(settings, PATH, now_s=start_s) == media.signed(settings, PATH, now_s=start_s + 599)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-0", (0, 1)), ("bytes=5-", (5, 10)), ("bytes=-3", (7, 10)), ("bytes=2-99", (2, 10)),
        ("bytes=-99", (0, 10)), ("bytes = 1 - 2", (1, 3)),
    ],
)  # fmt: skip
def test_a_range_is_the_part_that_was_asked_for(header: str, found: tuple[int, int]) -> None:
    span = media.span(header, 10)
    assert span is not None
    assert (span.start, span.end) == found


@pytest.mark.parametrize("header", [None, "", "bytes=-", "bytes=0-1,4-5", "items=0-1", "bytes=5-2", "bytes=a-b"])
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    assert media.span(header, 10) is None


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-0", 0)])
def test_a_range_outside_is_refused(header: str, size: int) -> None:
    with pytest.raises(Rejected) as refused:
        media.span(header, size)
    assert refused.value.status == 416


@given(st.text(max_size=40) | st.from_regex(r"bytes=[0-9]{0,20}-[0-9]{0,20}", fullmatch=True), st.integers(0, 10**15))
def test_any_range_lies_within_the_object_or_is_refused(header: str, size: int) -> None:
    try:
        span = media.span(header, size)
    except Rejected as refused:
        assert refused.status == 416
    else:
        assert span is None or 0 <= span.start < span.end <= size
