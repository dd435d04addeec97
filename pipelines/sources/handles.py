"""Creators' handles: which texts are valid, their normal form, and which creators a job may speak for.

Money goes to a handle, so two that look alike must not be two creators: invisible characters, compatibility forms of
letters and digits, and mixtures of alphabets that look alike are refused. This follows Unicode TR 39 (its moderately
restrictive level) as far as Python's own tables go; two handles in one alphabet, or in different case, can still look
alike. The handle of an existing creator is always accepted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from cluster import characters
from cluster.errors import Rejected

HANDLE_CHARS_MAX = 200
UNKNOWN = "unknown"  # the handle of videos for which neither a manifest nor the job names a creator

SPACES = re.compile(f"[{characters.SPACE}]+")
# Persian, Urdu and others write a zero-width non-joiner. It is visible between letters that would join without it:
# those of Joining_Type D and R of Unicode's ArabicShaping.txt, with marks that may stand between.
_DUAL = (
    "\u0620\u0626\u0628\u062a-\u062e\u0633-\u063f\u0641-\u0647\u0649\u064a\u066e\u066f\u0678-\u0687\u069a-\u06bf\u06c1\u06c2"
    "\u06cc\u06ce\u06d0\u06d1\u06fa-\u06fc\u06ff"
)
_RIGHT = (
    "\u0622-\u0625\u0627\u0629\u062f-\u0632\u0648\u0671-\u0673\u0675-\u0677\u0688-\u0699\u06c0\u06c3-\u06cb\u06cd\u06cf"
    "\u06d2\u06d3\u06d5\u06ee\u06ef"
)
NON_JOINER = re.compile(f"([{_DUAL}][\u064b-\u065f\u0670]*)\u200c(?=[{_DUAL}{_RIGHT}])")
# Letters that are valid although NFKC maps them to others, because their languages are written with them: ordinals, the
# Armenian ligature, the Thai and Lao vowels AM, Lao's HO NO and HO MO, Tifinagh's raised mark, single Korean letters. Where
# another spelling looks the same, it is rewritten to this one (ONE_WAY) or refused (CONJOINING).
WRITTEN = re.compile("[\u0587\u0e33\u0eb3\u0edc\u0edd\u2d6f\u3131-\u3163\u3165-\u318e]")
# Ordinals end abbreviations of names and numbers (`Mª José`, `D.ª`, `Nº 1`, `2º`); anywhere else they pass for `a` and `o`.
ORDINAL = re.compile(r"(?<!\w)(\d+|[DMN])\.?[\u00aa\u00ba](?!\w)")
SMALL_CAPITAL = "SMALL CAPITAL"  # in the name of a letter of phonetics, which no language is written with
ONE_WAY = (
    (re.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32"), "\\1\u0e33"),  # a tone mark may stand between
    (re.compile("\u0ecd([\u0ec8-\u0ecb]?)\u0eb2"), "\\1\u0eb3"),
    (re.compile("\u0140"), "l\u00b7"),  # Catalan uses two characters today; the older single one looks the same
    (re.compile("\u013f"), "L\u00b7"),
)
# Parts of Korean syllables that NFC did not compose.
CONJOINING = re.compile("[\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb]")
# Decomposition tags (UnicodeData.txt) of compatibility forms, and the blocks that hold nothing else.
FORMS = ("font", "wide", "narrow", "circle", "square", "initial", "medial", "final", "isolated", "vertical", "small")
PRESENTATION = re.compile("[\ufb00-\ufdff\ufe70-\ufefc]")
RAISED = ("super", "sub")  # raised and lowered digits and signs: visibly different, so allowed
# Names of signs that show a letter or a digit in a box or a circle; some of them have no decomposition.
BOXED = re.compile(r"\bLATIN (CAPITAL|SMALL) LETTER\b|\bCIRCLED (SANS-SERIF )?(DIGIT|NUMBER)\b")
NOT_TEXT = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
# Alphabets with letters that look like letters of another one here, by the first word of their characters' names.
ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET", "CANADIAN"})


@dataclass(frozen=True)
class Rights:
    """What a job may do: the creators it may speak for, whether it may reassign shown videos, and its folders.

    None in place of creators or folders stands for any. The job's source and manifest must be in its folders.
    """

    creators: frozenset[str] | None = None
    reassign: bool = False
    folders: tuple[str, ...] | None = None

    def covers(self, handle: str) -> bool:
        """Whether the job may speak for this creator."""
        return self.creators is None or handle in self.creators

    def refusal(self, handle: str) -> str:
        """Return why the job may not speak for this creator, naming no other creator; empty if it may."""
        if self.creators is None or handle in self.creators:
            return ""
        whose = "no creator is named" if handle == UNKNOWN else "it is another creator's"
        return f"{whose}; this job speaks for {', '.join(sorted(self.creators))}"


ANY_CREATOR = Rights()
Known = Callable[[str], bool]  # whether a creator with this handle exists


def no_creator(_handle: str) -> bool:
    """Return False; takes the place of the lookup of creators where a database is missing."""
    return False


def normal(handle: str) -> str:
    """Return the normal form of a handle.

    Letters and accents are composed (NFC), and words are separated by one space. If two spellings look the same, the
    usual one is taken (`ONE_WAY`).
    """
    text = _composed(handle)
    for other_way, usual in ONE_WAY:
        text = other_way.sub(usual, text)
    return text


def _composed(handle: str) -> str:
    """Return the form that the migration `0014_handles.sql` gave to existing handles: NFC and single spaces."""
    return SPACES.sub(" ", unicodedata.normalize("NFC", handle)).strip()


def resolve(text: str, is_known: Known) -> str:
    """Return the stored handle of the creator that a text names: its normal form, except for some existing creators.

    If a creator of an earlier release exists under the form that the migration stored (`_composed`), return that form.
    If none exists under the normal form but one under the text as given, return the text. So no new creator takes the
    videos of an existing one.
    """
    normal_form, composed = normal(text), _composed(text)
    if composed != normal_form and is_known(composed):
        return composed
    if text == normal_form or is_known(normal_form):
        return normal_form
    return next((form for form in (text, text.strip()) if is_known(form)), normal_form)


def fault(handle: str) -> str:
    """Return why a text cannot be the handle of a new creator; empty if it can."""
    if len(handle) > HANDLE_CHARS_MAX:
        return f"a creator's handle has at most {HANDLE_CHARS_MAX} characters"
    for character in ORDINAL.sub(r"\1", NON_JOINER.sub(r"\1", handle)):
        if characters.UNSEEN.match(character) or unicodedata.category(character) in NOT_TEXT:
            return f"the creator's handle holds U+{ord(character):04X}, which is not seen"
        if _is_a_form(character):
            return _in_another_form(handle, character)
    if handle and not characters.shows(handle):
        return "the creator's handle shows nothing: it has marks without letters"
    if len(alphabets := _alphabets(handle) & ALIKE) > 1:
        return f"the creator's handle mixes letters that look alike: {', '.join(sorted(alphabets)).lower()}"
    if len({ord(digit) - unicodedata.decimal(digit) for digit in handle if digit.isdecimal()}) > 1:
        return "the creator's handle mixes digits of several scripts"
    return ""


def _is_a_form(character: str) -> bool:
    """Whether a letter, digit or sign is a compatibility form of other characters, or looks like another alphabet's."""
    category, compatible = unicodedata.category(character), unicodedata.normalize("NFKC", character)
    if category[0] in "LM":
        is_form = compatible != character or PRESENTATION.match(character) or CONJOINING.match(character)
        is_small_capital = SMALL_CAPITAL in unicodedata.name(character, "")
        return bool(is_form or is_small_capital) and not WRITTEN.match(character)
    if category[0] != "N" and category != "So":
        return False
    tag = unicodedata.decomposition(character).partition(">")[0].removeprefix("<")
    if tag in FORMS or PRESENTATION.match(character):
        return True
    if tag in RAISED:
        return False
    if (category[0] == "N" and tag == "compat") or BOXED.search(unicodedata.name(character, "")):
        return True  # such as `1.` and `(1)` as one character
    return compatible != character and _alphabets(compatible) != _alphabets(character)


def _in_another_form(handle: str, character: str) -> str:
    """Return the reason to refuse a handle with such a character, and the spelling to use if that is a valid handle."""
    reason = f"the creator's handle holds U+{ord(character):04X}, which stands for other characters"
    suggestion = normal(unicodedata.normalize("NFKC", handle))
    return reason if not suggestion or suggestion == handle or fault(suggestion) else f"{reason}: write {suggestion!r}"


def checked(handles: Iterable[str], known: Collection[str] = ()) -> tuple[str, ...]:
    """Return handles in the form that is stored, without duplicates.

    Raises:
        Rejected: 422, a handle that is not `known` is empty or invalid.
    """
    resolved = tuple(dict.fromkeys(resolve(handle, known.__contains__) for handle in handles))
    for handle in resolved:
        if handle in known:
            continue
        if reason := fault(handle) if handle else "a creator's handle is empty":
            raise Rejected(reason, status=422, code="bad-creator")
    return resolved


def _alphabets(handle: str) -> set[str]:
    """Return the alphabets of a text's letters, by the first word of the letters' Unicode names."""
    return {unicodedata.name(c, "?").split(" ")[0] for c in handle if unicodedata.category(c)[0] == "L"}
