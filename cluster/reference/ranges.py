"""What a setting accepts, found by asking its section.

A section checks itself when it is made. So the bounds of a number are found by making the section with one value
changed, and searching for the first value that it refuses. All other settings keep their defaults; where a bound
depends on one of them, the section's own words for the rule stand in place of a number. Knows no section.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LARGE = 2.0**70  # a number that is accepted up to here has no bound
HALVINGS = 80  # of the interval around the bound of a float
DIGITS = 6  # after the point, of the bound of a float
FACTORS = (1.0, 2.0, 4.0, 16.0, 0.5, 0.25)  # of a refused number: what other settings are tried with beside it
NONSENSE = "?"  # a text that is none of those that a check expects
GROUPED = 10_000  # numbers from here on are shown with their thousands apart
POWERS = {2**63 - 1: "2^63 - 1"}


def accepted(section: type, name: str) -> str:
    """Return in words what a setting accepts, such as `1 or more` or `one of auto, v1, legacy`.

    "" means that it accepts anything.
    """
    default = getattr(section(), name)
    if isinstance(default, bool):
        return ""
    if isinstance(default, (int, float)):
        return _Number(section, name, default).words()
    return _of_texts(section, name, is_list=isinstance(default, tuple))


def shown(number: float) -> str:
    """Return a number as the pages write it: as in TOML, but 2^63 - 1 as this power."""
    if number in POWERS:
        return POWERS[int(number)]
    whole = int(number) == number
    if whole and abs(number) >= GROUPED:
        return f"{int(number):_}"
    return str(int(number) if whole else number)


def _refusal(section: type, **values: Any) -> str:
    """Return why a section refuses values; "" where it accepts them."""
    try:
        section(**values)
    except ValueError as error:
        return str(error)
    return ""


def _of_texts(section: type, name: str, *, is_list: bool) -> str:
    tried = [(NONSENSE,)] if is_list else [NONSENSE, ""]
    said = next(filter(None, (_refusal(section, **{name: value}) for value in tried)), "")
    for word, lead in (("expected ", ""), ("must be ", ""), ("must not be ", "not ")):
        if word in said:
            return lead + said.partition(word)[2]
    return f"else refused: {said}" if said else ""


@dataclass(frozen=True)
class _Bound:
    """The last number in one direction that is accepted, or the rule that bounds it, in words."""

    value: float
    is_open: bool = False  # only what lies before `value` is accepted, not `value` itself
    rule: str = ""

    def words(self, closed: str, opened: str) -> str:
        return self.rule or (f"{opened} {shown(self.value)}" if self.is_open else f"{shown(self.value)} {closed}")


class _Number:
    """The search for the bounds of one number."""

    def __init__(self, section: type, name: str, default: float) -> None:
        self._section, self._name = section, name
        self._kind: type[int] | type[float] = type(default)
        self._start = default
        # 0 that stands for "none" or "for ever", apart from the numbers that are accepted; a negative default is another one
        self._zero_apart = isinstance(default, int) and self._takes(0) and not self._takes(1)
        self._apart = ["0"] if default >= 0 else [shown(default), "0"]
        if default <= 0 and self._zero_apart:
            self._start = self._first_above_zero()

    def words(self) -> str:
        """Return both bounds in words."""
        if self._start == 0 and self._zero_apart:
            return ", ".join(self._apart)
        lower, upper = self._bound(-1), self._bound(+1)
        both = [bound for bound in (lower, upper) if bound is not None]
        if len(both) == 2 and not any(bound.is_open or bound.rule for bound in both):
            said = f"{shown(both[0].value)} to {shown(both[1].value)}"
        else:
            sides = [lower.words("or more", "above")] if lower else []
            sides += [upper.words("or less", "below")] if upper else []
            said = "; ".join(dict.fromkeys(sides))
        return ", ".join([*self._apart, f"or {said}"]) if self._zero_apart else said

    def _takes(self, value: float) -> bool:
        return not self._refusal(value)

    def _refusal(self, value: float) -> str:
        return _refusal(self._section, **{self._name: self._kind(value)})

    def _first_above_zero(self) -> float:
        taken = _gallop(0, +1, lambda value: not self._takes(value))
        return 0 if taken is None else _between(*taken, lambda value: not self._takes(value), whole=True)[1]

    def _bound(self, side: int) -> _Bound | None:
        """Return the bound below (`side` -1) or above (+1); None where there is none."""

        def takes(value: float) -> bool:
            return self._takes(value) and not (self._zero_apart and value <= 0)

        found = _gallop(self._start, side, takes)
        if found is None:
            return None
        value, refused = _between(*found, takes, whole=self._kind is int)
        if rule := self._rule(refused, side):
            return _Bound(value, rule=rule)
        value = value if self._kind is int else round(value, DIGITS)
        return _Bound(value, is_open=not takes(value))

    def _rule(self, refused: float, side: int) -> str:
        """Return the section's words for refusing a number if the bound depends on other settings; else ""."""
        said, defaults = self._refusal(refused), vars(self._section())
        named = [name for name in defaults if name != self._name and re.search(rf"\b{name}\b", said)]
        for factor in FACTORS:
            others = {name: type(defaults[name])(refused * factor) for name in named if _is_number(defaults[name])}
            if others and not _refusal(self._section, **{self._name: self._kind(refused)}, **others):
                return _without_changing_numbers(said, self._refusal(refused + side * (abs(refused) + 1)))
        return ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _gallop(start: float, side: int, takes: Callable[[float], bool]) -> tuple[float, float] | None:
    """Step away from `start`, in steps that double, to the first number that `takes` refuses.

    Returns the last number that it took and the refused one; None if it takes all.
    """
    taken, step = start, 1
    while abs(step) < LARGE:
        value = start + side * step
        if not takes(value):
            return taken, value
        taken, step = value, step * 2
    return None


def _between(taken: float, refused: float, takes: Callable[[float], bool], *, whole: bool) -> tuple[float, float]:
    """Narrow the interval between a number that is taken and one that is refused, by halving.

    Args:
        taken: A number for which `takes` is true.
        refused: A number for which it is false, on either side.
        takes: The predicate.
        whole: Whether only whole numbers are tried.

    Returns:
        A number that is taken and one that is refused: neighbours if `whole`, else very near to each other.
    """
    for _ in range(HALVINGS):
        middle = (int(taken) + int(refused)) // 2 if whole else (taken + refused) / 2
        if middle in (taken, refused):
            break
        if takes(middle):
            taken = middle
        else:
            refused = middle
    return taken, refused


def _without_changing_numbers(said: str, said_further: str) -> str:
    """Return the refusal `said` with N in place of each number in it that depends on the value that was refused.

    `said_further` is the refusal of a value further on; numbers that differ between the two depend on the value.
    """
    further = iter(re.findall(r"\d+", said_further))
    return re.sub(r"\d+", lambda match: match[0] if next(further, match[0]) == match[0] else "N", said)
