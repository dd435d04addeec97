"""Candidates: the two lists of a search, made side by side, and their fusion by reciprocal rank.

A list that cannot be made (the encoder or the database is away, or too slow) is left out and named in `degraded`; only
when none can be made does the search fail. Reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009. Relevance
is no part of the fusion (see `relevance`): without vectors, or where cosines cannot be looked up, it is 0.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import psycopg

from cluster.errors import Temporary
from cluster.seldom import Seldom
from cluster.stopwatch import Stopwatch
from cluster.tasks import ended
from pipelines import fulltext, index
from pipelines.fulltext import Match, Named
from pipelines.index import Found, Hit, Looked, Model, Plan
from pipelines.settings import ModelSettings
from serve import cut, relevance
from serve.cursors import Ranked
from serve.cut import Cut, Passing
from serve.generation import State
from serve.query import Query
from serve.recall import Shadow
from serve.relevance import Measured, Parts
from serve.services import Facts, Services, Vector

log = logging.getLogger(__name__)
seldom = Seldom(log)

# Why a moment is a candidate: whether it is in the vector list, and whether its video has all words (None: not one).
MATCHED: dict[tuple[bool, bool | None], tuple[str, ...]] = {
    (True, None): ("vector",), (True, True): ("vector", "text"), (True, False): ("vector", "some_words"),
    (False, True): ("text",), (False, False): ("some_words",),
}  # fmt: skip
NEAREST, MATCHING = "nearest", "matching"  # the manners of the two lists: connections keep what each sets


@dataclass(frozen=True)
class Candidates:
    """The fused list, best first, and what could not be asked. `ranks`: by list, then by moment.

    `like` is the moment to find more of: of its creator nothing pays. `cut` has left out what is far. `model` is the one
    whose vectors were compared, `same` the cosine from which on moments of two videos show the same pictures.
    """

    ranked: list[Ranked]
    generation: int
    degraded: list[str] = field(default_factory=list)
    ranks: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    cosines: Mapping[int, float] = field(default_factory=dict)
    looked: Looked | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    like: Found | None = None
    model: Model | None = None
    same: float = math.inf
    cut: Cut = field(default_factory=Cut)


async def gather(services: Services, query: Query, state: State) -> Candidates:
    """Both lists, fused.

    Raises:
        Temporary: no list could be made.
    """
    watch = Stopwatch()
    encoded = asyncio.create_task(_encoded(services, query, state, watch))
    near = asyncio.create_task(_by_vector(services, query, state, encoded, watch))
    named = asyncio.create_task(_by_words(services, query, encoded, watch))
    try:
        by_vector, by_words = await asyncio.gather(near, named)
    finally:
        await ended(near, named, encoded)  # none outlives a search that one of them has refused
    nearest = by_vector or Nearest()
    if by_vector is None and (by_words is None or not query.wanted):
        raise Temporary("search is unavailable: neither vectors nor full text can be asked")
    ranks = {"vector": ranked(nearest.hits), "text": {each.segment_id: each.rank for each in by_words or []}}
    weights = {"vector": query.vector_weight, "text": query.text_weight}
    scores = fuse(ranks, weights, services.search.rrf_k)
    with watch.time("relevance"):
        measured, passing, is_measured = await _measured(services, nearest, by_words or (), list(scores))
    skipped = {
        "vector": by_vector is None, "text": by_words is None, "recall": nearest.hurried, "relevance": not is_measured,
    }  # fmt: skip
    has_vector, has_all = ranks["vector"], {each.segment_id: each.is_complete for each in by_words or ()}
    fused = [
        Ranked(segment_id, score, measured.of(segment_id), MATCHED[segment_id in has_vector, has_all.get(segment_id)])
        for segment_id, score in scores.items()
    ]
    own = cut.of(services.search, query, by_words or (), passing)
    fused = list(filter(own.shows, fused))
    fused.sort(key=lambda each: (-each.score, -each.relevance_ppm, each.segment_id))
    return Candidates(
        fused[: services.search.candidates_max],
        state.generation,
        [name for name, is_so in skipped.items() if is_so],
        ranks,
        measured.cosines,
        nearest.looked,
        watch,
        nearest.parts.like if nearest.parts else None,
        nearest.model,
        _same(services, nearest),
        own,
    )


@dataclass(frozen=True)
class Nearest:
    """The vector list with what it was made from; empty before the first ingest, and where nobody has asked for it."""

    hits: Sequence[Hit] = ()
    model: Model | None = None
    parts: Parts | None = None
    vector: Vector | None = None  # that moments are nearest to
    facts: Facts | None = None
    looked: Looked | None = None
    hurried: bool = False


async def _encoded(services: Services, query: Query, state: State, watch: Stopwatch) -> Nearest | None:
    """What both lists and relevance are measured by, the vector list still empty; None when the encoder is away.

    Raises:
        Temporary: the same where only a picture is asked for, with the reason: its caller can act on it.
    """
    model = state.model
    if model is None or query.is_early:
        return Nearest()
    try:
        facts = await services.encoding.facts(model.name)
        if (facts.name, facts.fingerprint) != (model.name, model.fingerprint):
            seldom.error(f"the encoder has other weights than the index was made by ({model.name})")
            return None
        with watch.time("encode"):
            parts = await relevance.parts_of(services, query, model)
        if query.vector_weight == 0:
            return Nearest((), model, parts, parts.wanted[0].vector if parts.wanted else None, facts)
        return Nearest((), model, parts, parts.blended(), facts)
    except (Temporary, psycopg.OperationalError) as error:
        _say_no_vectors(query, error)
        return None


async def _by_vector(
    services: Services, query: Query, state: State, encoded: Awaitable[Nearest | None], watch: Stopwatch
) -> Nearest | None:
    """The vector list; empty where it has no weight. None when the encoder or the list is away.

    Raises:
        Temporary: as `_encoded`.
    """
    nearest = await encoded
    if nearest is None or nearest.model is None or nearest.vector is None or query.vector_weight == 0:
        return nearest
    model, vector = nearest.model, nearest.vector
    try:
        with watch.time("vector"):
            looked, hurried = await _looked(services, query, model, vector)
    except (Temporary, psycopg.OperationalError) as error:
        _say_no_vectors(query, error)
        return None
    services.recall.follow(model, vector, query.filters, looked, _shadow(services, query, state, model))
    hits = [hit for hit in looked.hits if hit.segment_id != query.segment_id]
    return replace(nearest, hits=hits, looked=looked, hurried=hurried)


def _say_no_vectors(query: Query, error: Exception) -> None:
    """Say why there are no vectors.

    Raises:
        Temporary: the error, where nothing else could find anything.
    """
    seldom.warning(f"no vectors: {error}")
    if query.is_picture_alone and isinstance(error, Temporary):
        raise error


async def _looked(services: Services, query: Query, model: Model, vector: Vector) -> tuple[Looked, bool]:
    """With the whole plan; when that takes too long, or has of late, with a hurried one, whose recall is lower."""
    plan, limit = plan_of(services), services.search.candidates_max
    breaker = services.patience
    if breaker.allow():
        try:
            looked = await services.readers.ask(
                lambda connection: index.nearest(connection, model, vector, limit, query.filters, plan), manner=NEAREST
            )
        except psycopg.errors.QueryCanceled:
            breaker.failure()
        else:
            breaker.success()
            return looked, False
    hurried = replace(
        plan, ef_search=services.search.hurried_ef_search, exact_rows=0, whole=False, timeout_ms=plan.timeout_ms // 2
    )
    looked = await services.readers.ask(
        lambda connection: index.nearest(connection, model, vector, limit, query.filters, hurried), manner=NEAREST
    )
    return looked, True


def _shadow(services: Services, query: Query, state: State, searched: Model) -> Shadow | None:
    names = [name for name in state.models if name != searched.name]

    async def vector(model: Model) -> Vector:
        return (await relevance.parts_of(services, query, model)).blended()

    return Shadow(names, vector, plan_of(services)) if names else None


async def _by_words(
    services: Services, query: Query, encoded: Awaitable[Nearest | None], watch: Stopwatch
) -> list[Named] | None:
    """The moments that stand for the videos that words find, nearest first; None when these cannot be asked for.

    The videos are looked for while the query is encoded, their moments beside the vector list.
    """
    if not query.wanted or query.text_weight == 0:
        return []
    try:
        with watch.time("text"):
            matches = await _matching(services, query)
        nearest = await encoded or Nearest()
        with watch.time("text"):
            return await _standing(services, query, nearest, matches)
    except (Temporary, psycopg.OperationalError) as error:
        seldom.warning(f"no full text: {error}")
        return None


async def _matching(services: Services, query: Query) -> list[Match]:
    """The videos that words find."""
    asked = (query.text, services.search.text_videos_max, query.filters, plan_of(services), query.language)
    return await services.readers.ask(lambda connection: fulltext.matching(connection, *asked), manner=MATCHING)


async def _standing(services: Services, query: Query, nearest: Nearest, matches: list[Match]) -> list[Named]:
    """The moments that stand for the videos that words find, nearest first."""
    if not matches:
        return []
    each, among = services.search.text_moments_max, query.filters.segment_ids
    asked = (matches, each, nearest.model, nearest.vector, among, plan_of(services))
    found = await services.readers.ask(lambda connection: fulltext.moments(connection, *asked), manner=MATCHING)
    return [named for named in found if named.segment_id != query.segment_id]


def _same(services: Services, nearest: Nearest) -> float:
    """From which cosine on moments of two videos show the same pictures; above all cosines where that is nobody's concern."""
    model = services.settings.section(ModelSettings)
    if model.copies_cosine_ppm == 0 or nearest.facts is None:
        return math.inf
    return model.same(nearest.facts.calibration.same)


