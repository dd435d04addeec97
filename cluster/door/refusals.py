"""Requests that are not right, as HAProxy's rules: refused here with a problem document, before a replica hears of them.

With `accept-invalid-http-request` HAProxy lets what is odd come to these rules, which answer; what it cannot read even
so has no answer. A replica's server would say in plain text what it does not like, and fail at what it would upgrade.
"""

from __future__ import annotations

from cluster.door import answers
from cluster.door.answers import quoted
from cluster.settings import DoorSettings

METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS"
CONTROLS = r"[\x00-\x08\x0e-\x1f\x7f]"  # in a header's value (RFC 9110, 5.5)
# A host as a name or an address, with or without a port, and nothing that stands for somebody who logs in.
HOST = r"^([A-Za-z0-9._~%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?$"
# A client that could speak HTTP/2 says so beside an ordinary request, which is answered as one (RFC 9110, 7.8).
OFFER = "h2c"


def rules(wanted: DoorSettings) -> list[str]:
    """Of the frontend; the first that fits answers."""
    retry = wanted.retry_after_s
    unread = f"return status 400 {answers.UNREAD[400].rule(retry)}"
    missing = f"return status 404 {answers.NOT_FOUND.rule(retry)}"
    upgrade = f"return status 400 {answers.NO_UPGRADE.rule(retry)}"
    no_method = f"return status 405 {answers.NO_METHOD.rule(retry)}"
    too_long = f"return status 414 {answers.URL_TOO_LONG.rule(retry)}"
    too_large = f"return status 431 {answers.HEADERS_TOO_LARGE.rule(retry)}"
    said = (
        f"{unread} unless {{ req.ver -m str 1.0 1.1 }}",
        f"{no_method} unless {{ method {METHODS} }}",
        f"{unread} if {{ url -m reg [^!-~] }} || {{ url -m sub {quoted('#')} }}",
        f"{too_large} if {{ req.hdrs,length gt {wanted.header_bytes_max} }} || {{ req.hdr_cnt gt {wanted.headers_max} }}",
        f"{unread} if {{ req.hdrs -m reg {quoted(CONTROLS)} }}",
        # More digits than a 32-bit length has are read in different ways by different servers.
        f"{unread} if {{ req.hdr(content-length),length gt 10 }}",
        f"{missing} if {{ path,url_dec -m beg /-/ }}",
        f"{missing} unless {{ path -m beg / }}",
        f"{unread} if {{ req.ver 1.1 }} !{{ req.hdr(host) -m found }}",
        f"{unread} if {{ req.fhdr(host) -m found }} !{{ req.fhdr(host) -m reg {quoted(HOST)} }}",
        f"{too_long} if {{ url,length gt {wanted.url_bytes_max} }}",
        f"{upgrade} if {{ req.fhdr(upgrade) -m found }} !{{ req.fhdr(upgrade) -i -m str {OFFER} }}",
        "del-header upgrade",
        "del-header http2-settings",
        "del-header connection",
    )
    return [
        *(f"    errorfile {code} /dev/null" for code in answers.UNREAD),  # the text of HAProxy's own would be HTML
        "    option accept-invalid-http-request",  # so that the next rules see it and answer
        *(f"    http-request {each}" for each in said),
    ]


def of_replicas(retry_after_s: int) -> list[str]:
    """Of the rooms: a text that a replica's server, and not the application, has answered with is said as a problem."""
    is_text = "{ res.hdr(content-type) -m beg text/ }"
    found: list[tuple[object, answers.Answer]] = [*answers.OF_SERVE.items(), *answers.OTHERS_OF_SERVE.items()]
    return [
        f"    http-response return status {answer.status} {answer.rule(retry_after_s)} if {{ status {status} }} {is_text}"
        for status, answer in found
    ]
