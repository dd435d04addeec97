"""Full text finds all words before any of them, leaves out what is excluded, and takes whatever is typed."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import AsyncConnection

from pipelines import fulltext
from pipelines.index import Plan
from tests.pipelines.corpus import Catalogue


async def test_words_are_matched_all_first_then_any(reading: AsyncConnection[Any], corpus: Catalogue) -> None:
    first = await fulltext.matching(reading, "video number7 common", 10)
    whole = {hit.segment_id for hit in first[: corpus.corpus.per_video]}
    assert whole == set(corpus.corpus.ids[corpus.corpus.videos == 7])
    assert len(first) == 10


async def test_a_word_with_a_minus_is_left_out_also_where_any_word_will_do(
    reading: AsyncConnection[Any], corpus: Catalogue
) -> None:
    for words in ("number7 -common", "number7 number8 -rare"):
        hits = await fulltext.matching(reading, words, 2000)
        row = await (
            await reading.execute(
                "SELECT count(*) FROM media.segments WHERE id = ANY(%s) AND search @@ to_tsquery('english', %s)",
                ([hit.segment_id for hit in hits], words.rpartition("-")[2]),
            )
        ).fetchone()
        assert row == (0,)
    assert await fulltext.matching(reading, "number7 -common", 10) == []


@pytest.mark.parametrize("text", ["'; DROP TABLE media.segments; --", "a & | ! ( <->", '"', "the", "\\", ":*", "%s"])
async def test_no_text_breaks_full_text(reading: AsyncConnection[Any], text: str) -> None:
    assert await fulltext.matching(reading, text, 10) == []


async def test_matches_are_cut_off_before_they_are_ranked(reading: AsyncConnection[Any]) -> None:
    assert len(await fulltext.matching(reading, "common", 200, None, Plan(text_rows=50))) == 50


async def test_titles_and_tags_complete_what_was_typed(reading: AsyncConnection[Any]) -> None:
    assert (await fulltext.completions(reading, "Video number7", 3))[0] == "Video number7"
    assert all("number70" in each for each in await fulltext.completions(reading, "number70", 20))
    assert await fulltext.completions(reading, "SHARE0.5", 5) == ["share0.5"]
    for nothing in ("zebra", "", "'", "& | !", "number7:* | common"):
        assert await fulltext.completions(reading, nothing, 5) == []
