"""Signed links to thumbnails and videos.

A link is signed over its path and its expiry, so that a `<video>` element needs no key and a leaked link stops working.
Expiries are rounded to ten minutes: the same moment keeps the same link for a while and browsers can cache it. Knows
neither tables nor S3; `routes.media` redirects to the objects.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import urlsafe_b64encode
from pathlib import Path

from cluster import runtime
from cluster.errors import Rejected
from cluster.settings import Settings
from serve.settings import SearchSettings

LINK_STEP_S = 600
SIGNATURE_BYTES = 18
CONTENT_TYPES = {
    "mp4": "video/mp4", "m4v": "video/mp4", "f4v": "video/mp4", "mov": "video/quicktime", "qt": "video/quicktime",
    "3gp": "video/3gpp", "3gpp": "video/3gpp", "3g2": "video/3gpp2", "mj2": "video/mj2",
    "webm": "video/webm", "mkv": "video/x-matroska", "ts": "video/mp2t", "m2t": "video/mp2t", "m2ts": "video/mp2t",
    "mts": "video/mp2t", "mpg": "video/mpeg", "mpeg": "video/mpeg", "vob": "video/mpeg",
    "avi": "video/x-msvideo", "divx": "video/x-msvideo",
}  # fmt: skip

# By data folder, read once per process: the secret's file does not change while a deployment runs.
_keys: dict[Path, bytes] = {}


def thumbnail_url(settings: Settings, segment_id: int, *, private: bool = False) -> str:
    """Return a link to a moment's thumbnail; `private` for callers who may see a private video."""
    return signed(settings, f"/media/thumbnails/{segment_id}", private=private)


def play_url(settings: Settings, video_id: int, start_ms: int, end_ms: int, *, private: bool = False) -> str:
    """Return a link that plays a moment: the video with the media fragment `#t=start,end` in seconds.

    Args:
        settings: The deployment's, for the key and the lifetime.
        video_id: The video's number.
        start_ms: Where the moment starts, in milliseconds.
        end_ms: Where it ends.
        private: For callers who may see a private video.

    Returns:
        The link, relative to the server.
    """
    link = signed(settings, f"/media/videos/{video_id}", private=private)
    return f"{link}#t={start_ms / 1000:.3f},{end_ms / 1000:.3f}"


def signed(settings: Settings, path: str, *, private: bool = False, now_s: float | None = None) -> str:
    """Return a path with its expiry and a signature.

    Args:
        settings: The deployment's, for the key and the lifetime.
        path: Such as `/media/videos/7`.
        private: Whether the link gives access to a private video; that is signed too.
        now_s: The current time in seconds since 1970; None: the clock's.

    Returns:
        The path with the query `expires=…&signature=…`.
    """
    now = time.time() if now_s is None else now_s
    lasts_s = settings.section(SearchSettings).link_expires_s
    expires_s = (int(now + lasts_s) // LINK_STEP_S + 1) * LINK_STEP_S
    grant = "&private=1" if private else ""
    return f"{path}?expires={expires_s}{grant}&signature={_signature(settings, path, expires_s, private)}"


def check(
    settings: Settings, path: str, expires_s: int, signature: str, *, private: bool, now_s: float | None = None
) -> None:
    """Check that a link was signed by this deployment and has not expired.

    Args:
        settings: The deployment's, for the key.
        path: The link's path.
        expires_s: The link's expiry in seconds since 1970.
        signature: The link's signature.
        private: Whether the link gives access to a private video.
        now_s: The current time in seconds since 1970; None: the clock's.

    Raises:
        Rejected: 403, the signature is wrong, or the link has expired.
    """
    expected = _signature(settings, path, expires_s, private)
    if not hmac.compare_digest(signature.encode(), expected.encode()):
        raise Rejected("the link is not signed by this deployment", status=403, code="link-invalid")
    if (time.time() if now_s is None else now_s) > expires_s:
        raise Rejected("the link has expired", status=403, code="link-expired", hint="search again for a new one")


def _signature(settings: Settings, path: str, expires_s: int, private: bool) -> str:
    text = f"{path}\n{expires_s}\n{int(private)}".encode()
    digest = hmac.digest(_key(settings), text, hashlib.sha256)
    return urlsafe_b64encode(digest[:SIGNATURE_BYTES]).decode()


def _key(settings: Settings) -> bytes:
    if settings.data_dir not in _keys:
        _keys[settings.data_dir] = runtime.secret(settings, "link_key").encode()
    return _keys[settings.data_dir]


def content_type(uri: str) -> str:
    """Return the media type of an object by the ending of its name."""
    return CONTENT_TYPES.get(uri.rpartition(".")[2].lower(), "application/octet-stream")