def plan_of(services: Services) -> Plan:
    search = services.search
    return Plan(
        search.exact_rows_max,
        search.ef_search,
        search.scan_tuples_max,
        search.text_rows_max,
        search.statement_timeout_ms,
        search.bit_reranked,
        search.ivfflat_probes,
    )


def ranked(hits: Sequence[Hit]) -> dict[int, int]:
    """Ranks from 1; equal values share one."""
    ranks: dict[int, int] = {}
    rank, last = 0, None
    for hit in hits:
        if hit.value != last:
            rank, last = rank + 1, hit.value
        ranks[hit.segment_id] = rank
    return ranks


def fuse(ranks: Mapping[str, Mapping[int, int]], weights: Mapping[str, float], k: int) -> dict[int, float]:
    """Weighted reciprocal rank: the sum over the lists of weight / (k + rank)."""
    scores: dict[int, float] = {}
    for name, places in ranks.items():
        if weights[name] > 0:
            for segment_id, rank in places.items():
                scores[segment_id] = scores.get(segment_id, 0.0) + weights[name] / (k + rank)
    return scores


async def _measured(
    services: Services, nearest: Nearest, by_words: Sequence[Named], segment_ids: Sequence[int]
) -> tuple[Measured, tuple[Passing, ...] | None, bool]:
    """The relevance of the candidates, which of them are near enough, and whether all cosines could be looked up.

    Both lists tell cosines with the vector that was searched by. What could not be looked up is not cut: the answer is
    degraded, and says so.
    """
    parts, facts, model = nearest.parts, nearest.facts, nearest.model
    if parts is None or facts is None or model is None:
        return Measured(), None, True
    near = {each.segment_id: each.cosine for each in by_words if each.cosine is not None}
    near |= {hit.segment_id: hit.value for hit in nearest.hits}
    try:
        cosines, is_whole = await relevance.looked_up(services, model, parts, near, segment_ids), True
    except (Temporary, psycopg.OperationalError) as error:
        seldom.warning(f"no cosines: {error}")
        cosines, is_whole = relevance.known(parts, near), False
    measured = relevance.measured(facts.calibration, parts, cosines)
    unknown = () if is_whole else set(segment_ids) - measured.ppm.keys()
    return measured, cut.passing(services.search, facts, parts, cosines, unknown), is_whole
