"""The headline figures, suite by suite, each with the bar that it must reach or the baseline that it stands beside.

A figure is found by the name that its suite writes. If a suite renames it, this module must follow: a test fails if a
figure that was measured has no row any more. Bars that no row states were agreed on when the work was ordered.
"""

from __future__ import annotations

from functools import partial

from benchmarks.report.headline import LESS, LESS_IS_BETTER, MORE, MORE_IS_BETTER, Bar, Headline, Suite

SEARCH = Suite("search", ("`pixr bench search`",))
WORDS = Suite("search", ("`pixr bench search`", "`pixr bench search-words`"))
GROWTH = Suite("search", ("`pixr bench search`", "`growth of search once more"))
INGEST = Suite("ingest", ("`pixr bench ingest`", "`pixr bench ingest-large`", "`pixr bench ingest-short`"))
LEDGER = Suite("ledger", ("`pixr bench ledger`",))

search, words, growth = partial(Headline, SEARCH), partial(Headline, WORDS), partial(Headline, GROWTH)
moments = partial(Headline, Suite("moments", ("`pixr bench moments`",)))
cut = partial(Headline, Suite("moments", ("`python -m pipelines.training.cut",)))
encoder = partial(Headline, Suite("encoder", ("`pixr bench encoder`",)))
ingest = partial(Headline, INGEST)
refusals = partial(Headline, Suite("ingest", ("seconds until the reason of each of ten refused files",)))  # by hand
decode = partial(Headline, Suite("decode", ("`pixr bench ingest-decode`",)))
shots = partial(Headline, Suite("shots", ("`pixr bench ingest-shots`",)))
listing = partial(Headline, Suite("listing", ("`pixr bench ingest-listing`",)))
ledger = partial(Headline, LEDGER)
simulator = partial(Headline, Suite("ledger in bad weather", ("`python -m tests.ledger.simulator",)))
scale = partial(Headline, Suite("ledger beside 5 million creators", ("`ledger_scale --share 1`",)))
mutations = partial(Headline, Suite("ledger's tests", ("`pixr bench mutations`", "`python -m benchmarks.mutations")))
economy = partial(Headline, Suite("economy", ("`pixr bench economy`", "`python -m benchmarks.economy")))
village = partial(Headline, Suite("economy, one village by hand", ("`benchmarks.economy`, seed 0",)))
reckoning = partial(Headline, Suite("economy, reckoned", ("`python -m benchmarks.economy.reckoning`",)))
hamlet = partial(Headline, Suite("economy, one hamlet by hand", ("the attacks of `benchmarks.economy` on a hamlet",)))
doors = partial(Headline, Suite("doors", ("`pytest -m slow tests/hostile/test_mixed.py`",)))

FIRST = r"(?P<value>[^ ]+ [^ ,]+)\b.*"  # a number and its unit; details follow
RATE = r"(?P<value>[\d,.]+/s)\b.*"
COUNT = r"(?P<value>\d+) .*"
PERCENT = r"(?P<value>[\d.]+%).*"
LAMPORTS = r".*; (?P<value>[\d.]+ lamports) of .*"
OF_TEN = r"(?P<value>[\d.]+) of the true ten best videos: .*"
FAR = r"far \(text-like\)"
JOB = r"ingest job, \d+ videos of 20 to 60 s, 1080p, {}: "

WITHIN_30_MS, WITHIN_50_MS = Bar("less", 30, text="30 ms at most"), Bar("less", 50, text="50 ms at most")
AT_LEAST_95 = Bar("more", 0.95, text="0.95 at least")
AT_MOST_2, AT_MOST_10 = Bar("less", 2, text="2 % at most"), Bar("less", 10, text="10 % at most")


def _http(moments: str, how: str, what: str = "p50 .+, p95", through: str = "vectors by table") -> str:
    """Return the pattern for the name that LOG.md gives to a figure of requests over HTTP.

    Args:
        moments: The number of moments in the catalogue, as LOG.md writes it.
        how: The kind of query, and whether by vectors alone or hybrid.
        what: What was measured.
        through: Where the vectors of texts come from.
    """
    return f"{moments} x 512 synthetic, {how}, {through}, over HTTP, 4 clients, uncached: {what}"


