"""HAProxy's configuration, written as a whole from the values in `Door`.

A pure function: the same values give the same text. To read it: a client's connection is counted by address before
anything else happens. A request with a small body is received completely, within a deadline, before a replica sees it.
Requests then go to six backends, each with its own limits, so that none takes another's capacity: `searches`, `pixr`
(other small requests that are answered at once), `bodies` and `bodies_with_key` (uploads), `streams` (responses that
last) and `objects` (media, from the object store). A backend sends a replica a limited number of requests at once.
Further ones wait for a place; requests of an address that has few come first, and a client that gives up leaves the
queue. Knows no file but those it names, and starts nothing.
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
HEALTH_PATH = "/-/healthz"  # answered by a replica outside of its queue; fails as soon as the replica drains
SPARE_CONNECTIONS = 64  # for the door's own socket and for connections that are being refused
OVERREAD_BYTES = 32_768  # read of headers that are too large, so that 431 can be answered
HEADERS_READ_MAX = 1024
COUNTERS = (
    6  # sc0: a connection's address, sc1: an object's, sc2: a body's, sc3: its network, sc4: the caller's, sc5: all
)
RATE_S = 10  # over which new connections are counted
HANG_UPS_S = 3  # over which abandoned requests are counted; short, since a replica works until the limit is reached
# Older versions are deprecated (RFC 8996). The ciphers are for TLS 1.2; all those of TLS 1.3 are strong.
TLS = "ssl-min-ver TLSv1.2 ciphers ECDHE+AESGCM:ECDHE+CHACHA20"
CALLERS = "callers"  # table by the address that asks, which a load balancer may report
EVERYBODY = "everybody"
SECRET_HEADER = "X-Pixr-Door"  # noqa: S105  a header's name
# Headers that Ray Serve obeys: the request's timeout, whether a disconnect cancels it, the multiplexed model.
SERVES_HEADERS = ("x-request-timeout-seconds", "x-request-disconnect-disabled", "serve-multiplexed-model-id")
REPLIED = "    http-response set-var(txn.replied) bool(true)"
# The answer for HAProxy's own 503 in a backend while a replica is known: no place became free in time, or it just died.
FULL = dict.fromkeys(("pixr", "searches"), answers.REPLICAS_FULL) | dict.fromkeys(bodies.ROOMS, answers.BODIES_FULL)
FULL["streams"] = answers.STREAMS_FULL
RETRIED = ("pixr", "searches")  # backends whose requests are sent once more, where that is safe
BEHIND_MS = 20  # by which a request is put back in a queue for each other one that its address has in progress


@dataclass(frozen=True)
class Door:
    """All values that a configuration depends on.

    `connections_max` is the settings' value, or less where the machine does not allow as many. `secret` is sent to
    replicas with each request, so that they can tell the door from other clients.
    """

    settings: DoorSettings
    host: str
    port: int
    connections_max: int
    admin_socket: Path
    own_socket: Path
    secret: str
    backends: Sequence[Backend]
    objects: str = ""  # `host:port` of the object store; empty: it is external, and browsers reach it directly
    buckets: Sequence[str] = ()
    certificate: str = ""  # a PEM file; empty: without TLS

    @property
    def connections_per_address_max(self) -> int:
        """Connections that one address may have: the settings' value, and at most half of all."""
        return max(1, min(self.settings.connections_per_address_max, self.connections_max // 2))


def config(door: Door) -> str:
    """Return the text of `haproxy.cfg`."""
    sections = [_global(door), _defaults(door), _tables(door), _frontend(door), _own(door)]
    sections += [_replicas(door, room) for room in ROOMS]
    if door.objects:
        sections.append(_objects(door))
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def slot(number: int) -> str:
    """Return the name of a server slot that a replica can take."""
    return f"r{number}"


def bind_addresses(host: str, port: int) -> tuple[str, ...]:
    """Return the arguments of `bind` for a host of the settings."""
    if host == "::":
        return (f"ipv6@:::{port} v4v6",)
    return (f"ipv6@[{host}]:{port}" if ":" in host else f"ipv4@{host}:{port}",)


def _global(door: Door) -> list[str]:
    settings = door.settings
    buffer_bytes = (
        settings.header_bytes_max + max(settings.url_bytes_max, settings.small_body_bytes_max) + OVERREAD_BYTES
    )
    return [
        "global",
        f"    maxconn {door.connections_max + SPARE_CONNECTIONS}",
        f"    nbthread {settings.threads}",
        f"    hard-stop-after {_ms(settings.stop_timeout_s)}",
        f"    stats socket {quoted(door.admin_socket)} mode 600 level admin",
        "    stats timeout 10s",
        "    log stdout format raw daemon notice",  # servers going up and down; requests are logged at `info`
        f"    tune.bufsize {buffer_bytes}",
        f"    tune.http.maxhdr {max(HEADERS_READ_MAX, settings.headers_max + 1)}",
        f"    tune.stick-counters {COUNTERS}",
    ]


def _defaults(door: Door) -> list[str]:
    settings = door.settings
    retry = settings.retry_after_s
    return [
        "defaults",
        "    mode http",
        "    log global",
        f"    timeout http-request {_ms(settings.request_timeout_s)}",
        f"    timeout http-keep-alive {_ms(settings.idle_timeout_s)}",
        f"    timeout client {_ms(settings.client_timeout_s)}",
        f"    timeout queue {_ms(settings.queue_timeout_s)}",
        f"    timeout connect {_ms(settings.connect_timeout_s)}",
        f"    timeout server {_ms(settings.answer_timeout_s)}",
        f"    timeout check {_ms(settings.check_timeout_s)}",
        "    option http-ignore-probes",
        "    option http-restrict-req-hdr-names delete",
        "    option abortonclose",  # a client that hangs up leaves the queue and its request is ended, which is counted
        "    option redispatch 1",
        "    retries 2",
        *(f"    http-error status {code} {answer.rule(retry)}" for code, answer in answers.ALL.items()),
    ]


def _tables(door: Door) -> list[str]:
    """Return the stick tables that count connections by address; HAProxy keeps an entry only while it counts something."""
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
    settings = door.settings
    binds = [f"    bind {address} proto h1{_encryption(door)}" for address in bind_addresses(door.host, door.port)]
    lines = ["frontend door", *binds, f"    maxconn {door.connections_max}", *_counting(door), *_cleaning(door)]
    lines += [
        *_asking(),
        *_counting_hang_ups(settings),
        *refusals.rules(settings),
        "    http-after-response set-status 503 if { status 502 504 }",
        *bodies.rules(settings),
    ]
    if door.objects:
        lines += _to_objects(door)
    unavailable = answers.UNAVAILABLE.rule(settings.retry_after_s)
    return [
        *lines,
        # Answered here, so that a backend's own 503 can say that its places are taken.
        f"    http-request return status 503 {unavailable} if {{ nbsrv({ROOMS[0]}) lt 1 }} !{{ var(txn.object) -m bool }}",
        "    http-request set-var(txn.at_door) bool(false)",
        f"    http-request set-header {SECRET_HEADER} {quoted(door.secret)} unless {{ var(txn.object) -m bool }}",
        f"    http-request set-header X-Request-Disconnect-Disabled ?1 if {{ path,url_dec {SEARCH_PATH} }}",
        f"    http-request set-header X-Request-Timeout-Seconds {settings.body_timeout_s:g} if has_body_to_come",
        *(["    use_backend objects if to_objects"] if door.objects else []),
        "    use_backend bodies_with_key if has_body_to_come has_key",
        "    use_backend bodies if has_body_to_come",
        f"    use_backend streams if {{ path,url_dec {STREAM_PATH} }}",
        f"    use_backend searches if {{ path,url_dec {SEARCH_PATH} }}",
        "    default_backend pixr",
    ]


def _encryption(door: Door) -> str:
    """Return the TLS arguments of `bind`. Only HTTP/1.1 is offered, since limits by address count connections."""
    return f" ssl crt {quoted(door.certificate)} alpn http/1.1 {TLS}" if door.certificate else ""


def _counting(door: Door) -> list[str]:
    """Return the rules that bound an address's open and new connections.

    A connection above a limit is closed right after `accept`, before it costs anything more.
    """
    trusted = " ".join(door.settings.forwarded_from)
    new_max = math.ceil(door.settings.new_connections_per_address_per_s * RATE_S)
    lines = [f"    tcp-request connection accept if {{ src {trusted} }}"] if trusted else []
    return [
        *lines,
        # Checked before it is counted, so that an address above the rate still gets as many connections as it may have.
        f"    tcp-request connection reject if {{ src,ipmask(32,64),table_conn_rate(addresses) ge {new_max} }}",
        "    tcp-request connection track-sc0 src,ipmask(32,64) table addresses",
        f"    tcp-request connection reject if {{ sc0_conn_cur gt {door.connections_per_address_max} }}",
    ]


def _asking() -> list[str]:
    """Return the rules that order the queues: the more open requests an address has, the later its next one is served."""
    return [
        f"    http-request track-sc4 {bodies.ADDRESS} table {CALLERS}",
        f"    http-request track-sc5 int(1) table {EVERYBODY}",
        f"    http-request set-priority-offset sc_conn_cur(4),mul({BEHIND_MS})",
    ]


def _counting_hang_ups(settings: DoorSettings) -> list[str]:
    """Return the rules that refuse an address which has hung up on too many of its requests in the last seconds.

    To hang up is to end a request before it is answered. HAProxy then forgets the request while the replica still does
    most of its work, so that limits on requests in progress do not count it. Hang-ups are recognised by their status:
    HAProxy ends such a request, after a FIN as after a reset, with a 400 that no client reads. Any other 400 comes from
    a rule of the door (`at_door`) or from a replica (`replied`, which each backend sets). A client that gives up while
    it waits for a place has cost no replica anything and is not counted. While all addresses together hang up too
    often, an address that has hung up at all is refused.
    """
    hang_ups_max, together_max = (
        math.ceil(each * HANG_UPS_S) for each in (settings.hang_ups_per_address_per_s, settings.hang_ups_per_s)
    )
    refused = f"return status 429 {answers.TOO_MANY_HANG_UPS.rule(settings.retry_after_s)}"
    given_up = "{ status 400 } !{ var(txn.at_door) -m bool } !{ var(txn.replied) -m bool }"
    return [
        "    http-request set-var(txn.at_door) bool(true)",
        f"    http-after-response sc-inc-gpc0(4) if {given_up}",
        f"    http-after-response sc-inc-gpc0(5) if {given_up}",
        f"    http-request {refused} if {{ sc_gpc0_rate(4) gt {hang_ups_max} }}",
        f"    http-request {refused} if {{ sc_gpc0_rate(5) gt {together_max} }} {{ sc_gpc0_rate(4) gt 0 }}",
    ]


def _cleaning(door: Door) -> list[str]:
    """Return the rules that clean a request's headers.

    They replace headers about the client's address, remove headers that Serve obeys, and give each request one valid
    id. X-Forwarded-For and X-Forwarded-Proto are believed only from the networks in `forwarded_from`.
    """
    trusted = " ".join(door.settings.forwarded_from)
    origin = ["    http-request set-var(txn.scheme) str(https) if { ssl_fc }"]
    if trusted:
        has_scheme = "{ var(txn.trusted) -m bool } { req.hdr(x-forwarded-proto) -m found }"
        origin += [
            f"    http-request set-var(txn.trusted) bool(true) if {{ src {trusted} }}",
            "    http-request set-src req.hdr_ip(x-forwarded-for,-1) if { var(txn.trusted) -m bool }",
            f"    http-request set-var(txn.scheme) req.hdr(x-forwarded-proto,-1),lower if {has_scheme}",
        ]
    many = "{ req.fhdr_cnt(x-request-id) gt 1 }"
    malformed = "!{ req.fhdr(x-request-id) -m reg ^[A-Za-z0-9._-]{1,64}$ }"
    return [
        *origin,
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
    """Return the rules that send presigned reads to the object store unchanged: the signature covers host, path, query."""
    folders = " ".join(quoted(f"/{bucket}/") for bucket in door.buckets)
    connections_max = door.settings.objects_per_address_max
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
        f"    http-request return status 429 {refused} if to_objects {{ sc1_conn_cur gt {connections_max} }}",
    ]


def _replicas(door: Door, room: str) -> list[str]:
    """Return the configuration of one of the backends that lead to the replicas; `room` is its name."""
    settings = door.settings
    places = dict.fromkeys(bodies.ROOMS, settings.bodies_per_replica_max) | {
        "pixr": settings.others_per_replica_max,
        "searches": settings.searches_per_replica_max,
        "streams": settings.streams_per_replica_max,
    }
    retry, full = settings.retry_after_s, FULL.get(room)
    lines = [f"backend {room}", "    balance leastconn", REPLIED, "    http-response del-header Server"]
    lines += [f"    http-error status {code} {answer.rule(retry)}" for code, answer in answers.UNREAD.items()]
    if room in bodies.ROOMS:
        lines += bodies.refused_bodies()
    if full is not None:
        lines.append(f"    http-error status 503 {full.rule(retry)}")
    if room not in bodies.ROOMS:  # larger bodies do not fit into HAProxy's buffer
        lines.append("    option http-buffer-request")
    if room in RETRIED:
        lines += [
            "    retry-on conn-failure empty-response",
            "    http-request disable-l7-retry unless { method GET HEAD }",
        ]
    if room == "searches":
        lines += [
            f"    timeout queue {_ms(settings.search_queue_timeout_s)}",
            f"    timeout server {_ms(settings.search_timeout_s)}",
        ]
    if room == ROOMS[0]:
        lines += [
            "    option httpchk",
            f"    http-check send meth GET uri {HEALTH_PATH} ver HTTP/1.1 hdr Host door",
            "    http-check expect status 200",
        ]
    lines += refusals.of_replicas(retry)
    return lines + [_server(door, room, number, places[room]) for number in range(1, settings.replicas_max + 1)]


def _server(door: Door, room: str, number: int, connections_max: int) -> str:
    """Return a server slot of a backend: with a known replica's address or, if none is left, disabled and without one."""
    settings = door.settings
    address = door.backends[number - 1].address if number <= len(door.backends) else ""
    line = f"    server {slot(number)} {address or '127.0.0.1:1'} maxconn {connections_max}"
    if room != ROOMS[0]:
        return f"{line} track {ROOMS[0]}/{slot(number)}"
    line += f" check inter {_ms(settings.check_interval_s)} fastinter 250ms downinter 250ms"
    # Failed requests are a reason to check sooner, and no proof: an overloaded replica refuses connections too.
    line += f" fall {settings.check_failures_max} rise 1 observe layer4 error-limit 3 on-error fastinter"
    return line if address else f"{line} disabled"


def _objects(door: Door) -> list[str]:
    settings = door.settings
    return [
        "backend objects",
        REPLIED,
        f"    http-error status 503 {answers.STORE_AWAY.rule(settings.retry_after_s)}",
        f"    http-error status 502 {answers.STORE_ENDED.rule(settings.retry_after_s)}",
        "    retry-on conn-failure empty-response",
        f"    timeout server {_ms(settings.objects_timeout_s)}",
        "    http-request del-header X-Forwarded-For",
        "    http-request del-header X-Forwarded-Proto",
        "    http-response del-header Server",
        "    http-response del-header access-control- -m beg",  # the store's would let pages of any site read with cookies
        "    http-response set-header X-Content-Type-Options nosniff",
        f"    server s3 {door.objects} maxconn {settings.objects_connections_max}",
    ]


def _own(door: Door) -> list[str]:
    """Return the frontend on a private socket, for the health check and HAProxy's own metrics."""
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
