"""Texts as callers may write them: without characters that steer a terminal or turn the direction of writing.

Control characters (C0 and C1), line and paragraph separators and bidirectional overrides are refused where a text is one
line; a description may have line breaks and tabs. Knows nothing of what a text is for.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from cluster.errors import Rejected

# Written for the dialects that read it: Python's, Rust's (pydantic) and ECMAScript's (OpenAPI).
STEERING = r"\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
LINE = rf"^[^\x00-\x1f{STEERING}]*$"
LINES = rf"^[^\x00-\x08\x0b\x0c\x0e-\x1f{STEERING}]*$"
FORBIDDEN = re.compile(rf"[\x00-\x1f{STEERING}]")

TITLE_CHARS_MAX, DESCRIPTION_CHARS_MAX = 200, 10_000
TAG_CHARS_MAX, TAGS_MAX = 100, 50


def _distinct(tags: list[str]) -> list[str]:
    if len({tag.casefold() for tag in tags}) < len(tags):
        raise ValueError("tags repeat; each is given once")
    return tags


Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TITLE_CHARS_MAX, pattern=LINE)]
Description = Annotated[str, StringConstraints(max_length=DESCRIPTION_CHARS_MAX, pattern=LINES)]
Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TAG_CHARS_MAX, pattern=LINE)]
Tags = Annotated[
    list[Tag], Field(max_length=TAGS_MAX, json_schema_extra={"uniqueItems": True}), AfterValidator(_distinct)
]


def check(name: str, text: str) -> None:
    """Refuse a text of one line with a character that is none.

    Raises:
        Rejected: 422, with the character's number.
    """
    found = FORBIDDEN.search(text)
    if found is not None:
        said = f"{name} contains the control character U+{ord(found.group()):04X}"
        raise Rejected(said, status=422, code="bad-text", hint="remove it")
