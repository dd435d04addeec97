"""A page of an answer: the best candidates become moments with words and links, the others are packed into a cursor.

`SearchResult` is a page as it is sent, with where it comes from. Ranks nothing and looks up only what the moments show.
Highlights and facets that cannot be looked up in time are left out and named in `degraded`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import orjson
import psycopg

from cluster.errors import Temporary
from cluster.observability.seldom import Seldom
from pipelines.index import highlights, originals, vectors
from pipelines.index.highlights import Highlight
from pipelines.index.vectors import Filters, MomentDetails
from serve.http.deadlines import left_s, within
from serve.replica.readers import Readers
from serve.replica.results import MADE, ResultPage, Shown
from serve.search import cursors, facets, moments
from serve.search.candidates import MATCHING, Candidates, limits_of
from serve.search.cursors import Ranked
from serve.search.feed import Worth
from serve.search.moments import MomentLinks
from serve.search.query import GroupBy, Query
from serve.settings import SearchSettings

log = logging.getLogger(__name__)
seldom = Seldom(log)

Result = TypeVar("Result")
Details = dict[int, MomentDetails]  # by segment id

HIGHLIGHTS, FACETS = "highlights", "facets"  # in `degraded`: their lack changes nothing of what is found
RELEVANCE = "relevance"  # in `degraded`: cosines could not be looked up, or moments not compared with each other
POPULAR = "popular"  # in `degraded`: the answer is what is popular, and has nothing to do with the query
CURSOR = "cursor"  # where a further page comes from
FILL_ROUNDS_MAX = 4  # of looking up moments for one page, while some of them may no longer be shown


@dataclass(frozen=True)
class SearchResult:
    """A page, where it comes from ("miss", "replica", "redis" or "cursor"), and the model it was made with."""

    page: ResultPage
    source: str
    model: str = ""
    is_whole: bool = True  # every list was asked that could find something

    @property
    def seconds(self) -> Mapping[str, float]:
        """The seconds that each stage of making the page took; none for a kept page."""
        return self.page.seconds if self.source in (MADE, CURSOR) else {}

    @property
    def nothing_matches(self) -> bool:
        """Whether every list was asked and there is nothing to show.

        Never true of a degraded answer, of a further page, or where a list was left out (a weight of 0).
        """
        return self.is_whole and self.page.is_empty and not self.page.degraded and self.source != CURSOR

    @property
    def tag(self) -> str:
        """The entity tag; answers that differ only in how long they took have the same."""
        return self.page.tag(nothing_matches=self.nothing_matches)

    def body(self, text: str, took_ms: float) -> bytes:
        """Return the response body as JSON; the page's moments are JSON already and are copied in unchanged."""
        page = self.page
        after_moments: dict[str, object] = {
            "next_cursor": page.next_cursor,
            "degraded": page.degraded,
            "nothing_matches": self.nothing_matches,
            "took_ms": round(took_ms, 1),
        }
        if page.facets is not None:
            after_moments["facets"] = page.facets
        closing = orjson.dumps(after_moments)[1:]
        return b'{"query":' + orjson.dumps(text) + b',"moments":' + page.moments + b"," + closing


async def make(
    readers: Readers,
    links: MomentLinks,
    cursor_key: bytes,
    search: SearchSettings,
    query: Query,
    candidates: Candidates,
) -> ResultPage:
    """Make the page that shows the first of the candidates.

    Args:
        readers: where the moments are looked up.
        links: makes the links to moments.
        cursor_key: signs the cursor to the next page.
        search: the limits of a page and of a cursor.
        query: how many moments are wanted, how they are grouped, and what else is shown of them.
        candidates: the ranked moments, and what could not be asked for them.

    Returns:
        The page. Its `shown` are the moments that may earn.

    Raises:
        Temporary, psycopg.Error: the moments cannot be looked up.
    """
    degraded = list(candidates.degraded)
    marked: Mapping[int, Sequence[Highlight]] | None = None
    counted: Mapping[str, object] | None = None
    with candidates.watch.time("moments"):
        groups, remaining, details = await _grouped(readers, query, candidates.ranked)
        shown = [details[group[0].segment_id] for group in groups]
        earning = await _earning(readers, search, candidates, shown, degraded)
        if query.highlight:
            work = _highlights(readers, search, query, shown)
            marked = await _extra(HIGHLIGHTS, work, search.deadline_s, degraded)
        if query.facets:
            counted = await _extra(FACETS, _facets(readers, candidates.ranked), search.deadline_s, degraded)
    documents = [_document(links, query, candidates, group, details) for group in groups]
    if query.highlight:
        for document, group in zip(documents, groups, strict=True):
            document["highlights"] = None if marked is None else marked[group[0].segment_id]
    return ResultPage(
        orjson.dumps(documents),
        tuple(
            Shown(moment.segment_id, moment.creator_id, moment.best_frame_ms, each.relevance_ppm)
            for (each, *_), moment in zip(groups, shown, strict=True)
            if moment.segment_id in earning
        ),
        _next_cursor(remaining, candidates.generation, cursor_key, search, query.group_by),
        tuple(degraded),
        candidates.watch.spent_s,
        counted,
    )


async def _extra(name: str, work: Awaitable[Result], deadline_s: float, degraded: list[str]) -> Result | None:
    """Return the result of an optional part of an answer, for which half of the time that is left may be spent.

    If it is late or the database fails, note the part's name in `degraded` and return None.
    """
    try:
        return await within(work, left_s(deadline_s) / 2)
    except (Temporary, psycopg.OperationalError) as error:
        seldom.warning(f"no {name}: {error}")
        degraded.append(name)
        return None


