"""Candidates: the two lists of a search, made side by side, and their fusion by reciprocal rank.

A list that cannot be made (the encoder or the database is away, or too slow) is left out and named in `degraded`; only
when none can be made does the search fail. Reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import psycopg

from cluster.errors import Rejected, Temporary
from cluster.stopwatch import Stopwatch
from pipelines import fulltext, index
from pipelines.fulltext import Match, Named
from pipelines.index import Connection, Hit, Looked, Model, Plan
from pipelines.relevance import PPM
from serve.cursors import Ranked
from serve.generation import State
from serve.query import Query
from serve.recall import Shadow
from serve.services import Facts, Services, Vector

log = logging.getLogger(__name__)

# A moment that only words have found says nothing about what is seen in it: it is relevant by half at most, less with
# each rank. The list's own calibration, monotone in its rank.
TEXT_ONLY_PPM = PPM // 2
MATCHED = {(True, True): ("vector", "text"), (True, False): ("vector",), (False, True): ("text",)}
LENGTH_MIN = 0.01  # of a blended vector, as a share of its weights: below it is rounding, not meaning


@dataclass(frozen=True)
class Candidates:
    """The fused list, best first, and what could not be asked. `ranks`: by list, then by moment."""

    ranked: list[Ranked]
    generation: int
    degraded: list[str] = field(default_factory=list)
    ranks: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    cosines: Mapping[int, float] = field(default_factory=dict)
    looked: Looked | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)


async def gather(services: Services, query: Query, state: State) -> Candidates:
    """Both lists, fused.

    Raises:
        Temporary: no list could be made.
    """
    watch = Stopwatch()
    by_vector, by_text = await asyncio.gather(
        _by_vector(services, query, state, watch), _by_text(services, query, watch)
    )
    if by_vector is None and (by_text is None or not query.wanted):
        raise Temporary("search is unavailable: neither vectors nor full text can be asked")
    nearest = by_vector or Nearest()
    by_words = await _standing(services, query, nearest, by_text, watch)
    skipped = {"vector": by_vector is None, "text": by_words is None, "recall": nearest.hurried}
    degraded = [name for name, is_so in skipped.items() if is_so]
    ranks = {"vector": ranked(nearest.hits), "text": {each.segment_id: each.rank for each in by_words or []}}
    weights = {"vector": query.vector_weight, "text": query.text_weight}
    scores = fuse(ranks, weights, services.search.rrf_k)
    with watch.time("relevance"):
        cosines, relevance = await _relevance(services, query, nearest, by_words or [], list(scores))
    near, named = ranks["vector"], ranks["text"]
    fused = [
        Ranked(segment_id, score, relevance[segment_id], MATCHED[segment_id in near, segment_id in named])
        for segment_id, score in scores.items()
    ]
    fused.sort(key=lambda each: (-each.score, -each.relevance_ppm, each.segment_id))
    return Candidates(
        fused[: services.search.candidates_max], state.generation, degraded, ranks, cosines, nearest.looked, watch
    )


@dataclass(frozen=True)
class Nearest:
    """The vector list with what it was made from; empty before the first ingest."""

    hits: Sequence[Hit] = ()
    model: Model | None = None
    vector: Vector | None = None
    facts: Facts | None = None
    looked: Looked | None = None
    hurried: bool = False


async def _by_vector(services: Services, query: Query, state: State, watch: Stopwatch) -> Nearest | None:
    """The vector list; None when it cannot be made."""
    model = state.model
    if query.vector_weight == 0 or model is None:
        return Nearest()
    try:
        facts = await services.encoding.facts(model.name)
        if (facts.name, facts.fingerprint) != (model.name, model.fingerprint):
            log.error("the encoder has other weights than the index was made by (%s)", model.name)
            return None
        with watch.time("encode"):
            vector = await _vector(services, query, model)
        with watch.time("vector"):
            looked, hurried = await _looked(services, query, model, vector)
        services.recall.follow(model, vector, query.filters, looked, _shadow(services, query, state, model))
        hits = [hit for hit in looked.hits if hit.segment_id != query.segment_id]
        return Nearest(hits, model, vector, facts, looked, hurried)
    except (Temporary, psycopg.OperationalError) as error:
        log.warning("no vectors: %s", error)
        return None


async def _looked(services: Services, query: Query, model: Model, vector: Vector) -> tuple[Looked, bool]:
    """With the whole plan; when that takes too long, or has of late, with a hurried one, whose recall is lower."""
    plan, limit = _plan(services), services.search.candidates_max
    breaker = services.patience
    if breaker.allow():
        try:
            looked = await services.readers.ask(
                lambda connection: index.nearest(connection, model, vector, limit, query.filters, plan)
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
        lambda connection: index.nearest(connection, model, vector, limit, query.filters, hurried)
    )
    return looked, True


def _shadow(services: Services, query: Query, state: State, searched: Model) -> Shadow | None:
    names = [name for name in state.models if name != searched.name]
    return Shadow(names, lambda model: _vector(services, query, model), _plan(services)) if names else None


async def _vector(services: Services, query: Query, model: Model) -> Vector:
    """The unit vector to look near: the query's parts added up by their weights, less what it should not show.

    Raises:
        Rejected: there is no such segment, or nothing is left of the sum.
    """
    encode, blend = services.encoding, query.blend
    asked: list[tuple[float, Awaitable[Vector]]] = []
    if query.wanted:
        asked.append((blend.text, encode.text(query.wanted, model.name)))
    if query.image is not None:
        asked.append((blend.image, encode.image(query.image, model.name)))
    if query.segment_id is not None:
        asked.append((blend.segment, _vector_of(services, query.segment_id, model)))
    share = blend.negative / max(1, len(query.negative))
    asked += [(-share, encode.text(negative, model.name)) for negative in query.negative]
    if len(asked) == 1 and asked[0][0] > 0:
        return await asked[0][1]
    vectors = await asyncio.gather(*(vector for _, vector in asked))
    return blended(list(zip((weight for weight, _ in asked), vectors, strict=True)))


def blended(parts: Sequence[tuple[float, Vector]]) -> Vector:
    """The weighted sum, of length one."""
    total = np.sum([weight * vector.astype(np.float64) for weight, vector in parts], axis=0)
    length = float(np.linalg.norm(total))
    if not length > LENGTH_MIN * sum(abs(weight) for weight, _ in parts):
        hint = "give one of them another weight"
        raise Rejected("the parts of the query cancel each other out", status=422, code="bad-query", hint=hint)
    unit: Vector = (total / length).astype(np.float32)
    return unit


async def _vector_of(services: Services, segment_id: int, model: Model) -> Vector:
    async def look(connection: Connection) -> Vector | None:
        return await index.vector_of(connection, model, await index.redirected(connection, segment_id))

    vector = await services.readers.ask(look)
    if vector is None:
        raise Rejected(f"there is no segment {segment_id}", status=404, code="not-found")
    return vector


async def _by_text(services: Services, query: Query, watch: Stopwatch) -> list[Match] | None:
    """The videos that words find; None when they cannot be asked for."""
    if not query.wanted or query.text_weight == 0:
        return []
    try:
        asked = (query.text, services.search.text_videos_max, query.filters, _plan(services), query.language)
        with watch.time("text"):
            return await services.readers.ask(lambda connection: fulltext.matching(connection, *asked))
    except (Temporary, psycopg.OperationalError) as error:
        log.warning("no full text: %s", error)
        return None


async def _standing(
    services: Services, query: Query, nearest: Nearest, matches: list[Match] | None, watch: Stopwatch
) -> list[Named] | None:
    """The moments that stand for the videos that words find, nearest first; None when there is no list of words."""
    if not matches:
        return None if matches is None else []
    each, among = services.search.text_moments_max, query.filters.segment_ids
    asked = (matches, each, nearest.model, nearest.vector, among)
    try:
        with watch.time("text"):
            found = await services.readers.ask(lambda connection: fulltext.moments(connection, *asked))
    except (Temporary, psycopg.OperationalError) as error:
        log.warning("no moments of full text: %s", error)
        return None
    return [named for named in found if named.segment_id != query.segment_id]


def _plan(services: Services) -> Plan:
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


async def _relevance(
    services: Services, query: Query, nearest: Nearest, by_words: Sequence[Named], segment_ids: Sequence[int]
) -> tuple[dict[int, float], dict[int, int]]:
    """Cosines where there are vectors, and the relevance of every candidate."""
    cosines = {each.segment_id: each.cosine for each in by_words if each.cosine is not None}
    cosines |= {hit.segment_id: hit.value for hit in nearest.hits}
    text_ranks = {each.segment_id: each.rank for each in by_words}
    missing = [segment_id for segment_id in segment_ids if segment_id not in cosines]
    model, vector = nearest.model, nearest.vector
    if missing and model is not None and vector is not None:
        cosines |= await services.readers.ask(lambda connection: index.cosines(connection, model, vector, missing))
    relevance = {each: TEXT_ONLY_PPM // text_ranks[each] for each in segment_ids if each not in cosines}
    if cosines and nearest.facts is not None:
        asked_by_text = query.image is None and query.segment_id is None
        ppm = nearest.facts.calibration.ppm(np.array(list(cosines.values())), asked_by_text=asked_by_text)
        relevance |= dict(zip(cosines, ppm.tolist(), strict=True))
    return cosines, relevance
