"""HAProxy rules that refuse malformed requests with a problem document, before a replica sees them.

With `accept-invalid-http-request` HAProxy passes odd requests on to these rules, which answer them; a request that it
still cannot parse gets no response. Without the rules, a replica's server would answer in plain text, and would fail on
requests to upgrade the connection.
"""

from __future__ import annotations

from cluster.door import answers
from cluster.door.answers import quoted
from cluster.settings import DoorSettings

METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS"
CONTROLS = r"[\x00-\x08\x0e-\x1f\x7f]"  # in a header's value (RFC 9110, 5.5)
# A host name or an address, with or without a port, and without a user name (`user@`).
HOST = r"^([A-Za-z0-9._~%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?$"
# A client may offer HTTP/2 in an ordinary request; the offer is ignored and the request answered (RFC 9110, 7.8).
OFFER = "h2c"


def rules(limits: DoorSettings) -> list[str]:
    """Return the frontend's rules; the first one that matches answers the request."""
    retry = limits.retry_after_s
    unread = f"return status 400 {answers.UNREAD[400].rule(retry)}"
    missing = f"return status 404 {answers.NOT_FOUND.rule(retry)}"
    upgrade = f"return status 400 {answers.NO_UPGRADE.rule(retry)}"
    no_method = f"return status 405 {answers.NO_METHOD.rule(retry)}"
    too_long = f"return status 414 {answers.URL_TOO_LONG.rule(retry)}"
    too_large = f"return status 431 {answers.HEADERS_TOO_LARGE.rule(retry)}"
    requests = (
        f"{unread} unless {{ req.ver -m str 1.0 1.1 }}",
        f"{no_method} unless {{ method {METHODS} }}",
        f"{unread} if {{ url -m reg [^!-~] }} || {{ url -m sub {quoted('#')} }}",
        f"{too_large} if {{ req.hdrs,length gt {limits.header_bytes_max} }} || {{ req.hdr_cnt gt {limits.headers_max} }}",
        f"{unread} if {{ req.hdrs -m reg {quoted(CONTROLS)} }}",
        # Servers disagree on lengths with more digits than a 32-bit number has.
        f"{unread} if {{ req.hdr(content-length),length gt 10 }}",
        f"{missing} if {{ path,url_dec -m beg /-/ }}",
        f"{missing} unless {{ path -m beg / }}",
        f"{unread} if {{ req.ver 1.1 }} !{{ req.hdr(host) -m found }}",
        f"{unread} if {{ req.fhdr(host) -m found }} !{{ req.fhdr(host) -m reg {quoted(HOST)} }}",
        f"{too_long} if {{ url,length gt {limits.url_bytes_max} }}",
        f"{upgrade} if {{ req.fhdr(upgrade) -m found }} !{{ req.fhdr(upgrade) -i -m str {OFFER} }}",
        "del-header upgrade",
        "del-header http2-settings",
        "del-header connection",
    )
    return [
        *(f"    errorfile {code} /dev/null" for code in answers.UNREAD),  # HAProxy's own text is HTML
        "    option accept-invalid-http-request",  # so that the next rules see such a request and answer it
        *(f"    http-request {rule}" for rule in requests),
    ]


def of_replicas(retry_after_s: int) -> list[str]:
    """Return the backends' rules that turn plain-text errors of a replica's server into problem documents.

    Only the server around the application sends such errors; the application itself never answers an error as text.
    """
    is_text = "{ res.hdr(content-type) -m beg text/ }"
    by_status: list[tuple[object, answers.Answer]] = [*answers.OF_SERVE.items(), *answers.OTHERS_OF_SERVE.items()]
    return [
        f"    http-response return status {answer.status} {answer.rule(retry_after_s)} if {{ status {status} }} {is_text}"
        for status, answer in by_status
    ]
