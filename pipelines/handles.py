"""Creators' handles: which texts may be one, and who may speak for whom.

Money goes to a handle, so two that look alike must not be two creators: characters that are not seen, letters and numbers
that are another's in another form, and alphabets that are read as each other are refused. After Unicode TR 39 (its
moderately restrictive level) as far as Python's own tables go; two handles in one alphabet, or of other case, can still
look alike. A creator's handle that is there already may be named whatever it holds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from cluster import characters
from cluster.errors import Rejected

HANDLE_CHARS_MAX = 200
HANDLE = "the creator's handle"
UNKNOWN = "unknown"  # the creator of what nobody has named one for

SPACES = re.compile(f"[{characters.SPACE}]+")
# A zero-width non-joiner is a letter of Persian, Urdu and others: between letters that would join without it, it is seen.
# Letters of Joining_Type D and R of Unicode's ArabicShaping.txt, and the marks that may stand between.
_DUAL = (
    "\u0620\u0626\u0628\u062a-\u062e\u0633-\u063f\u0641-\u0647\u0649\u064a\u066e\u066f\u0678-\u0687\u069a-\u06bf\u06c1\u06c2"
    "\u06cc\u06ce\u06d0\u06d1\u06fa-\u06fc\u06ff"
)
_RIGHT = (
    "\u0622-\u0625\u0627\u0629\u062f-\u0632\u0648\u0671-\u0673\u0675-\u0677\u0688-\u0699\u06c0\u06c3-\u06cb\u06cd\u06cf"
    "\u06d2\u06d3\u06d5\u06ee\u06ef"
)
NON_JOINER = re.compile(f"([{_DUAL}][\u064b-\u065f\u0670]*)\u200c(?=[{_DUAL}{_RIGHT}])")
# Letters that Unicode takes for others in another form and that are what their languages are written with: the Armenian
# ligature, the Thai and Lao vowels AM, Lao's HO NO and HO MO, Tifinagh's raised mark, Korean letters alone. Where the other way
# of writing looks the same, it is brought into this one (ONE_WAY) or refused (CONJOINING).
WRITTEN = re.compile("[\u0587\u0e33\u0eb3\u0edc\u0edd\u2d6f\u3131-\u3163\u3165-\u318e]")
# Ordinals end abbreviations of names and numbers (`Mª José`, `D.ª`, `Nº 1`, `2º`); anywhere else they pass for `a` and `o`.
ORDINAL = re.compile(r"(?<!\w)(\d+|[DMN])\.?[\u00aa\u00ba](?!\w)")
SMALL_CAPITAL = "SMALL CAPITAL"  # in the name of a letter of phonetics, which no language is written with
ONE_WAY = (
    (re.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32"), "\\1\u0e33"),  # a tone mark may stand between
    (re.compile("\u0ecd([\u0ec8-\u0ecb]?)\u0eb2"), "\\1\u0eb3"),
    (re.compile("\u0140"), "l\u00b7"),  # Catalan is written with two characters today, the older one looks the same
    (re.compile("\u013f"), "L\u00b7"),
)
# Parts of Korean syllables that NFC has not composed.
CONJOINING = re.compile("[\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb]")
# Tags of decompositions (UnicodeData.txt) of characters that are others in another form, and blocks that hold only such.
FORMS = ("font", "wide", "narrow", "circle", "square", "initial", "medial", "final", "isolated", "vertical", "small")
PRESENTATION = re.compile("[\ufb00-\ufdff\ufe70-\ufefc]")
RAISED = ("super", "sub")  # numbers and signs: seen to be others
# Of signs and numbers that are a letter or a digit in a box or a circle, some of them without a decomposition.
BOXED = re.compile(r"\bLATIN (CAPITAL|SMALL) LETTER\b|\bCIRCLED (SANS-SERIF )?(DIGIT|NUMBER)\b")
NOT_TEXT = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
# Alphabets with letters that look like another's in this list; by the first word of their characters' names.
ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET", "CANADIAN"})


@dataclass(frozen=True)
class Rights:
    """For which creators a job may speak (None: any), whether it may move videos that have been shown, and in which folders
    of buckets its source and manifest are (None: anywhere).
    """

    creators: frozenset[str] | None = None
    reassign: bool = False
    folders: tuple[str, ...] | None = None

    def covers(self, handle: str) -> bool:
        """Whether something may be said in the name of this creator."""
        return self.creators is None or handle in self.creators

    def refusal(self, handle: str) -> str:
        """Why not, as a reason that names nobody else; empty when it may."""
        if self.creators is None or handle in self.creators:
            return ""
        whose = "no creator is named" if handle == UNKNOWN else "it is another creator's"
        return f"{whose}; this job speaks for {', '.join(sorted(self.creators))}"


ANYBODY = Rights()
Known = Callable[[str], bool]  # whether there is a creator of this handle


def nobody(_handle: str) -> bool:
    """No creator is known."""
    return False


def normal(handle: str) -> str:
    """A handle in its one way of writing: letters with their accents composed (NFC), of two ways of writing a letter that
    look the same the usual one, one space between words.
    """
    written = _composed(handle)
    for other_way, usual in ONE_WAY:
        written = other_way.sub(usual, written)
    return written


def _composed(handle: str) -> str:
    """As the migration `0014_handles.sql` has written those that were there."""
    return SPACES.sub(" ", unicodedata.normalize("NFC", handle)).strip()


def meant(given: str, is_known: Known) -> str:
    """The handle that is meant: in its one way of writing, but as it is given where a creator has it so and none has the
    other; and as the migration left it, for nobody who comes later takes the videos of one who was there.
    """
    one_way, composed = normal(given), _composed(given)
    if composed != one_way and is_known(composed):
        return composed
    if given == one_way or is_known(one_way):
        return one_way
    return next((form for form in (given, given.strip()) if is_known(form)), one_way)


def fault(handle: str, what: str = HANDLE) -> str:
    """Why a text cannot be a new creator's handle, or `what` else is under the same rules; empty when it can."""
    if len(handle) > HANDLE_CHARS_MAX:
        return f"{what} has at most {HANDLE_CHARS_MAX} characters"
    for character in ORDINAL.sub(r"\1", NON_JOINER.sub(r"\1", handle)):
        if characters.UNSEEN.match(character) or unicodedata.category(character) in NOT_TEXT:
            return f"{what} holds U+{ord(character):04X}, which is not seen"
        if _is_a_form(character):
            return _in_another_form(handle, character, what)
    if handle and not characters.shows(handle):
        return f"{what} shows nothing: it has marks without letters"
    if len(alphabets := _alphabets(handle) & ALIKE) > 1:
        return f"{what} mixes letters that look alike: {', '.join(sorted(alphabets)).lower()}"
    if len({ord(digit) - unicodedata.decimal(digit) for digit in handle if digit.isdecimal()}) > 1:
        return f"{what} mixes digits of several scripts"
    return ""


