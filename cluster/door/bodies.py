"""Larger bodies on their way in, as HAProxy's rules: whose they are, how many one address and its network may have.

A body that drips holds a place at a replica until the replica gives it up. So strangers have a room, of which a network
may have a part, and callers with a key have another: the door cannot judge a key, but a replica does so before it looks
at a body. HAProxy would keep a request until its body is whole, also where it was answered before; so it ends one that a
replica has refused. A replica throws away what comes quickly of a refused body before it says so (`[search] refused_…`):
who sends at full speed has sent all by then and sees the answer, and who drips has left the room within half a second.
"""

from __future__ import annotations

from cluster.door import answers
from cluster.settings import DoorSettings

PROBLEMS = (400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 422, 429, 500, 501, 502, 503, 504)
KEPT_HEADERS = (
    "access-control-allow-credentials", "access-control-allow-origin", "access-control-expose-headers", "allow",
    "cache-control", "ratelimit", "ratelimit-policy", "retry-after", "server-timing", "vary", "www-authenticate",
    "x-content-type-options", "x-request-id",
)  # fmt: skip
PROBLEM_WAIT_S = 2  # its first byte was there already
ROOMS = ("bodies", "bodies_with_key")
# What has a key here has one for a replica too, which judges it (`token_of` of serve/access/keys.py reads the first of each
# header).
BEARER = "^bearer .*[!-~]"
ADDRESS, NETWORK = "src,ipmask(32,64)", "src,ipmask(24,48)"
BY_ADDRESS, BY_ADDRESS_WITH_KEY, BY_NETWORK = "addresses_of_bodies", "addresses_of_keyed_bodies", "networks_of_bodies"


def tables(size: int) -> list[str]:
    """Where bodies under way are counted; entries are kept only while they count something."""
    made = (f"    stick-table type ipv6 size {size} expire 10s store conn_cur",)
    return [line for name in (BY_ADDRESS, BY_ADDRESS_WITH_KEY, BY_NETWORK) for line in ("", f"backend {name}", *made)]


def rules(wanted: DoorSettings) -> list[str]:
    """Count and bound them; `has_body_to_come` and `has_key` say to those who follow which room is meant."""
    retry, limits = wanted.retry_after_s, (wanted.bodies_per_address_max, wanted.bodies_per_network_max)
    too_many = f"return status 429 {answers.TOO_MANY_BODIES.rule(retry)} if has_body_to_come"
    return [
        f"    acl has_body_to_come req.hdr_val(content-length) gt {wanted.small_body_bytes_max}",
        "    acl has_body_to_come req.hdr(transfer-encoding) -m found",
        f"    acl says_a_key req.fhdr(authorization,1) -i -m reg {answers.quoted(BEARER)}",
        "    acl says_a_key req.fhdr(x-api-key,1),length gt 0",
        # What a browser asks before it asks is answered before a key is judged.
        "    http-request set-var(txn.has_key) bool(true) if says_a_key !{ method OPTIONS }",
        "    acl has_key var(txn.has_key) -m bool",
        f"    http-request track-sc2 {ADDRESS} table {BY_ADDRESS_WITH_KEY} if has_body_to_come has_key",
        f"    http-request track-sc2 {ADDRESS} table {BY_ADDRESS} if has_body_to_come !has_key",
        f"    http-request track-sc3 {NETWORK} table {BY_NETWORK} if has_body_to_come !has_key",
        f"    http-request {too_many} {{ sc2_conn_cur gt {limits[0]} }}",
        f"    http-request {too_many} !has_key {{ sc_conn_cur(3) gt {limits[1]} }}",
    ]


def ended_by_an_error() -> list[str]:
    """Say a replica's problem again as the door's own, which ends the request: who goes on to send holds no place.

    Their connection is cut then, and some of them miss the answer; who has sent all keeps it.
    The document is said as it came, and the headers that have a meaning. What is compressed came after the body.
    """
    is_problem = f"{{ res.hdr(content-type) -m beg {answers.MEDIA_TYPE} }} !{{ res.hdr(content-encoding) -m found }}"
    lines = [
        f"    http-response wait-for-body time {PROBLEM_WAIT_S}s if {is_problem}",
        f"    http-response set-var(txn.problem) res.body if {is_problem}",  # an answer is emptied before the next is made
    ]
    for name in KEPT_HEADERS:
        kept = f"txn.{name.replace('-', '_')}"
        lines.append(f"    http-response set-var({kept}) res.fhdr({name}) if {is_problem}")
        lines.append(f"    http-after-response set-header {name} %[var({kept})] if {{ var({kept}) -m found }}")
    said = f"content-type {answers.MEDIA_TYPE} lf-string %[var(txn.problem)]"
    return lines + [
        f"    http-response return status {status} {said} if {is_problem} {{ status {status} }}" for status in PROBLEMS
    ]
