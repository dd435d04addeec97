"""The two lists of a search, vectors and words, and their fusion by reciprocal rank into candidates.

A list that cannot be made (the encoder or the database is away, or too slow) is left out and named in `degraded`; only when
none can be made does the search fail. Reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009. Relevance only
orders candidates of equal score (see `relevance`): without vectors, or where cosines cannot be looked up, it is 0. Knows
nothing of what an answer shows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import psycopg

from cluster.errors import Temporary
from cluster.observability.seldom import Seldom
from cluster.observability.stopwatch import Stopwatch
from cluster.resilience import Breaker
from pipelines.index import fulltext, vectors
from pipelines.index.fulltext import Named
from pipelines.index.ranks import dense_ranks
from pipelines.index.vectors import Hit, MomentDetails, SearchLimits, SearchModel, VectorHits
from serve.replica.encoder import EncoderInfo, Encoding, Vector
from serve.replica.generation import State
from serve.replica.readers import Readers
from serve.replica.recall import Recall, Shadow
from serve.search import cut, relevance
from serve.search.cursors import Ranked
from serve.search.cut import Cut, Passing
from serve.search.query import Query
from serve.search.relevance import Measured, QueryParts
from serve.settings import PPM, SearchSettings

log = logging.getLogger(__name__)
seldom = Seldom(log)

# Why a moment is a candidate: whether it is in the vector list, and whether its video has all words (None: not one).
MATCHED: dict[tuple[bool, bool | None], tuple[str, ...]] = {
    (True, None): ("vector",), (True, True): ("vector", "text"), (True, False): ("vector", "some_words"),
    (False, True): ("text",), (False, False): ("some_words",),
}  # fmt: skip
NEAREST, MATCHING = "nearest", "matching"  # manners of questions: a connection keeps the session settings of each


@dataclass(frozen=True)
class ListSources:
    """What a search needs to make its two lists: the database, the encoder, the checks of recall, and a breaker."""

    readers: Readers
    encoding: Encoding
    recall: Recall  # makes some searches again by comparing everything, beside the traffic
    patience: Breaker  # open while searches at full recall take too long


@dataclass(frozen=True)
class EncodedQuery:
    """A query as the catalogue's model encodes it; all None before the first ingest, or if no vector is needed."""

    model: SearchModel | None = None
    parts: QueryParts | None = None
    vector: Vector | None = None  # (dimensions,), of unit length: moments are searched near it
    info: EncoderInfo | None = None


@dataclass(frozen=True)
class VectorList:
    """The moments nearest to a query, best first, and how they were found; empty where the query has no vector."""

    encoded: EncodedQuery = field(default_factory=EncodedQuery)
    hits: Sequence[Hit] = ()
    vector_hits: VectorHits | None = None
    is_hurried: bool = False  # found with less recall than usual, to be in time

    @property
    def ranks(self) -> Mapping[int, int]:
        """The rank of each moment, from 1, by segment id; moments with equal cosines share a rank."""
        ranks = dense_ranks(hit.value for hit in self.hits)
        return {hit.segment_id: rank for hit, rank in zip(self.hits, ranks, strict=True)}


@dataclass(frozen=True)
class Candidates:
    """The fused list, best first and cut, with what explains the order, and what could not be asked (`degraded`).

    `ranks` are by list, then by moment. `similar_to` is the moment that the query wants more of: its creator's own moments
    pay nothing, nor do copies of it. From a cosine of `same_cosine` on, by the vectors of `model`, moments of two videos
    show the same pictures.
    """

    ranked: list[Ranked]
    generation: int
    degraded: list[str] = field(default_factory=list)
    ranks: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    cosines: Mapping[int, float] = field(default_factory=dict)
    vector_hits: VectorHits | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    similar_to: MomentDetails | None = None
    model: SearchModel | None = None
    same_cosine: float = math.inf
    cut: Cut = field(default_factory=Cut)


