"""The story of a search, from a checked query to the answer.

    Query        checked (`query`), with the picture and the moments that it only names (`references`)
      → State    of the catalogue: its generation and model, at most a second or so old        replica.generation
      → page     kept from the same query at the same generation, or made:                     replica.results
          lists    the nearest vectors ∥ the matching words                                    candidates
          fused    by reciprocal rank, with relevance, and cut; what was not asked is `degraded`
          page     the best of them with words and links, the rest frozen into a cursor        page, cursors
      → record   the appearances of a committed search's first page, into the spool            ledger.appearances

If a part fails, the search goes on with less, and the answer says so: a kept page, lower recall, words without vectors,
at last the feed. Only if that fails too does the search fail (503). A search reads from the database and writes only to
the spool. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from cluster.errors import Rejected, Temporary
from cluster.tasks import ended
from ledger import money
from ledger.appearances import spool
from ledger.appearances.appearances import Appearance
from ledger.appearances.recorder import Recorder
from ledger.settings import Economics
from serve.access.keys import ADMIN, Principal
from serve.access.viewers import Viewer
from serve.http import gates
from serve.http.deadlines import at_most
from serve.http.leaving import ClientConnection, require_here
from serve.replica.generation import Generation, State
from serve.replica.results import EXPECTED, MADE, REPLICA, ResultPage, Results
from serve.search import cursors, references
from serve.search import page as pages
from serve.search.candidates import Candidates, Lists
from serve.search.context import SearchContext
from serve.search.page import CURSOR, POPULAR, RELEVANCE, SearchResult
from serve.search.query import OPERATING, GroupBy, Intent, Query
from serve.settings import SearchSettings

STALE = "database"  # in `degraded`: the state of the catalogue could not be asked
# Answers that lack one of these make no appearances: the relevance of their moments is not known, or which of them are
# copies. The same search a little later, when nothing is missing, is the first that the viewer has seen.
UNPAID = frozenset((POPULAR, "vector", RELEVANCE))
TEXT, FUSED = "text", "fused"  # parts of a streamed answer


@dataclass(frozen=True)
class Caller:
    """Who searches: a viewer, with the principal of their key and their Idempotency-Key, where they sent one."""

    viewer: Viewer
    principal: Principal | None = None
    idempotency_key: str | None = None
    share: str = ""  # the bucket that has paid for the request; its places at the gate are taken
    client: ClientConnection | None = None  # the connection that they wait at, where it is watched

    def weight(self, search: SearchSettings) -> float:
        """Return the weight of the caller at the gates: 1 without a key, `key_weight` with one."""
        return 1.0 if self.principal is None else search.key_weight


async def answer(context: SearchContext, search: SearchSettings, query: Query, caller: Caller) -> SearchResult:
    """Answer a query within the deadline.

    Args:
        context: the replica's connections and caches.
        search: the settings to search by, of the caller's variant.
        query: the checked query.
        caller: who searches.

    Returns:
        The page, whose appearances are in the spool if the search counts.

    Raises:
        Rejected: the cursor is not valid, something that the query names does not exist, or the caller may not state
            this intent.
        Temporary: nothing can be asked at present, or appearances cannot be recorded.
    """
    permit(query, caller)
    async with at_most(search.deadline_s):
        query = await references.resolved(context.readers, context.pictures, search, query)
    result = kept(context.generation, context.results, query)
    if result is None:
        share, weight = caller.share, caller.weight(search)
        async with at_most(search.deadline_s), _placed(context, query, share, weight):
            await require_here(caller.client)
            with gates.on_behalf_of(share, weight):
                result = await find(context, search, query)
    record(context.recorder, context.economics, query, caller, result)
    return result


@asynccontextmanager
async def _placed(context: SearchContext, query: Query, share: str, weight: float) -> AsyncIterator[None]:
    """Hold a search's place at the gate while the block runs; a search by a picture passes the gate of pictures first.

    Args:
        context: has the gates.
        query: the checked query.
        share: the caller's bucket.
        weight: the weight of their turn.

    Raises:
        Temporary: no place was free in time, or too many wait.
    """
    async with AsyncExitStack() as places:
        if query.looks_at_a_picture:
            await places.enter_async_context(context.picture_gate.passed(share, weight))
        await places.enter_async_context(context.gate.passed(share, weight))
        yield


def permit(query: Query, caller: Caller) -> None:
    """Check that the caller may state the intent of a query.

    Raises:
        Rejected: 403, the intent is for operations (`OPERATING`), and the caller has no key of scope admin.
    """
    if query.intent in OPERATING and (caller.principal is None or not caller.principal.may(ADMIN)):
        hint = "leave intent out, or use an administrator's key"
        detail = f"intent={query.intent} needs a key of scope {ADMIN}"
        raise Rejected(detail, status=403, code="scope-missing", hint=hint)


def kept(generation: Generation, results: Results, query: Query) -> SearchResult | None:
    """Return the page that this replica has kept for a query; None if there is none, or the query has a cursor.

    The database is not asked: if the generation is not known to be current, return None too.
    """
    state = generation.fresh()
    if state is None or query.cursor is not None:
        return None
    page = results.kept(query.identity, state.generation)
    return SearchResult(page, REPLICA, _model_name(state), query.asks_everything) if page is not None else None


async def find(context: SearchContext, search: SearchSettings, query: Query) -> SearchResult:
    """Find a query's page: a kept one, one that an equal search is making, or a new one.

    If no list can be asked, the page shows moments of the feed.

    Args:
        context: the replica's connections and caches.
        search: the settings to search by.
        query: the query, with what it names resolved.

    Returns:
        The page and where it comes from.

    Raises:
        Rejected: as `answer`.
        Temporary: nothing can be asked at present.
    """
    async with at_most(search.deadline_s, "the search takes too long at present"):
        if query.cursor is not None:
            return SearchResult(await _further_page(context, search, query, query.cursor), CURSOR)
        state = await context.generation.now()
        context.feed.follow(state)
        try:
            page, source = await context.results.get(
                query.identity, state.generation, lambda: _first_page(context, search, query, state)
            )
        except Temporary:
            if query.is_picture_alone:
                raise  # what is popular does not answer a picture
            page, source = pages.popular(context.links, query, context.feed.of(state)), MADE
        if state.stale:
            page = replace(page, degraded=(STALE, *page.degraded))
        return SearchResult(page, source, _model_name(state), query.asks_everything)


async def _first_page(context: SearchContext, search: SearchSettings, query: Query, state: State) -> ResultPage:
    """Make the first page of an answer: ask both lists at once, fuse and cut them, and look up the best moments."""
    lists = Lists(context.sources, search, query, state)
    encoding = asyncio.create_task(lists.encoded())
    by_vector, by_words = asyncio.create_task(lists.by_vector(encoding)), asyncio.create_task(lists.by_words(encoding))
    try:
        nearest, named = await asyncio.gather(by_vector, by_words)
    finally:
        await ended(by_vector, by_words, encoding)  # none outlives a search that one of them has refused
    candidates = await lists.fused(nearest, named)
    return await pages.make(context.readers, context.links, context.cursor_key, search, query, candidates)


async def _further_page(context: SearchContext, search: SearchSettings, query: Query, cursor: str) -> ResultPage:
    """Make a further page from the candidates in its cursor; those that may no longer be shown are skipped.

    Raises:
        Rejected: the cursor is not valid, or the caller states another grouping than the cursor has.
    """
    ranked, generation, by_video = cursors.unpack(cursor, context.cursor_key)
    group_by = GroupBy.VIDEO if by_video else GroupBy.MOMENT
    if query.stated_group_by not in (None, group_by):
        detail = f"the cursor goes by {group_by}, group_by={query.stated_group_by} cannot stand beside it"
        raise Rejected(detail, status=422, code="bad-query", hint="search again")
    query = replace(query, group_by=group_by)
    ranked = [each for each in ranked if each.relevance_ppm >= (query.relevance_min_ppm or 0)]
    candidates = Candidates(ranked=ranked, generation=generation)
    return await pages.make(context.readers, context.links, context.cursor_key, search, query, candidates)


def _model_name(state: State) -> str:
    return state.model.name if state.model else ""


def record(recorder: Recorder, economics: Economics, query: Query, caller: Caller, result: SearchResult) -> None:
    """Put the appearances of an answer into the spool, if the search counts and the relevance of its moments is known.

    Args:
        recorder: the replica's spool.
        economics: what an appearance earns.
        query: the search that was made; only the first page of a committed search counts.
        caller: whose search it was; moments of their own creators earn nothing.
        result: the answer, with the moments that may earn.

    Raises:
        Temporary: the spool cannot be written.
    """
    if not query.counts or not UNPAID.isdisjoint(result.page.degraded):
        return
    hashes, viewer, principal = recorder.hashes, caller.viewer, caller.principal
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
        for each in result.page.shown
    ]
    recorder.record(
        appearances,
        origin=hashes.origin(viewer.origin) if viewer.anonymous else spool.NO_ORIGIN,
        idempotency_key=caller.idempotency_key,
        request=query.identity,
        principal_id=principal.id if principal else None,
        own_creator_ids=principal.own_ids if principal else (),
    )


async def streamed(
    context: SearchContext, search: SearchSettings, query: Query, caller: Caller
) -> AsyncGenerator[tuple[str, SearchResult]]:
    """Yield what the words find, if that is there before the whole answer; then the whole answer.

    Only the whole answer makes appearances, when it is yielded: a caller who leaves earlier has not seen it.

    Args:
        context: the replica's connections and caches.
        search: the settings to search by, of the caller's variant.
        query: the checked query.
        caller: who searches.

    Returns:
        One or two parts, each with its name: `TEXT` for the words, then `FUSED` for the whole.

    Raises:
        Rejected, Temporary: as `answer`, also after the first part.
    """
    permit(query, caller)
    async with at_most(search.deadline_s):
        query = await references.resolved(context.readers, context.pictures, search, query)
    result = kept(context.generation, context.results, query)
    if result is None:
        share, weight = caller.share, caller.weight(search)
        async with _placed(context, query, share, weight):
            with gates.on_behalf_of(share, weight):
                whole = context.tasks.spawn("a search", find(context, search, query), expected=EXPECTED)
                words = None
                if (alone := _words_alone(query)) is not None:
                    by_words = find(context, search, alone)
                    words = context.tasks.spawn("a search by words", by_words, expected=EXPECTED)
            try:
                if words is not None and (early := await _early(words, whole)) is not None:
                    yield TEXT, early
                result = await whole
            finally:
                await ended(*(task for task in (whole, words) if task is not None))
    record(context.recorder, context.economics, query, caller, result)
    yield FUSED, result


def _words_alone(query: Query) -> Query | None:
    """Return the same search by its words alone, which waits for no vectors; None unless words and vectors both count."""
    if not (query.wanted and query.text_weight > 0 and query.vector_weight > 0 and query.cursor is None):
        return None
    return replace(query, vector_weight=0.0, intent=Intent.TYPING, is_early=True)


async def _early(words: asyncio.Task[SearchResult], whole: asyncio.Task[SearchResult]) -> SearchResult | None:
    """Wait for the words or the whole answer; return what the words have found if it is worth sending first.

    Return None if the whole answer is there already, or if the words have found nothing, failed, or are degraded.
    """
    await asyncio.wait({words, whole}, return_when=asyncio.FIRST_COMPLETED)
    if whole.done() or words.exception() is not None:
        return None
    result = words.result()
    return result if result.page.shown and not result.page.degraded else None
