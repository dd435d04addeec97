"""Who looks, as far as money is concerned: the key's principal, else a signed cookie, else the address.

What identifies a viewer goes into a keyed hash at once and nowhere else, and so does the network that an anonymous one
comes from. Knows nothing of what was searched.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from fastapi import Request

from cluster import runtime
from cluster.settings import Settings
from serve.access import origins
from serve.access.keys import Principal

COOKIE = "pixr_viewer"
COOKIE_MAX_AGE_S = 365 * 86_400
SIGNATURE_CHARS = 24


@dataclass(frozen=True)
class Viewer:
    """`kind` is "key", "cookie" or "address". `origin` is the network of an anonymous viewer: its address prefix."""

    kind: str
    identity: str
    origin: str = ""

    @property
    def anonymous(self) -> bool:
        return self.kind != "key"


def of(request: Request, principal: Principal | None, key: bytes) -> Viewer:
    """The viewer of a request."""
    if principal is not None:
        return Viewer("key", str(principal.id))
    address = origins.address(request)
    name = _verified(request.cookies.get(COOKIE, ""), key)
    network = origins.prefix(address)
    return Viewer("cookie", name, network) if name else Viewer("address", address, network)


def new_cookie(key: bytes) -> str:
    """A fresh, signed name for a browser."""
    name = secrets.token_urlsafe(16)
    return f"{name}.{_signature(name, key)}"


def _verified(cookie: str, key: bytes) -> str:
    name, _, signature = cookie.rpartition(".")
    return name if name and hmac.compare_digest(signature.encode(), _signature(name, key).encode()) else ""


def _signature(name: str, key: bytes) -> str:
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:SIGNATURE_CHARS]


def key_of(settings: Settings) -> bytes:
    """The key that signs cookies."""
    return runtime.secret(settings, "viewer_key").encode()
