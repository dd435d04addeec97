"""HAProxy rules for larger request bodies: how many one address and one network may be sending at once.

A body that arrives slowly holds a place at a replica until the replica gives up. So requests without a key share one
set of places, of which a network may take a part, and requests with a key have another set: the door cannot verify a
key, but a replica does so before it reads the body. HAProxy would keep a request until its body is complete even after
the response, so these rules end a request that a replica has refused. Before it answers, a replica reads and discards
what arrives quickly of a refused body (`[search] refused_…`): a fast client has then sent everything and sees the
response, while a slow one loses its place within half a second.
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
PROBLEM_WAIT_S = 2  # for the rest of a problem document whose headers have arrived
ROOMS = ("bodies", "bodies_with_key")
# A request has a key for the door exactly when it has one for a replica, which verifies it (`token_of` of
# serve/access/keys.py reads the first header of each name).
BEARER = "^bearer .*[!-~]"
ADDRESS, NETWORK = "src,ipmask(32,64)", "src,ipmask(24,48)"
BY_ADDRESS, BY_ADDRESS_WITH_KEY, BY_NETWORK = "addresses_of_bodies", "addresses_of_keyed_bodies", "networks_of_bodies"


def tables(size: int) -> list[str]:
    """Return the stick tables that count bodies in progress; HAProxy keeps an entry only while its count is above 0."""
    table = f"    stick-table type ipv6 size {size} expire 10s store conn_cur"
    return [line for name in (BY_ADDRESS, BY_ADDRESS_WITH_KEY, BY_NETWORK) for line in ("", f"backend {name}", table)]


def rules(limits: DoorSettings) -> list[str]:
    """Return the frontend's rules that count and bound larger bodies.

    They define the ACLs `has_body_to_come` and `has_key`, by which later rules choose the backend.
    """
    too_many = f"return status 429 {answers.TOO_MANY_BODIES.rule(limits.retry_after_s)} if has_body_to_come"
    return [
        f"    acl has_body_to_come req.hdr_val(content-length) gt {limits.small_body_bytes_max}",
        "    acl has_body_to_come req.hdr(transfer-encoding) -m found",
        f"    acl says_a_key req.fhdr(authorization,1) -i -m reg {answers.quoted(BEARER)}",
        "    acl says_a_key req.fhdr(x-api-key,1),length gt 0",
        # A browser's preflight request (OPTIONS) is answered before a key is verified.
        "    http-request set-var(txn.has_key) bool(true) if says_a_key !{ method OPTIONS }",
        "    acl has_key var(txn.has_key) -m bool",
        f"    http-request track-sc2 {ADDRESS} table {BY_ADDRESS_WITH_KEY} if has_body_to_come has_key",
        f"    http-request track-sc2 {ADDRESS} table {BY_ADDRESS} if has_body_to_come !has_key",
        f"    http-request track-sc3 {NETWORK} table {BY_NETWORK} if has_body_to_come !has_key",
        f"    http-request {too_many} {{ sc2_conn_cur gt {limits.bodies_per_address_max} }}",
        f"    http-request {too_many} !has_key {{ sc_conn_cur(3) gt {limits.bodies_per_network_max} }}",
    ]


def refused_bodies() -> list[str]:
    """Return the backend's rules that replace a replica's refusal by the same problem document from HAProxy itself.

    HAProxy's own response ends the request. A client that goes on sending its body then holds no place; its connection
    is cut, and it may miss the response. A client that has sent everything keeps the connection. The document and the
    headers that matter stay as they came. A compressed document is left alone, since replicas compress only after they
    have read the whole body.
    """
    is_problem = f"{{ res.hdr(content-type) -m beg {answers.MEDIA_TYPE} }} !{{ res.hdr(content-encoding) -m found }}"
    lines = [
        f"    http-response wait-for-body time {PROBLEM_WAIT_S}s if {is_problem}",
        f"    http-response set-var(txn.problem) res.body if {is_problem}",  # `return` discards the replica's response
    ]
    for name in KEPT_HEADERS:
        variable = f"txn.{name.replace('-', '_')}"
        lines.append(f"    http-response set-var({variable}) res.fhdr({name}) if {is_problem}")
        lines.append(f"    http-after-response set-header {name} %[var({variable})] if {{ var({variable}) -m found }}")
    body = f"content-type {answers.MEDIA_TYPE} lf-string %[var(txn.problem)]"
    return lines + [
        f"    http-response return status {status} {body} if {is_problem} {{ status {status} }}" for status in PROBLEMS
    ]
