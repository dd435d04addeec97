"""Ranks in the two lists of a search, by vector and by words, from which fusion computes scores."""

from __future__ import annotations

from collections.abc import Iterable


def dense_ranks(values: Iterable[float]) -> list[int]:
    """Return the rank of each value of a sorted list: 1 for the first, one more each time the value changes.

    Equal values share a rank.
    """
    ranks: list[int] = []
    rank, last = 0, None
    for value in values:
        if value != last:
            rank, last = rank + 1, value
        ranks.append(rank)
    return ranks
