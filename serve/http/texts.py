"""Texts as callers may write them, in the words of pydantic and OpenAPI: what a text may hold is `characters`'.

Control characters, line and paragraph separators and what turns the direction of writing are refused where a text is one
line; a description may have line breaks and tabs. What is to be read, a title or a tag, shows something. Knows nothing of
what a text is for.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from cluster import characters
from cluster.characters import COMBINING, IGNORED, NO_LINE, NO_LINES, SPACE
from cluster.errors import Rejected
from pipelines.sources import languages

LINE = rf"^[^{NO_LINE}]*$"
LINES = rf"^[^{NO_LINES}]*$"
SHOWING = rf"^[^{NO_LINE}]*[^{NO_LINE}{IGNORED}{SPACE}{COMBINING}][^{NO_LINE}]*$"  # nearly: no pattern knows all marks

TITLE_CHARS_MAX, DESCRIPTION_CHARS_MAX = 200, 10_000
TAG_CHARS_MAX, TAGS_MAX = 100, 50


def _distinct(tags: list[str]) -> list[str]:
    if len({tag.casefold() for tag in tags}) < len(tags):
        raise ValueError("tags repeat; each is given once")
    return tags


# The patterns are in the document alone: what does not match is said in words.
KEPT, KEPT_LINES = AfterValidator(characters.line), AfterValidator(characters.lines)
SHOWN = Field(json_schema_extra={"pattern": SHOWING})
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TITLE_CHARS_MAX), KEPT, SHOWN]
Description = Annotated[
    str, StringConstraints(max_length=DESCRIPTION_CHARS_MAX), KEPT_LINES, Field(json_schema_extra={"pattern": LINES})
]
Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TAG_CHARS_MAX), KEPT, SHOWN]
Tags = Annotated[
    list[Tag], Field(max_length=TAGS_MAX, json_schema_extra={"uniqueItems": True}), AfterValidator(_distinct)
]
Language = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
    AfterValidator(languages.named),
    Field(description=f"{languages.KNOWN}.", examples=["en", "german"]),
]
SoughtTag = Annotated[str, Field(max_length=TAG_CHARS_MAX, pattern=LINE)]


def sought(name: str, text: str) -> str:
    """A text of one line as it is looked for: what is left out where texts are kept is left out here.

    Raises:
        Rejected: 422, with the number of a character that is none.
    """
    if said := characters.fault(text):
        raise Rejected(f"{name} {said}", status=422, code="bad-text", hint="remove it")
    return characters.cleaned(text)
