"""Rules for the characters of texts that people write: titles, descriptions, tags, names and searches.

The same rules hold for manifests and for HTTP. Control characters are refused, and so are characters that change the
direction of the text after them (the embeddings, overrides and isolates of Unicode TR 9). Invisible characters that no
language needs are removed: direction marks, word joiners, byte order marks. Zero-width joiners and non-joiners (needed
in Persian, Indic scripts and emoji) and the zero-width space (between words of Thai and Khmer) are kept if the text
also has something visible. Creators' handles have stricter rules (`pipelines.sources.handles`), because a handle
decides who is paid.
"""

from __future__ import annotations

import re
import unicodedata

# Contents of character classes, in a syntax that the regular expressions of Python, Rust (pydantic) and ECMAScript
# (OpenAPI) all understand.
TURNING = r"\u202a-\u202e\u2066-\u2069"
NO_LINE = rf"\x00-\x1f\x7f-\x9f\u2028\u2029{TURNING}"
NO_LINES = rf"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{TURNING}"  # tabs and line breaks of all kinds are allowed
# Default_Ignorable_Code_Point of Unicode 16, other format characters by their category, and the empty Braille cell.
IGNORED = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
)
SPACE = r" \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
COMBINING = r"\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"  # those that every alphabet shares

UNSEEN = re.compile(rf"[{IGNORED}\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]")
UNSHOWN = ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn", "Mc", "Me")  # Unicode categories; M*: marks need a base letter
NEEDLESS = re.compile(r"[\u061c\u200e\u200f\u2060\u206a-\u206f\ufeff]")
_NO_LINE, _NO_LINES = re.compile(f"[{NO_LINE}]"), re.compile(f"[{NO_LINES}]")


def shows(text: str) -> bool:
    """Return whether a text has at least one visible character: a letter, a digit, a sign or an emoji."""
    return any(unicodedata.category(character) not in UNSHOWN and not UNSEEN.match(character) for character in text)


def cleaned(text: str) -> str:
    """Return a text without needless invisible characters and without white space at its ends."""
    return NEEDLESS.sub("", text).strip()


def fault(text: str, *, lines: bool = False) -> str:
    """Return why a text must be refused, such as `contains the control character U+0000`; empty if it is allowed.

    `lines` allows line breaks and tabs.
    """
    refused = (_NO_LINES if lines else _NO_LINE).search(text)
    return f"contains the control character U+{ord(refused.group()):04X}" if refused else ""


def line(text: str) -> str:
    """Return a one-line text as it is stored: cleaned, and empty if it was blank.

    Raises:
        ValueError: the text has a control character, or is not blank and has no visible character.
    """
    if reason := fault(text):
        raise ValueError(reason)
    if text.strip() and not shows(text):
        raise ValueError("shows nothing: it has invisible characters only")
    return cleaned(text)


def lines(text: str) -> str:
    """Return a text of several lines as it is stored; white space at its ends stays.

    Raises:
        ValueError: the text has a control character.
    """
    if reason := fault(text, lines=True):
        raise ValueError(reason)
    return NEEDLESS.sub("", text)
