"""Cursors: the further pages of an answer, frozen when it was given and signed, so that pages neither shift nor repeat.

A cursor carries what is left to show (id, score, relevance, why it was found), whether that is a moment of each video, and
the index generation it was made at. Opaque to callers; a forged or expired one is refused.
"""

from __future__ import annotations

import base64
import binascii
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
ENTRY = struct.Struct("<qfIB")
OF_MOMENTS, OF_VIDEOS = 1, 2  # versions: what is left are moments, or the best of each video
SIGNATURE_BYTES = 16
PLAIN_BYTES_MAX = 1 << 16
MATCHED = {"vector": 1, "text": 2, "some_words": 4}  # the bit of each
LIST, LIST_AGAIN = (
    b"list ",
    "begin the list again",
)  # what is signed of a list's cursor is not what is signed of a search's
COMPRESSION = 1  # more takes three times as long for a tenth


class Ranked(NamedTuple):
    """A moment in its place: the fused score, the calibrated relevance, and why it was found."""

    segment_id: int
    score: float
    relevance_ppm: int
    matched: tuple[str, ...]


def pack(
    ranked: Sequence[Ranked],
    generation: int,
    key: bytes,
    expires_in_s: int,
    now_s: float | None = None,
    *,
    by_video: bool = False,
) -> str:
    """A cursor over what is left."""
    version = OF_VIDEOS if by_video else OF_MOMENTS
    expires_s = int((time.time() if now_s is None else now_s) + expires_in_s)
    entries = (ENTRY.pack(each.segment_id, each.score, each.relevance_ppm, _bits(each.matched)) for each in ranked)
    body = zlib.compress(HEADER.pack(version, expires_s, generation) + b"".join(entries), COMPRESSION)
    return base64.urlsafe_b64encode(_signature(body, key) + body).decode().rstrip("=")


def unpack(text: str, key: bytes, now_s: float | None = None) -> tuple[list[Ranked], int, bool]:
    """What a cursor carries, the generation it was made at, and whether it goes by video.

    Raises:
        Rejected: it is not ours, or too old.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise _refused("the cursor is not one of ours") from error
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(body, key)):
        raise _refused("the cursor is not one of ours")
    plain = zlib.decompressobj().decompress(body, PLAIN_BYTES_MAX)
    version, expires_s, generation = HEADER.unpack_from(plain)
    if version not in (OF_MOMENTS, OF_VIDEOS) or (time.time() if now_s is None else now_s) > expires_s:
        raise _refused("the cursor has expired")
    return [_ranked(*entry) for entry in ENTRY.iter_unpack(plain[HEADER.size :])], generation, version == OF_VIDEOS


def pack_place(
    name: str, of: str, asked: Mapping[str, Any], after: Sequence[Any], key: bytes, expires_in_s: int
) -> str:
    """A cursor of a list: its name and what it belongs to, what was asked, and the place of the last row."""
    body = orjson.dumps([int(time.time()) + expires_in_s, name, of, asked, after])
    return base64.urlsafe_b64encode(_signature(LIST + body, key) + body).decode().rstrip("=")


def unpack_place(name: str, of: str, text: str, key: bytes) -> tuple[dict[str, Any], list[Any]]:
    """What was asked, and the place of the last row.

    Raises:
        Rejected: it is not ours, of another list, or too old.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise _refused("the cursor is not one of ours", LIST_AGAIN) from error
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(LIST + body, key)):
        raise _refused("the cursor is not one of ours", LIST_AGAIN)
    expires_s, *listed, asked, after = orjson.loads(body)
    if listed != [name, of]:
        raise _refused("the cursor is of another list", LIST_AGAIN)
    if time.time() > expires_s:
        raise _refused("the cursor has expired", LIST_AGAIN)
    return asked, after


def _bits(matched: tuple[str, ...]) -> int:
    return sum(MATCHED[name] for name in matched)


def _ranked(segment_id: int, score: float, relevance_ppm: int, bits: int) -> Ranked:
    matched = tuple(name for name, bit in MATCHED.items() if bits & bit)
    return Ranked(segment_id, score, relevance_ppm, matched)


def _signature(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, body, hashlib.sha256)[:SIGNATURE_BYTES]


def _refused(detail: str, hint: str = "search again") -> Rejected:
    return Rejected(detail, status=422, code="bad-cursor", hint=hint)
