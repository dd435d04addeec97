"""The story of a search.

    Query        what is asked, checked at the door                                   query
      → State    the catalogue's generation and model, known to within a second       generation
      → Page     kept from the same query at the same generation, or made:            results
          vector   by the encoder, batched and cached                                 encoding
          lists    the nearest vectors and the matching words, side by side           pipelines.index, pipelines.fulltext
          ranked   fused by reciprocal rank; what could not be asked is `degraded`    candidates
          moments  the first page shown, the rest frozen into a cursor                moments, cursors
      → appearances of the moments on the first page of a committed search,           ledger.appearances
        in the spool before the answer leaves

What fails is left out step by step, and said: a kept answer, lower recall, words alone, what is popular; then 503.
Everything here reads, but for the spool; the search path writes to no database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import orjson
import psycopg

from cluster.errors import Rejected, Temporary
from cluster.seldom import Seldom
from cluster.tasks import ended
from ledger import money, spool
from ledger.appearances import Appearance
from pipelines import highlights, index
from pipelines.highlights import Highlight
from pipelines.index import Filters, Found
from serve import candidates, copies, cursors, facets, gates, moments, pictures, stakes
from serve.candidates import Candidates
from serve.cursors import Ranked
from serve.deadlines import left_s, within
from serve.generation import State
from serve.keys import ADMIN, Principal
from serve.leaving import Client, require_here
from serve.query import OPERATING, GroupBy, Intent, Query
from serve.results import EXPECTED, MADE, REPLICA, Page, Shown
from serve.services import Services
from serve.viewers import Viewer

log = logging.getLogger(__name__)
seldom = Seldom(log)

Result = TypeVar("Result")

HIGHLIGHTS, FACETS = "highlights", "facets"  # in `degraded`: what an answer lacks that changes nothing of what is found
STALE, POPULAR = "database", "popular"  # names in `degraded`, beside those of the lists
# What an answer lacks that makes no appearances: nobody knows how relevant its moments are. The same search a little
# later, whole, is the first that the viewer has seen.
RELEVANCE = "relevance"
UNPAID = frozenset((POPULAR, "vector", RELEVANCE))
CURSOR = "cursor"
TEXT, FUSED = "text", "fused"  # parts of a streamed answer
FILL_ROUNDS_MAX = 4


@dataclass(frozen=True)
class Caller:
    """Who asks: a viewer, with the key's principal where there is one, and the Idempotency-Key where one was sent.

    `client` is the connection that they wait at, where it is watched.
    """

    viewer: Viewer
    principal: Principal | None = None
    idempotency_key: str | None = None
    share: str = ""  # whose places at the gate it takes: the bucket that has paid for it
    client: Client | None = None

    def weight(self, services: Services) -> float:
        """Of its turn at the gate: those with a key come before strangers."""
        return 1.0 if self.principal is None else services.search.key_weight


@dataclass(frozen=True)
class Answer:
    """A page, where it comes from ("miss", "replica", "redis" or "cursor"), and the model it was made with."""

    page: Page
    source: str
    model: str = ""
    is_whole: bool = True  # every list was asked that could find something

    @property
    def seconds(self) -> Mapping[str, float]:
        """By stage, of making it; nothing for what was kept."""
        return self.page.seconds if self.source in (MADE, CURSOR) else {}

    @property
    def nothing_matches(self) -> bool:
        """Whether everything was asked, and nothing is there to show.

        Never of a degraded answer, of a further page, or where a list was left out (a weight of 0).
        """
        return self.is_whole and self.page.is_empty and not self.page.degraded and self.source != CURSOR

    @property
    def tag(self) -> str:
        """The entity tag: the same for answers that differ in how long they took alone."""
        return self.page.tag(nothing_matches=self.nothing_matches)

    def body(self, text: str, took_ms: float) -> bytes:
        """The JSON that is sent; the moments are in it as they were kept."""
        page = self.page
        rest: dict[str, object] = {
            "next_cursor": page.next_cursor,
            "degraded": page.degraded,
            "nothing_matches": self.nothing_matches,
            "took_ms": round(took_ms, 1),
        }
        if page.facets is not None:
            rest["facets"] = page.facets
        return b'{"query":' + orjson.dumps(text) + b',"moments":' + page.moments + b"," + orjson.dumps(rest)[1:]


async def answer(services: Services, query: Query, caller: Caller) -> Answer:
    """Answer a query within the deadline.

    Raises:
        Rejected: the cursor is not valid, the segment to look like does not exist, or the intent is not the caller's to say.
        Temporary: nothing can be asked at present.
    """
    permit(query, caller)
    query = await within(_resolved(services, query), services.search.deadline_s)
    found = kept(services, query)
    if found is None:
        found = await within(_passed(services, query, caller), services.search.deadline_s)
    return recorded(services, query, caller, found)


async def streamed(services: Services, query: Query, caller: Caller) -> AsyncGenerator[tuple[str, Answer]]:
    """What the words find, when that is there before the whole answer; then the whole answer.

    Only the whole answer makes appearances, at the moment it is given out: whoever leaves earlier has seen none.

    Raises:
        Rejected, Temporary: as `answer`, also after the first part.
    """
    permit(query, caller)
    query = await within(_resolved(services, query), services.search.deadline_s)
    found = kept(services, query)
    if found is None:
        async with _placed(services, query, caller):
            with gates.asked_by(caller.share, caller.weight(services)):
                whole = services.tasks.spawn("a search", _asked(services, query), expected=EXPECTED)
                words = None
                if _has_words(query):
                    by_words = _asked(services, _of_words(query))
                    words = services.tasks.spawn("a search by words", by_words, expected=EXPECTED)
            try:
                if words is not None and (early := await _early(words, whole)) is not None:
                    yield TEXT, early
                found = await whole
            finally:
                await ended(*(each for each in (whole, words) if each is not None))
    yield FUSED, recorded(services, query, caller, found)


def permit(query: Query, caller: Caller) -> None:
    """Check that the caller may say this intent.

    Raises:
        Rejected: it is one of operations, which answers in full and pays nobody, and the key has not scope admin.
    """
    if query.intent in OPERATING and (caller.principal is None or not caller.principal.may(ADMIN)):
        hint = "leave intent out, or use an administrator's key"
        said = f"intent={query.intent} needs a key of scope {ADMIN}"
        raise Rejected(said, status=403, code="scope-missing", hint=hint)


async def _resolved(services: Services, query: Query) -> Query:
    """The same search with what it only names: a picture, the moments that have a stake."""
    return await pictures.resolved(services, await stakes.resolved(services, query))


def _has_words(query: Query) -> bool:
    return bool(query.wanted) and query.text_weight > 0 and query.vector_weight > 0 and query.cursor is None


def _of_words(query: Query) -> Query:
    """The same search by its words alone, whose relevance is not waited for."""
    return replace(query, vector_weight=0.0, intent=Intent.TYPING, is_early=True)


async def _early(words: asyncio.Task[Answer], whole: asyncio.Task[Answer]) -> Answer | None:
    """What the words find, if they find something, whole, and before the whole answer is there."""
    await asyncio.wait({words, whole}, return_when=asyncio.FIRST_COMPLETED)
    if whole.done() or words.exception() is not None:
        return None
    found = words.result()
    return found if found.page.shown and not found.page.degraded else None


async def _passed(services: Services, query: Query, caller: Caller) -> Answer:
    async with _placed(services, query, caller):
        await require_here(caller.client)
        with gates.asked_by(caller.share, caller.weight(services)):
            return await _asked(services, query)


@asynccontextmanager
async def _placed(services: Services, query: Query, caller: Caller) -> AsyncIterator[None]:
    """Hold the places of a search; one by a picture waits among pictures first, so that texts do not wait behind it.

    Raises:
        Temporary: as `Gate.passed`.
    """
    share, weight = caller.share, caller.weight(services)
    async with AsyncExitStack() as places:
        if query.looks_at_a_picture:
            await places.enter_async_context(services.gates.pictures.passed(share, weight))
        await places.enter_async_context(services.gate.passed(share, weight))
        yield


async def _asked(services: Services, query: Query) -> Answer:
    work = _first(services, query) if query.cursor is None else _further(services, query, query.cursor)
    return await within(work, services.search.deadline_s, "the search takes too long at present")


def recorded(services: Services, query: Query, caller: Caller, found: Answer) -> Answer:
    """The answer, whose appearances are in the spool if it counts.

    Raises:
        Rejected: as `permit`.
        Temporary: what counts cannot be recorded at present.
    """
    permit(query, caller)
    if query.counts and UNPAID.isdisjoint(found.page.degraded):
        record(services, query, caller, found.page.shown)
    return found


def kept(services: Services, query: Query) -> Answer | None:
    """What this replica can answer at once, while it knows the generation."""
    state = services.generation.fresh()
    if state is None or query.cursor is not None:
        return None
    page = services.results.kept(query.identity, state.generation)
    return Answer(page, REPLICA, _name(state), query.asks_everything) if page is not None else None


def _name(state: State) -> str:
    return state.model.name if state.model else ""


async def _first(services: Services, query: Query) -> Answer:
    state = await services.generation.now()
    services.feed.follow(state)
    try:
        page, source = await services.results.get(
            query.identity, state.generation, lambda: _made(services, query, state)
        )
    except Temporary:
        if query.is_picture_alone:
            raise  # what is popular is no answer to it
        page, source = _popular(services, query, state), MADE
    if state.stale:
        page = replace(page, degraded=(STALE, *page.degraded))
    return Answer(page, source, _name(state), query.asks_everything)


async def _made(services: Services, query: Query, state: State) -> Page:
    asked = await candidates.gather(services, query, state)
    return await _page(services, query, asked, asked.ranked)


async def _further(services: Services, query: Query, cursor: str) -> Answer:
    """A further page is already in its cursor; what may no longer be shown is skipped.

    Raises:
        Rejected: the cursor is not valid, or goes by the one of moments and videos where the other is stated.
    """
    ranked, generation, by_video = cursors.unpack(cursor, services.cursor_key)
    group_by = GroupBy.VIDEO if by_video else GroupBy.MOMENT
    if query.stated_group_by not in (None, group_by):
        said = f"the cursor goes by {group_by}, group_by={query.stated_group_by} cannot stand beside it"
        raise Rejected(said, status=422, code="bad-query", hint="search again")
    query = replace(query, group_by=group_by)
    ranked = [each for each in ranked if each.relevance_ppm >= (query.relevance_min_ppm or 0)]
    return Answer(await _page(services, query, Candidates(ranked, generation), ranked), CURSOR)


async def _page(services: Services, query: Query, asked: Candidates, ranked: Sequence[Ranked]) -> Page:
    degraded = list(asked.degraded)
    with asked.watch.time("moments"):
        groups, rest, found = await _groups(services, query, ranked)
        earning = await _earning(services, asked, groups, found, degraded)
        marked = await _extra(services, HIGHLIGHTS, degraded, _highlights(services, query, groups, found))
        counted = await _extra(services, FACETS, degraded, _facets(services, query, ranked))
    shown = [_shown(services, query, asked, group, found) for group in groups]
    if query.highlight:
        for moment, group in zip(shown, groups, strict=True):
            moment["highlights"] = None if marked is None else marked[group[0].segment_id]
    best = [(group[0], found[group[0].segment_id]) for group in groups]
    return Page(
        orjson.dumps(shown),
        tuple(_as_shown(each, moment) for each, moment in best if moment.segment_id in earning),
        _next(services, query, rest, asked.generation),
        tuple(degraded),
        asked.watch.spent_s,
        counted,
    )


async def _extra(services: Services, name: str, degraded: list[str], work: Awaitable[Result]) -> Result | None:
    """What an answer can do without: None where it cannot be had in half of the time that is left, and said so."""
    try:
        return await within(work, left_s(services.search.deadline_s) / 2)
    except (Temporary, psycopg.OperationalError) as error:
        seldom.warning(f"no {name}: {error}")
        degraded.append(name)
        return None


async def _highlights(
    services: Services, query: Query, groups: Sequence[Sequence[Ranked]], found: Mapping[int, Found]
) -> Mapping[int, Sequence[Highlight]]:
    """By moment the words of the text in what is shown of it, where that was asked for."""
    shown = [found[group[0].segment_id] for group in groups]
    if not query.highlight or not shown:
        return {}
    plan, asked = candidates.plan_of(services), await asyncio.to_thread(highlights.asked, shown)
    matched = await services.readers.ask(
        lambda connection: highlights.matched(connection, asked, query.text, query.language, plan),
        manner=candidates.MATCHING,
    )
    return await asyncio.to_thread(highlights.marked, shown, matched)


async def _facets(services: Services, query: Query, ranked: Sequence[Ranked]) -> Mapping[str, object] | None:
    """How all that was found is spread, where that was asked for."""
    return facets.of((await _found(services, ranked)).values()) if query.facets else None


async def _groups(
    services: Services, query: Query, ranked: Sequence[Ranked]
) -> tuple[list[list[Ranked]], list[Ranked], dict[int, Found]]:
    """The groups to show, the best of each that follows, and what is shown of them.

    Moments are looked up a page at a time, since all were visible when they were found; videos need all of theirs.
    """
    if query.group_by is GroupBy.VIDEO:
        found = await _found(services, ranked)
        groups = moments.grouped(ranked, found, query.group_by)
        return groups[: query.limit], [group[0] for group in groups[query.limit :]], found
    found, taken = {}, 0
    for _ in range(FILL_ROUNDS_MAX):
        missing = query.limit - len(found)
        if not missing or taken == len(ranked):
            break
        found |= await _found(services, ranked[taken : taken + missing])
        taken = min(len(ranked), taken + missing)
    return moments.grouped(ranked[:taken], found, query.group_by), list(ranked[taken:]), found


async def _found(services: Services, ranked: Sequence[Ranked]) -> dict[int, Found]:
    if not ranked:
        return {}
    segment_ids = [each.segment_id for each in ranked]
    return await services.readers.ask(lambda connection: index.found(connection, segment_ids))


def _shown(
    services: Services, query: Query, asked: Candidates, group: Sequence[Ranked], found: Mapping[int, Found]
) -> dict[str, object]:
    best, *others = group
    moment = moments.of(services, best, found[best.segment_id])
    if others:
        moment["others"] = [moments.span(each, found[each.segment_id]) for each in others[: moments.OTHERS_MAX]]
    if query.explain:
        moment["explain"] = moments.explanation(asked, best.segment_id)
    return moment


async def _earning(
    services: Services,
    asked: Candidates,
    groups: Sequence[Sequence[Ranked]],
    found: Mapping[int, Found],
    degraded: list[str],
) -> set[int]:
    """Which of the moments that are shown make appearances; none where it cannot be told which of them are copies."""
    shown = [found[group[0].segment_id] for group in groups]
    paying = {each.segment_id for each in shown if _pays(asked, each)}
    firsts = [each for each in shown if not each.is_repost]  # who has another one's file takes no place from others
    compared, model = [*firsts, *([] if asked.like is None else [asked.like])], asked.model
    has_others = len({each.video_id for each in compared}) > 1
    if not paying or not has_others or model is None or asked.same > 1 or RELEVANCE in degraded:
        return paying
    ids = sorted({each.segment_id for each in compared})
    work = services.readers.ask(lambda connection: index.alike(connection, model, ids, asked.same))
    pairs = await _extra(services, RELEVANCE, degraded, work)
    return paying & copies.first(firsts, pairs, asked.like) if pairs is not None else set()


def _pays(asked: Candidates, moment: Found) -> bool:
    """Whether it may make an appearance: not as more of its own creator's, and not where only a parameter has it shown."""
    is_own = asked.like is not None and moment.creator_id == asked.like.creator_id
    return not is_own and not moment.is_repost and asked.cut.pays(moment.segment_id)