async def _highlights(
    readers: Readers, search: SearchSettings, query: Query, shown: Sequence[MomentDetails]
) -> Mapping[int, Sequence[Highlight]]:
    """Find the words of the query in the texts shown of each moment; return their positions by segment id."""
    if not shown:
        return {}
    limits, words = limits_of(search), await asyncio.to_thread(highlights.words_of, shown)
    matched = await readers.ask(
        lambda connection: highlights.matched(connection, words, query.text, query.language, limits), manner=MATCHING
    )
    return await asyncio.to_thread(highlights.marked, shown, matched)


async def _facets(readers: Readers, ranked: Sequence[Ranked]) -> Mapping[str, object]:
    """Count all candidates by creator and tag."""
    return facets.of((await _details(readers, ranked)).values())


async def _grouped(
    readers: Readers, query: Query, ranked: Sequence[Ranked]
) -> tuple[list[list[Ranked]], list[Ranked], Details]:
    """Look up the candidates of a page and group them.

    Grouping by video needs all candidates to be looked up. Otherwise only the page's moments are, and further ones in
    place of any that may not be seen any more.

    Returns:
        Three values: the groups to show; the best candidate of each remaining group; what is shown of the moments.
    """
    if query.group_by is GroupBy.VIDEO:
        details = await _details(readers, ranked)
        groups = moments.grouped(ranked, details, query.group_by)
        return groups[: query.limit], [group[0] for group in groups[query.limit :]], details
    details, taken = {}, 0
    for _ in range(FILL_ROUNDS_MAX):
        missing = query.limit - len(details)
        if not missing or taken == len(ranked):
            break
        details |= await _details(readers, ranked[taken : taken + missing])
        taken = min(len(ranked), taken + missing)
    return moments.grouped(ranked[:taken], details, query.group_by), list(ranked[taken:]), details


async def _details(readers: Readers, ranked: Sequence[Ranked]) -> Details:
    if not ranked:
        return {}
    segment_ids = [each.segment_id for each in ranked]
    return await readers.ask(lambda connection: vectors.moment_details(connection, segment_ids))


def _document(
    links: MomentLinks, query: Query, candidates: Candidates, group: Sequence[Ranked], details: Details
) -> dict[str, object]:
    """Return the document of a group: its best moment and some of its other moments.

    If the query asks for it, the document also explains the moment's place.
    """
    best, *others = group
    document = moments.of(links, best, details[best.segment_id])
    if others:
        document["others"] = [moments.span(each, details[each.segment_id]) for each in others[: moments.OTHERS_MAX]]
    if query.explain:
        document["explain"] = moments.explanation(candidates, best.segment_id)
    return document


async def _earning(
    readers: Readers,
    search: SearchSettings,
    candidates: Candidates,
    shown: Sequence[MomentDetails],
    degraded: list[str],
) -> set[int]:
    """Return the segment ids of the shown moments that earn: those that may, without copies (see `originals`).

    None of them earns, and `RELEVANCE` is noted in `degraded`, if they cannot be compared in time.
    """
    may_earn = {moment.segment_id for moment in shown if _may_earn(candidates, moment)}
    similar_to, model = candidates.similar_to, candidates.model
    firsts = [moment for moment in shown if not moment.is_repost]  # a repost never makes another video's moment a copy
    compared = [*firsts, *([] if similar_to is None else [similar_to])]
    is_one_video = len({moment.video_id for moment in compared}) <= 1
    if not may_earn or is_one_video or model is None or candidates.same_cosine > 1 or RELEVANCE in degraded:
        return may_earn
    segment_ids = sorted({moment.segment_id for moment in compared})
    work = readers.ask(lambda connection: vectors.alike(connection, model, segment_ids, candidates.same_cosine))
    pairs = await _extra(RELEVANCE, work, search.deadline_s, degraded)
    return may_earn & originals.of(firsts, pairs, similar_to) if pairs is not None else set()


def _may_earn(candidates: Candidates, moment: MomentDetails) -> bool:
    """Whether a moment may earn by itself.

    It may not if its creator is that of the moment to find more of, if it belongs to a repost, or if `Cut.pays` says no.
    """
    is_own = candidates.similar_to is not None and moment.creator_id == candidates.similar_to.creator_id
    return not is_own and not moment.is_repost and candidates.cut.pays(moment.segment_id)


def _next_cursor(
    remaining: Sequence[Ranked], generation: int, key: bytes, search: SearchSettings, group_by: GroupBy
) -> str | None:
    """Return a cursor over the candidates that follow the page; None where there are none."""
    remaining = remaining[: search.cursor_ids_max]
    if not remaining:
        return None
    by_video = group_by is GroupBy.VIDEO
    return cursors.pack(remaining, generation, key, search.cursor_expires_s, by_video=by_video)


def popular(links: MomentLinks, query: Query, worth: Sequence[Worth]) -> ResultPage:
    """Make the page for when no list can be asked: moments of the feed, which have no relevance and earn nothing.

    Raises:
        Temporary: the feed is empty or not known, or the query has more than words (filters, a picture, a moment, a
            least relevance).
    """
    shown = worth[: query.limit]
    is_led = query.segment_id is not None or query.image is not None  # what is popular does not answer a picture
    if not shown or query.filters != Filters() or is_led or query.relevance_min_ppm:
        raise Temporary("search is unavailable: neither vectors nor full text can be asked")
    documents = [moments.of(links, Ranked(each.details.segment_id, each.score, 0, ()), each.details) for each in shown]
    return ResultPage(orjson.dumps(documents), (), None, ("vector", "text", POPULAR))
