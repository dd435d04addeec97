"""Characters: which ones a text that people write may hold, and whether it shows anything. One rule for all of them: titles,
descriptions, tags, names and searches, in manifests as over HTTP.

Refused are control characters and what turns the direction of the letters behind it (the embeddings, overrides and isolates
of Unicode TR 9). Left out is what shows nothing and no language needs to be written right: direction marks, word joiners,
byte order marks. Zero-width joiners and non-joiners, which Persian, Indic scripts and emoji are written with, and the
zero-width space between words of Thai and Khmer stay, as long as something is seen beside them. Of a creator's handle, by
which money finds its way, more is asked (`pipelines.sources.handles`).
"""

from __future__ import annotations

import re
import unicodedata

# Parts of classes, written for the dialects that read them: Python's, Rust's (pydantic) and ECMAScript's (OpenAPI).
TURNING = r"\u202a-\u202e\u2066-\u2069"
NO_LINE = rf"\x00-\x1f\x7f-\x9f\u2028\u2029{TURNING}"
NO_LINES = rf"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{TURNING}"  # line breaks of all kinds, and tabs, are text
# Default_Ignorable_Code_Point of Unicode 16, other format characters by their category, and the empty Braille cell.
IGNORED = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
)
SPACE = r" \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
COMBINING = r"\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"  # of all alphabets; `shows` knows all

UNSEEN = re.compile(rf"[{IGNORED}\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]")
UNSHOWN = ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn", "Mc", "Me")  # categories; a mark needs a letter to stand on
NEEDLESS = re.compile(r"[\u061c\u200e\u200f\u2060\u206a-\u206f\ufeff]")
_NO_LINE, _NO_LINES = re.compile(f"[{NO_LINE}]"), re.compile(f"[{NO_LINES}]")


def shows(text: str) -> bool:
    """Whether anything of a text is seen: a letter, a digit, a sign or an emoji."""
    return any(unicodedata.category(each) not in UNSHOWN and not UNSEEN.match(each) for each in text)


def cleaned(text: str) -> str:
    """A text without what shows nothing and is not needed, and without space around it."""
    return NEEDLESS.sub("", text).strip()


def fault(text: str, *, lines: bool = False) -> str:
    """Why a text cannot be one, of one line or of several; empty when it can."""
    found = (_NO_LINES if lines else _NO_LINE).search(text)
    return f"contains the control character U+{ord(found.group()):04X}" if found else ""


def line(text: str) -> str:
    """A text of one line as it is kept; empty when it is blank.

    Raises:
        ValueError: what is wrong with it.
    """
    if said := fault(text):
        raise ValueError(said)
    if text.strip() and not shows(text):
        raise ValueError("shows nothing: it has invisible characters only")
    return cleaned(text)


def lines(text: str) -> str:
    """A text of several lines as it is kept, with the space around it.

    Raises:
        ValueError: what is wrong with it.
    """
    if said := fault(text, lines=True):
        raise ValueError(said)
    return NEEDLESS.sub("", text)