@dataclass(frozen=True)
class Lists:
    """The two lists of one query at one state of the catalogue; `watch` measures the time that each stage takes."""

    sources: ListSources
    search: SearchSettings
    query: Query
    state: State
    watch: Stopwatch = field(default_factory=Stopwatch)

    async def encoded(self) -> EncodedQuery | None:
        """Encode the query, for both lists and for relevance; None when the encoder is away.

        Raises:
            Rejected: the segment to find more of does not exist, or the parts of the query cancel each other out.
            Temporary: the encoder is away and the query is a picture alone, so that the caller should know the reason.
        """
        query, model = self.query, self.state.model
        if model is None or query.is_early:
            return EncodedQuery()
        try:
            info = await self.sources.encoding.facts(model.name)
            if (info.name, info.fingerprint) != (model.name, model.fingerprint):
                seldom.error(f"the encoder has other weights than the index was made by ({model.name})")
                return None
            with self.watch.time("encode"):
                parts = await relevance.parts_of(self.sources.encoding, self.sources.readers, query, model)
            if query.vector_weight == 0:
                return EncodedQuery(model, parts, parts.wanted[0].vector if parts.wanted else None, info)
            return EncodedQuery(model, parts, parts.blended(), info)
        except (Temporary, psycopg.OperationalError) as error:
            _warn_of_no_vectors(query, error)
            return None

    async def by_vector(self, encoding: Awaitable[EncodedQuery | None]) -> VectorList | None:
        """Find the moments nearest to the query; an empty list where vectors have no weight.

        Args:
            encoding: the result of `encoded`, while it is being made.

        Returns:
            The vector list; None when the encoder or the index is away.

        Raises:
            Rejected, Temporary: as `encoded`.
        """
        query, encoded = self.query, await encoding
        if encoded is None:
            return None
        if encoded.model is None or encoded.vector is None or query.vector_weight == 0:
            return VectorList(encoded)
        try:
            with self.watch.time("vector"):
                vector_hits, is_hurried = await self._nearest(encoded.model, encoded.vector)
        except (Temporary, psycopg.OperationalError) as error:
            _warn_of_no_vectors(query, error)
            return None
        self.sources.recall.follow(
            encoded.model, encoded.vector, query.filters, vector_hits, self._shadow(encoded.model)
        )
        hits = [hit for hit in vector_hits.hits if hit.segment_id != query.segment_id]
        return VectorList(encoded, hits, vector_hits, is_hurried)

    async def _nearest(self, model: SearchModel, vector: Vector) -> tuple[VectorHits, bool]:
        """Search the index with the usual limits; search it in a hurry if that takes too long, or recently did.

        Returns:
            What was found, and whether it was found in a hurry, with lower recall.
        """
        search, patience, readers = self.search, self.sources.patience, self.sources.readers
        filters, most, limits = self.query.filters, search.candidates_max, limits_of(search)
        if patience.allow():
            try:
                vector_hits = await readers.ask(
                    lambda connection: vectors.nearest(connection, model, vector, most, filters, limits),
                    manner=NEAREST,
                )
            except psycopg.errors.QueryCanceled:
                patience.failure()
            else:
                patience.success()
                return vector_hits, False
        hurried = replace(
            limits,
            ef_search=search.hurried_ef_search,
            exact_rows=0,
            whole=False,
            timeout_ms=limits.timeout_ms // 2,
        )
        vector_hits = await readers.ask(
            lambda connection: vectors.nearest(connection, model, vector, most, filters, hurried), manner=NEAREST
        )
        return vector_hits, True

    def _shadow(self, searched: SearchModel) -> Shadow | None:
        """Return the same query for the catalogue's other models, whose recall is checked too; None without other models."""
        names = [name for name in self.state.models if name != searched.name]

        async def vector_in(model: SearchModel) -> Vector:
            parts = await relevance.parts_of(self.sources.encoding, self.sources.readers, self.query, model)
            return parts.blended()

        return Shadow(names, vector_in, limits_of(self.search)) if names else None

    async def by_words(self, encoding: Awaitable[EncodedQuery | None]) -> list[Named] | None:
        """Find the videos whose words match, and choose the moments of each that are nearest to the query.

        Videos are searched while the query is being encoded, and their moments while the vector list is made.

        Args:
            encoding: the result of `encoded`, while it is being made.

        Returns:
            The moments by the rank of their videos, empty where words have no weight; None when full text cannot be
                asked.
        """
        query, search, readers = self.query, self.search, self.sources.readers
        if not query.wanted or query.text_weight == 0:
            return []
        limits, videos_max, moments_max = limits_of(search), search.text_videos_max, search.text_moments_max
        try:
            with self.watch.time("text"):
                matches = await readers.ask(
                    lambda connection: fulltext.matching(
                        connection, query.text, videos_max, query.filters, limits, query.language
                    ),
                    manner=MATCHING,
                )
            encoded = await encoding or EncodedQuery()
            if not matches:
                return []
            model, vector, among = encoded.model, encoded.vector, query.filters.segment_ids
            with self.watch.time("text"):
                named = await readers.ask(
                    lambda connection: fulltext.moments(connection, matches, moments_max, model, vector, among, limits),
                    manner=MATCHING,
                )
        except (Temporary, psycopg.OperationalError) as error:
            seldom.warning(f"no full text: {error}")
            return None
        return [each for each in named if each.segment_id != query.segment_id]

    async def fused(self, nearest: VectorList | None, named: Sequence[Named] | None) -> Candidates:
        """Fuse both lists (`fuse`), measure relevance (`relevance`), and cut what is too far from the query (`cut`).

        Args:
            nearest: the vector list; None when it could not be made.
            named: the list of words; None when it could not be made.

        Returns:
            At most `candidates_max` candidates, by score, then relevance, then id.

        Raises:
            Temporary: neither list could be made.
        """
        query, search = self.query, self.search
        if nearest is None and (named is None or not query.wanted):
            raise Temporary("search is unavailable: neither vectors nor full text can be asked")
        skipped = [name for name, made in (("vector", nearest), ("text", named)) if made is None]
        nearest, named = nearest or VectorList(), named or ()
        ranks = {"vector": nearest.ranks, "text": {each.segment_id: each.rank for each in named}}
        scores = fuse(ranks, {"vector": query.vector_weight, "text": query.text_weight}, search.rrf_k)
        with self.watch.time("relevance"):
            measured, passing, is_measured = await self._measured(nearest, named, list(scores))
        rule = cut.of(search, query, named, passing)
        near, has_all = ranks["vector"], {each.segment_id: each.is_complete for each in named}
        every = (
            Ranked(segment_id, score, measured.of(segment_id), MATCHED[segment_id in near, has_all.get(segment_id)])
            for segment_id, score in scores.items()
        )
        ranked = list(filter(rule.shows, every))
        ranked.sort(key=lambda each: (-each.score, -each.relevance_ppm, each.segment_id))
        if nearest.is_hurried:
            skipped.append("recall")
        if not is_measured:
            skipped.append("relevance")
        parts = nearest.encoded.parts
        return Candidates(
            ranked=ranked[: search.candidates_max],
            generation=self.state.generation,
            degraded=skipped,
            ranks=ranks,
            cosines=measured.cosines,
            vector_hits=nearest.vector_hits,
            watch=self.watch,
            similar_to=parts.similar_to if parts else None,
            model=nearest.encoded.model,
            same_cosine=same_cosine(search, nearest.encoded.info),
            cut=rule,
        )

    async def _measured(
        self, nearest: VectorList, named: Sequence[Named], segment_ids: Sequence[int]
    ) -> tuple[Measured, tuple[Passing, ...] | None, bool]:
        """Measure the relevance of candidates, and which of them are near enough to each part of the query.

        Both lists already contain cosines with the vector that was searched by. A moment whose cosine cannot be looked
        up is not cut; the answer is then marked as degraded.

        Returns:
            Three values: the relevance of the moments; for each part, the moments that are near enough to it (None
            without vectors to judge by); whether every cosine could be looked up.
        """
        encoded = nearest.encoded
        model, parts, info = encoded.model, encoded.parts, encoded.info
        if model is None or parts is None or info is None:
            return Measured(), None, True
        told = {each.segment_id: each.cosine for each in named if each.cosine is not None}
        told |= {hit.segment_id: hit.value for hit in nearest.hits}
        try:
            cosines = await relevance.looked_up(self.sources.readers, model, parts, told, segment_ids)
            is_complete = True
        except (Temporary, psycopg.OperationalError) as error:
            seldom.warning(f"no cosines: {error}")
            cosines, is_complete = relevance.known(parts, told), False
        measured = relevance.measured(info.calibration, parts, cosines)
        unknown = () if is_complete else set(segment_ids) - measured.ppm.keys()
        return measured, cut.passing(self.search, info, parts, cosines, unknown), is_complete


