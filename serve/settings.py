"""The settings of search and of the HTTP door. Imports nothing of ours, so that reading the settings costs nothing."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from typing import ClassVar

POSITIVE = (
    "query_chars_max",
    "rrf_k",
    "bit_reranked",
    "text_rows_max",
    "text_videos_max",
    "text_moments_max",
    "statement_timeout_ms",
    "replicas",
    "encoder_replicas",
    "link_expires_s",
    "cursor_expires_s",
    "cursor_ids_max",
    "encode_batch_max",
    "pool_max",
    "threads_max",
    "store_threads_max",
    "redis_calls_max",
    "hurried_ef_search",
    "cache_entries_max",
    "sources_kept_max",
    "result_cache_s",
    "key_burst",
    "address_burst",
    "searches_max",
    "searches_caller_max",
    "key_weight",
    "lists_max",
    "lists_caller_max",
    "media_burst",
    "probe_burst",
    "wrong_burst",
    "streams_max",
    "streams_address_max",
    "bodies_max",
    "bodies_address_max",
    "large_bodies_max",
    "large_bodies_address_max",
    "images_max",
    "images_caller_max",
    "images_decoded_max",
    "key_questions_max",
    "known_keys_max",
    "refused_bytes_max",
    "refused_bytes_per_s_min",
    "json_max_bytes",
    "json_depth_max",
    "json_values_max",
    "image_pixels_max",
    "object_link_expires_s",
    "feed_limit_max",
    "stake_segments_max",
    "warm_probes",
    "warm_recall_probes",
    "idempotency_s",
    "idempotency_address_s",
)
ABOVE_ZERO = (
    "gate_wait_s",
    "encode_timeout_s", "deadline_s", "change_deadline_s", "question_timeout_s", "thread_wait_s", "thread_timeout_s",
    "store_timeout_s", "liveness_s", "generation_interval_s", "connection_wait_s", "replica_interval_s",
    "key_rate_per_s", "address_rate_per_s", "feed_interval_s", "feed_half_life_s", "scale_interval_s", "warm_wait_s",
    "scale_up_delay_s", "scale_down_delay_s", "media_rate_per_s", "probe_rate_per_s", "wrong_rate_per_s",
    "image_timeout_s", "body_timeout_s", "write_timeout_s", "stream_timeout_s", "growth_interval_s",
    "refused_pause_s", "refused_timeout_s",
)  # fmt: skip
PPM = 1_000_000
WATCHED_ONCE_D = 8  # above the seven days in which a viewer counts once for a moment (`app.watched`)
OBJECT_LINK_MAX_S = 7 * 86_400  # what S3 takes
VARIED = (
    "vector_weight", "text_weight", "rrf_k", "ef_search", "feed_watched_weight", "feed_fresh_weight",
    "feed_stake_weight", "feed_half_life_s",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """Other weights for a share of the viewers."""

    name: str
    share_ppm: int
    search: SearchSettings


@dataclass(frozen=True)
class SearchSettings:
    """How a query becomes an answer, how many replicas answer, and what a caller may ask for."""

    SECTION: ClassVar[str] = "search"

    # What may be asked.
    limit_default: int = 20
    limit_max: int = 100
    query_chars_max: int = 500
    body_max_bytes: int = 12_000_000
    image_max_bytes: int = 8_000_000
    json_max_bytes: int = 64_000  # of every body but an image search's, and of that beside its picture
    json_depth_max: int = 16
    json_values_max: int = 2000
    image_pixels_max: int = 12_000_000  # decoded; a picture takes 4 bytes a pixel, twice
    image_jpeg_pixels_max: int = (
        64_000_000  # a JPEG (not progressive) above the other bound is decoded at a lower scale
    )
    image_folder: str = (
        "queries/"  # of our bucket: the pictures that a search can name; empty: all that Pixr did not write
    )

    # Candidates and their fusion (reciprocal rank, Cormack et al., SIGIR 2009).
    candidates_max: int = 100  # of each list
    exact_rows_max: int = 20_000  # up to here every vector is compared; above, the HNSW index is asked
    ef_search: int = 200  # recall@10 of 0.97 at a million rows (benchmarks/LOG.md)
    scan_tuples_max: int = 100_000
    rrf_k: int = 60
    vector_weight: float = 1.0
    text_weight: float = 0.7
    relevance_min_ppm: int = -1  # of moments that vectors alone find; -1: as the model is calibrated; 0: all are shown
    bit_reranked: int = 4  # of a bit index: vectors compared exactly for each candidate
    ivfflat_probes: int = 0  # lists that are looked through; 0 is twice their root
    text_rows_max: int = 1000  # of several words: of each the best videos that are read, in the order of their ranks
    text_videos_max: int = 50  # of the list of words; each is stood for by its moments nearest to the query
    text_moments_max: int = 2  # of one video
    statement_timeout_ms: int = 1000  # then once more, shorter, with hurried_ef_search
    hurried_ef_search: int = 40
    stake_segments_max: int = 10_000  # that a filter by stake may leave to be compared
    recall_interval_s: float = 60.0  # between searches that are made again by comparing everything; 0 is never
    recall_share_max: float = 0.005  # of the time that such searches may take: of a million rows, half a second each
    recall_timeout_ms: int = 30_000
    warm_probes: int = 200  # searches by which a replica warms an index before it takes any
    warm_recall_probes: int = 10  # of those, made again by comparing everything
    warm_recall_min: float = 0.7  # below it a replica is not ready
    warm_wait_s: float = 90.0  # how long a replica waits for that before it takes searches all the same
    encode_timeout_s: float = 2.0  # then a search goes on without vectors, and earns nothing
    image_timeout_s: float = 2.0  # a picture is decoded, checked and encoded within
    deadline_s: float = 3.0  # of a whole request that reads, from the end of its body to the first byte of the answer
    change_deadline_s: float = 30.0  # of one that changes something

    # Where it is read: replicas of the database while they keep up, else the primary.
    generation_interval_s: float = 1.0  # a takedown is felt within this time
    growth_interval_s: float = 5.0  # between dropping kept answers because videos were added, which many are in a row
    stale_max_s: float = 60.0  # how long kept answers may be shown while the database is away
    connection_wait_s: float = 1.0
    question_timeout_s: float = (
        3.0  # of one question to the database; what a search asks has less (statement_timeout_ms)
    )
    replica_interval_s: float = 1.0
    replica_lag_max_s: float = 2.0

    # What is sent: compressed from a size on, for who takes gzip (level 1 to 9).
    gzip_min_bytes: int = 1024
    gzip_level: int = 3  # a page of 20 moments, 15 kB: 0.16 ms of CPU (benchmarks/LOG.md)
    idempotency_s: int = 86_400  # how long an Idempotency-Key stands for the search it was first sent with
    idempotency_address_s: int = 600  # the same for viewers with neither a key nor a cookie of ours
    operators_from: tuple[str, ...] = ("127.0.0.0/8", "::1/128")  # networks that read /metrics and all of /readyz

    # What is kept: answers and query vectors, in each replica and in Redis.
    cache_entries_max: int = 2048
    cache_max_mb: int = 64
    sources_kept_max: int = 20_000  # pictures and videos of which a replica remembers where they lie
    result_cache_s: int = 60

    # How much may be asked: tokens a second and at most at once, for a key, and for an address (an IPv6 /64) without
    # one: in general, for pictures and the page, for probes and metrics, and for keys that are wrong.
    key_rate_per_s: float = 500.0
    key_burst: int = 2000
    address_rate_per_s: float = 100.0
    address_burst: int = 1000
    media_rate_per_s: float = 300.0
    media_burst: int = 3000
    probe_rate_per_s: float = 20.0
    probe_burst: int = 100
    wrong_rate_per_s: float = 10.0
    wrong_burst: int = 50

    # Anonymous viewers of one network are bounded together: the bits of an address that name it.
    prefix_ipv4_bits: int = 24
    prefix_ipv6_bits: int = 48

    # What a replica does at once; who comes after that is answered 503. Each kind has places of its own, and of some of
    # them one caller has a part (`_caller_max`, `_address_max`): an address, or a key, for all who use it together.
    searches_max: int = 8  # at once; more make each of them slower and none sooner
    searches_caller_max: int = 6  # of those, what one key or address may have; its others wait behind them
    gate_wait_s: float = 1.0  # for a place; what is begun later is seldom done before its deadline
    key_weight: float = 8.0  # by which keys have more of the places than addresses without one, while both wait
    kept_part: int = 4  # one in so many places that are held for long (bodies, pictures, streams) is for keys alone
    lists_max: int = 2  # pages of videos and creators, which may read and count many rows
    lists_caller_max: int = 1  # of those, what one key or address may have
    waiting_max: int = 64
    streams_max: int = 64
    streams_address_max: int = 16
    bodies_max: int = 128  # on their way in
    bodies_address_max: int = 32
    large_bodies_max: int = 4  # above json_max_bytes, in memory: a body of 12 MB takes four times that
    large_bodies_address_max: int = 3  # being read; a network without a key has half of all at most
    images_max: int = 4  # pictures on their way to the encoder, and searches by one: half of searches_max at most
    images_caller_max: int = 3  # of those, what one key or address may have
    images_decoded_max: int = 2  # pictures that an encoder holds decoded
    key_questions_max: int = 4  # to the database, of its connections
    known_keys_max: int = 200_000  # the newest, of which a replica knows that they exist (8 bytes each)
    body_timeout_s: float = 10.0  # until a whole body is there
    # Of a refused body so much is read and thrown away before the refusal is said, while it comes so quickly, after a
    # first pause: who sends at full speed then sees why. What drips is answered after the pause, and cut off at the door.
    refused_bytes_max: int = 32_000_000
    refused_bytes_per_s_min: int = 262_144
    refused_pause_s: float = 0.5
    refused_timeout_s: float = 2.0
    write_timeout_s: float = 10.0  # for a part of an answer; a client that does not read is cut off
    stream_timeout_s: float = 15.0  # of a search in parts, to its last byte

    # Variants: "NAME SHARE_PPM WEIGHT=VALUE …", other weights for so many of a million viewers; the rest has none.
    variants: tuple[str, ...] = ()

    # The feed. Weights of what is watched, new and invested in; an age in which newness halves.
    feed_interval_s: float = 2.0
    feed_limit_max: int = 100
    feed_watched_weight: float = 1.0
    feed_fresh_weight: float = 1.0
    feed_stake_weight: float = 0.5  # of what is invested in a moment, by its logarithm
    feed_half_life_s: float = 7 * 86_400.0
    watch_events_keep_d: int = 90  # days, after which a viewer may be shown again what they have watched; 0: for ever

    # Links, and cursors: the ids of the further pages, frozen.
    link_expires_s: int = 6 * 3600
    object_link_expires_s: int = (
        300  # at most, the link to the object store that one of ours leads to: none can be revoked
    )
    cursor_expires_s: int = 900
    cursor_ids_max: int = 200

    # Serving. CPUs are logical, and few on a laptop. A `_max` above the number beside it lets Serve scale up to it.
    replicas: int = 1
    replicas_max: int = 0
    replica_cpus: float = 0.2
    encoder_replicas: int = 1
    encoder_replicas_max: int = 0
    encoder_cpus: float = 0.2
    encode_batch_max: int = 16
    ongoing_requests_max: int = 512  # above the sum of all gates: they decide who is sent away
    queued_requests_max: int = 256
    scale_interval_s: float = 1.0  # between looks at how busy replicas are
    scale_up_delay_s: float = 2.0  # of more work than they should have, before there are more of them
    scale_down_delay_s: float = 120.0
    pool_max: int = 8  # connections of a replica to each database
    threads_max: int = 8  # of a replica for rare calls, each with a connection; as many connections more
    thread_wait_s: float = 2.0  # for one of those to be free
    thread_timeout_s: float = 25.0  # of such a call, and of a statement in it
    store_threads_max: int = 8  # of a replica for calls to the object store
    store_timeout_s: float = 20.0  # of such a call
    redis_calls_max: int = 64  # at once, of a replica
    liveness_s: float = 15.0  # without an answer of a database that answers others: then a replica is replaced
    keep_interval_s: float = 2.0
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.limit_default <= self.limit_max <= self.candidates_max:
            raise ValueError("limit_default ≤ limit_max ≤ candidates_max must hold, from 1")
        if self.vector_weight < 0 or self.text_weight < 0 or self.vector_weight + self.text_weight == 0:
            raise ValueError("vector_weight and text_weight must not be negative, nor both 0")
        if not 0 < self.recall_share_max <= 1:
            raise ValueError(f"recall_share_max is {self.recall_share_max}, expected a share above 0, up to 1")
        if not 0 <= self.warm_recall_min <= 1:
            raise ValueError(f"warm_recall_min is {self.warm_recall_min}, expected a share from 0 to 1")
        if self.image_folder.startswith("/") or not f"/{self.image_folder}".endswith("/"):
            raise ValueError(f"image_folder is {self.image_folder!r}, expected a folder like 'queries/', or nothing")
        if not 1 <= self.ef_search <= 1000:
            raise ValueError(f"ef_search is {self.ef_search}, pgvector takes 1 to 1000")
        if self.object_link_expires_s > OBJECT_LINK_MAX_S:
            raise ValueError(f"object_link_expires_s is {self.object_link_expires_s}, at most {OBJECT_LINK_MAX_S}")
        if self.ongoing_requests_max < self.gated_max:
            raise ValueError(f"ongoing_requests_max must be at least {self.gated_max}, the sum of all gates")
        if not (1 <= self.prefix_ipv4_bits <= 32 and 1 <= self.prefix_ipv6_bits <= 128):
            raise ValueError("prefix_ipv4_bits must be 1 to 32, prefix_ipv6_bits 1 to 128")
        self._check_least()
        self._check_manners()
        self.varied()

    @property
    def gated_max(self) -> int:
        """Requests that hold or await a place of some gate."""
        bodies = self.bodies_max + self.large_bodies_max * 3
        waited_for = self.searches_max + self.lists_max + self.key_questions_max + self.waiting_max * 3
        return waited_for + self.pictures_at_once_max + self.pictures_waiting_max + self.streams_max + bodies

    @property
    def pictures_at_once_max(self) -> int:
        """Searches by a picture that a replica makes at once: half of its searches at most."""
        return min(self.images_max, max(1, self.searches_max // 2))

    @property
    def pictures_waiting_max(self) -> int:
        """Searches by a picture that wait for such a place."""
        return max(1, self.waiting_max // 2)

    def _check_least(self) -> None:
        if not -1 <= self.relevance_min_ppm <= PPM:
            raise ValueError(f"relevance_min_ppm is {self.relevance_min_ppm}, expected 0 to {PPM}, or -1")
        if not self.key_weight > 1:
            raise ValueError(
                "key_weight must be above 1, which those without a key weigh: places for keys would be nobody's"
            )
        if self.kept_part < 2:
            raise ValueError("kept_part must be 2 or more: those without a key need places too")
        for name in POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        for name in ABOVE_ZERO:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")

    def _check_manners(self) -> None:
        if self.watch_events_keep_d and self.watch_events_keep_d < WATCHED_ONCE_D:
            raise ValueError(
                f"watch_events_keep_d is {self.watch_events_keep_d}, expected 0 or {WATCHED_ONCE_D} or more"
            )
        if not 1 <= self.gzip_level <= 9:
            raise ValueError(f"gzip_level is {self.gzip_level}, expected 1 to 9")
        for network in self.operators_from:
            ipaddress.ip_network(network)  # a ValueError says what is wrong with it

    def varied(self) -> tuple[Variant, ...]:
        """The variants, each with the settings it searches by."""
        found = tuple(self._variant(text) for text in self.variants)
        if len({each.name for each in found}) < len(found):
            raise ValueError("variants must have different names")
        if sum(each.share_ppm for each in found) > PPM:
            raise ValueError(f"the shares of variants come to more than {PPM}")
        return found

    def _variant(self, text: str) -> Variant:
        words = text.split()
        if len(words) < 3 or not words[0].isidentifier() or not words[1].isdecimal() or int(words[1]) < 1:
            raise ValueError(f'variant {text!r} must be "NAME SHARE_PPM WEIGHT=VALUE …"')
        name, share, *pairs = words
        known = {weight: value for weight, _, value in (pair.partition("=") for pair in pairs)}
        if not known.keys() <= set(VARIED):
            raise ValueError(f"variant {name} may change {', '.join(VARIED)}")
        weights = {each: type(getattr(self, each))(value) for each, value in known.items()}
        return Variant(name, int(share), replace(self, variants=(), **weights))