HEADLINES = (
    search("recall@10, near, 1 M moments", _http("1,000,000", "near, vectors alone", "recall@10")),
    search("recall@10, far, 1 M moments", _http("1,000,000", f"{FAR}, vectors alone", "recall@10")),
    search("p95 by vectors, near, 1 M moments", _http("1,000,000", "near, vectors alone"), LESS_IS_BETTER),
    words("p95 hybrid, near, 200,000 moments", _http("200,000", "near, hybrid"), WITHIN_30_MS),
    words("p95 hybrid, far, 200,000 moments", _http("200,000", f"{FAR}, hybrid"), WITHIN_30_MS),
    words("p95 hybrid, near, 1 M moments", _http("1,000,000", "near, hybrid"), WITHIN_50_MS),
    words("p95 hybrid, far, 1 M moments", _http("1,000,000", f"{FAR}, hybrid"), WITHIN_50_MS),
    search(
        "p95 hybrid with the bundled text tower, far, 1 M moments",
        _http("1,000,000", f"{FAR}, hybrid", through="text tower pixr-emoji"),
        LESS_IS_BETTER,
    ),
    search(
        "kept answers",
        "kept answers .*, 4 clients",
        MORE_IS_BETTER,
        RATE,
        baseline=".* a bare echo (?:in the same mode|behind the same door)",
    ),
    growth(
        "CPU of PostgreSQL a query, 1 M beside 100,000",
        "CPU of PostgreSQL a query at .*, 100,000 .* to 1,000,000 rows .*",
    ),
    growth(
        "CPU of a whole request, 1 M beside 100,000", "CPU of a whole request over HTTP .*, 100,000 to 1,000,000 rows"
    ),
    words(
        "true ten best by three words, 1 M",
        r"1,000,000 moments, words, three words \(as the load asks\)",
        AT_LEAST_95,
        OF_TEN,
    ),
    words(
        "true ten best by three words, common ones too, 1 M",
        "1,000,000 moments, words, three words, common ones too",
        AT_LEAST_95,
        OF_TEN,
    ),
    moments("the very clip by its caption, R@1", "caption R@1, the very clip", MORE),
    moments("the very clip by its caption, R@5", "caption R@5, the very clip", MORE),
    moments(
        "the right moment of clips found first", r"the right moment \(IoU >= 0\.5\) of clips found at rank 1", MORE
    ),
    moments("a keyword, R@5", "keyword R@5", MORE),
    moments("a picture, R@1", "picture, a moment of the same concept R@1", MORE),
    moments("more like this, R@1", "more like this, another clip of the same concept R@1", MORE),
    cut("nonsense matches nothing", "the cut, .*: nonsense strings that match nothing", MORE),
    cut("things never learned match nothing", "the cut, .*: things that the model never learned match nothing", MORE),
    cut(
        "known things that no clip shows match nothing",
        "the cut, .* that no clip shows match nothing",
        MORE,
        "(?P<value>[^;]+).*",
    ),
    cut("R@5 that this costs", "the cut, .*: R@5 that the questions of calibration lose", LESS),
    encoder("loading, after imports", "pixr-emoji: loading, after imports", LESS),
    encoder("the text of a query", "pixr-emoji: one query's text", LESS),
    encoder("frames on one core", "pixr-emoji: frames on one core, batch 32", MORE),
    ingest("frames a second, pixr-emoji", JOB.format("pixr-emoji") + "frames a second, steady", MORE_IS_BETTER, COUNT),
    ingest(
        "frames a CPU second, pixr-emoji",
        JOB.format("pixr-emoji") + "frames a CPU second, steady",
        MORE_IS_BETTER,
        COUNT,
    ),
    ingest("frames a second, ViT-B-32", JOB.format("ViT-B-32.*") + "frames a second, steady", MORE_IS_BETTER, COUNT),
    ingest(
        "frames a CPU second, ViT-B-32", JOB.format("ViT-B-32.*") + "frames a CPU second, steady", MORE_IS_BETTER, COUNT
    ),
    ingest(
        "frames a CPU second, all of the job, pixr-emoji",
        JOB.format("pixr-emoji") + "frames a CPU second",
        MORE_IS_BETTER,
    ),
    ingest(
        "CPU in decoding and embedding, of all",
        JOB.format("pixr-emoji") + "decode and embed as a share of all CPU seconds",
        Bar("more", 0.85, of="ratio"),
        "(?P<value>[^;]+).*",
    ),
    ingest("CPU a video of 2 s, 1,000 beside 100 videos", "CPU a video of 2 s, 1000 videos"),
    refusals(
        "until a refusal is named, first job of a new data folder",
        "(?P<value>[^;]+);.*",
        Bar("less", 20, text="20 s at most"),
        value="",
    ),
    decode("4K, every frame, CPU", r"4K H\.264, \d+ frames: decode, shots, samples, CPU", LESS_IS_BETTER, FIRST),
    decode(
        "4K, every frame, wall",
        r"4K H\.264, \d+ frames: decode, shots, samples, wall on \d+ cores",
        LESS_IS_BETTER,
        FIRST,
    ),
    decode("10 minutes of 4K on 16 cores, projected", "10 minutes of this 4K on 16 cores, projected .*", LESS),
    decode("peak memory, an hour beside a minute", "peak memory of a 60-minute video, child and parent"),
    shots("F1, hard cuts", "shots, hard cuts, F1", MORE_IS_BETTER),
    shots("F1, dissolves and fades", "shots, dissolves and fades, F1", MORE_IS_BETTER),
    shots("CPU of the whole pass", "shots, whole pass, CPU", LESS_IS_BETTER),
    shots("CPU of the detector a frame", "shots, detector alone, CPU a frame", LESS),
    listing("100,000 objects, all done, skipped", "a bucket of 100,000 objects: listed and skipped, all done", LESS),
    ledger("appearances recorded", "appearances recorded", MORE_IS_BETTER),
    ledger(
        "appearances folded into the journal",
        "recorded batches to folded journal",
        Bar("more", 0.6, of="ratio", text="0.6 of the baseline at least"),
        FIRST,
    ),
    ledger("payouts, one signer", "payouts planned, packed, signed and committed, one signer", MORE, RATE),
    ledger(
        "payouts, separate gas payer", "payouts planned, packed, signed and committed, a separate gas payer", MORE, RATE
    ),
    ledger("fees a recipient, one signer", "10,000 creators paid on the localnet, one signer", LESS, LAMPORTS),
    ledger("fees a recipient, separate gas payer", "10,000 creators paid on .*, a separate gas payer", LESS, LAMPORTS),
    simulator(
        "double payouts, 2,000 seeds",
        "payouts simulated, ours",
        Bar("less", 0, text="none"),
        r"2000 seeds.*: (?P<value>\d+) double.*",
    ),
    scale("p99 of a round", "a round of every part with .*", Bar("less", 1.0, of="ratio"), "p99 (?P<value>[^,]+).*"),
    scale("memory of its own", "memory of the ledger", LESS, FIRST),
    scale("a plan with nothing due", "a plan with nothing due", LESS, FIRST),
    scale("a plan with 10,000 due", "a plan with 10,000 due", LESS, FIRST),
    scale("a start", "start, its files there", LESS),
    mutations(
        "mutants noticed",
        "mutants of the money modules that a test notices",
        Bar("more", 0.95, of="ratio"),
        r"(?P<value>[^(]+) \(.*",
    ),
    economy("kept by the farm that keeps most", "kept by the farm that keeps most of its uncapped take", LESS, PERCENT),
    economy("honest creators of a hamlet lose", "honest creators of a hamlet lose", LESS, PERCENT),
    economy("honest creators of a village lose", "honest creators of a village lose", LESS, PERCENT),
    economy("honest creators of a town lose", "honest creators of a town lose", LESS, PERCENT),
    village("farms keep", r".*farms keep at most (?P<value>[\d.]+ %).*", LESS, value=""),
    village("honest creators lose", r".*honest creators lose (?P<value>[\d.]+ %).*", LESS, value=""),
    village("the creator who loses most", r".* alone likes, (?P<value>[\d.]+ %).*", AT_MOST_10, value=""),
    reckoning(
        "a ring of the four best known keeps",
        r"settings as they are .* known (?P<value>[\d.]+ %).*",
        AT_MOST_2,
        value="",
    ),
    hamlet(
        "a neighbour who fills a shared network's day costs",
        r"a neighbour behind .* costs creators (?P<value>[\d.]+ %).*",
        AT_MOST_10,
        value="",
    ),
    doors(
        "p95 of a quiet client beside 19 kinds of strangers",
        r"[\d,]+ of [\d,]+ answered, .*?p95 (?P<value>[\d,]+ ms)[,;].*",
        Bar("less", 3.0, of="ratio", text="3 times the baseline at most"),
        value="",
    ),
)
