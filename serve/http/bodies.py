"""Limits of a request's body, checked before it is parsed: its size, the depth of its JSON, the number of values.

Each check scans the bytes in C and takes at most twice as long as copying the body. Only the picture of an image search
may be large: the text between the quotes after `"image":`, which contains no nesting. Knows no field but `image`.
"""

from __future__ import annotations

import re
from itertools import accumulate

from cluster.errors import Rejected
from serve.settings import SearchSettings

# A string, or one that never ends, so that each quote is visited once; possessive quantifiers, so without backtracking.
STRING = re.compile(rb'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
PICTURE = re.compile(rb'"image"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"')
QUOTES_PER_VALUE = 4  # two for a name and two for its value; bounds the cost of the scan, which grows with quotes
NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
STEPS = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}


def check(body: bytes, search: SearchSettings, *, picture: bool) -> None:
    """Check a body against the limits of `[search] json_…`; with `picture`, the text of one picture does not count.

    Raises:
        Rejected: 413 when it is too large, 400 when it is nested too deep or has too many values.
    """
    json = _without_picture(body, search.json_max_bytes) if picture else body
    if len(json) > search.json_max_bytes:
        raise too_large(search.json_max_bytes, beside_picture=picture)
    if json.count(b'"') > QUOTES_PER_VALUE * search.json_values_max:
        raise Rejected(f"the body has more than {search.json_values_max} values", code="too-many-values")
    structure = STRING.sub(b"", json)
    values = structure.count(b",") + structure.count(b"[") + structure.count(b"{")
    if values > search.json_values_max:
        raise Rejected(f"the body has more than {search.json_values_max} values", code="too-many-values")
    if _depth(structure) > search.json_depth_max:
        raise Rejected(f"the body is nested deeper than {search.json_depth_max}", code="too-deep")


def too_large(bytes_max: int, *, beside_picture: bool = False) -> Rejected:
    """Return the error for a body that is too large; with `beside_picture` it is too large even without its picture."""
    what = "a search has, beside its picture," if beside_picture else "a request's body has"
    return Rejected(f"{what} at most {bytes_max} bytes", status=413, code="too-large")


def _without_picture(body: bytes, json_max_bytes: int) -> bytes:
    """Return a body without the text of its picture; return it unchanged if it has no picture."""
    if len(body) <= json_max_bytes:
        return body
    start = PICTURE.search(body, 0, json_max_bytes)  # a picture that starts later comes after too much JSON anyway
    if start is None:
        return body
    text = STRING.match(body, start.end() - 1)
    end = text.end() - 1 if text is not None else 0
    is_closed = end >= start.end() and body[end : end + 1] == b'"'
    return body[: start.end()] + body[end:] if is_closed else body


def _depth(structure: bytes) -> int:
    """Return how deeply brackets are nested in JSON from which the strings were removed."""
    brackets = structure.translate(None, NO_BRACKETS)
    return max(accumulate(map(STEPS.__getitem__, brackets)), default=0)
