"""The page, as a browser sees it: it searches, shows pictures, plays a moment from its start to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import database
from cluster.settings import Settings
from serve.encoding import QueryEncoder
from tests.serve import browser
from tests.serve.browser import Page
from tests.serve.doors import Shelf, fill, film, listening, near, opened
from tests.serve.scenes import Scenes, hang

SHOWN = "document.querySelectorAll('#results li').length"


@pytest.fixture
def shelf(settings: Settings, tmp_path: Path) -> Shelf:
    return fill(settings, video=film(tmp_path / "film.mp4").read_bytes())


@pytest.fixture
def page(settings: Settings, shelf: Shelf, model: QueryEncoder, tmp_path: Path) -> Iterator[Page]:
    with listening(settings, near(model)) as url, browser.page(tmp_path / "profile") as tab:
        tab.open(url)
        yield tab


async def test_the_page_comes_with_headers_that_let_it_ask_nobody_else(settings: Settings) -> None:
    async with opened(settings) as doors:
        for path, kind in (("/", "text/html"), ("/web/app.js", "text/javascript"), ("/web/style.css", "text/css")):
            answer = await doors.http.get(path)
            assert answer.headers["content-type"].startswith(kind)
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            unchanged = await doors.http.get(path, headers={"If-None-Match": answer.headers["etag"]})
            assert (unchanged.status_code, unchanged.content) == (304, b"")


OTHER = "https://other.example"


@pytest.mark.parametrize(
    ("headers", "is_led"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Referer": f"{OTHER}/page"}, True),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Referer": "http://test/"}, False),
        ({}, False),
    ],
)
async def test_the_page_is_told_where_another_site_has_led_to_it(
    settings: Settings, headers: dict[str, str], is_led: bool
) -> None:
    async with opened(settings) as doors:
        answer = await doors.http.get("/?q=leopard", headers=headers)
        assert (b"data-led-from-elsewhere" in answer.content) is is_led
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        told_by = {name.strip() for name in answer.headers["vary"].split(",")}
        assert told_by >= {"Sec-Fetch-Site", "Origin", "Referer"}
        tag = {"If-None-Match": answer.headers["etag"]}
        assert (await doors.http.get("/?q=leopard", headers=headers | tag)).status_code == 304
        other = {"Sec-Fetch-Site": "none" if is_led else "cross-site"}
        assert (await doors.http.get("/?q=leopard", headers=other | tag)).status_code == 200


ASKED = """performance.getEntriesByType('resource').map((each) => new URL(each.name))
  .filter((each) => each.pathname === '/v1/search')
  .map((each) => each.searchParams.get('q') + ' ' + each.searchParams.get('intent')).join()"""


@pytest.mark.browser
def test_a_search_that_another_site_has_led_to_pays_nobody_and_those_of_the_person_do(page: Page) -> None:
    at = page.run("location.origin")
    page.open(f"{at}/?q=orchard")
    page.until(f"{SHOWN} === 2")
    assert page.run(ASKED) == "orchard search"
    page.open(at.replace("127.0.0.1", "localhost"))  # another site to a browser
    page.run(f"void (location.href = '{at}/?q=harbour')")
    page.until(f"location.origin === '{at}' && {SHOWN} === 2")
    assert page.run(ASKED) == "harbour typing"
    page.run("void (location.hash = 'more')")  # as who has opened it could
    page.until(f"({ASKED}) === 'harbour typing,harbour typing'")
    page.run("document.getElementById('q').value = 'fruit'")
    page.run("document.getElementById('search').requestSubmit()")
    page.until(f"{SHOWN} === 4")
    assert page.run(ASKED).endswith(",fruit search")
    page.run("history.back()")
    page.until(f"{SHOWN} === 2")
    assert page.run(ASKED).endswith(",harbour typing")
    page.run("history.forward()")
    page.until(f"{SHOWN} === 4")
    assert page.run(ASKED).endswith(",fruit search")
    assert page.complaints == []


@pytest.mark.browser
def test_a_search_is_answered_with_pictures_and_a_moment_plays(page: Page, shelf: Shelf, tmp_path: Path) -> None:
    page.run("document.getElementById('q').value = 'orchard'")
    page.run("document.getElementById('search').requestSubmit()")
    page.until(f"{SHOWN} === 2")
    page.until("[...document.querySelectorAll('#results img')].every((img) => img.complete && img.naturalWidth > 0)")
    page.run("document.querySelectorAll('#results button')[1].click()")
    page.until("document.getElementById('player').open")
    page.until("document.getElementById('video').readyState >= 2")
    page.until("document.getElementById('video').currentTime > 2.2")
    page.screenshot(tmp_path / "page.png")
    page.until("document.getElementById('video').paused")
    stopped_s = page.run("document.getElementById('video').currentTime")
    assert 3.4 <= stopped_s <= 4.0
    page.run("document.getElementById('close').click()")
    page.until("!document.getElementById('player').open")
    assert page.complaints == []


@pytest.mark.browser
def test_the_address_keeps_the_search_so_that_going_back_works(page: Page) -> None:
    for words, found in (("orchard", 2), ("harbour", 2), ("fruit", 4)):
        page.run(f"document.getElementById('q').value = '{words}'")
        page.run("document.getElementById('search').requestSubmit()")
        page.until(f"document.title.startsWith('{words}') && {SHOWN} === {found}")
    page.run("history.back()")
    page.until(f"location.search === '?q=harbour' && {SHOWN} === 2")
    assert page.complaints == []


@pytest.mark.browser
def test_that_nothing_matches_is_said_and_nothing_is_shown(
    settings: Settings, model: QueryEncoder, painted: Scenes, tmp_path: Path
) -> None:
    with database.connect(settings.postgres.url) as connection:
        hang(connection, painted)
    with listening(settings, near(model)) as url, browser.page(tmp_path / "profile") as tab:
        tab.open(f"{url}/?q=qwertz+zzzz")
        tab.until("document.getElementById('status').textContent.startsWith('Nothing matches “qwertz zzzz”')")
        assert tab.run(SHOWN) == 0
        assert tab.complaints == []


@pytest.mark.browser
def test_what_creators_write_is_text_and_nothing_else(page: Page, settings: Settings) -> None:
    with database.connect(settings.postgres.url) as connection:
        connection.execute("UPDATE media.videos SET title = '<img src=x onerror=\"window.harm = true\">orchard'")
    page.run("document.getElementById('q').value = 'orchard'")
    page.run("document.getElementById('search').requestSubmit()")
    page.until(f"{SHOWN} > 0")
    assert "<img src=x" in page.run("document.querySelector('#results .title').textContent")
    assert page.run("window.harm === undefined")
