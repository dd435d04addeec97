"""A link opens what it was signed for until it expires; a range is the part that was asked for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from cluster import settings as settings_module
from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines.sources import manifest
from serve.media import links
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
    expires_s, signature = parts(links.signed(settings, PATH, now_s=NOW_S))
    lasts_s = settings.section(SearchSettings).link_expires_s
    links.check(settings, PATH, expires_s, signature, private=False, now_s=NOW_S + lasts_s)
    with pytest.raises(Rejected, match="expired"):
        links.check(settings, PATH, expires_s, signature, private=False, now_s=NOW_S + lasts_s + 601)


@pytest.mark.parametrize(
    ("path", "later_s", "private"), [("/media/videos/8", 0, False), (PATH, 1, False), (PATH, 0, True)]
)
def test_a_link_opens_nothing_else(settings: Settings, path: str, later_s: int, private: bool) -> None:
    expires_s, signature = parts(links.signed(settings, PATH, now_s=NOW_S))
    with pytest.raises(Rejected, match="not signed"):
        links.check(settings, path, expires_s + later_s, signature, private=private, now_s=NOW_S)


def test_the_same_moment_keeps_its_link_for_a_while(settings: Settings) -> None:
    start_s = NOW_S // 600 * 600
    assert links.signed(settings, PATH, now_s=start_s) == links.signed(settings, PATH, now_s=start_s + 599)


def test_each_kind_of_file_that_ingest_takes_is_sent_as_a_video() -> None:
    for ending in manifest.VIDEO_ENDINGS:
        assert links.content_type(f"s3://b/A{ending.upper()}").startswith("video/"), ending
    assert links.content_type("s3://b/a.ps") == "application/octet-stream"
