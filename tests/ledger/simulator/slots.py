"""Slots: a chain's second count. Some slots have no block, so that slots run ahead of heights, by more and more.

The localnet's blocks have no slot but their height. Here an answer's heights become slots where a node says slots, and a slot
that is asked for becomes a height. Knows the forms of answers, nothing of what they mean.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Mapping, Sequence
from typing import Any

FIRST_MIN, FIRST_MAX = 1_000, 1_000_000  # by which slots are ahead when a world begins
SKIPPED, SKIPPED_LONG = 0.05, 0.002  # of heights: before them are slots without a block
FEW_MAX, MANY_MAX = 4, 200
AHEAD_MAX = 2000  # blocks, by which a slot is looked for
OF_ITSELF = ("getTransaction",)  # answers that are one row with a slot
ROWS = ("getSignatureStatuses", "getSignaturesForAddress", "getRecentPrioritizationFees")  # and many such
ALONE = ("getSlot", "getFirstAvailableBlock")  # and those that are a slot and nothing else


class Slots:
    """The slot of each height, as a seed decides."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._slots = [rng.randint(FIRST_MIN, FIRST_MAX)]

    def of(self, height: int) -> int:
        """Return the slot of a block."""
        while len(self._slots) <= height:
            luck = self._rng.random()
            skipped = self._rng.randint(1, MANY_MAX if luck < SKIPPED_LONG else FEW_MAX) if luck < SKIPPED else 0
            self._slots.append(self._slots[-1] + 1 + skipped)
        return self._slots[height]

    def height_since(self, slot: int) -> int:
        """Return the first height whose slot is this one or later; of a far slot, a height that no chain reaches."""
        for _ in range(AHEAD_MAX):
            if self._slots[-1] >= slot:
                break
            self.of(len(self._slots))
        return bisect.bisect_left(self._slots, slot)

    # ── Questions and answers ──────────────────────────────────────────────────────────────────────────────────────

    def asked(self, params: Sequence[Any]) -> list[Any]:
        """Translate a request: return what the localnet is asked instead."""
        *others, last = params or [None]
        if not isinstance(last, dict) or last.get("minContextSlot") is None:
            return list(params)
        return [*others, {**last, "minContextSlot": self.height_since(int(last["minContextSlot"]))}]

    def told(self, method: str, answer: Any) -> Any:
        """Translate an answer: return what a node says instead."""
        if method in ALONE:
            return self.of(answer)
        if method == "getEpochInfo":
            return {**answer, "absoluteSlot": self.of(answer["absoluteSlot"])}
        if method in OF_ITSELF:
            return self._row(answer)
        if isinstance(answer, dict) and "context" in answer:
            context = {**answer["context"], "slot": self.of(answer["context"]["slot"])}
            answer = {**answer, "context": context}
        if method not in ROWS:
            return answer
        if isinstance(answer, dict):
            return {**answer, "value": [self._row(each) for each in answer["value"]]}
        return [self._row(each) for each in answer]

    def _row(self, row: Mapping[str, Any] | None) -> Any:
        return None if row is None else {**row, "slot": self.of(row["slot"])}
