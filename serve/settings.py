"""The settings of search and of the HTTP interface. Imports nothing of ours, so that reading the settings is quick."""

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
WATCHED_ONCE_D = 8  # days; above the seven in which a viewer counts once for a moment (`app.watched`)
OBJECT_LINK_MAX_S = 7 * 86_400  # S3's own limit
VARIED = (  # settings that a variant may change
    "vector_weight", "text_weight", "rrf_k", "ef_search", "feed_watched_weight", "feed_fresh_weight",
    "feed_stake_weight", "feed_half_life_s",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """A variant: the settings that the search has for a share of the viewers, in parts per million of them.

    Only the settings in `VARIED` may differ from the deployment's.
    """

    name: str
    share_ppm: int
    search: SearchSettings


@dataclass(frozen=True)
class SearchSettings:
    """How searches are answered, how many replicas answer them, and how much a caller may ask for."""

    SECTION: ClassVar[str] = "search"

    # Requests.
    limit_default: int = 20  # moments on a page, where the caller asks for no number
    limit_max: int = 100  # moments on a page that a caller can ask for
    query_chars_max: int = 500  # length of a text
    body_max_bytes: int = 12_000_000  # size of a body, with its picture
    image_max_bytes: int = 8_000_000  # size of a picture, in a body or in the store
    json_max_bytes: int = 64_000  # size of a body; the picture of an image search does not count
    json_depth_max: int = 16  # levels of a body that are nested in each other
    json_values_max: int = 2000  # values in a body
    image_pixels_max: int = 12_000_000  # size of a decoded picture, which takes 4 bytes a pixel, twice
    # Size of a JPEG that is not progressive: a large one is decoded at a lower scale.
    image_jpeg_pixels_max: int = 64_000_000
    # Folder of our bucket with the pictures that a search can name; empty: all of it but what Pixr itself writes.
    image_folder: str = "queries/"

    # Candidates and their fusion (reciprocal rank, Cormack et al., SIGIR 2009).
    candidates_max: int = 100  # candidates of the list of vectors, and of both fused; words: `text_videos_max`
    exact_rows_max: int = 20_000  # up to this many rows every vector is compared; above, the index is searched
    # Candidates that the index walks with: 200 have a recall@10 of 0.97 at a million rows (benchmarks/LOG.md).
    ef_search: int = 200
    scan_tuples_max: int = 100_000  # rows that one walk of the index meets (hnsw.max_scan_tuples of pgvector)
    rrf_k: int = 60  # a candidate of rank r gets 1 / (rrf_k + r) from each list
    vector_weight: float = 1.0  # weight of the list of vectors
    text_weight: float = 0.7  # weight of the list of words
    # Least relevance of moments found by vectors alone; -1: as the model is calibrated; 0: show all.
    relevance_min_ppm: int = -1
    # Least cosine of two videos' moments that show the same pictures, one of which earns; -1: as the model is calibrated;
    # 0: both earn. Half a cosine or less never means the same pictures.
    copies_cosine_ppm: int = -1
    bit_reranked: int = 4  # for a bit index: vectors compared exactly, per candidate
    ivfflat_probes: int = 0  # lists that are searched; 0: twice the square root of their number
    text_rows_max: int = 1000  # for several words: videos that are read per word, the best first
    text_videos_max: int = 50  # videos in the list of words; their moments nearest to the query represent them
    text_moments_max: int = 2  # such moments per video
    statement_timeout_ms: int = 1000  # for a statement of a search; then one shorter try follows
    hurried_ef_search: int = 40  # `ef_search` of that shorter try
    stake_segments_max: int = 10_000  # segments that a filter by stake may leave to be compared
    recall_interval_s: float = 60.0  # between searches that are repeated by comparing everything; 0: never
    recall_share_max: float = 0.005  # share of the time for such searches; one takes half a second on a million rows
    recall_timeout_ms: int = 30_000  # for a search that compares everything
    warm_probes: int = 200  # searches by which a replica warms an index before it takes requests
    warm_recall_probes: int = 10  # of those, repeated by comparing everything
    warm_recall_min: float = 0.7  # a replica with a lower recall is not ready
    warm_wait_s: float = 90.0  # how long a replica waits for that before it takes requests all the same
    encode_timeout_s: float = 2.0  # then a search goes on without vectors, and earns nothing
    image_timeout_s: float = 2.0  # for decoding, checking and encoding a picture
    deadline_s: float = 3.0  # for a request that reads, from the end of its body to the first byte of the response
    change_deadline_s: float = 30.0  # for a request that changes something

    # The database: standbys while they keep up, else the primary.
    generation_interval_s: float = 1.0  # a takedown takes effect within this time
    growth_interval_s: float = 5.0  # between clearing caches because videos were added, often many in a row
    stale_max_s: float = 60.0  # how old cached answers may be while the database is away
    connection_wait_s: float = 1.0  # for a free connection of the pool
    question_timeout_s: float = 3.0  # for one call of the database; searches have less (statement_timeout_ms)
    replica_interval_s: float = 1.0  # between checks of how far standbys lag behind
    replica_lag_max_s: float = 2.0  # a standby that lags further behind is not read from

    # Responses: compressed from a size on, for clients that accept gzip (level 1 to 9).
    gzip_min_bytes: int = 1024  # smallest response that is compressed
    # 1 is the fastest, 9 the smallest. With 3 a page of 20 moments, 15 kB, takes 0.16 ms of CPU (benchmarks/LOG.md).
    gzip_level: int = 3

    # Idempotency keys, and operators.
    idempotency_s: int = 86_400  # how long an Idempotency-Key stands for the search that it was first sent with
    idempotency_address_s: int = 600  # the same for viewers with neither a key nor our cookie
    operators_from: tuple[str, ...] = ("127.0.0.0/8", "::1/128")  # networks that may read /metrics and all of /readyz

    # Caches of answers and query vectors, in each replica and in Redis.
    cache_entries_max: int = 2048  # answers that a replica caches, and query vectors
    cache_max_mb: int = 64  # memory of a replica for cached answers
    sources_kept_max: int = 20_000  # pictures and videos whose S3 addresses a replica caches
    result_cache_s: int = 60  # how long a cached answer is given

    # Rate limits: tokens a second, and at most at once. For a key; and without a key for an address (an IPv6 /64): in
    # general, for pictures and the page, for probes and metrics, and for wrong keys.
    key_rate_per_s: float = 500.0  # tokens that a key gets
    key_burst: int = 2000  # tokens that a key can have at once
    address_rate_per_s: float = 100.0  # tokens that an address gets
    address_burst: int = 1000  # tokens that an address can have at once
    media_rate_per_s: float = 300.0  # the same for pictures, videos and the page
    media_burst: int = 3000  # tokens for these at once
    probe_rate_per_s: float = 20.0  # the same for probes and metrics
    probe_burst: int = 100  # tokens for these at once
    wrong_rate_per_s: float = 10.0  # the same for requests with a wrong key
    wrong_burst: int = 50  # tokens for these at once

    # Anonymous viewers of one network are bounded together; the first bits of an address name it.
    prefix_ipv4_bits: int = 24  # first bits of an IPv4 address that name its network
    prefix_ipv6_bits: int = 48  # the same of an IPv6 address

    # How much a replica does at once; further requests get 503. Each kind has places of its own, of which one caller may
    # have a part (`…_caller_max`, `…_address_max`). A caller is an address, or a key with all who use it.
    searches_max: int = 8  # searches at once; more would only make each of them slower
    searches_caller_max: int = 6  # of those, by one key or address; its others wait
    gate_wait_s: float = 1.0  # for a place; a request that starts later seldom ends before its deadline
    key_weight: float = 8.0  # how many times more places keys get than addresses without one, while both wait
    kept_part: int = 4  # one in this many places that are held for long (bodies, pictures, streams) is for keys only
    lists_max: int = 2  # pages of videos and creators, which may read and count many rows
    lists_caller_max: int = 1  # of those, by one key or address
    waiting_max: int = 64  # requests that wait at one gate
    streams_max: int = 64  # searches in parts
    streams_address_max: int = 16  # of those, by one key or address
    bodies_max: int = 128  # bodies that are being received
    bodies_address_max: int = 32  # of those, by one key or address
    large_bodies_max: int = 4  # bodies above `json_max_bytes`, in memory: one of 12 MB takes four times that
    # Of those, by one key or address; a network without a key gets half of all at most.
    large_bodies_address_max: int = 3
    images_max: int = 4  # pictures on their way to the encoder, and searches by one: half of searches_max at most
    images_caller_max: int = 3  # of those, by one key or address
    images_decoded_max: int = 2  # pictures that an encoder holds decoded
    key_questions_max: int = 4  # lookups of keys in the database
    known_keys_max: int = 200_000  # the newest keys of which a replica knows that they exist (8 bytes each)
    body_timeout_s: float = 10.0  # until a body has arrived completely
    # The rest of a refused body is read and discarded before the refusal is sent, up to a size, while it arrives at this
    # speed after a first pause: so a fast client sees the reason. A slow one is answered after the pause and cut off.
    refused_bytes_max: int = 32_000_000
    refused_bytes_per_s_min: int = 262_144  # speed above which it is read on after the pause
    refused_pause_s: float = 0.5  # how long it is read before its speed counts
    refused_timeout_s: float = 2.0  # for reading it, at most
    write_timeout_s: float = 10.0  # for a part of a response; a client that does not read is cut off
    stream_timeout_s: float = 15.0  # for a search in parts, to its last byte

    # Variants: "NAME SHARE_PPM WEIGHT=VALUE …", other weights for that share of the viewers; all others have none.
    variants: tuple[str, ...] = ()

    # The feed: weights of what is watched, new and invested in.
    feed_interval_s: float = 2.0  # between readings of the feed from the database
    feed_limit_max: int = 100  # moments on a page of the feed
    feed_watched_weight: float = 1.0  # weight of what is watched
    feed_fresh_weight: float = 1.0  # weight of what is new
    feed_stake_weight: float = 0.5  # weight of what is invested in a moment, by its logarithm
    feed_half_life_s: float = 7 * 86_400.0  # the age at which newness has halved
    watch_events_keep_d: int = 90  # of watch events; then a viewer may be shown again what they watched; 0: for ever

    # Links; and cursors, which contain the ids of the further pages.
    link_expires_s: int = 6 * 3600  # lifetime of signed links to pictures and videos
    # Lifetime of links to the object store, which signed links redirect to and nothing can revoke.
    object_link_expires_s: int = 300
    cursor_expires_s: int = 900  # lifetime of a cursor
    cursor_ids_max: int = 200  # moments that a cursor contains

    # Serving. CPUs are logical, and low enough for a laptop. Where `…_max` is above the number before it, Serve scales.
    replicas: int = 1  # replicas that answer requests
    replicas_max: int = 0  # the most that Serve scales to; 0: it does not scale
    replica_cpus: float = 0.2  # logical CPUs of a replica
    encoder_replicas: int = 1  # replicas that encode queries
    encoder_replicas_max: int = 0  # the most that Serve scales to; 0: it does not scale
    encoder_cpus: float = 0.2  # logical CPUs of one of them
    encode_batch_max: int = 16  # texts that are encoded at once
    # Requests of a replica at once; above the sum of all gates, so that the gates decide which requests are refused.
    ongoing_requests_max: int = 512
    queued_requests_max: int = 256  # requests that wait in Serve for a replica; further ones are refused
    scale_interval_s: float = 1.0  # between measurements of how busy replicas are
    scale_up_delay_s: float = 2.0  # of too much work, before replicas are added
    scale_down_delay_s: float = 120.0  # of too little work, before replicas are removed
    pool_max: int = 8  # connections of a replica to each database
    threads_max: int = 8  # threads of a replica for rare calls of the database, each with a further connection
    thread_wait_s: float = 2.0  # for a free thread
    thread_timeout_s: float = 25.0  # for such a call, and for a statement in it
    store_threads_max: int = 8  # threads of a replica for calls of the object store
    store_timeout_s: float = 20.0  # for a call of the object store
    redis_calls_max: int = 64  # calls of Redis at once, by one replica
    liveness_s: float = 15.0  # a replica is replaced when its database, which answers others, is silent for so long
    keep_interval_s: float = 2.0  # between checks of the deployer (serve/service.py)
    # Other sites whose pages may call the interface from a browser; their searches count as those of our own page.
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
        self._check_others()
        self.varied()

    @property
    def gated_max(self) -> int:
        """Requests that can hold or await a place at the gates at once."""
        bodies = self.bodies_max + self.large_bodies_max * 3
        waited_for = self.searches_max + self.lists_max + self.key_questions_max + self.waiting_max * 3
        return waited_for + self.pictures_at_once_max + self.pictures_waiting_max + self.streams_max + bodies

    @property
    def pictures_at_once_max(self) -> int:
        """How many searches by a picture a replica makes at once: half of all searches at most."""
        return min(self.images_max, max(1, self.searches_max // 2))

    @property
    def pictures_waiting_max(self) -> int:
        """How many searches by a picture may wait at the gate: half of all searches that may wait, at least one."""
        return max(1, self.waiting_max // 2)

    def _check_least(self) -> None:
        """Check that settings are not below their minimum."""
        if not -1 <= self.relevance_min_ppm <= PPM:
            raise ValueError(f"relevance_min_ppm is {self.relevance_min_ppm}, expected 0 to {PPM}, or -1")
        if self.copies_cosine_ppm not in (-1, 0) and not PPM // 2 < self.copies_cosine_ppm <= PPM:
            expected = f"above {PPM // 2} to {PPM}, 0 or -1"
            raise ValueError(f"copies_cosine_ppm is {self.copies_cosine_ppm}, expected {expected}")
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

    def _check_others(self) -> None:
        """Check further settings, each against limits of its own."""
        if self.watch_events_keep_d and self.watch_events_keep_d < WATCHED_ONCE_D:
            raise ValueError(
                f"watch_events_keep_d is {self.watch_events_keep_d}, expected 0 or {WATCHED_ONCE_D} or more"
            )
        if not 1 <= self.gzip_level <= 9:
            raise ValueError(f"gzip_level is {self.gzip_level}, expected 1 to 9")
        for network in self.operators_from:
            ipaddress.ip_network(network)  # raises ValueError

    def varied(self) -> tuple[Variant, ...]:
        """Return the variants, each with the settings that it searches with.

        Raises:
            ValueError: a variant is malformed, names repeat, or the shares exceed 1,000,000.
        """
        variants = tuple(self._variant(text) for text in self.variants)
        if len({variant.name for variant in variants}) < len(variants):
            raise ValueError("variants must have different names")
        if sum(variant.share_ppm for variant in variants) > PPM:
            raise ValueError(f"the shares of variants come to more than {PPM}")
        return variants

    def _variant(self, text: str) -> Variant:
        """Parse one variant."""
        words = text.split()
        if len(words) < 3 or not words[0].isidentifier() or not words[1].isdecimal() or int(words[1]) < 1:
            raise ValueError(f'variant {text!r} must be "NAME SHARE_PPM WEIGHT=VALUE …"')
        name, share, *pairs = words
        known = {weight: value for weight, _, value in (pair.partition("=") for pair in pairs)}
        if not known.keys() <= set(VARIED):
            raise ValueError(f"variant {name} may change {', '.join(VARIED)}")
        weights = {weight: type(getattr(self, weight))(value) for weight, value in known.items()}
        return Variant(name, int(share), replace(self, variants=(), **weights))
