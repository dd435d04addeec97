"""Full text: how many of the truly best videos it finds, what that costs, and whole requests by words and vectors together.

`benchmarks.search` measures full text too, among other things; this module is for changes of full text only.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence

import numpy as np
import psutil
from psycopg import AsyncConnection

from benchmarks import search_corpus, search_http
from benchmarks.run import Figure
from benchmarks.search_corpus import Corpus
from benchmarks.search_http import LIMIT
from benchmarks.search_load import cpu_s
from cluster.database import database
from cluster.settings import Settings
from pipelines.index import fulltext
from pipelines.index.vectors import SearchLimits
from serve.settings import SearchSettings

ROWS = (200_000, 1_000_000)
DEFAULTS = SearchSettings()


def run(settings: Settings) -> Iterator[Figure]:
    """Measure on catalogues in the data folder's `search-…`, which `benchmarks.search` uses too."""
    for rows in ROWS:
        own = of(settings, rows)
        with search_corpus.corpus(own, rows) as corpus:
            yield from words(corpus)
            yield from search_http.by_words_too(own, corpus)


def of(settings: Settings, rows: int) -> Settings:
    """Return settings whose data folder is that of the catalogue with `rows` moments."""
    return dataclasses.replace(settings, data_dir=settings.data_dir / f"search-{rows}")


def words(corpus: Corpus) -> Iterator[Figure]:
    """Measure the CPU of finding videos by words, rare and common, and how many of the true ten best are found.

    The true score is computed here for every video that has any of the words; videos with equal scores are equally good.
    """
    name, plan = f"{corpus.rows:,} moments, words", SearchLimits(text_rows=DEFAULTS.text_rows_max, timeout_ms=60_000)
    scores = _Scores(corpus.url)
    for kind, texts in word_texts().items():
        found, cpu_ms = asyncio.run(_matched(corpus.url, texts, plan))
        right = statistics.mean(scores.right(text, each) for text, each in zip(texts, found, strict=True))
        yield Figure(f"{name}, {kind}: {right:.3f} of the true ten best videos", f"{cpu_ms:.2f} CPU ms")


def word_texts(count: int = 200) -> dict[str, list[str]]:
    """Map each kind of query to `count` texts of that kind, made of the corpus' words.

    `word1` is in nearly all videos, `word1000` in a few of a thousand.
    """
    rng = np.random.default_rng(3)

    def drawn(first: int, length: int) -> list[str]:
        ranks = np.exp(rng.uniform(np.log(first), np.log(search_corpus.WORDS), (count, length))).astype(int)
        return [" ".join(f"word{rank}" for rank in row) for row in ranks]

    return {
        "three words (as the load asks)": drawn(search_http.COMMON_WORDS, 3),
        "three words, common ones too": drawn(1, 3),
        "two words": drawn(5, 2),
        "six words, common ones too": drawn(1, 6),
        "one very common word": ["word1"] * count,
        "one common word": ["word20"] * count,
        "one rare word": ["word1000"] * count,
    }


async def _matched(url: str, texts: Sequence[str], plan: SearchLimits) -> tuple[list[list[int]], float]:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        server = psutil.Process(connection.info.backend_pid)
        for text in texts[:30]:
            await fulltext.matching(connection, text, DEFAULTS.text_videos_max, None, plan)
        before, found = cpu_s(server), []
        for text in texts:
            matches = await fulltext.matching(connection, text, DEFAULTS.text_videos_max, None, plan)
            found.append([match.video_id for match in matches[:LIMIT]])
        return found, (cpu_s(server) - before) * 1000 / len(texts)


class _Scores:
    """The impact of every word in every video that has it, in memory, to compute the true best videos of a text."""

    def __init__(self, url: str) -> None:
        with database.connect(url) as connection:
            rows = connection.execute("SELECT lexeme, video_id, impact FROM media.impacts ORDER BY 1").fetchall()
        self._videos = 1 + max(row[1] for row in rows)
        self._by_word: dict[str, list[tuple[int, float]]] = {}
        for lexeme, video_id, impact in rows:
            self._by_word.setdefault(lexeme, []).append((video_id, impact))

    def right(self, text: str, found: Sequence[int]) -> float:
        """Return the share of the ten best videos that were found; 1 if no video has any of the words."""
        words, scores, seen = set(text.split()), np.zeros(self._videos), np.zeros(self._videos)
        for pairs in (self._by_word[word] for word in words if word in self._by_word):
            ids, impacts = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
            scores[ids] += math.log(1 + (self._videos - len(ids) + 0.5) / (len(ids) + 0.5)) * impacts
            seen[ids] += 1
        scores += 1000.0 * (seen == len(words))  # those with all words come first
        best = np.sort(scores[scores > 0])[::-1][:LIMIT]
        return 1.0 if not len(best) else float(np.sum(scores[list(found)] >= best[-1] - 1e-3) / len(best))
