"""Languages of videos, each under one name: those that PostgreSQL can stem, and `simple` for all others.

A language may be given by its name or its ISO 639-1 code; the name is stored and compared.
"""

from __future__ import annotations

STEMMED = {
    "ar": "arabic", "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian",
    "id": "indonesian", "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch",
    "nn": "norwegian", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian",
    "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
SIMPLE = "simple"  # words are indexed as they are written
NAMES = (*sorted(set(STEMMED.values())), SIMPLE)
# The other codes of ISO 639-1: PostgreSQL has no stemmer for them.
_OTHERS = (
    "aa ab ae af ak am an as av ay az ba be bg bh bi bm bn bo br bs ce ch co cr cs cu cv cy dv dz ee eo et fa ff fj fo fy gd gl"
    " gn gu gv ha he ho hr ht hz ia ie ig ii ik io is iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo"
    " lu lv mg mh mi mk ml mn mr ms mt my na nd ng nr nv ny oc oj om or os pa pi pl ps qu rm rn rw sa sc sd se sg sh si sk sl"
    " sm sn so sq ss st su sw te tg th ti tk tl tn to ts tt tw ty ug uk ur uz ve vi vo wa wo xh yo za zh zu"
)
OTHERS = frozenset(_OTHERS.split())
KNOWN = f"{', '.join(NAMES)} (any other language), or a code of ISO 639-1 such as en"


def known(text: str) -> str:
    """Return the name of the language given by name or code, in any case; empty if it is unknown."""
    name = text.strip().lower()
    return name if name in NAMES else STEMMED.get(name, SIMPLE if name in OTHERS else "")


def named(text: str) -> str:
    """Return the name of the language given by name or code; an empty text stays empty.

    Raises:
        ValueError: the text is not a known language.
    """
    name = known(text)
    if text.strip() and not name:
        raise ValueError(f"language {text!r} is unknown; known: {KNOWN}")
    return name
