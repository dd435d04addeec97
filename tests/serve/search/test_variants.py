"""A viewer has one variant, the shares are as said, and its weights are what ranks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cluster.settings import Settings
from serve.access.viewers import Viewer
from serve.replica.encoding import QueryEncoder
from serve.search.variants import Variants
from serve.settings import SearchSettings
from tests.serve.doors import near, opened
from tests.serve.scenes import Scenes, hang

VIEWERS = 10_000
TWO = SearchSettings(variants=("words 200000 text_weight=5 rrf_k=10", "fresh 300000 feed_fresh_weight=9"))


def names(variants: Variants, viewers: list[Viewer]) -> list[str]:
    return [variants.of(each)[0] for each in viewers]


def test_shares_are_as_said_and_every_viewer_keeps_his() -> None:
    viewers = [Viewer("cookie", str(number)) for number in range(VIEWERS)]
    first, again = (names(Variants(TWO), viewers) for _ in range(2))
    assert first == again
    counts = Counter(first)
    for name, share in (("words", 0.2), ("fresh", 0.3), ("", 0.5)):
        sigma = (VIEWERS * share * (1 - share)) ** 0.5
        assert abs(counts[name] - VIEWERS * share) < 5 * sigma, counts


def test_another_comparison_shuffles_the_viewers() -> None:
    viewers = [Viewer("cookie", str(number)) for number in range(1000)]
    one, other = (
        names(Variants(SearchSettings(variants=(f"{name} 500000 rrf_k=10",))), viewers) for name in ("spring", "autumn")
    )
    both = sum(bool(a) and bool(b) for a, b in zip(one, other, strict=True))
    assert 180 < both < 320  # a quarter, if they have nothing to do with each other


def test_a_variant_has_its_own_weights_and_the_rest_of_the_deployment() -> None:
    everybody = SearchSettings(limit_default=7, variants=("all 1000000 text_weight=5 rrf_k=10 feed_half_life_s=60",))
    name, search = Variants(everybody).of(Viewer("key", "1"))
    assert (name, search.text_weight, search.rrf_k, search.feed_half_life_s) == ("all", 5.0, 10, 60.0)
    assert (search.limit_default, search.vector_weight) == (7, everybody.vector_weight)


@pytest.mark.parametrize(
    "variants",
    [
        ("a",), ("a 10",), ("a x rrf_k=1",), ("a 0 rrf_k=1",), ("a 10 limit_max=1",), ("a 10 rrf_k=x",),
        ("a 10 rrf_k=0",), ("a 10 ef_search=5000",), ("9a 10 rrf_k=1",), ("a 10 rrf_k=1", "a 20 rrf_k=2"),
        ("a 600000 rrf_k=1", "b 600000 rrf_k=2"),
    ],
)  # fmt: skip
def test_variants_that_make_no_sense_are_refused(variants: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"."):
        SearchSettings(variants=variants)


async def test_answers_are_ranked_kept_and_counted_by_variant(
    settings: Settings, model: QueryEncoder, painted: Scenes
) -> None:
    half = settings.with_section(SearchSettings(variants=("words 500000 vector_weight=0",), relevance_min_ppm=0))
    async with opened(half, near(model)) as doors:
        with doors.database() as connection:
            hang(connection, painted)
        found: dict[str, Any] = {}
        for number in range(40):
            headers = doors.key("search", creator_id=None) if number == 0 else named(doors, number)
            answer = await doors.http.get("/v1/search", params={"q": "banana number4"}, headers=headers)
            variant = answer.headers["x-pixr-variant"]
            matched = {name for moment in answer.json()["moments"] for name in moment["matched"]}
            assert found.setdefault(variant, matched) == matched
        assert found == {"words": {"some_words"}, "none": {"vector", "some_words"}}
        metrics = (await doors.http.get("/metrics")).text
        assert 'variant="words"' in metrics
        assert "pixr_cache_hit_ratio" in metrics
        assert "x-pixr-variant" in (await doors.http.get("/v1/feed")).headers


def named(doors: Any, number: int) -> dict[str, str]:
    from serve.access import keys
    from tests.serve.doors import bearer

    with doors.database() as connection:
        return bearer(keys.create(connection, f"viewer {number}", ["search"])[1])


async def test_without_variants_nothing_is_said_of_them(settings: Settings) -> None:
    async with opened(settings) as doors:
        assert "x-pixr-variant" not in (await doors.http.get("/v1/feed")).headers
        search = doors.services.search
        assert Variants(search).of(Viewer("key", "1")) == ("", search)
