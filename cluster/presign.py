"""Links to S3 objects that carry their own permission: AWS Signature Version 4 in the query, made without a client.

Only the host and the path are signed beside the query, so that a range may be asked for. The time of signing is
rounded down, by a third of what a link lives at most: the same object keeps the same link for a while, and browsers can
cache it. Pure arithmetic, a tenth of a millisecond; botocore's own needs a client, which takes 0.4 s to make.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from cluster.runtime import S3Endpoint

ALGORITHM = "AWS4-HMAC-SHA256"
STEPS = 3  # in which a link lives: it is the same for one of them, and answered for the others at least


def path_and_query(
    endpoint: S3Endpoint,
    host: str,
    path: str,
    *,
    expires_s: int,
    now_s: float,
    method: str = "GET",
    overrides: Mapping[str, str] | None = None,
) -> str:
    """The path with a signed query that `host` (as the client says it, with the port) answers until it expires.

    That is `expires_s` after now at the latest, and two thirds of it at the earliest.
    `path` is `/bucket/key`, behind whatever the endpoint's own path is. `overrides` are `response-…` parameters.
    """
    step_s = max(1, expires_s // STEPS)
    at = dt.datetime.fromtimestamp(int(now_s) // step_s * step_s, dt.UTC)
    scope = f"{at:%Y%m%d}/{endpoint.region}/s3/aws4_request"
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{endpoint.key}/{scope}",
        "X-Amz-Date": f"{at:%Y%m%dT%H%M%SZ}",
        "X-Amz-Expires": str(expires_s),
        "X-Amz-SignedHeaders": "host",
        **(overrides or {}),
    }
    given = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
    quoted = quote(path, safe="/~")
    request = f"{method}\n{quoted}\n{given}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"{ALGORITHM}\n{query['X-Amz-Date']}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.new(_key(endpoint.secret, f"{at:%Y%m%d}", endpoint.region), text.encode(), hashlib.sha256)
    return f"{quoted}?{given}&X-Amz-Signature={signature.hexdigest()}"


@lru_cache(maxsize=8)
def _key(secret: str, day: str, region: str) -> bytes:
    """The key of a day, derived from the secret as Signature Version 4 says."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return key
