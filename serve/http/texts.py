"""Types of the texts that callers write, for pydantic and OpenAPI; the rules of characters are in `cluster.characters`.

A text of one line may have no control characters, no line or paragraph separators, and nothing that changes the
direction of text; a description may have line breaks and tabs. A title or a tag must have a visible character. Knows no
route.
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
SHOWING = rf"^[^{NO_LINE}]*[^{NO_LINE}{IGNORED}{SPACE}{COMBINING}][^{NO_LINE}]*$"  # approximate: lacks some marks

TITLE_CHARS_MAX, DESCRIPTION_CHARS_MAX = 200, 10_000
TAG_CHARS_MAX, TAGS_MAX = 100, 50


def _distinct(tags: list[str]) -> list[str]:
    """Return the tags; raise `ValueError` when one repeats, ignoring case."""
    if len({tag.casefold() for tag in tags}) < len(tags):
        raise ValueError("tags repeat; each is given once")
    return tags


# The patterns only document the rules in OpenAPI; the validators check them, with messages in words.
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
    """Return a query's one-line text, without the invisible characters that are also removed from stored texts.

    `name` is the parameter's, for the error.

    Raises:
        Rejected: 422, the text has a control character.
    """
    if reason := characters.fault(text):
        raise Rejected(f"{name} {reason}", status=422, code="bad-text", hint="remove it")
    return characters.cleaned(text)
