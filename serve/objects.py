"""Where a browser reads the objects of the store: links that `/media/…` redirects to.

The embedded store is behind the door, which routes `/<bucket>/…` with a signature to it and keeps the Host header: its
links are relative and signed for the host that the client used. A store that is given by URL is read there, at its
`public_url` if it has one. Asks nobody: a link to an object that is gone is answered 404 by the store, and nothing can
take one back, so that each lives for minutes (`object_link_expires_s`).
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from cluster import presign, storage
from cluster.runtime import S3Endpoint
from cluster.settings import EMBEDDED, S3Settings, Settings
from serve.settings import SearchSettings


def public_origin(s3: S3Settings) -> str:
    """Scheme and host of the store as browsers see it; "" where that is the door."""
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
    """The link to an object, for a client that asked with this Host header, by this method."""
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
    """Without a URL it is Amazon's own, by region."""
    return s3.public_url or s3.url or f"https://s3.{s3.region}.amazonaws.com"
