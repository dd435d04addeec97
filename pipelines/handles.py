"""Creators' handles: which texts may be one, and who may speak for whom.

Money goes to a handle, so two that look alike must not be two creators: characters that are not seen, letters that stand
for others, and alphabets that are read as each other are refused. After Unicode TR 39 (its moderately restrictive level)
as far as Python's own tables go; two handles in one foreign alphabet, or of other case, can still look alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.errors import Rejected

HANDLE_CHARS_MAX = 200
UNKNOWN = "unknown"  # the creator of what nobody has named one for

# Default_Ignorable_Code_Point of Unicode 16, other format characters by their category, and the empty Braille cell.
UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
SPACES = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
NOT_TEXT = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
# Alphabets with letters that look like another's in this list; by the first word of their characters' names.
ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET", "CANADIAN"})


@dataclass(frozen=True)
class Rights:
    """For which creators a job may speak (None: any), and whether it may move videos that have been shown."""

    creators: frozenset[str] | None = None
    reassign: bool = False

    def covers(self, handle: str) -> bool:
        """Whether something may be said in the name of this creator."""
        return self.creators is None or handle in self.creators

    def refusal(self, handle: str) -> str:
        """Why not, as a reason; empty when it may."""
        if self.creators is None or handle in self.creators:
            return ""
        named = "no creator is named" if handle == UNKNOWN else f"the creator is {handle!r}"
        return f"{named}; this job speaks for {', '.join(sorted(self.creators))}"


ANYBODY = Rights()


def normal(handle: str) -> str:
    """A handle in its one way of writing: letters with their accents composed (NFC), one space between words."""
    return SPACES.sub(" ", unicodedata.normalize("NFC", handle)).strip()


def fault(handle: str) -> str:
    """Why a text cannot be a creator's handle; empty when it can."""
    if len(handle) > HANDLE_CHARS_MAX:
        return f"a creator's handle has at most {HANDLE_CHARS_MAX} characters"
    for character in handle:
        if UNSEEN.match(character) or unicodedata.category(character) in NOT_TEXT:
            return f"the creator's handle holds U+{ord(character):04X}, which is not seen"
        if unicodedata.category(character)[0] == "L" and unicodedata.normalize("NFKC", character) != character:
            meant = unicodedata.normalize("NFKC", handle)
            return f"the creator's handle holds U+{ord(character):04X}, which stands for other letters: write {meant!r}"
    if len(alphabets := _alphabets(handle) & ALIKE) > 1:
        return f"the creator's handle mixes letters that look alike: {', '.join(sorted(alphabets)).lower()}"
    if len({ord(digit) - unicodedata.decimal(digit) for digit in handle if digit.isdecimal()}) > 1:
        return "the creator's handle mixes digits of several scripts"
    return ""


def checked(handles: Iterable[str]) -> tuple[str, ...]:
    """Handles in their one way of writing, each once.

    Raises:
        Rejected: 422, one of them is empty or can be no handle.
    """
    found = tuple(dict.fromkeys(normal(handle) for handle in handles))
    for handle in found:
        if said := fault(handle) if handle else "a creator's handle is empty":
            raise Rejected(said, status=422, code="bad-creator")
    return found


def _alphabets(handle: str) -> set[str]:
    return {unicodedata.name(c, "?").split(" ")[0] for c in handle if unicodedata.category(c)[0] == "L"}
