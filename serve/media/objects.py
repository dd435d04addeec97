"""The addresses at which browsers read objects of the store; `/media/…` redirects to them.

The embedded store is behind the door, which passes signed requests for `/<bucket>/…` on with their Host header: its
links are relative and signed for the host that the client used. An external store is read at its `public_url`, or else
its `url`. Makes no request: the store answers 404 for an object that is gone. Nothing can revoke a link, so each is
valid for minutes only (`object_link_expires_s`).
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from cluster import presign, storage
from cluster.runtime import S3Endpoint
from cluster.settings import EMBEDDED, S3Settings, Settings
from serve.settings import SearchSettings


def public_origin(s3: S3Settings) -> str:
    """Return scheme and host of the store as browsers reach it; "" where that is the door."""
    if s3.url == EMBEDDED and not s3.public_url:
        return ""
    parts = urlsplit(_public_url(s3))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # everybody is told it


def location(
    settings: Settings,
    endpoint: S3Endpoint,
    uri: str,
    *,
    host: str,
    content_type: str,
    method: str = "GET",
    now_s: float | None = None,
) -> str:
    """Return the link to an object.

    Args:
        settings: The deployment's, for the store's address and the lifetime.
        endpoint: The store's credentials.
        uri: The object, `s3://bucket/key`.
        host: The Host header of the client's request.
        content_type: The media type that the store shall answer with.
        method: The HTTP method that the client will use.
        now_s: The current time in seconds since 1970; None: the clock's.

    Returns:
        The link, relative to the door for the embedded store.

    Raises:
        Rejected: `uri` is not the address of an object.
    """
    bucket, key = storage.split(uri)
    origin = public_origin(settings.s3)
    lasts_s = settings.section(SearchSettings).object_link_expires_s
    base = urlsplit(_public_url(settings.s3)).path.rstrip("/") if origin else ""
    return origin + presign.path_and_query(
        endpoint,
        urlsplit(origin).netloc if origin else host,
        f"{base}/{bucket}/{key}",
        expires_s=lasts_s,
        now_s=time.time() if now_s is None else now_s,
        method=method,
        overrides={"response-content-type": content_type, "response-cache-control": f"private, max-age={lasts_s}"},
    )


def _public_url(s3: S3Settings) -> str:
    """Return the store's address as browsers reach it; without a URL in the settings it is Amazon's, by region."""
    return s3.public_url or s3.url or f"https://s3.{s3.region}.amazonaws.com"
