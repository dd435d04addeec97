"""What a body may be, seen before anything parses it: its bytes, how deep its JSON is nested, how many values it has.

Everything here is a scan over bytes in C, at most twice the time of a copy. Only the picture of an image search may be
large: the text between the quotes after `"image":`, in which nothing nests.
"""

from __future__ import annotations

import re
from itertools import accumulate

from cluster.errors import Rejected
from serve.settings import SearchSettings

# A string, also one that never ends, so that no quote is looked at twice; possessive, so that nothing is tried again.
STRING = re.compile(rb'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
PICTURE = re.compile(rb'"image"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"')
QUOTES_PER_VALUE = 4  # two of a name and two of its value; a string pays for what the scan costs with each quote
NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
STEPS = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}


def check(body: bytes, search: SearchSettings, *, picture: bool) -> None:
    """Refuse a body that is too large or too deep; `picture`: may it carry one?

    Raises:
        Rejected: 413 or 400.
    """
    rest = _without_picture(body, search.json_max_bytes) if picture else body
    if len(rest) > search.json_max_bytes:
        raise too_large(search.json_max_bytes, beside_picture=picture)
    if rest.count(b'"') > QUOTES_PER_VALUE * search.json_values_max:
        raise Rejected(f"the body has more than {search.json_values_max} values", code="too-many-values")
    plain = STRING.sub(b"", rest)
    values = plain.count(b",") + plain.count(b"[") + plain.count(b"{")
    if values > search.json_values_max:
        raise Rejected(f"the body has more than {search.json_values_max} values", code="too-many-values")
    if _depth(plain) > search.json_depth_max:
        raise Rejected(f"the body is nested deeper than {search.json_depth_max}", code="too-deep")


def too_large(bytes_max: int, *, beside_picture: bool = False) -> Rejected:
    what = "a search has, beside its picture," if beside_picture else "a request's body has"
    return Rejected(f"{what} at most {bytes_max} bytes", status=413, code="too-large")


def _without_picture(body: bytes, json_max_bytes: int) -> bytes:
    """What is left of a body without the text of its picture, which is all of it where there is none."""
    if len(body) <= json_max_bytes:
        return body
    found = PICTURE.search(body, 0, json_max_bytes)  # what comes before it is small, or too large
    if found is None:
        return body
    text = STRING.match(body, found.end() - 1)
    end = text.end() - 1 if text is not None else 0
    is_closed = end >= found.end() and body[end : end + 1] == b'"'
    return body[: found.end()] + body[end:] if is_closed else body


def _depth(plain: bytes) -> int:
    brackets = plain.translate(None, NO_BRACKETS)
    return max(accumulate(map(STEPS.__getitem__, brackets)), default=0)
