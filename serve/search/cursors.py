"""Cursors: signed texts with which callers ask for the further pages of an answer or of a list.

A search's cursor carries the candidates that are left to show, as they were when the search was made (id, score,
relevance, why each was found), so that its pages neither shift nor repeat. It also carries whether they are grouped by
video, and the generation of the catalogue. A list's cursor carries its filters and the sort key of its last row. Both
are opaque to callers; a forged or expired one is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from cluster.errors import Rejected

HEADER = struct.Struct("<BQQ")  # version, expiry in seconds since 1970, generation
ENTRY = struct.Struct("<qfIB")  # segment id, score, relevance in ppm, why it was found as bits
OF_MOMENTS, OF_VIDEOS = 1, 2  # versions: the candidates are moments, or the best moment of each video
SIGNATURE_BYTES = 16
PLAIN_BYTES_MAX = 1 << 16
MATCHED = {"vector": 1, "text": 2, "some_words": 4}  # the bit of each reason
LIST = b"list "  # the kind that is signed before a list's cursor, so that it cannot be passed off as one of a search
SEARCH_AGAIN, LIST_AGAIN = "search again", "begin the list again"
COMPRESSION = 1  # a higher level takes three times as long and makes a tenth less


class Ranked(NamedTuple):
    """A candidate of a search, or a moment of the feed, with its score."""

    segment_id: int
    score: float  # fused of the lists: ranks within one answer
    relevance_ppm: int  # calibrated, parts per million
    matched: tuple[str, ...]  # why it was found: names of `MATCHED`


def pack(
    ranked: Sequence[Ranked],
    generation: int,
    key: bytes,
    expires_in_s: int,
    now_s: float | None = None,
    *,
    by_video: bool = False,
) -> str:
    """Pack the candidates that are left into a cursor.

    Args:
        ranked: the candidates, best first.
        generation: the generation of the catalogue that they were found at.
        key: the key to sign with.
        expires_in_s: for how long the cursor is good.
        now_s: the time, in seconds since 1970; the clock's where it is None.
        by_video: whether the answer is grouped by video, so that each candidate is the best moment of its video.

    Returns:
        The cursor, as URL-safe base64.
    """
    version = OF_VIDEOS if by_video else OF_MOMENTS
    expires_s = int((time.time() if now_s is None else now_s) + expires_in_s)
    entries = (
        ENTRY.pack(each.segment_id, each.score, each.relevance_ppm, sum(MATCHED[name] for name in each.matched))
        for each in ranked
    )
    return _sealed(zlib.compress(HEADER.pack(version, expires_s, generation) + b"".join(entries), COMPRESSION), key)


def unpack(text: str, key: bytes, now_s: float | None = None) -> tuple[list[Ranked], int, bool]:
    """Return the candidates in a cursor, the generation that they were found at, and whether they are grouped by video.

    Raises:
        Rejected: the cursor was not signed with this key, or has expired.
    """
    plain = zlib.decompressobj().decompress(_opened(text, key), PLAIN_BYTES_MAX)
    version, expires_s, generation = HEADER.unpack_from(plain)
    if version not in (OF_MOMENTS, OF_VIDEOS) or (time.time() if now_s is None else now_s) > expires_s:
        raise _refused("the cursor has expired")
    return [_ranked(*entry) for entry in ENTRY.iter_unpack(plain[HEADER.size :])], generation, version == OF_VIDEOS


def pack_place(
    name: str, of: str, filters: Mapping[str, Any], after: Sequence[Any], key: bytes, expires_in_s: int
) -> str:
    """Pack the place of a list's last row into a cursor.

    Args:
        name: the list's name.
        of: what the list belongs to, for instance the id of a video; "" if it belongs to nothing.
        filters: the filters and the order, by name.
        after: the sort key of the last row.
        key: the key to sign with.
        expires_in_s: for how long the cursor is good.

    Returns:
        The cursor, as URL-safe base64.
    """
    return _sealed(orjson.dumps([int(time.time()) + expires_in_s, name, of, filters, after]), key, LIST)


def unpack_place(name: str, of: str, text: str, key: bytes) -> tuple[dict[str, Any], list[Any]]:
    """Read a cursor of a list.

    Args:
        name: the list's name.
        of: what the list belongs to.
        text: the cursor.
        key: the key that it was signed with.

    Returns:
        The filters and the order by name, and the sort key of the last row.

    Raises:
        Rejected: the cursor was not signed with this key, is of another list, or has expired.
    """
    expires_s, *listed, filters, after = orjson.loads(_opened(text, key, LIST))
    if listed != [name, of]:
        raise _refused("the cursor is of another list", LIST_AGAIN)
    if time.time() > expires_s:
        raise _refused("the cursor has expired", LIST_AGAIN)
    return filters, after


def _ranked(segment_id: int, score: float, relevance_ppm: int, bits: int) -> Ranked:
    matched = tuple(name for name, bit in MATCHED.items() if bits & bit)
    return Ranked(segment_id, score, relevance_ppm, matched)


def _sealed(body: bytes, key: bytes, kind: bytes = b"") -> str:
    """Return a cursor, which is a signature and then the body; the signature covers `kind` and the body."""
    return base64.urlsafe_b64encode(_signature(kind + body, key) + body).decode().rstrip("=")


def _opened(text: str, key: bytes, kind: bytes = b"") -> bytes:
    """Return the body of a cursor; raise `Rejected` where it was not signed with this key."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        data = b""
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(kind + body, key)):
        raise _refused("the cursor is not one of ours", LIST_AGAIN if kind else SEARCH_AGAIN)
    return body


def _signature(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, body, hashlib.sha256)[:SIGNATURE_BYTES]


def _refused(detail: str, hint: str = SEARCH_AGAIN) -> Rejected:
    return Rejected(detail, status=422, code="bad-cursor", hint=hint)