def _warn_of_no_vectors(query: Query, error: Exception) -> None:
    """Log why a search has no vectors.

    Raises:
        Temporary: the error itself, if only vectors could find anything.
    """
    seldom.warning(f"no vectors: {error}")
    if query.is_picture_alone and isinstance(error, Temporary):
        raise error


def limits_of(search: SearchSettings) -> SearchLimits:
    """Return the limits of one search of the index, from the settings."""
    return SearchLimits(
        search.exact_rows_max,
        search.ef_search,
        search.scan_tuples_max,
        search.text_rows_max,
        search.statement_timeout_ms,
        search.bit_reranked,
        search.ivfflat_probes,
    )


def same_cosine(search: SearchSettings, info: EncoderInfo | None) -> float:
    """Return the least cosine of two videos' moments that show the same pictures; infinity if no moments are compared."""
    ppm = search.copies_cosine_ppm
    if ppm == 0 or info is None:
        return math.inf
    return info.calibration.same_cosine if ppm == cut.CALIBRATED else ppm / PPM


def fuse(ranks: Mapping[str, Mapping[int, int]], weights: Mapping[str, float], k: int) -> dict[int, float]:
    """Return the score of each moment, its weighted reciprocal rank: the sum over the lists of weight / (k + rank).

    `ranks` are by list, then by moment, from 1 (see `VectorList.ranks`, `fulltext.Named`); `weights` by list; `k` is
    `[search] rrf_k`. A list of weight 0 adds nothing.
    """
    scores: dict[int, float] = {}
    for name, places in ranks.items():
        if weights[name] > 0:
            for segment_id, rank in places.items():
                scores[segment_id] = scores.get(segment_id, 0.0) + weights[name] / (k + rank)
    return scores
