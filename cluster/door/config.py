"""HAProxy's configuration, written whole from what the door is to do.

A pure function of `Door`: the same values give the same text. How it is to be read: a client's connection is counted
by address before anything is kept for it; a request is read whole, within a deadline, before a replica hears of it;
it goes to one of six rooms, each with bounds of its own, so that none takes another's place: `searches`, `pixr` (what
else is small and answered at once), `bodies` and `bodies_with_key` (uploads), `streams` (answers that last) and
`objects` (media, from the object store). A room asks a replica so much at once; what is beyond waits for a place, those
of an address that has few first, and who gives up leaves the queue. Knows no file but those it names, and starts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.door import answers, bodies, refusals
from cluster.door.answers import quoted
from cluster.door.backends import ROOMS, Backend
from cluster.settings import DoorSettings

SEARCH_PATH, STREAM_PATH = "/v1/search", "/v1/search/stream"
HEALTH_PATH = "/-/healthz"  # of a replica, outside of its queue; fails as soon as it drains
SPARE_CONNECTIONS = 64  # for the door's own socket and for connections that are being refused
OVERREAD_BYTES = 32_768  # of headers above the limit that are still read, so as to answer 431
HEADERS_READ_MAX = 1024
COUNTERS = 6  # a connection's address, an object's, a body's, its network, who asks, and everybody
RATE_S = 10  # over which new connections are counted
HANG_UPS_S = 3  # likewise requests that were given up: what comes before they are many, a replica has to do
# Older versions are deprecated (RFC 8996). The ciphers are those of TLS 1.2; 1.3 has none that are weak.
TLS = "ssl-min-ver TLSv1.2 ciphers ECDHE+AESGCM:ECDHE+CHACHA20"
CALLERS = "callers"  # by the address that asks, which a load balancer may say
EVERYBODY = "everybody"
SECRET_HEADER = "X-Pixr-Door"  # noqa: S105  a header's name
# Serve obeys these: how long a request may take, whether its caller is watched, which model is meant.
SERVES_HEADERS = ("x-request-timeout-seconds", "x-request-disconnect-disabled", "serve-multiplexed-model-id")
REPLIED = "    http-response set-var(txn.replied) bool(true)"
# What a 503 of HAProxy's own means in a room while a replica is known: no place became free in time, or it has just died.
FULL = dict.fromkeys(("pixr", "searches"), answers.REPLICAS_FULL) | dict.fromkeys(bodies.ROOMS, answers.BODIES_FULL)
FULL["streams"] = answers.STREAMS_FULL
RETRIED = ("pixr", "searches")  # rooms whose requests may be asked once more, if that is safe
BEHIND_MS = 20  # by which a request stands behind in a queue for each one that its address has under way


@dataclass(frozen=True)
class Door:
    """Everything a configuration depends on. `connections_max` is what the machine allows of the settings' value."""

    settings: DoorSettings
    host: str
    port: int
    connections_max: int
    admin_socket: Path
    own_socket: Path
    secret: str
    backends: Sequence[Backend]
    objects: str = ""  # `host:port` of the object store; empty: media are somebody else's affair
    buckets: Sequence[str] = ()
    certificate: str = ""  # a PEM file; empty: without TLS

    @property
    def connections_per_address_max(self) -> int:
        return max(1, min(self.settings.connections_per_address_max, self.connections_max // 2))


def config(door: Door) -> str:
    """The text of `haproxy.cfg`."""
    sections = [_global(door), _defaults(door), _tables(door), _frontend(door), _own(door)]
    sections += [_replicas(door, room) for room in ROOMS]
    if door.objects:
        sections.append(_objects(door))
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def slot(number: int) -> str:
    """The name of a server that a replica can take."""
    return f"r{number}"


def bind_addresses(host: str, port: int) -> tuple[str, ...]:
    """What `bind` takes for a host of the settings."""
    if host == "::":
        return (f"ipv6@:::{port} v4v6",)
    return (f"ipv6@[{host}]:{port}" if ":" in host else f"ipv4@{host}:{port}",)


def _global(door: Door) -> list[str]:
    wanted = door.settings
    buffer_bytes = wanted.header_bytes_max + max(wanted.url_bytes_max, wanted.small_body_bytes_max) + OVERREAD_BYTES
    return [
        "global",
        f"    maxconn {door.connections_max + SPARE_CONNECTIONS}",
        f"    nbthread {wanted.threads}",
        f"    hard-stop-after {_ms(wanted.stop_timeout_s)}",
        f"    stats socket {quoted(door.admin_socket)} mode 600 level admin",
        "    stats timeout 10s",
        "    log stdout format raw daemon notice",  # servers that come and go; a line a request would be at `info`
        f"    tune.bufsize {buffer_bytes}",
        f"    tune.http.maxhdr {max(HEADERS_READ_MAX, wanted.headers_max + 1)}",
        f"    tune.stick-counters {COUNTERS}",
    ]


def _defaults(door: Door) -> list[str]:
    wanted = door.settings
    retry = wanted.retry_after_s
    return [
        "defaults",
        "    mode http",
        "    log global",
        f"    timeout http-request {_ms(wanted.request_timeout_s)}",
        f"    timeout http-keep-alive {_ms(wanted.idle_timeout_s)}",
        f"    timeout client {_ms(wanted.client_timeout_s)}",
        f"    timeout queue {_ms(wanted.queue_timeout_s)}",
        f"    timeout connect {_ms(wanted.connect_timeout_s)}",
        f"    timeout server {_ms(wanted.answer_timeout_s)}",
        f"    timeout check {_ms(wanted.check_timeout_s)}",
        "    option http-ignore-probes",
        "    option http-restrict-req-hdr-names delete",
        "    option abortonclose",  # who hangs up leaves a queue, and its request is ended: it says who does so too often
        "    option redispatch 1",
        "    retries 2",
        *(f"    http-error status {code} {answer.rule(retry)}" for code, answer in answers.ALL.items()),
    ]


def _tables(door: Door) -> list[str]:
    """Connections of each address; entries are kept only while they count something."""
    size = 4 * (door.connections_max + SPARE_CONNECTIONS)
    return [
        "backend addresses",
        f"    stick-table type ipv6 size {size} expire 10s store conn_cur,conn_rate({RATE_S}s)",
        "",
        "backend addresses_of_objects",
        f"    stick-table type ipv6 size {size} expire 10s store conn_cur",
        "",
        f"backend {CALLERS}",
        f"    stick-table type ipv6 size {size} expire 10s store conn_cur,gpc0_rate({HANG_UPS_S}s)",
        "",
        f"backend {EVERYBODY}",
        f"    stick-table type integer size 1 expire 10s store gpc0_rate({HANG_UPS_S}s)",
        *bodies.tables(size),
    ]


def _frontend(door: Door) -> list[str]:
    wanted = door.settings
    binds = [f"    bind {address} proto h1{_encryption(door)}" for address in bind_addresses(door.host, door.port)]
    lines = ["frontend door", *binds, f"    maxconn {door.connections_max}", *_counting(door), *_cleaning(door)]
    lines += [
        *_asking(),
        *_counting_hang_ups(wanted),
        *refusals.rules(wanted),
        "    http-after-response set-status 503 if { status 502 504 }",
        *bodies.rules(wanted),
    ]
    if door.objects:
        lines += _to_objects(door)
    unavailable = answers.UNAVAILABLE.rule(wanted.retry_after_s)
    return [
        *lines,
        # Said here, so that what a room says by itself can be what is full there.
        f"    http-request return status 503 {unavailable} if {{ nbsrv({ROOMS[0]}) lt 1 }} !{{ var(txn.object) -m bool }}",
        "    http-request set-var(txn.at_door) bool(false)",
        f"    http-request set-header {SECRET_HEADER} {quoted(door.secret)} unless {{ var(txn.object) -m bool }}",
        f"    http-request set-header X-Request-Disconnect-Disabled ?1 if {{ path,url_dec {SEARCH_PATH} }}",
        f"    http-request set-header X-Request-Timeout-Seconds {wanted.body_timeout_s:g} if has_body_to_come",
        *(["    use_backend objects if to_objects"] if door.objects else []),
        "    use_backend bodies_with_key if has_body_to_come has_key",
        "    use_backend bodies if has_body_to_come",
        f"    use_backend streams if {{ path,url_dec {STREAM_PATH} }}",
        f"    use_backend searches if {{ path,url_dec {SEARCH_PATH} }}",
        "    default_backend pixr",
    ]


def _encryption(door: Door) -> str:
    """HTTP/1.1 alone is offered: what an address may have at once is counted by its connections."""
    return f" ssl crt {quoted(door.certificate)} alpn http/1.1 {TLS}" if door.certificate else ""


def _counting(door: Door) -> list[str]:
    """One address has so many connections, and makes so many anew; the next is closed before it costs more than an `accept`."""
    trusted = " ".join(door.settings.forwarded_from)
    often = door.settings.new_connections_per_address_per_s * RATE_S
    lines = [f"    tcp-request connection accept if {{ src {trusted} }}"] if trusted else []
    return [
        *lines,
        # Looked at before it is counted: who makes too many is served as many as it may, not none.
        f"    tcp-request connection reject if {{ src,ipmask(32,64),table_conn_rate(addresses) ge {math.ceil(often)} }}",
        "    tcp-request connection track-sc0 src,ipmask(32,64) table addresses",
        f"    tcp-request connection reject if {{ sc0_conn_cur gt {door.connections_per_address_max} }}",
    ]


def _asking() -> list[str]:
    """Of requests that wait for a replica those come first whose address has fewest, as if the others had come later."""
    return [
        f"    http-request track-sc4 {bodies.ADDRESS} table {CALLERS}",
        f"    http-request track-sc5 int(1) table {EVERYBODY}",
        f"    http-request set-priority-offset sc_conn_cur(4),mul({BEHIND_MS})",
    ]


def _counting_hang_ups(wanted: DoorSettings) -> list[str]:
    """Refuse an address whose requests were ended by their client, before an answer, too often in the last seconds.

    HAProxy forgets such a request, but the replica does most of its work, so that no bound on what is under way counts it.
    HAProxy ends a request that is given up, by a FIN or a reset, with a 400 that nobody reads: no rule of the door
    (`at_door`) and no replica (`replied`, which each room says) has made that one. Who gives up while they wait for a
    place has cost no replica anything, and is not counted. Where all together do it too often, once is too often.
    """
    most, together = (
        math.ceil(each * HANG_UPS_S) for each in (wanted.hang_ups_per_address_per_s, wanted.hang_ups_per_s)
    )
    refused = f"return status 429 {answers.TOO_MANY_HANG_UPS.rule(wanted.retry_after_s)}"
    given_up = "{ status 400 } !{ var(txn.at_door) -m bool } !{ var(txn.replied) -m bool }"
    return [
        "    http-request set-var(txn.at_door) bool(true)",
        f"    http-after-response sc-inc-gpc0(4) if {given_up}",
        f"    http-after-response sc-inc-gpc0(5) if {given_up}",
        f"    http-request {refused} if {{ sc_gpc0_rate(4) gt {most} }}",
        f"    http-request {refused} if {{ sc_gpc0_rate(5) gt {together} }} {{ sc_gpc0_rate(4) gt 0 }}",
    ]


def _cleaning(door: Door) -> list[str]:
    """A client says nothing of who it is, and nothing to Serve; its request has one well-formed id."""
    trusted = " ".join(door.settings.forwarded_from)
    believed = ["    http-request set-var(txn.scheme) str(https) if { ssl_fc }"]
    if trusted:
        said_scheme = "{ var(txn.trusted) -m bool } { req.hdr(x-forwarded-proto) -m found }"
        believed += [
            f"    http-request set-var(txn.trusted) bool(true) if {{ src {trusted} }}",
            "    http-request set-src req.hdr_ip(x-forwarded-for,-1) if { var(txn.trusted) -m bool }",
            f"    http-request set-var(txn.scheme) req.hdr(x-forwarded-proto,-1),lower if {said_scheme}",
        ]
    many = "{ req.fhdr_cnt(x-request-id) gt 1 }"
    malformed = "!{ req.fhdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,64}$ }"
    return [
        *believed,
        "    http-request del-header x-forwarded- -m beg",
        "    http-request del-header forwarded",
        "    http-request del-header x-real-ip",
        "    http-request del-header x-pixr- -m beg",
        *(f"    http-request del-header {name}" for name in SERVES_HEADERS),
        f"    http-request del-header X-Request-Id if {many} || {malformed}",
        "    http-request set-header X-Request-Id %[uuid] unless { req.hdr(x-request-id) -m found }",
        "    http-request set-var(txn.request_id) req.fhdr(x-request-id)",
        "    http-request set-header X-Forwarded-For %[src]",
        "    http-request set-header X-Forwarded-Proto https if { var(txn.scheme) -m str https }",
    ]


def _to_objects(door: Door) -> list[str]:
    """Presigned reads go to the object store as they came: the signature covers Host, path and query."""
    folders = " ".join(quoted(f"/{bucket}/") for bucket in door.buckets)
    most = door.settings.objects_per_address_max
    refused = answers.TOO_MANY.rule(door.settings.retry_after_s)
    return [
        f"    acl is_object path_beg {folders}",
        "    acl is_read method GET HEAD",
        "    acl is_signed url_param(X-Amz-Signature) -m found",
        "    http-request set-var(txn.object) bool(true) if is_object is_read is_signed",
        "    acl to_objects var(txn.object) -m bool",
        "    http-request del-header Authorization if to_objects",
        "    http-request del-header Cookie if to_objects",
        "    http-request track-sc1 src,ipmask(32,64) table addresses_of_objects if to_objects",
        f"    http-request return status 429 {refused} if to_objects {{ sc1_conn_cur gt {most} }}",
    ]


def _replicas(door: Door, room: str) -> list[str]:
    wanted = door.settings
    own = dict.fromkeys(bodies.ROOMS, wanted.bodies_per_replica_max) | {
        "pixr": wanted.others_per_replica_max,
        "searches": wanted.searches_per_replica_max,
        "streams": wanted.streams_per_replica_max,
    }
    retry, full = wanted.retry_after_s, FULL.get(room)
    lines = [f"backend {room}", "    balance leastconn", REPLIED, "    http-response del-header Server"]
    lines += [f"    http-error status {code} {answer.rule(retry)}" for code, answer in answers.UNREAD.items()]
    if room in bodies.ROOMS:
        lines += bodies.ended_by_an_error()
    if full is not None:
        lines.append(f"    http-error status 503 {full.rule(retry)}")
    if room not in bodies.ROOMS:  # too large to be kept until they are whole
        lines.append("    option http-buffer-request")
    if room in RETRIED:
        lines += [
            "    retry-on conn-failure empty-response",
            "    http-request disable-l7-retry unless { method GET HEAD }",
        ]
    if room == "searches":
        lines += [
            f"    timeout queue {_ms(wanted.search_queue_timeout_s)}",
            f"    timeout server {_ms(wanted.search_timeout_s)}",
        ]
    if room == ROOMS[0]:
        lines += [
            "    option httpchk",
            f"    http-check send meth GET uri {HEALTH_PATH} ver HTTP/1.1 hdr Host door",
            "    http-check expect status 200",
        ]
    lines += refusals.of_replicas(retry)
    return lines + [_server(door, room, number, own[room]) for number in range(1, wanted.replicas_max + 1)]


def _server(door: Door, room: str, number: int, connections_max: int) -> str:
    """A slot: what is known takes one each, the others wait without an address."""
    wanted = door.settings
    known = door.backends[number - 1].address if number <= len(door.backends) else ""
    line = f"    server {slot(number)} {known or '127.0.0.1:1'} maxconn {connections_max}"
    if room != ROOMS[0]:
        return f"{line} track {ROOMS[0]}/{slot(number)}"
    line += f" check inter {_ms(wanted.check_interval_s)} fastinter 250ms downinter 250ms"
    # What requests meet is a reason to look sooner, and no proof: one that has too much to do refuses connections, too.
    line += f" fall {wanted.check_failures_max} rise 1 observe layer4 error-limit 3 on-error fastinter"
    return line if known else f"{line} disabled"


def _objects(door: Door) -> list[str]:
    wanted = door.settings
    return [
        "backend objects",
        REPLIED,
        f"    http-error status 503 {answers.STORE_AWAY.rule(wanted.retry_after_s)}",
        f"    http-error status 502 {answers.STORE_ENDED.rule(wanted.retry_after_s)}",
        "    retry-on conn-failure empty-response",
        f"    timeout server {_ms(wanted.objects_timeout_s)}",
        "    http-request del-header X-Forwarded-For",
        "    http-request del-header X-Forwarded-Proto",
        "    http-response del-header Server",
        "    http-response del-header access-control- -m beg",  # it would let pages of any site read with cookies
        "    http-response set-header X-Content-Type-Options nosniff",
        f"    server s3 {door.objects} maxconn {wanted.objects_connections_max}",
    ]


def _own(door: Door) -> list[str]:
    """What only the owner may ask, whatever happens at the door itself: does it live, and its figures."""
    return [
        "frontend own",
        f"    bind unix@{quoted(door.own_socket)} mode 600",
        "    maxconn 16",
        "    http-request return status 200 content-type text/plain string ok if { path /healthz }",
        "    http-request use-service prometheus-exporter if { path /metrics }",
        f"    http-request return status 404 {answers.FAILED[403].rule(1)}",
    ]


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"