def _is_a_form(character: str) -> bool:
    """Whether a letter, number or sign is another one in another form, or one of another alphabet."""
    category, other = unicodedata.category(character), unicodedata.normalize("NFKC", character)
    if category[0] in "LM":
        is_other = other != character or PRESENTATION.match(character) or CONJOINING.match(character)
        is_small_capital = SMALL_CAPITAL in unicodedata.name(character, "")
        return bool(is_other or is_small_capital) and not WRITTEN.match(character)
    if category[0] != "N" and category != "So":
        return False
    tag = unicodedata.decomposition(character).partition(">")[0].removeprefix("<")
    if tag in FORMS or PRESENTATION.match(character):
        return True
    if tag in RAISED:
        return False
    if (category[0] == "N" and tag == "compat") or BOXED.search(unicodedata.name(character, "")):
        return True  # `1.` and `(1)` as one character, among others
    return other != character and _alphabets(other) != _alphabets(character)


def _in_another_form(handle: str, character: str, what: str) -> str:
    """What is wrong with a handle of such a character, and how to write it where that would be a handle."""
    reason = f"{what} holds U+{ord(character):04X}, which stands for other characters"
    advised = normal(unicodedata.normalize("NFKC", handle))
    return reason if not advised or advised == handle or fault(advised) else f"{reason}: write {advised!r}"


def checked(handles: Iterable[str], known: Collection[str] = ()) -> tuple[str, ...]:
    """Handles in their one way of writing, each once; those of creators that are `known` as they are.

    Raises:
        Rejected: 422, one of the others is empty or can be no handle.
    """
    found = tuple(dict.fromkeys(meant(handle, known.__contains__) for handle in handles))
    for handle in found:
        if handle in known:
            continue
        if said := fault(handle) if handle else "a creator's handle is empty":
            raise Rejected(said, status=422, code="bad-creator")
    return found


def _alphabets(handle: str) -> set[str]:
    return {unicodedata.name(c, "?").split(" ")[0] for c in handle if unicodedata.category(c)[0] == "L"}
