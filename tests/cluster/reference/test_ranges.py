"""What a setting accepts is found by asking its section, whatever way the section checks itself."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cluster.reference import ranges


@dataclass(frozen=True)
class Section:
    anything: int = 3
    at_least: int = 3
    at_most: int = -3
    between: int = 50_000
    enormous: int = 1
    above: float = 0.5
    share: float = 1.0
    below: float = 1.0
    days: int = 30
    days_off: int = 0
    days_own: int = -1
    low: int = 2
    high: int = 9
    parts: int = 4
    switch: bool = True
    kind: str = "a"
    name: str = "n"
    free: str = ""
    folders: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.at_least < 2:
            raise ValueError("at_least must be 2 or more")
        if self.at_most > 12:
            raise ValueError("at_most must be 12 or less")
        if not 1000 <= self.between <= 1_000_000:
            raise ValueError("between must be 1000 to 1000000")
        if not 0 <= self.enormous <= 2**63 - 1:
            raise ValueError("enormous is out of range")
        if not self.above > 0 or not 0 <= self.share <= 1 or self.below >= 2.5:
            raise ValueError("out of range")
        if any(days and days < 8 for days in (self.days, self.days_off)) or min(self.days, self.days_off) < 0:
            raise ValueError("expected 0 (for ever) or 8 or more")
        if self.days_own not in (-1, 0) and not 500 < self.days_own <= 1000:
            raise ValueError("expected 0, -1 (as in the file) or above 500 to 1000")
        if not 1 <= self.low <= self.high:
            raise ValueError("low must be 1 or more and at most high")
        if self.parts > self.high * 7:
            raise ValueError(f"high must be at least {self.parts / 7:.0f}, a seventh of the parts")
        self._check_texts()

    def _check_texts(self) -> None:
        if self.kind not in ("a", "b"):
            raise ValueError(f"kind is {self.kind!r}, expected a or b")
        if not self.name:
            raise ValueError("name must not be empty")
        if any(not folder.endswith("/") for folder in self.folders):
            raise ValueError("folders must be like 'a/'")
        if any(not network.isdecimal() for network in self.networks):
            raise ValueError("'?' is no network")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("anything", ""),
        ("at_least", "2 or more"),
        ("at_most", "12 or less"),
        ("between", "1000 to 1_000_000"),
        ("enormous", "0 to 2^63 - 1"),
        ("above", "above 0"),
        ("share", "0 to 1"),
        ("below", "below 2.5"),
        ("days", "0, or 8 or more"),
        ("days_off", "0, or 8 or more"),
        ("days_own", "-1, 0, or 501 to 1000"),
        ("low", "1 or more; low must be 1 or more and at most high"),
        ("high", "low must be 1 or more and at most high"),
        ("parts", "high must be at least N, a seventh of the parts"),
        ("switch", ""),
        ("kind", "a or b"),
        ("name", "not empty"),
        ("free", ""),
        ("folders", "like 'a/'"),
        ("networks", "else refused: '?' is no network"),
    ],
)
def test_the_bounds_of_a_setting_are_found(name: str, words: str) -> None:
    assert ranges.accepted(Section, name) == words
