"""Where a request comes from: the address that pays for it and, without key and cookie, names its viewer.

The door in front writes the client's address into `X-Forwarded-For` and proves itself by a secret in `X-Pixr-Door`.
Only then is the header believed, and of it only the last value, which is the door's own; any other client is the peer
of its connection.

uvicorn believes `X-Forwarded-For` of every peer on 127.0.0.1 by itself (`proxy_headers`, on unless told otherwise; Ray
Serve's own servers do not tell it) and has put what the header says in the place of the peer before the application is
called. So a header without the secret that names the scope's client has been written by a process on this machine,
which is the client then.
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
    """The client's address, as `Admission` has found it out; else the peer's."""
    found: str = request.scope.get("state", {}).get("address", "")
    return found or of(request.scope, b"")


def of(scope: Scope, secret: bytes) -> str:
    """The client's address: by the door's word where it proves itself by the secret, else the peer's."""
    headers = Headers(scope=scope)
    said = [part.strip() for line in headers.getlist(FORWARDED) for part in line.split(",")]
    if secret and hmac.compare_digest(headers.get(DOOR, "").encode(), secret) and said:
        return normal(said[-1])
    client: Any = scope.get("client")
    peer = normal(client[0]) if client else UNKNOWN
    return LOOPBACK if peer in {normal(_host(each)) for each in said} else peer


def is_encrypted(scope: Scope, secret: bytes) -> bool:
    """Does the client ask by TLS? By the door's word, who has it from itself or from a load balancer that it trusts."""
    headers = Headers(scope=scope)
    if headers.get(SCHEME) != "https" or not secret:
        return False
    return hmac.compare_digest(headers.get(DOOR, "").encode(), secret)


def is_proven(scope: Scope, secret: bytes) -> bool:
    """Does a program of this deployment ask for itself: with the secret, and for no client?"""
    headers = Headers(scope=scope)
    return bool(secret) and FORWARDED not in headers and hmac.compare_digest(headers.get(DOOR, "").encode(), secret)


def is_within(text: str, networks: Sequence[str]) -> bool:
    """Is an address in one of these networks?"""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(found in ipaddress.ip_network(network) for network in networks)


def normal(text: str) -> str:
    """An address in its shortest form; an IPv4 one that is written as IPv6 is IPv4. Other text is `UNKNOWN`."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return UNKNOWN
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def bucket(text: str) -> str:
    """What shares a bucket with an address: itself, or its IPv6 /64."""
    return _network(text, BUCKET_BITS)


def share(request: HTTPConnection, principal_id: int | None) -> str:
    """Whose places at gates a request takes: those of its key, else of its address, as `bucket` has it."""
    return f"key {principal_id}" if principal_id is not None else bucket(address(request))


def prefix(text: str, *, ipv4_bits: int = PREFIX_BITS[4], ipv6_bits: int = PREFIX_BITS[6]) -> str:
    """The network that an address is one of many in: /24, or /48 of IPv6."""
    return _network(text, {4: ipv4_bits, 6: ipv6_bits})


def _network(text: str, bits: dict[int, int]) -> str:
    try:
        found = ipaddress.ip_address(normal(text))
    except ValueError:
        return UNKNOWN
    return str(ipaddress.ip_network((found, bits[found.version]), strict=False))


def _host(text: str) -> str:
    """Without a port: `192.0.2.7:80` and `[2001:db8::7]:80`, as uvicorn reads them."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