def _as_shown(ranked: Ranked, found: Found) -> Shown:
    return Shown(found.segment_id, found.creator_id, found.best_frame_ms, ranked.relevance_ppm)


def _next(services: Services, query: Query, left: Sequence[Ranked], generation: int) -> str | None:
    """A cursor over what follows."""
    left = left[: services.search.cursor_ids_max]
    if not left:
        return None
    by_video, expires_s = query.group_by is GroupBy.VIDEO, services.search.cursor_expires_s
    return cursors.pack(left, generation, services.cursor_key, expires_s, by_video=by_video)


def _popular(services: Services, query: Query, state: State) -> Page:
    """What is popular, when nothing can be asked; it answers no filter, is of no relevance and earns nothing.

    Raises:
        Temporary: there is not even that.
    """
    worth = services.feed.of(state)[: query.limit]
    led = query.segment_id is not None or query.image is not None  # what is popular is no answer to a picture
    if not worth or query.filters != Filters() or led or query.relevance_min_ppm:
        raise Temporary("search is unavailable: neither vectors nor full text can be asked")
    shown = [moments.of(services, Ranked(each.found.segment_id, each.score, 0, ()), each.found) for each in worth]
    return Page(orjson.dumps(shown), (), None, ("vector", "text", POPULAR))


def record(services: Services, query: Query, caller: Caller, shown: Sequence[Shown]) -> int:
    """Put the appearances of a committed search's first page into the spool; how many may earn."""
    hashes, viewer, economics = services.recorder.hashes, caller.viewer, services.economics
    hashed = hashes.viewer(viewer.kind, viewer.identity)
    appearances = [
        Appearance(
            viewer_hmac=hashed,
            segment_id=each.segment_id,
            creator_id=each.creator_id,
            best_frame_ms=each.best_frame_ms,
            relevance_ppm=each.relevance_ppm,
            amount_pix=money.appearance_amount(economics, each.relevance_ppm, anonymous=viewer.anonymous),
        )
        for each in shown
    ]
    return services.recorder.record(
        appearances,
        origin=hashes.origin(viewer.origin) if viewer.anonymous else spool.NO_ORIGIN,
        idempotency_key=caller.idempotency_key,
        request=query.identity,
        principal_id=caller.principal.id if caller.principal else None,
        own_creator_ids=caller.principal.own_ids if caller.principal else (),
    )
