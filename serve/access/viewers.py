"""The viewer of a search, as far as money is concerned: the key's principal, else a signed cookie, else the address.

What identifies a viewer is put into a keyed hash at once and stored nowhere else; so is the network of an anonymous
viewer. Knows nothing of the search itself.
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
    """Who sees the result of a search.

    `kind` is "key", "cookie" or "address"; `identity` is what is hashed. `origin` is an anonymous viewer's network.
    """

    kind: str
    identity: str
    origin: str = ""

    @property
    def anonymous(self) -> bool:
        """Whether the viewer was identified without a key."""
        return self.kind != "key"


def of(request: Request, principal: Principal | None, key: bytes) -> Viewer:
    """Return the viewer of a request; `key` is the one that signs cookies."""
    if principal is not None:
        return Viewer("key", str(principal.id))
    address = origins.address(request)
    name = _verified(request.cookies.get(COOKIE, ""), key)
    network = origins.prefix(address)
    return Viewer("cookie", name, network) if name else Viewer("address", address, network)


def new_cookie(key: bytes) -> str:
    """Return a new random name for a browser, signed."""
    name = secrets.token_urlsafe(16)
    return f"{name}.{_signature(name, key)}"


def _verified(cookie: str, key: bytes) -> str:
    """Return the name in a cookie whose signature is right; empty otherwise."""
    name, _, signature = cookie.rpartition(".")
    return name if name and hmac.compare_digest(signature.encode(), _signature(name, key).encode()) else ""


def _signature(name: str, key: bytes) -> str:
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:SIGNATURE_CHARS]


def key_of(settings: Settings) -> bytes:
    """Return the deployment's key that signs cookies."""
    return runtime.secret(settings, "viewer_key").encode()
