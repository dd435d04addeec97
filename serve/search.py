"""The story of a search.

    Query        what is asked, checked at the door                                   query
      → vector   by the encoder, batched and cached                                   encoding
      → lists    the nearest vectors and the matching words, side by side             pipelines.index
      → ranked   fused by reciprocal rank; what could not be asked is `degraded`      candidates
      → moments  the first page shown, the rest frozen into a cursor                  moments, cursors
      → appearances of the moments on the first page of a committed search,           ledger.appearances
        in the spool before the answer leaves

Everything here reads, but for the spool; the search path writes to no database.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster import runtime
from ledger import money
from ledger.appearances import Appearance
from pipelines import index
from pipelines.index import Found
from serve import candidates, cursors, moments
from serve.candidates import Candidates
from serve.cursors import Ranked
from serve.keys import Principal
from serve.query import Query
from serve.services import Services
from serve.viewers import Viewer


@dataclass(frozen=True)
class Caller:
    """Who asks: a viewer, with the key's principal where there is one, and the Idempotency-Key where one was sent."""

    viewer: Viewer
    principal: Principal | None = None
    idempotency_key: str | None = None


async def answer(services: Services, query: Query, caller: Caller) -> dict[str, Any]:
    """Answer a query.

    Raises:
        Rejected: the cursor is not valid, or the segment to look like does not exist.
        Temporary: nothing can be asked at present.
    """
    began = time.perf_counter()
    found_candidates = await _candidates(services, query)
    ranked = [each for each in found_candidates.ranked if each.relevance_ppm >= query.relevance_min_ppm]
    found = await _found(services, ranked)
    groups = moments.grouped(ranked, found, query.group_by)
    page = groups[: query.limit]
    if query.counts:
        record(services, query, caller, [group[0] for group in page], found)
    return {
        "query": query.text,
        "moments": [_shown(services, query, found_candidates, group, found) for group in page],
        "next_cursor": _next(services, groups[query.limit :], found_candidates.generation),
        "degraded": found_candidates.degraded,
        "took_ms": round((time.perf_counter() - began) * 1000, 1),
    }


async def _candidates(services: Services, query: Query) -> Candidates:
    """A first page asks the lists; a further one is already in its cursor."""
    if query.cursor is None:
        return await candidates.gather(services, query)
    ranked, generation = cursors.unpack(query.cursor, cursor_key(services))
    return Candidates(ranked, generation)


async def _found(services: Services, ranked: Sequence[Ranked]) -> dict[int, Found]:
    if not ranked:
        return {}
    async with services.pool.connection() as connection:
        return await index.found(connection, [each.segment_id for each in ranked])


def _shown(
    services: Services, query: Query, asked: Candidates, group: Sequence[Ranked], found: dict[int, Found]
) -> dict[str, Any]:
    best, *others = group
    moment = moments.of(services, best, found[best.segment_id])
    if others:
        moment["others"] = [moments.span(each, found[each.segment_id]) for each in others[: moments.OTHERS_MAX]]
    if query.explain:
        moment["explain"] = moments.explanation(asked, best.segment_id)
    return moment


def _next(services: Services, groups: Sequence[Sequence[Ranked]], generation: int) -> str | None:
    """A cursor over the best of each further group."""
    left = [group[0] for group in groups][: services.search.cursor_ids_max]
    if not left:
        return None
    return cursors.pack(left, generation, cursor_key(services), services.search.cursor_expires_s)


def record(services: Services, query: Query, caller: Caller, shown: Sequence[Ranked], found: dict[int, Found]) -> int:
    """Put the appearances of a committed search's first page into the spool; how many may earn."""
    hashed = services.recorder.hashes.viewer(caller.viewer.kind, caller.viewer.identity)
    appearances = [
        Appearance(
            viewer_hmac=hashed,
            segment_id=each.segment_id,
            creator_id=found[each.segment_id].creator_id,
            best_frame_ms=found[each.segment_id].best_frame_ms,
            relevance_ppm=each.relevance_ppm,
            amount_pix=money.appearance_amount(
                services.economics, each.relevance_ppm, anonymous=caller.viewer.anonymous
            ),
        )
        for each in shown
    ]
    own = () if caller.principal is None or caller.principal.creator_id is None else (caller.principal.creator_id,)
    return services.recorder.record(
        appearances,
        idempotency_key=caller.idempotency_key,
        request=query.identity,
        principal_id=caller.principal.id if caller.principal else None,
        own_creator_ids=own,
    )


def cursor_key(services: Services) -> bytes:
    return runtime.secret(services.settings, "cursor_key").encode()
