"""The client's address of a request: rate limits count by it, and it identifies a viewer without key and cookie.

The door writes the client's address into `X-Forwarded-For` and proves itself by a secret in `X-Pixr-Door`. The header
is believed only then, and only its last value, which the door has added; otherwise the client is the peer of the
connection.

uvicorn believes `X-Forwarded-For` of every peer on 127.0.0.1 (`proxy_headers`, which Ray Serve's servers leave on) and
has replaced the peer by the header's value before the application is called. So if the secret is missing and the
scope's client equals the header's value, a process on this machine sent the request. That process is then taken as the
client.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

LOOPBACK = "127.0.0.1"
UNKNOWN = "unknown"
DOOR, FORWARDED, SCHEME = "x-pixr-door", "x-forwarded-for", "x-forwarded-proto"
SECRET = "door"  # noqa: S105  the name of the secret's file
BUCKET_BITS = {4: 32, 6: 64}  # a customer of an IPv6 provider has at least a /64
PREFIX_BITS = {4: 24, 6: 48}


def address(request: HTTPConnection) -> str:
    """Return the client's address as `Admission` has determined it; without it, the peer's."""
    admitted: str = request.scope.get("state", {}).get("address", "")
    return admitted or of(request.scope, b"")


def of(scope: Scope, secret: bytes) -> str:
    """Return the client's address: what the door reports, if the request has the door's secret; else the peer's."""
    headers = Headers(scope=scope)
    forwarded = [part.strip() for line in headers.getlist(FORWARDED) for part in line.split(",")]
    if secret and hmac.compare_digest(headers.get(DOOR, "").encode(), secret) and forwarded:
        return normal(forwarded[-1])
    client: Any = scope.get("client")
    peer = normal(client[0]) if client else UNKNOWN
    return LOOPBACK if peer in {normal(_host(text)) for text in forwarded} else peer


def is_encrypted(scope: Scope, secret: bytes) -> bool:
    """Return whether the client used TLS, according to the door or to a load balancer that the door trusts."""
    headers = Headers(scope=scope)
    if headers.get(SCHEME) != "https" or not secret:
        return False
    return hmac.compare_digest(headers.get(DOOR, "").encode(), secret)


def is_proven(scope: Scope, secret: bytes) -> bool:
    """Return whether a program of this deployment sent the request on its own behalf.

    Such a request has the door's secret, but not `X-Forwarded-For`, which the door adds for each client.
    """
    headers = Headers(scope=scope)
    return bool(secret) and FORWARDED not in headers and hmac.compare_digest(headers.get(DOOR, "").encode(), secret)


def is_within(text: str, networks: Sequence[str]) -> bool:
    """Return whether an address is in one of these networks."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(parsed in ipaddress.ip_network(network) for network in networks)


def normal(text: str) -> str:
    """Return an address in its shortest form; `UNKNOWN` if the text is not an address.

    An IPv4-mapped IPv6 address becomes an IPv4 address.
    """
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return UNKNOWN
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def bucket(text: str) -> str:
    """Return the name that rate limits count an address under: itself, or the /64 network of an IPv6 address."""
    return _network(text, BUCKET_BITS)


def share(request: HTTPConnection, principal_id: int | None) -> str:
    """Return the name under which gates count a caller: the key's principal, or without a key the `bucket`."""
    return f"key {principal_id}" if principal_id is not None else bucket(address(request))


def prefix(text: str, *, ipv4_bits: int = PREFIX_BITS[4], ipv6_bits: int = PREFIX_BITS[6]) -> str:
    """Return the network around an address, /24 for IPv4 and /48 for IPv6 unless other lengths are given."""
    return _network(text, {4: ipv4_bits, 6: ipv6_bits})


def _network(text: str, bits: dict[int, int]) -> str:
    try:
        parsed = ipaddress.ip_address(normal(text))
    except ValueError:
        return UNKNOWN
    return str(ipaddress.ip_network((parsed, bits[parsed.version]), strict=False))


def _host(text: str) -> str:
    """Return the address in a value of X-Forwarded-For, without a port and brackets.

    `192.0.2.7:80` gives `192.0.2.7`, and `[2001:db8::7]:80` gives `2001:db8::7`. uvicorn does the same.
    """
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
